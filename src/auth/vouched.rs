//! What an application answers when it is asked who somebody is. Pure.
//!
//! `{"sub":"u7","name":"Ann","info":{…},"rooms":{…},"expires_in":3600}`: the claims of a token, each checked as there, and
//! a life, which nobody's word makes longer than the operator allows.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::claims::{Claims, is_user_id};
use super::denied::Denied;
use super::json::{self, Flaw};
use super::keys::GUEST_PREFIX;
use super::token::{Rules, check_times};
use super::{Identity, UnixSeconds, Verified};

/// What is asked of every answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    pub rules: Rules,
    /// `auth.forward.lifetime_max`
    pub lifetime_max: Duration,
    /// `auth.forward.user_prefix`
    pub user_prefix: &'a str,
    /// Whether ids of guests are ours to give.
    pub guests: bool,
}

/// Why an answer names nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotVouched {
    /// It is not the shape that was asked for; what is wrong with it.
    Malformed(&'static str),
    /// It is, and no longer good.
    Denied(Denied),
}

/// Reads an answer.
pub(super) fn read(body: &[u8], terms: Terms<'_>, now: UnixSeconds) -> Result<Verified, NotVouched> {
    let mut map = json::object(body).map_err(|flaw| NotVouched::Malformed(flaw_words(flaw)))?;
    let expires_in = map.remove("expires_in").map(|value| seconds(&value)).transpose();
    let expires_in = expires_in.map_err(NotVouched::Malformed)?;
    // A connection's life is asked for, and there is no signature whose issuer or audience could be wrong.
    let (_, _) = (map.remove("iss"), map.remove("aud"));
    let mut claims = Claims::from_object(map).map_err(NotVouched::Malformed)?;
    let until = expires_in.map(|left| now.saturating_add(left));
    let ends = match (claims.exp, until) {
        (Some(exp), Some(until)) => exp.min(until),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => return Err(NotVouched::Malformed("neither expires_in nor exp")),
    };
    claims.exp = Some(ends.min(now.saturating_add(terms.lifetime_max.as_secs())));
    check_times(&claims, terms.rules, now).map_err(NotVouched::Denied)?;
    // Said now, unless it says when: what was revoked before does not hit it.
    claims.iat.get_or_insert(now);
    let user_id = [terms.user_prefix, &claims.sub].concat();
    if !is_user_id(&user_id) {
        return Err(NotVouched::Malformed("sub with its prefix is longer than 256 bytes"));
    }
    if terms.guests && user_id.starts_with(GUEST_PREFIX) {
        return Err(NotVouched::Malformed("sub uses the guest prefix"));
    }
    Ok(Verified {
        expires_at: claims.exp,
        leeway_s: terms.rules.leeway.as_secs(),
        identity: Arc::new(Identity::from_claims(claims, user_id)),
    })
}

fn seconds(value: &Value) -> Result<u64, &'static str> {
    value.as_u64().ok_or("expires_in is not a whole number of seconds")
}

fn flaw_words(flaw: Flaw) -> &'static str {
    match flaw {
        Flaw::NotJson | Flaw::NotAnObject => "not a JSON object",
        Flaw::NameTwice => "a name twice",
        Flaw::TooDeep => "nested deeper than 32",
    }
}

#[cfg(test)]
mod tests {
    use super::super::DeniedWord;
    use super::super::fixtures::NOW;
    use super::*;

    const TERMS: Terms<'static> = Terms {
        rules: Rules {
            leeway: Duration::from_secs(5),
            require_expiry: true,
        },
        lifetime_max: Duration::from_secs(3600),
        user_prefix: "app:",
        guests: true,
    };

    fn ask(body: &str) -> Result<Verified, NotVouched> {
        read(body.as_bytes(), TERMS, NOW)
    }

    #[test]
    fn a_user_and_a_life() {
        let said = ask(r#"{"sub":7,"name":"Ann","info":{"a":1},"rooms":{"lobby":["join"]},"expires_in":60}"#).unwrap();
        assert_eq!(&*said.identity().user_id, "app:7");
        assert_eq!(
            &*said.identity().user_json,
            r#"{"id":"app:7","name":"Ann","info":{"a":1}}"#
        );
        assert_eq!(said.expires_at(), Some(NOW + 60));
        assert_eq!(said.identity().issued_at.seconds(), Some(NOW));
        assert!(said.identity().grants.is_some());
    }

    #[test]
    fn the_shorter_life_counts_and_none_is_longer_than_allowed() {
        let ends = |body: &str| ask(body).unwrap().expires_at().unwrap() - NOW;
        assert_eq!(ends(&format!(r#"{{"sub":"a","exp":{}}}"#, NOW + 9)), 9);
        assert_eq!(ends(&format!(r#"{{"sub":"a","exp":{},"expires_in":5}}"#, NOW + 9)), 5);
        assert_eq!(ends(r#"{"sub":"a","expires_in":18446744073709551615}"#), 3600);
        assert_eq!(ends(&format!(r#"{{"sub":"a","exp":{}}}"#, NOW + 99_999)), 3600);
    }

    #[test]
    fn what_has_ended_is_denied() {
        let check = |body: &str, word| match ask(body) {
            Err(NotVouched::Denied(denied)) => assert_eq!(denied.word(), word),
            other => panic!("{body}: {other:?}"),
        };
        check(r#"{"sub":"a","exp":5}"#, DeniedWord::TokenExpired);
        check(
            &format!(r#"{{"sub":"a","expires_in":9,"nbf":{}}}"#, NOW + 99),
            DeniedWord::TokenNotYetValid,
        );
    }

    #[test]
    fn another_shape_is_no_answer() {
        for body in [
            "",
            "null",
            "[]",
            "<html>",
            "{}",
            r#"{"sub":"a"}"#,
            r#"{"sub":"a","expires_in":"60"}"#,
            r#"{"sub":"a","expires_in":-1}"#,
            r#"{"sub":"a","expires_in":1.5}"#,
            r#"{"sub":"","expires_in":1}"#,
            r#"{"sub":"a","sub":"b","expires_in":1}"#,
            r#"{"sub":["a"],"expires_in":1}"#,
            r#"{"sub":"a\nb","expires_in":1}"#,
            r#"{"sub":"a","info":"x","expires_in":1}"#,
            r#"{"sub":"a","rooms":["x"],"expires_in":1}"#,
            r#"{"sub":"a","name":"\u0000","expires_in":1}"#,
        ] {
            assert!(
                matches!(ask(body), Err(NotVouched::Malformed(_))),
                "{body}: {:?}",
                ask(body)
            );
        }
        let long = format!(r#"{{"sub":"{}","expires_in":1}}"#, "a".repeat(253));
        assert!(matches!(ask(&long), Err(NotVouched::Malformed(_))));
        let guest = Terms {
            user_prefix: "",
            ..TERMS
        };
        let body = br#"{"sub":"guest:1","expires_in":1}"#;
        assert!(matches!(read(body, guest, NOW), Err(NotVouched::Malformed(_))));
        assert!(read(body, Terms { guests: false, ..guest }, NOW).is_ok());
    }
}
