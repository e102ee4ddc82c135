//! Single-use tickets: what one is, and what is kept under its hash until it is used. Pure but for the random bytes.
//!
//! A ticket stands for a token (or a session of the application) that was good when it was given out. It is good once, for
//! the page's Origin that asked for it, and for some seconds, so that a URL that holds it is worth nothing in a log.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::claims::Claims;
use super::denied::{Denied, DeniedWord};
use super::token::Rules;
use super::{Identity, UnixSeconds, Verified, json};

/// No JWT begins like this: its first bytes are base64url of `{`.
pub const PREFIX: &str = "t_";
/// What cannot be guessed.
const RANDOM_BYTES: usize = 32;
/// 32 bytes in base64url without padding.
const WORD_BYTES: usize = 43;

const USED: Denied = Denied::new(
    DeniedWord::TicketUsed,
    "the ticket is unknown, was used, has expired, or was given to another origin",
);

/// A ticket, whole. Only its client may see it.
pub struct Ticket(String);

impl Ticket {
    /// One that nobody else has.
    ///
    /// # Errors
    /// The system gave no random bytes.
    pub fn random() -> Result<Self, NoRandomness> {
        let mut bytes = [0; RANDOM_BYTES];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
        Ok(Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// As its client is told.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(…)")
    }
}

/// The system gave no random bytes.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the system gave no random bytes")]
pub struct NoRandomness;

/// Whether `token` says that it is a ticket, good or not.
pub fn is_ticket(token: &str) -> bool {
    token.starts_with(PREFIX)
}

/// The name that `ticket` is kept under: who can read the store can use none of them.
///
/// # Errors
/// It was never a ticket; nobody needs to be asked.
pub fn name(ticket: &str) -> Result<String, Denied> {
    let word = ticket.strip_prefix(PREFIX).ok_or(USED)?;
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if word.len() != WORD_BYTES || !word.bytes().all(is_good) {
        return Err(USED);
    }
    Ok(URL_SAFE_NO_PAD.encode(digest(&SHA256, ticket.as_bytes())))
}

/// What is kept: the claims that were verified, with the user id as it is here, and the Origin.
pub fn record(verified: &Verified, origin: Option<&str>) -> Vec<u8> {
    let identity = verified.identity();
    // It was written from such an object.
    let mut claims: Map<String, Value> = serde_json::from_str(&identity.user_json).unwrap_or_default();
    claims.remove("id");
    claims.insert("sub".into(), Value::from(&*identity.user_id));
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            claims.insert(name.into(), value);
        }
    };
    put("exp", verified.expires_at().map(Value::from));
    put("iat", identity.issued_at.seconds().map(Value::from));
    put("jti", identity.token_id.as_deref().map(Value::from));
    put("rooms", identity.grants.as_ref().map(|grants| grants.to_claim().into()));
    put("probe", identity.is_probe.then_some(Value::Bool(true)));
    json!({"origin": origin, "claims": claims}).to_string().into_bytes()
}

/// Who used a ticket: `taken` is what was kept under its name, if anything was.
pub(super) fn redeem(
    taken: Option<&[u8]>,
    origin: Option<&str>,
    rules: Rules,
    now: UnixSeconds,
) -> Result<Verified, Denied> {
    let mut kept = json::object(taken.ok_or(USED)?).map_err(|_| USED)?;
    if kept.remove("origin").as_ref().and_then(Value::as_str) != origin {
        return Err(USED);
    }
    let Some(Value::Object(claims)) = kept.remove("claims") else {
        return Err(USED);
    };
    let claims = Claims::from_object(claims).map_err(|_| USED)?;
    super::token::check_times(&claims, rules, now)?;
    let user_id = claims.sub.clone();
    Ok(Verified {
        expires_at: claims.exp,
        leeway_s: rules.leeway.as_secs(),
        identity: Arc::new(Identity::from_claims(claims, user_id)),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::fixtures::*;
    use super::super::{Keys, Verb};
    use super::*;

    const RULES: Rules = Rules {
        leeway: Duration::from_secs(5),
        require_expiry: true,
    };
    const PAGE: Option<&str> = Some("https://app.example.com");

    fn verified(more: &str) -> Verified {
        let policy = policy(Keys::load(&[secret("HS256", SECRET)]).unwrap(), &[]);
        policy.verify(&hs256(claims(more)), NOW).unwrap()
    }

    #[test]
    fn a_ticket_is_not_a_jwt_and_each_is_another() {
        let (one, other) = (Ticket::random().unwrap(), Ticket::random().unwrap());
        assert_eq!(one.as_str().len(), 45);
        assert!(is_ticket(one.as_str()) && !is_ticket(&hs256(claims(""))));
        assert_ne!(name(one.as_str()).unwrap(), name(other.as_str()).unwrap());
        assert!(!name(one.as_str()).unwrap().contains(&one.as_str()[2..]));
        assert_eq!(format!("{one:?}"), "Ticket(…)");
    }

    #[test]
    fn what_never_was_a_ticket_asks_nobody() {
        let good = Ticket::random().unwrap();
        for bad in [
            "t_",
            "t_a",
            "",
            "abc",
            &format!("{}a", good.as_str()),
            &good.as_str().replace("t_", "t_.")[..45],
        ] {
            assert_eq!(name(bad).unwrap_err().word(), DeniedWord::TicketUsed, "{bad}");
        }
    }

    #[test]
    fn a_record_says_what_the_token_said() {
        for more in [
            "",
            r#","name":"Änn \"A\"","info":{"a":[1,{"b":null}]},"iat":7,"jti":"t-1""#,
            r#","rooms":{"lobby":["join"],"team/*":["*"]},"probe":true"#,
            r#","rooms":{},"iat":0"#,
        ] {
            let token = verified(more);
            let back = redeem(Some(&record(&token, PAGE)), PAGE, RULES, NOW).unwrap();
            let (was, is) = (token.identity(), back.identity());
            assert_eq!(was.user_id, is.user_id);
            let as_value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            assert_eq!(as_value(&was.user_json), as_value(&is.user_json));
            assert_eq!(was.grants, is.grants);
            assert_eq!(was.token_id, is.token_id);
            assert_eq!(was.issued_at, is.issued_at);
            assert_eq!(was.is_probe, is.is_probe);
            assert_eq!(token.expires_at(), back.expires_at());
            assert_eq!(token.ends_at(), back.ends_at());
            assert_eq!(
                is.is_granted("lobby", Verb::Join, false),
                was.is_granted("lobby", Verb::Join, false)
            );
        }
    }

    #[test]
    fn another_origin_a_late_use_and_garbage_get_nothing() {
        let kept = record(&verified(""), PAGE);
        let check = |taken: Option<&[u8]>, origin, now, word| {
            assert_eq!(redeem(taken, origin, RULES, now).unwrap_err().word(), word);
        };
        check(None, PAGE, NOW, DeniedWord::TicketUsed);
        check(Some(&kept), None, NOW, DeniedWord::TicketUsed);
        check(Some(&kept), Some("https://b.example.com"), NOW, DeniedWord::TicketUsed);
        check(Some(&record(&verified(""), None)), PAGE, NOW, DeniedWord::TicketUsed);
        check(Some(&kept), PAGE, NOW + 65, DeniedWord::TokenExpired);
        check(Some(b"{}"), None, NOW, DeniedWord::TicketUsed);
        check(Some(b"\xff"), None, NOW, DeniedWord::TicketUsed);
        assert!(redeem(Some(&record(&verified(""), None)), None, RULES, NOW).is_ok());
    }
}
