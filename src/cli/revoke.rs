//! `conclave revoke`: tokens that no longer count, on all nodes.

use std::time::Duration;

use super::args::{Loudness, Revoke};
use super::{Environment, Failure, control};
use crate::auth;
use crate::backplane::contract::{Control, Revocation, Subject};

/// Tells all nodes, and says what was done.
pub fn run(args: &Revoke, loudness: Loudness, environment: &Environment) -> Result<(), Failure> {
    let config = control::shared_backplane(args.config.clone(), environment)?;
    let kept = (args.kept).unwrap_or(auth::revocations::kept(config.auth.require_expiry));
    let revocation = revocation(args, kept, auth::now())?;
    let took = control::tell(&config, &[Control::Revoke(revocation.clone())])?;
    if !loudness.quiet {
        println!("{}", done(&revocation, took));
    }
    Ok(())
}

fn revocation(args: &Revoke, kept: Duration, now: u64) -> Result<Revocation, Failure> {
    let subject = control::subject(&args.whom)?;
    let issued_before = args.issued_before.unwrap_or(now);
    Ok(Revocation {
        subject,
        issued_before,
        // A moment in the future is of no use if it is forgotten before.
        forget_after: now.max(issued_before).saturating_add(kept.as_secs()),
    })
}

fn done(revocation: &Revocation, took: Duration) -> String {
    let issued = match &revocation.subject {
        Subject::User(_) => format!(": tokens issued until {}", control::rfc3339(revocation.issued_before)),
        Subject::Session(_) | Subject::Token(_) => String::new(),
    };
    format!(
        "revoked {}{issued}; kept until {}; all nodes told in {} ms",
        control::named(&revocation.subject),
        control::rfc3339(revocation.forget_after),
        took.as_millis()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Whom;

    const NOW: u64 = 1_767_225_600;
    const DAY: Duration = Duration::from_secs(86_400);

    fn args(whom: Whom) -> Revoke {
        Revoke {
            whom,
            issued_before: None,
            kept: None,
            config: None,
        }
    }

    fn ann() -> Whom {
        Whom {
            user: Some("ann".to_owned()),
            session: None,
            token: None,
        }
    }

    #[test]
    fn it_is_about_now_unless_said_otherwise() {
        let made = revocation(&args(ann()), DAY, NOW).unwrap();
        assert_eq!((made.issued_before, made.forget_after), (NOW, NOW + 86_400));
        let later = Revoke {
            issued_before: Some(NOW + 10),
            ..args(ann())
        };
        let made = revocation(&later, DAY, NOW).unwrap();
        assert_eq!((made.issued_before, made.forget_after), (NOW + 10, NOW + 86_410));
        assert_eq!(
            done(&made, Duration::from_millis(3)),
            "revoked user ann: tokens issued until 2026-01-01T00:00:10Z; kept until 2026-01-02T00:00:10Z; all nodes told in 3 ms"
        );
    }

    #[test]
    fn a_whole_token_is_not_an_id() {
        let token = |id: &str| Whom {
            user: None,
            session: None,
            token: Some(id.to_owned()),
        };
        assert!(revocation(&args(token("eyJ.eyJ.sig")), DAY, NOW).is_err());
        assert!(revocation(&args(token("")), DAY, NOW).is_err());
        let made = revocation(&args(token("t-1")), DAY, NOW).unwrap();
        assert_eq!(
            done(&made, Duration::ZERO),
            "revoked token t-1; kept until 2026-01-02T00:00:00Z; all nodes told in 0 ms"
        );
    }
}
