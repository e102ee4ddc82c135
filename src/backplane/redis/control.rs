//! Revocations and kicks, on Redis. Revocations are a hash that only ever grows towards later times, so that nodes can
//! write back what a server lost; every change is also an entry of the control log, a stream, and kicks are only there.

mod tail;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{Cmd, Pipeline, Value};

use super::super::contract::{Control, Failed, Refusal, Revocation, Subject};
use super::error::judge;
use super::script::{Script, script};
use super::settings::Kept;
use super::{Redis, reply};

static MERGE: Script = script!("merge");
static LOG: Script = script!("log");
static REVOCATIONS: Script = script!("revocations");
static FORGET: Script = script!("forget");

/// About so many entries of the control log are kept; a reader that was away for longer reads everything again.
const LOG_ENTRIES: &str = "10000";

/// Revocations in one call.
const MERGED_MAX: usize = 256;

/// How often revocations are read from the beginning because the server changed meanwhile.
const LOADS_MAX: usize = 4;

impl Redis {
    /// [`super::Backplane::tell`]
    pub(super) async fn tell_all(&self, control: &Control) -> Result<(), Failed> {
        match control {
            Control::Revoke(revocation) => self.merge(std::slice::from_ref(revocation), true).await,
            Control::Kick { subject, time_ms } => {
                let text = format!("k {time_ms} {}", field(subject));
                let args = [LOG_ENTRIES.as_bytes(), text.as_bytes(), b"0"];
                self.call_kept(&LOG, &[&self.keys.control("log")], &args).await.map(drop)
            }
        }
    }

    /// [`super::Backplane::merge_revocations`]
    pub(super) async fn write_revocations(&self, known: &[Revocation]) -> Result<(), Failed> {
        for (at, piece) in known.chunks(MERGED_MAX).enumerate() {
            self.merge(piece, false).await.map_err(|failed| if at == 0 { failed } else { Failed::Unknown })?;
        }
        Ok(())
    }

    /// `tell`: also of what is known already.
    async fn merge(&self, revocations: &[Revocation], tell: bool) -> Result<(), Failed> {
        let words: Vec<_> = revocations
            .iter()
            .flat_map(|one| [field(&one.subject), one.issued_before.to_string(), one.forget_after.to_string()])
            .collect();
        let tell: &[u8] = if tell { b"1" } else { b"0" };
        let mut args = vec![tell, LOG_ENTRIES.as_bytes()];
        args.extend(words.iter().map(String::as_bytes));
        let keys = [self.keys.control("rev"), self.keys.control("log")];
        self.call_kept(&MERGE, &keys.each_ref().map(Vec::as_slice), &args).await.map(drop)
    }

    /// [`super::Backplane::revocations`]. Also has Redis forget those that may be forgotten.
    pub(super) async fn read_revocations(&self) -> Result<Vec<Revocation>, Failed> {
        let mut found = None;
        for _ in 0..LOADS_MAX {
            found = self.load().await?;
            if found.is_some() {
                break;
            }
        }
        let mut kept: Vec<_> = found.ok_or(Failed::Refused(Refusal::Away))?.into_values().collect();
        // An hour later than Redis would: its clock decides, this one only proposes.
        let past = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(Duration::from_hours(1));
        let (gone, stay): (Vec<_>, _) = kept.drain(..).partition(|one| one.forget_after < past.as_secs());
        for piece in gone.chunks(MERGED_MAX) {
            let fields: Vec<_> = piece.iter().map(|one| field(&one.subject)).collect();
            let fields: Vec<_> = fields.iter().map(String::as_bytes).collect();
            self.call_ctl(&FORGET, &[&self.keys.control("rev")], &fields).await?;
        }
        Ok(stay)
    }

    /// Everything in pages; none if another server answered in between, for which a cursor means nothing.
    async fn load(&self) -> Result<Option<HashMap<Subject, Revocation>>, Failed> {
        let key = self.keys.control("rev");
        let (mut found, mut first, mut cursor) = (HashMap::new(), None, "0".to_owned());
        loop {
            let answer = self.call_ctl(&REVOCATIONS, &[&key], &[cursor.as_bytes()]).await?;
            let mut answer = reply::array(answer)?;
            let server = reply::text(answer.next())?;
            cursor = reply::text(answer.next())?;
            let mut page = reply::array(answer.next().unwrap_or(Value::Nil))?;
            while let Some(name) = page.next() {
                let (name, times) = (reply::text(Some(name))?, reply::text(page.next())?);
                // Not ours: somebody else can write here, and must not keep the others from being known.
                if let Some(one) = revocation(&name, &times) {
                    found.insert(one.subject.clone(), one);
                }
            }
            if *first.get_or_insert_with(|| server.clone()) != server {
                return Ok(None);
            }
            if cursor == "0" {
                return Ok(Some(found));
            }
        }
    }

    /// A call in the control slot that is kept as configured: for `replica`, on a connection of its own, because `WAIT`
    /// speaks of what its own connection wrote, and holds up whatever comes after it.
    async fn call_kept(&self, script: &'static Script, keys: &[&[u8]], args: &[&[u8]]) -> Result<Value, Failed> {
        let Kept::Replica { replicas, timeout } = self.settings.kept else {
            return self.call_ctl(script, keys, args).await;
        };
        let link = self.dial_control().await?;
        let mut wait = Cmd::new();
        wait.arg("WAIT").arg(replicas).arg(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        let mut both = Pipeline::with_capacity(2);
        both.add_command(script.command(true, keys, args)).add_command(wait);
        let mut answers = link
            .send_all_within(&both, timeout + self.settings.call_timeout)
            .await?
            .into_iter();
        let answer = judge(answers.next().unwrap_or(Value::Nil))?;
        match reply::integer(answers.next()) {
            Ok(have) if have >= u64::from(replicas) => Ok(answer),
            _ => Err(Failed::Unknown),
        }
    }
}

/// `user:ann`
fn field(subject: &Subject) -> String {
    match subject {
        Subject::User(user) => format!("user:{user}"),
        Subject::Session(session) => format!("session:{session}"),
        Subject::Token(token) => format!("token:{token}"),
    }
}

fn subject(field: &str) -> Option<Subject> {
    let (kind, value) = field.split_once(':')?;
    let value: Arc<str> = value.into();
    match kind {
        "user" => Some(Subject::User(value)),
        "session" => Some(Subject::Session(value)),
        "token" => Some(Subject::Token(value)),
        _ => None,
    }
}

/// Reads `user:ann` and `issued_before forget_after`.
fn revocation(name: &str, times: &str) -> Option<Revocation> {
    let (issued_before, forget_after) = times.split_once(' ')?;
    Some(Revocation {
        subject: subject(name)?,
        issued_before: issued_before.parse().ok()?,
        forget_after: forget_after.parse().ok()?,
    })
}
