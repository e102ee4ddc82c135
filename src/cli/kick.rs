//! `conclave kick`: ends connections once, on all nodes, and keeps a user out for a while if asked to.

use std::time::Duration;

use super::args::{Kick, Loudness, Whom};
use super::{Environment, Failure, control};
use crate::auth;
use crate::backplane::contract::{Control, Revocation, Subject};
use crate::runtime::now_ms;

/// Tells all nodes, and says what was done.
pub fn run(args: &Kick, loudness: Loudness, environment: &Environment) -> Result<(), Failure> {
    let config = control::shared_backplane(args.config.clone(), environment)?;
    let subject = subject(args)?;
    let ban = args.ban.map(|ban| Revocation::ban(subject.clone(), ban, auth::now()));
    let kick = Control::Kick {
        subject: subject.clone(),
        time_ms: now_ms(),
    };
    // In this order, so that those who are connected hear that they were kicked.
    let controls: Vec<_> = std::iter::once(kick).chain(ban.clone().map(Control::Revoke)).collect();
    let took = control::tell(&config, &controls)?;
    if !loudness.quiet {
        println!("{}", done(&subject, ban.as_ref(), took));
    }
    Ok(())
}

fn subject(args: &Kick) -> Result<Subject, Failure> {
    control::subject(&Whom {
        user: args.user.clone(),
        session: args.session.clone(),
        token: None,
    })
}

fn done(subject: &Subject, ban: Option<&Revocation>, took: Duration) -> String {
    let banned = ban.map(|ban| format!(", banned until {}", control::rfc3339(ban.forget_after)));
    format!(
        "kicked {}{}; all nodes told in {} ms",
        control::named(subject),
        banned.unwrap_or_default(),
        took.as_millis()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Identity, Revocations};

    #[test]
    fn a_ban_hits_every_token_until_it_is_over() {
        let ann = Subject::User("ann".into());
        let ban = Revocation::ban(ann.clone(), Duration::from_secs(60), 1_000);
        let known = Revocations::of(std::slice::from_ref(&ban), 1_000);
        let is_out = |issued_at: Option<u64>, now| {
            let identity = Identity {
                user_id: "ann".into(),
                user_json: "{}".into(),
                grants: None,
                token_id: None,
                issued_at: issued_at.into(),
                is_probe: false,
                amendment: None,
            };
            known.judge(&identity, None, now).is_some()
        };
        assert!(is_out(Some(900), 1_001) && is_out(None, 1_060) && is_out(Some(1_059), 1_060));
        assert!(!is_out(Some(900), 1_061) && !is_out(None, 1_061));
        assert_eq!(
            done(&ann, Some(&ban), Duration::from_millis(2)),
            "kicked user ann, banned until 1970-01-01T00:17:40Z; all nodes told in 2 ms"
        );
        assert_eq!(
            done(&ann, None, Duration::ZERO),
            "kicked user ann; all nodes told in 0 ms"
        );
    }
}
