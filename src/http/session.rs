//! Sign-in for applications that have none: a name becomes a guest, the guest a cookie.
//!
//! `POST /session` `{"name":"Ann"}`, `GET /session`, `DELETE /session`. Off unless configured. Three locks keep other
//! sites out: the Origin must be ours or listed exactly, the body must be JSON (which no form can send), and the
//! cookie is `SameSite=Lax`.

mod name;
mod refused;

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{CACHE_CONTROL, CONTENT_TYPE, SET_COOKIE};
use ::http::request::Parts;
use ::http::{HeaderMap, HeaderValue, StatusCode};
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use governor::Quota;
use serde_json::{Value, json};

use crate::auth::keys::GUEST_PREFIX;
use crate::auth::{self, AddressLimiter, Guest, Policy, UnixSeconds, Verified};
use crate::config::Config;
use crate::net::PeerAddress;
use refused::Refused;

/// Longest body of a sign-in.
const BODY_BYTES_MAX: usize = 1024;
/// How long the body may take.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);

/// What the three routes share.
pub struct Sessions {
    policy: Arc<Policy>,
    host_is_ours: HostIsOurs,
    ttl: Duration,
    /// None: no limit.
    limiter: Option<AddressLimiter>,
}

/// Knows the names of the certificate.
pub type HostIsOurs = Box<dyn Fn(&str) -> bool + Send + Sync>;

impl Sessions {
    /// `policy` must have been built with the guests' key (`Keys::from_config`).
    pub fn new(config: &Config, policy: Arc<Policy>, host_is_ours: HostIsOurs) -> Self {
        let limiter = NonZeroU32::new(config.session.per_minute).map(|n| AddressLimiter::new(Quota::per_minute(n)));
        Self {
            policy,
            host_is_ours,
            ttl: config.session.ttl,
            limiter,
        }
    }

    /// Forgets addresses that were quiet. To be called every few seconds.
    pub fn sweep(&self) {
        if let Some(limiter) = &self.limiter {
            limiter.sweep();
        }
    }
}

/// `/session`
pub fn routes(state: Arc<Sessions>) -> Router {
    Router::new()
        .route("/session", post(sign_in).get(who).delete(sign_out))
        .with_state(state)
}

async fn sign_in(State(sessions): State<Arc<Sessions>>, request: Request) -> Result<Response, Refused> {
    let (parts, body) = request.into_parts();
    sessions.require_own_page(&parts)?;
    sessions.require_rate(&parts)?;
    let name = wanted_name(&parts.headers, body).await?;
    let now = auth::now();
    let (token, verified) = sessions.guest(&parts, &name, now)?;
    let cookie = sessions.cookie(&token, sessions.ttl.as_secs())?;
    Ok(([(SET_COOKIE, cookie), no_store()], Json(shown(&verified)?)).into_response())
}

async fn who(State(sessions): State<Arc<Sessions>>, request: Request) -> Result<Response, Refused> {
    let (parts, _) = request.into_parts();
    let origin = sessions
        .policy
        .origin(&parts, &*sessions.host_is_ours)
        .map_err(|_| Refused::ForeignOrigin)?;
    // Browsers send no Origin with a page's own GET.
    if is_cross_site(&parts) || !(origin.allows_cookie() || origin == auth::OriginVerdict::Absent) {
        return Err(Refused::ForeignOrigin);
    }
    let verified = sessions
        .policy
        .verify_cookie(&parts, auth::now())
        .map_err(|_| Refused::SignedOut)?;
    Ok(([no_store()], Json(shown(&verified)?)).into_response())
}

async fn sign_out(State(sessions): State<Arc<Sessions>>, request: Request) -> Result<Response, Refused> {
    let (parts, _) = request.into_parts();
    sessions.require_own_page(&parts)?;
    let cookie = sessions.cookie("", 0)?;
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie), no_store()]).into_response())
}

