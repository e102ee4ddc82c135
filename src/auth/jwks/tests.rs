use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;
use crate::auth::fixtures::*;
use crate::auth::jwk::BadSet;
use crate::auth::keys::Keys;
use crate::auth::{DeniedWord, NotVerified, Policy, UnixSeconds, Verified, jwk, now};
use crate::config;

const PATIENCE: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

fn issuers(entries: &[config::Key]) -> Policy {
    policy(Keys::load(entries).unwrap(), &[])
}

fn issuer<'p>(policy: &'p Policy, name: &str) -> &'p Arc<Issuer> {
    policy.keys().issuer(Some(name)).unwrap()
}

/// As if a reading had brought these keys at that moment.
fn bring(issuer: &Issuer, keys: &Value, at: Instant) {
    issuer.progress.send_modify(|progress| progress.begun += 1);
    let read = jwk::read_set(json!({ "keys": keys }).to_string().as_bytes(), &issuer.algorithms).unwrap();
    let (next, _) = issuer.set().next(read.keys, &issuer.terms, issuer.source.grace, at);
    issuer.set.store(Arc::new(next));
    issuer.progress.send_modify(|progress| {
        progress.ended = progress.begun;
        progress.succeeded = progress.begun;
    });
}

fn claims_of(iss: &str, more: &str) -> String {
    format!(r#"{{"sub":"u1","iss":"{iss}","exp":{}{more}}}"#, now() + 600)
}

fn signed(algorithm: &str, kid: Option<&str>, claims: &str) -> String {
    let header = json!({"alg": algorithm, "kid": kid});
    let header = if kid.is_none() {
        json!({"alg": algorithm})
    } else {
        header
    };
    token(algorithm, &header.to_string(), claims)
}

fn word(policy: &Policy, token: &str) -> Result<String, DeniedWord> {
    let verified = policy.verify(token, now()).map_err(crate::auth::Denied::word)?;
    Ok(verified.identity().user_id.to_string())
}

fn ip() -> std::net::IpAddr {
    "192.0.2.7".parse().unwrap()
}

#[test]
fn keys_belong_to_their_issuer_whatever_their_name() {
    let shop = config::Key {
        user_prefix: "shop:".into(),
        audience: vec!["chat".into()],
        ..by_url("https://shop.example")
    };
    let staff = config::Key {
        user_prefix: "staff:".into(),
        ..by_url("https://staff.example")
    };
    let policy = issuers(&[shop, staff]);
    // One name, two keys.
    bring(
        issuer(&policy, "https://shop.example"),
        &json!([ec_jwk(json!({"kid": "1"}))]),
        Instant::now(),
    );
    bring(
        issuer(&policy, "https://staff.example"),
        &json!([rsa_jwk(json!({"kid": "1"}))]),
        Instant::now(),
    );
    let chat = r#","aud":"chat""#;
    let of_shop = claims_of("https://shop.example", chat);
    let of_staff = claims_of("https://staff.example", "");
    for (token, verdict) in [
        (signed("ES256", Some("1"), &of_shop), Ok("shop:u1")),
        (signed("RS256", Some("1"), &of_staff), Ok("staff:u1")),
        // Each with the other's key.
        (signed("RS256", Some("1"), &of_shop), Err(DeniedWord::TokenSignature)),
        (signed("ES256", Some("1"), &of_staff), Err(DeniedWord::TokenSignature)),
        (
            signed("ES256", Some("1"), &claims_of("https://shop.example", "")),
            Err(DeniedWord::TokenAudience),
        ),
        (
            signed("RS256", Some("1"), &claims_of("https://staff.example", chat)),
            Err(DeniedWord::TokenAudience),
        ),
        (
            signed("ES256", Some("1"), &claims_of("https://evil.example", chat)),
            Err(DeniedWord::TokenSignature),
        ),
        (signed("ES256", Some("1"), &claims("")), Err(DeniedWord::TokenSignature)),
        (signed("ES256", None, &of_shop), Ok("shop:u1")),
        (signed("ES256", Some("2"), &of_shop), Err(DeniedWord::TokenSignature)),
    ] {
        assert_eq!(word(&policy, &token), verdict.map(str::to_owned));
    }
}

#[test]
fn a_key_is_used_with_its_own_algorithm_and_with_no_other() {
    let entry = |algorithms: &[&str]| {
        let mut entry = by_url("a");
        let config::KeySource::JwksUrl(url) = &mut entry.source else {
            unreachable!()
        };
        url.algorithms = algorithms.iter().map(ToString::to_string).collect();
        entry
    };
    let check = |algorithms: &[&str], keys: Value, good: &[&str]| {
        let policy = issuers(&[entry(algorithms)]);
        bring(issuer(&policy, "a"), &keys, Instant::now());
        for algorithm in ["HS256", "RS256", "RS384", "PS256", "ES256", "EdDSA"] {
            let token = signed(algorithm, Some("k"), &claims_of("a", ""));
            assert_eq!(
                word(&policy, &token).is_ok(),
                good.contains(&algorithm),
                "{algorithms:?} {keys} {algorithm}"
            );
        }
    };
    let open = json!([rsa_jwk(json!({"kid": "k"}))]);
    check(&[], open.clone(), &["RS256"]);
    check(&["RS256", "PS256", "ES256"], open.clone(), &["RS256", "PS256"]);
    check(&["ES256"], open, &[]);
    let named = json!([rsa_jwk(json!({"kid": "k", "alg": "RS384"}))]);
    check(&[], named.clone(), &["RS384"]);
    check(&["RS256"], named, &[]);
    check(&[], json!([ec_jwk(json!({"kid": "k"}))]), &["ES256"]);
    // A secret that everybody may read vouches for nothing, alone or beside others.
    let oct = json!({"kid": "k", "kty": "oct", "k": b64(SECRET)});
    check(&[], json!([oct]), &[]);
    check(&[], json!([oct, ec_jwk(json!({"kid": "k"}))]), &["ES256"]);
    check(&[], json!([ec_jwk(json!({"kid": "k", "d": "AAAA"}))]), &[]);
    check(&[], json!([ec_jwk(json!({"kid": "k", "use": "enc"}))]), &[]);
    check(&[], json!([ec_jwk(json!({"kid": "k", "alg": "HS256"}))]), &[]);
}

#[test]
fn only_asymmetric_algorithms_may_be_named() {
    for (name, part) in [
        ("HS256", "no secret is taken from a URL"),
        ("none", "unknown algorithm"),
    ] {
        let mut entry = by_url("a");
        let config::KeySource::JwksUrl(url) = &mut entry.source else {
            unreachable!()
        };
        url.algorithms = vec![name.into()];
        let problem = Keys::load(&[entry]).expect_err(name).remove(0);
        assert!(problem.what.contains(part), "{problem}");
    }
}

#[test]
fn what_is_no_set_is_told_from_a_set_with_odd_keys() {
    let read = |body: &str| jwk::read_set(body.as_bytes(), &[]);
    for body in [
        "",
        "[]",
        "null",
        "{}",
        r#"{"keys":{}}"#,
        r#"{"keys":null}"#,
        r#"{"keys":[],"keys":[]}"#,
        "<html>",
        "{\"keys\":[",
    ] {
        assert_eq!(read(body).err(), Some(BadSet::NotASet), "{body}");
    }
    let many = |count: usize| json!({"keys": vec![json!({"kty": "AKP"}); count]}).to_string();
    assert_eq!(read(&many(65)).err(), Some(BadSet::TooMany));
    assert!(read(&many(64)).unwrap().keys.is_empty());
    assert!(read(&format!(r#"{{"keys":[{}{}]}}"#, "[".repeat(40), "]".repeat(40))).is_err());
    let odd = json!([
        1,
        {},
        {"kty": "oct", "k": b64(SECRET)},
        ec_jwk(json!({"x": "AAAA"})),
        {"kty": "RSA", "n": b64([0xff; 128]), "e": "AQAB"},
        {"kty": "RSA"},
        ec_jwk(json!({"kid": 7})),
        ec_jwk(json!({"kid": "good", "x5u": "https://evil.example/", "jku": "https://evil.example/"})),
    ]);
    let found = read(&json!({"keys": odd, "next": "https://evil.example/"}).to_string()).unwrap();
    let kids: Vec<_> = found.keys.iter().map(|listed| listed.loaded.kid.as_deref()).collect();
    assert_eq!(kids, [None, Some("good")]);
    assert_eq!(found.ignored.len(), 5, "{:?}", found.ignored);
    assert!(!found.ignored.concat().contains(&b64(SECRET)), "{:?}", found.ignored);
}

#[test]
fn a_key_that_has_gone_vouches_for_its_grace_and_no_longer() {
    let policy = issuers(&[by_url("a")]);
    let a = issuer(&policy, "a");
    let (old, new) = (
        json!([ec_jwk(json!({"kid": "old"}))]),
        json!([rsa_jwk(json!({"kid": "new"}))]),
    );
    let of_old = signed("ES256", Some("old"), &claims_of("a", ""));
    // The clock goes back instead of us waiting.
    let ago = |seconds: u64| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
    bring(a, &old, ago(100));
    bring(a, &new, ago(59));
    assert!(word(&policy, &of_old).is_ok());
    assert_eq!(a.keys(), 2);
    let policy = issuers(&[by_url("a")]);
    let a = issuer(&policy, "a");
    bring(a, &old, ago(100));
    bring(a, &new, ago(60));
    assert_eq!(word(&policy, &of_old), Err(DeniedWord::TokenSignature));
    assert_eq!(a.keys(), 1);
    // Nobody waits for what was there and is not any more, not even when the key itself is forgotten.
    assert!(!a.may_learn("ES256", Some("old")));
    bring(a, &new, Instant::now());
    assert_eq!(a.set().vouching(Instant::now()).count(), 1);
    assert!(!a.may_learn("ES256", Some("old")));
    // Unless it is.
    bring(a, &old, Instant::now());
    assert!(word(&policy, &of_old).is_ok());
}

#[test]
fn a_name_may_be_given_to_another_key() {
    let policy = issuers(&[by_url("a")]);
    let a = issuer(&policy, "a");
    bring(a, &json!([ec_jwk(json!({"kid": "k"}))]), Instant::now());
    bring(a, &json!([rsa_jwk(json!({"kid": "k"}))]), Instant::now());
    for algorithm in ["ES256", "RS256"] {
        assert!(
            word(&policy, &signed(algorithm, Some("k"), &claims_of("a", ""))).is_ok(),
            "{algorithm}"
        );
    }
}

#[test]
fn keys_that_are_too_old_vouch_for_nobody() {
    let policy = issuers(&[by_url("a")]);
    let a = issuer(&policy, "a");
    let set = Set::new(Duration::from_secs(3600));
    let read = jwk::read_set(
        json!({"keys": [ec_jwk(json!({"kid": "k"}))]}).to_string().as_bytes(),
        &[],
    )
    .unwrap();
    let now = Instant::now();
    let (set, change) = set.next(read.keys, a.terms(), SECOND, now);
    assert_eq!(change.added, ["k"]);
    assert!(set.vouches(now) && set.count(now) == 1);
    let later = now + Duration::from_secs(3600);
    assert!(!set.vouches(later) && set.count(later) == 0);
    let heard_again = set.again(later);
    assert!(heard_again.vouches(later) && heard_again.count(later) == 1);
    let for_ever = Set::new(Duration::ZERO);
    assert!(!for_ever.vouches(now));
    assert!(for_ever.again(now).vouches(now + Duration::from_hours(100_000)));
}

#[test]
fn only_a_token_that_is_otherwise_good_may_wait() {
    let entry = config::Key {
        audience: vec!["chat".into()],
        ..by_url("a")
    };
    let policy = issuers(&[entry]);
    let a = issuer(&policy, "a");
    let chat = r#","aud":"chat""#;
    let good = |kid: Option<&str>| signed("ES256", kid, &claims_of("a", chat));
    let may_wait = |token: &str| policy.awaited(token).is_some();
    // Nothing is known yet: any key may come.
    assert!(may_wait(&good(Some("k"))) && may_wait(&good(None)));
    bring(a, &json!([ec_jwk(json!({"kid": "k"}))]), Instant::now());
    assert!(may_wait(&good(Some("other"))));
    let past = |at: UnixSeconds| format!(r#"{{"sub":"u1","iss":"a","aud":"chat","exp":{at}}}"#);
    for (token, why) in [
        (good(None), "no name to wait for"),
        (good(Some("k")), "a name that is known"),
        (signed("ES256", Some("other"), &claims_of("b", chat)), "nobody's issuer"),
        (signed("ES256", Some("other"), &claims_of("a", "")), "no audience"),
        (signed("ES256", Some("other"), &past(now() - 60)), "expired"),
        (
            signed("HS256", Some("other"), &claims_of("a", chat)),
            "a secret's algorithm",
        ),
        (
            token_by(r#"{"alg":"none","kid":"other"}"#, claims_of("a", chat), |_| Vec::new()),
            "no algorithm",
        ),
        (
            token_by(
                r#"{"alg":"ES256","kid":"other","crit":["x"]}"#,
                claims_of("a", chat),
                |_| Vec::new(),
            ),
            "malformed",
        ),
    ] {
        assert!(!may_wait(&token), "{why}");
    }
}

/// A verdict that is still being waited for.
async fn verdicts(
    policy: &Arc<Policy>,
    token: &str,
    count: usize,
) -> Vec<tokio::task::JoinHandle<Result<Verified, NotVerified>>> {
    let before = policy.keys().line().waiting();
    let runtime = tokio::runtime::Handle::current();
    let begin = |_| {
        let (policy, token) = (Arc::clone(policy), token.to_owned());
        runtime.spawn(async move { policy.verify_patiently(&token, ip()).await })
    };
    let handles = (0..count).map(begin).collect();
    let waiting = async {
        while policy.keys().line().waiting() < before + count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    handles
}

fn refused(verdict: &Result<Verified, NotVerified>) -> Option<DeniedWord> {
    match verdict {
        Err(NotVerified::Denied(denied)) => Some(denied.word()),
        _ => None,
    }
}

#[tokio::test]
async fn who_has_a_new_key_waits_for_the_next_reading() {
    let policy = Arc::new(issuers(&[by_url("a")]));
    let a = issuer(&policy, "a");
    bring(a, &json!([ec_jwk(json!({"kid": "old"}))]), Instant::now());
    let waiting = verdicts(&policy, &signed("RS256", Some("new"), &claims_of("a", "")), 20).await;
    bring(a, &json!([rsa_jwk(json!({"kid": "new"}))]), Instant::now());
    for verdict in waiting {
        assert!(verdict.await.unwrap().is_ok());
    }
    assert_eq!(policy.keys().line().waiting(), 0);
}

#[tokio::test]
async fn a_reading_that_was_under_way_is_not_the_one_that_was_waited_for() {
    let policy = Arc::new(issuers(&[by_url("a")]));
    let a = issuer(&policy, "a");
    let old = json!([ec_jwk(json!({"kid": "old"}))]);
    bring(a, &old, Instant::now());
    a.progress.send_modify(|progress| progress.begun += 1);
    let mut waiting = verdicts(&policy, &signed("RS256", Some("new"), &claims_of("a", "")), 1).await;
    // It ends, answered before the issuer had the new key.
    a.progress.send_modify(|progress| {
        progress.ended = progress.begun;
        progress.succeeded = progress.begun;
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!waiting[0].is_finished());
    bring(a, &json!([rsa_jwk(json!({"kid": "new"}))]), Instant::now());
    assert!(waiting.remove(0).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_key_that_did_not_come_is_not_waited_for_again() {
    let policy = Arc::new(issuers(&[by_url("a")]));
    let a = issuer(&policy, "a");
    let keys = json!([ec_jwk(json!({"kid": "k"}))]);
    bring(a, &keys, Instant::now());
    let token = signed("RS256", Some("made up"), &claims_of("a", ""));
    let waiting = verdicts(&policy, &token, 3).await;
    bring(a, &keys, Instant::now());
    for verdict in waiting {
        assert_eq!(refused(&verdict.await.unwrap()), Some(DeniedWord::TokenSignature));
    }
    // Nobody has to bring anything for these.
    assert_eq!(
        refused(&policy.verify_patiently(&token, ip()).await),
        Some(DeniedWord::TokenSignature)
    );
    // Another set may have it.
    let waiting = {
        bring(a, &json!([ec_jwk(json!({"kid": "k2"}))]), Instant::now());
        verdicts(&policy, &token, 1).await
    };
    bring(a, &json!([rsa_jwk(json!({"kid": "made up"}))]), Instant::now());
    for verdict in waiting {
        assert!(verdict.await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn who_may_not_wait_is_told_at_once() {
    let policy = Arc::new(issuers(&[by_url("a")]));
    let a = issuer(&policy, "a");
    let with_kid = |kid: &str| signed("RS256", Some(kid), &claims_of("a", ""));
    // Nothing is known of the issuer: nobody can say that they are not good.
    a.progress
        .send_modify(|progress| progress.next_at = Instant::now() + WAIT_MAX * 2);
    let verdict = policy.verify_patiently(&with_kid("k"), ip()).await;
    assert_eq!(verdict.err(), Some(NotVerified::Unavailable));
    // The next reading is far away.
    bring(a, &json!([ec_jwk(json!({"kid": "k"}))]), Instant::now());
    let verdict = policy.verify_patiently(&with_kid("other"), ip()).await;
    assert_eq!(refused(&verdict), Some(DeniedWord::TokenSignature));
    // As many keys are waited for as one address may.
    a.progress.send_modify(|progress| progress.next_at = Instant::now());
    let mut waiting = verdicts(&policy, &with_kid("1"), 2).await;
    waiting.extend(verdicts(&policy, &with_kid("2"), 2).await);
    let verdict = policy.verify_patiently(&with_kid("3"), ip()).await;
    assert_eq!(verdict.err(), Some(NotVerified::Unavailable), "it may be a good one");
    for verdict in waiting {
        verdict.abort();
        drop(verdict.await);
    }
    assert_eq!(policy.keys().line().waiting(), 0);
}

#[tokio::test]
async fn nobody_waits_for_ever_for_an_issuer_that_does_not_answer() {
    let policy = Arc::new(issuers(&[by_url("a")]));
    let token = signed("RS256", Some("k"), &claims_of("a", ""));
    let mut waiting = verdicts(&policy, &token, 1).await;
    // No socket and no disk is waited for from here on.
    tokio::time::pause();
    tokio::time::advance(WAIT_MAX + SECOND).await;
    assert_eq!(waiting.remove(0).await.unwrap().err(), Some(NotVerified::Unavailable));
    assert_eq!(policy.keys().line().waiting(), 0);
}
