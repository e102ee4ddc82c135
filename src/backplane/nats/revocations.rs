//! Revocations: a message per subject that is kept, and word of each in the control log.

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::backplane::contract::{Control, Revocation, Subject};

use super::link::Link;
use super::problem::Problem;
use super::{Nats, TOGETHER};

/// Times that a revocation is merged while others change it too.
const TRIES: usize = 8;

/// As stored: `{"v":1,"revoke":{"user":"u7"},"issued_before":1767225600,"forget_after":1767312000}`, or
/// `{"v":1,"kick":{"session":"s-9f…"},"time_ms":1767225600000}`
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Written {
    v: u32,
    #[serde(flatten)]
    what: What,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum What {
    Revoke {
        revoke: Whom,
        issued_before: u64,
        forget_after: u64,
    },
    Kick {
        kick: Whom,
        time_ms: u64,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Whom {
    User(String),
    Session(String),
    Token(String),
}

impl From<&Subject> for Whom {
    fn from(subject: &Subject) -> Self {
        match subject {
            Subject::User(user) => Self::User(user.to_string()),
            Subject::Session(session) => Self::Session(session.to_string()),
            Subject::Token(token) => Self::Token(token.to_string()),
        }
    }
}

impl From<Whom> for Subject {
    fn from(whom: Whom) -> Self {
        match whom {
            Whom::User(user) => Self::User(user.into()),
            Whom::Session(session) => Self::Session(session.into()),
            Whom::Token(token) => Self::Token(token.into()),
        }
    }
}

fn write(control: &Control) -> Result<Bytes, Problem> {
    let what = match control {
        Control::Revoke(revocation) => What::Revoke {
            revoke: (&revocation.subject).into(),
            issued_before: revocation.issued_before,
            forget_after: revocation.forget_after,
        },
        Control::Kick { subject, time_ms } => What::Kick {
            kick: subject.into(),
            time_ms: *time_ms,
        },
    };
    let written = serde_json::to_vec(&Written { v: 1, what });
    written.map(Bytes::from).map_err(|_| Problem::BROKEN)
}

/// `None` for what this build cannot read.
pub(super) fn read(bytes: &[u8]) -> Option<Control> {
    let written: Written = serde_json::from_slice(bytes)
        .ok()
        .filter(|written: &Written| written.v == 1)?;
    Some(match written.what {
        What::Revoke {
            revoke,
            issued_before,
            forget_after,
        } => Control::Revoke(Revocation {
            subject: revoke.into(),
            issued_before,
            forget_after,
        }),
        What::Kick { kick, time_ms } => Control::Kick {
            subject: kick.into(),
            time_ms,
        },
    })
}

fn revocation(bytes: &[u8]) -> Option<Revocation> {
    match read(bytes)? {
        Control::Revoke(revocation) => Some(revocation),
        Control::Kick { .. } => None,
    }
}

/// The later of each time.
fn merged(known: &Revocation, other: Option<&Revocation>) -> Revocation {
    let mut merged = known.clone();
    if let Some(other) = other {
        merged.issued_before = merged.issued_before.max(other.issued_before);
        merged.forget_after = merged.forget_after.max(other.forget_after);
    }
    merged
}

impl Nats {
    pub(super) async fn tell_all(&self, control: &Control) -> Result<(), Problem> {
        let link = self.link()?;
        if let Control::Revoke(revocation) = control {
            self.keep(&link, revocation).await?;
        }
        self.announce(&link, control).await
    }

    async fn announce(&self, link: &Link, control: &Control) -> Result<(), Problem> {
        let subject = self.settings.names.subject(&format!("k.e.{}", Uuid::new_v4().simple()));
        link.store(subject, HeaderMap::new(), write(control)?).await?;
        Ok(())
    }

    /// True if something was added. What is there is read again after writing: of several who were all told that they
    /// were first, the last one was.
    async fn keep(&self, link: &Link, known: &Revocation) -> Result<bool, Problem> {
        let names = &self.settings.names;
        let (stream, subject) = (names.stream("state"), names.revocation(&known.subject));
        let mut added = false;
        for _ in 0..TRIES {
            let stored = link.newest(&stream, &subject).await?;
            let seq = stored.as_ref().map_or(0, |stored| stored.seq);
            let there = stored.and_then(|stored| revocation(&stored.payload));
            let wanted = merged(known, there.as_ref());
            if there.as_ref() == Some(&wanted) {
                return Ok(added);
            }
            match link
                .store_after(subject.clone(), seq, write(&Control::Revoke(wanted))?)
                .await
            {
                Ok(_) => added = true,
                Err(problem) if problem.is_conflict() => {}
                Err(problem) => return Err(problem),
            }
        }
        Err(crate::backplane::contract::Failed::Unknown.into())
    }

    pub(super) async fn kept_revocations(&self) -> Result<Vec<Revocation>, Problem> {
        let link = self.link()?;
        let names = &self.settings.names;
        let stream = names.stream("state");
        let (subjects, _) = link.subjects(&stream, &names.subject("s.r.*")).await?;
        let asked: Vec<_> = subjects.iter().map(|subject| link.newest(&stream, subject)).collect();
        let asked: Vec<_> = futures_util::stream::iter(asked).buffered(TOGETHER).collect().await;
        let now_s = self.clock.now_ms() / 1_000;
        let mut kept = Vec::with_capacity(asked.len());
        for stored in asked {
            let Some(stored) = stored? else { continue };
            match revocation(&stored.payload) {
                Some(revocation) if revocation.forget_after < now_s => {
                    link.remove(&stream, stored.seq).await?;
                }
                revocation => kept.extend(revocation),
            }
        }
        Ok(kept)
    }

    pub(super) async fn merge(&self, known: &[Revocation]) -> Result<(), Problem> {
        let link = self.link()?;
        let there = self.kept_revocations().await?;
        let now_s = self.clock.now_ms() / 1_000;
        for revocation in known.iter().filter(|revocation| revocation.forget_after >= now_s) {
            let same = there.iter().find(|there| there.subject == revocation.subject);
            if same != Some(&merged(revocation, same)) && self.keep(&link, revocation).await? {
                self.announce(&link, &Control::Revoke(revocation.clone())).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for subject in [
            Subject::User("u7".into()),
            Subject::Session("s-1".into()),
            Subject::Token("j\"".into()),
        ] {
            let revoke = Control::Revoke(Revocation {
                subject: subject.clone(),
                issued_before: 5,
                forget_after: 9,
            });
            let kick = Control::Kick { subject, time_ms: 3 };
            for control in [revoke, kick] {
                assert_eq!(read(&write(&control).expect("writable")), Some(control));
            }
        }
        assert_eq!(read(br#"{"v":2,"kick":{"user":"u"},"time_ms":3}"#), None);
        assert_eq!(read(b"{"), None);
    }
}