impl Sessions {
    fn require_own_page(&self, parts: &Parts) -> Result<(), Refused> {
        let origin = self
            .policy
            .origin(parts, &*self.host_is_ours)
            .map_err(|_| Refused::ForeignOrigin)?;
        if origin.allows_cookie() && !is_cross_site(parts) {
            Ok(())
        } else {
            Err(Refused::ForeignOrigin)
        }
    }

    fn require_rate(&self, parts: &Parts) -> Result<(), Refused> {
        // Whose address is unknown shares one bucket.
        let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let address = parts
            .extensions
            .get::<PeerAddress>()
            .map_or(unknown, |peer| peer.0.ip());
        match &self.limiter {
            Some(limiter) => limiter.check(address).map_err(Refused::RateLimited),
            None => Ok(()),
        }
    }

    /// A new guest, or the one who asks, under a new name.
    fn guest(&self, parts: &Parts, name: &str, now: UnixSeconds) -> Result<(String, Verified), Refused> {
        let current = self.policy.verify_cookie(parts, now).ok();
        let current = current.map(|verified| verified.identity().user_id.to_string());
        let sub = match current.filter(|id| id.starts_with(GUEST_PREFIX)) {
            Some(id) => id,
            None => format!("{GUEST_PREFIX}{}", random_word()?),
        };
        let (exp, jti) = (now.saturating_add(self.ttl.as_secs()), random_word()?);
        let guest = Guest {
            sub: &sub,
            name,
            iat: now,
            exp,
            jti: &jti,
        };
        let token = self.policy.mint_guest(&guest).ok_or(Refused::Internal)?;
        let verified = self.policy.verify(&token, now).map_err(|_| Refused::Internal)?;
        Ok((token, verified))
    }

    fn cookie(&self, value: &str, max_age_s: u64) -> Result<HeaderValue, Refused> {
        let name = self.policy.cookie_name();
        let cookie = format!("{name}={value}; Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age={max_age_s}");
        let mut cookie = HeaderValue::try_from(cookie).map_err(|_| Refused::Internal)?;
        // Keeps it out of Debug output.
        cookie.set_sensitive(true);
        Ok(cookie)
    }
}

/// Fetch metadata: a browser that sends it says so when another site asks.
fn is_cross_site(parts: &Parts) -> bool {
    parts
        .headers
        .get_all("sec-fetch-site")
        .iter()
        .any(|site| site == "cross-site")
}

async fn wanted_name(headers: &HeaderMap, body: Body) -> Result<String, Refused> {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let media_type = content_type.split(';').next().unwrap_or("").trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(Refused::NotJsonType);
    }
    let body = tokio::time::timeout(BODY_TIME_MAX, to_bytes(body, BODY_BYTES_MAX));
    let body: Bytes = body
        .await
        .map_err(|_| Refused::TooSlow)?
        .map_err(|_| Refused::TooLarge)?;
    let body: Value = serde_json::from_slice(&body).map_err(|_| Refused::BadJson)?;
    let wanted = body
        .as_object()
        .ok_or(Refused::BadJson)?
        .get("name")
        .and_then(Value::as_str);
    name::checked(wanted.ok_or(Refused::BadName("name must be a string"))?).map_err(Refused::BadName)
}

/// 128 random bits.
fn random_word() -> Result<String, Refused> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Refused::Internal)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// `{"user":{"id":"guest:…","name":"Ann"},"expires":1767225600}`
fn shown(verified: &Verified) -> Result<Value, Refused> {
    let user: Value = serde_json::from_str(&verified.identity().user_json).map_err(|_| Refused::Internal)?;
    Ok(json!({"user": user, "expires": verified.expires_at()}))
}

/// Answers about who one is are for nobody else.
fn no_store() -> (::http::HeaderName, HeaderValue) {
    (CACHE_CONTROL, HeaderValue::from_static("no-store"))
}

#[cfg(test)]
mod tests;
