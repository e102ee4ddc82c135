//! Revocations and kicks, on Redis. Revocations are a hash that only ever grows towards later times, so that nodes can
//! write back what a server lost; every change is also an entry of the control log, a stream, and kicks are only there.

mod tail;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use redis::Value;

use super::super::contract::{Control, Failed, Refusal, Revocation, Subject};
use super::script::{Script, script};
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
                self.call_ctl_kept(&LOG, &[&self.keys.control("log")], &args)
                    .await
                    .map(drop)
            }
        }
    }

    /// [`super::Backplane::merge_revocations`]
    pub(super) async fn write_revocations(&self, known: &[Revocation]) -> Result<(), Failed> {
        for (at, piece) in known.chunks(MERGED_MAX).enumerate() {
            self.merge(piece, false)
                .await
                .map_err(|failed| if at == 0 { failed } else { Failed::Unknown })?;
        }
        Ok(())
    }

    /// `tell`: also of what is known already.
    async fn merge(&self, revocations: &[Revocation], tell: bool) -> Result<(), Failed> {
        let words: Vec<_> = revocations
            .iter()
            .flat_map(|one| {
                [
                    field(&one.subject),
                    one.issued_before.to_string(),
                    one.forget_after.to_string(),
                ]
            })
            .collect();
        let tell: &[u8] = if tell { b"1" } else { b"0" };
        let mut args = vec![tell, LOG_ENTRIES.as_bytes()];
        args.extend(words.iter().map(String::as_bytes));
        let keys = [self.keys.control("rev"), self.keys.control("log")];
        self.call_ctl_kept(&MERGE, &keys.each_ref().map(Vec::as_slice), &args)
            .await
            .map(drop)
    }

    /// [`super::Backplane::revocations`]. Also has Redis forget those that may be forgotten.
    pub(super) async fn read_revocations(&self) -> Result<Vec<Revocation>, Failed> {
        for _ in 0..LOADS_MAX {
            if let Some(loaded) = self.load().await? {
                if let Err(error) = self.forget(&loaded.past).await {
                    tracing::debug!(%error, "revocations that may be forgotten stay for another time");
                }
                return Ok(loaded.kept.into_values().collect());
            }
        }
        Err(Failed::Refused(Refusal::Away))
    }

    /// Everything in pages; none if another server answered in between, for which a cursor means nothing.
    async fn load(&self) -> Result<Option<Loaded>, Failed> {
        let key = self.keys.control("rev");
        let (mut loaded, mut first, mut cursor) = (Loaded::default(), None, "0".to_owned());
        loop {
            let answer = self.call_ctl(&REVOCATIONS, &[&key], &[cursor.as_bytes()]).await?;
            let mut answer = reply::array(answer)?;
            let server = reply::text(answer.next())?;
            if *first.get_or_insert_with(|| server.clone()) != server {
                return Ok(None);
            }
            let now = reply::integer(answer.next())?;
            cursor = reply::text(answer.next())?;
            loaded.add(reply::array(answer.next().unwrap_or(Value::Nil))?, now);
            if cursor == "0" {
                return Ok(Some(loaded));
            }
        }
    }

    async fn forget(&self, past: &[String]) -> Result<(), Failed> {
        for piece in past.chunks(MERGED_MAX) {
            let fields: Vec<_> = piece.iter().map(String::as_bytes).collect();
            self.call_ctl(&FORGET, &[&self.keys.control("rev")], &fields).await?;
        }
        Ok(())
    }
}

/// Revocations as they were found.
#[derive(Debug, Default)]
struct Loaded {
    kept: HashMap<Subject, Revocation>,
    /// Fields that may be forgotten.
    past: Vec<String>,
}

impl Loaded {
    /// A page of names and times, at `now` in Unix seconds of the server. A page may have what another had.
    fn add(&mut self, mut page: std::vec::IntoIter<Value>, now: u64) {
        while let (Some(name), Some(times)) = (page.next(), page.next()) {
            // Not ours: somebody else can write here, and must not keep the others from being known.
            let (Ok(name), Ok(times)) = (reply::text(Some(name)), reply::text(Some(times))) else {
                continue;
            };
            match revocation(&name, &times) {
                Some(one) if one.forget_after < now => self.past.push(name),
                Some(one) => drop(self.kept.insert(one.subject.clone(), one)),
                None => {}
            }
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
