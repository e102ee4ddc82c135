//! Why a token is bad, for the person who made it. Shows what the token says, never its signature.

use std::time::{Duration, Instant, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::jwks::Issuer;
use super::keys::Key;
use super::token::Unverified;
use super::{Policy, UnixSeconds, json};

/// Lines for `conclave token --check`; the last one is the verdict.
pub fn diagnose(token: &str, policy: &Policy, now: UnixSeconds) -> Vec<String> {
    let mut lines = Vec::new();
    match Unverified::parse(token, policy.rules) {
        Ok(token) => describe(&token, policy, now, &mut lines),
        Err(_) => lines.extend(raw_header(token)),
    }
    lines.push(match policy.verify(token, now) {
        Ok(verified) => format!("verdict: good, user {:?}", verified.identity().user_id),
        Err(denied) => format!("verdict: {denied}"),
    });
    lines
}

fn describe(token: &Unverified<'_>, policy: &Policy, now: UnixSeconds, lines: &mut Vec<String>) {
    lines.push(format!(
        "header: alg {:?}, kid {}",
        token.header.alg,
        or_none(token.header.kid.as_deref())
    ));
    let candidates: Vec<&Key> = policy.keys.candidates(&token.header).collect();
    for key in policy.keys.all() {
        let tried = candidates.iter().any(|candidate| std::ptr::eq(*candidate, key));
        lines.push(format!("{}: {}", key.describe(), finding(token, key, tried, policy)));
    }
    for issuer in policy.keys.issuers() {
        describe_issuer(token, issuer, policy, lines);
    }
    let claims = &token.claims;
    lines.push(format!("sub: {:?}", claims.sub));
    for (name, time) in [("iat", claims.iat), ("nbf", claims.nbf), ("exp", claims.exp)] {
        if let Some(time) = time {
            lines.push(format!("{name}: {}", when(time, now)));
        }
    }
    lines.push(format!("iss: {}", or_none(claims.iss.as_deref())));
    lines.push(format!(
        "aud: {}",
        or_none(claims.aud.as_ref().map(|aud| aud.join(", ")).as_deref())
    ));
    if claims.probe {
        lines.push("probe: noticed by nobody in a room, counted in no metric of clients".into());
    }
}

fn describe_issuer(token: &Unverified<'_>, issuer: &Issuer, policy: &Policy, lines: &mut Vec<String>) {
    let (set, now) = (issuer.set(), Instant::now());
    if token.claims.iss.as_deref() != Some(issuer.name()) {
        lines.push(format!("keys of {:?} by URL: not tried, another iss", issuer.name()));
    } else if !set.vouches(now) {
        lines.push(format!("keys of {:?} by URL: not read", issuer.name()));
    }
    let candidates: Vec<&Key> = set.candidates(&token.header, now).collect();
    for key in set
        .vouching(now)
        .filter(|_| token.claims.iss.as_deref() == Some(issuer.name()))
    {
        let tried = candidates.iter().any(|candidate| std::ptr::eq(*candidate, key));
        lines.push(format!("{}: {}", key.describe(), finding(token, key, tried, policy)));
    }
}

fn finding(token: &Unverified<'_>, key: &Key, tried: bool, policy: &Policy) -> String {
    if key.algorithm().as_str() != token.header.alg {
        return "not tried, another algorithm".into();
    }
    if !tried {
        return "not tried, another kid".into();
    }
    if !token.is_signed_by(key) {
        return "tried, did not make the signature".into();
    }
    match token.user_id(key.terms(), policy.keys.have_session()) {
        Ok(_) => "tried, made the signature".into(),
        Err(denied) => format!("tried, made the signature, but {}", denied.detail()),
    }
}

/// The header's alg and kid of a token that has otherwise no good form.
fn raw_header(token: &str) -> Option<String> {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next()?).ok()?;
    let header = json::object(&header).ok()?;
    let show = |name| {
        header
            .get(name)
            .map_or("none".into(), |value: &serde_json::Value| value.to_string())
    };
    Some(format!("header: alg {}, kid {}", show("alg"), show("kid")))
}

fn or_none(text: Option<&str>) -> String {
    text.map_or("none".into(), |text| format!("{text:?}"))
}

/// `2026-01-01T00:00:00Z (2h ago)`. Claims hold no time after the year 9999, so that each can be shown.
fn when(time: UnixSeconds, now: UnixSeconds) -> String {
    let shown = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(time));
    let apart = humantime::format_duration(Duration::from_secs(time.abs_diff(now)));
    if time > now {
        format!("{shown} (in {apart})")
    } else {
        format!("{shown} ({apart} ago)")
    }
}
