//! Who may come in: the key or token of a request, and what bounds those who have one.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use http::request::Parts;
use http::{StatusCode, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::audit;
use super::caller::{Budget, Caller, Reach, Scopes, Via};
use super::idempotency::Replays;
use super::keys::{self, Keys};
use super::problem::Problem;
use crate::auth::{self, AddressLimiter, NotVerified};
use crate::config;
use crate::net::PeerAddress;
use crate::runtime::Node;
use crate::telemetry::metrics::{ApiOperation, Label, Limit, Metrics, RateLimit};

/// How long the body may take.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// Wrong keys per second and address that are told so, after a burst; then it is 429.
const WRONG_PER_SECOND: NonZeroU32 = NonZeroU32::new(5).expect("not nought");
const WRONG_BURST: NonZeroU32 = NonZeroU32::new(20).expect("not nought");
/// Users of tokens whose rate is remembered; beyond them newcomers share one.
const USERS_MAX: usize = 10_000;
/// When a request that found no room among those in flight may come again.
const BUSY_RETRY: Duration = Duration::from_secs(1);

/// Who may come in, and how many.
pub struct Door {
    keys: Keys,
    /// Whether tokens may, and where their scopes are.
    tokens: Option<Tokens>,
    wrong: AddressLimiter,
    in_flight: Arc<Semaphore>,
    body_bytes: usize,
    pub(super) replays: Replays,
}

struct Tokens {
    scope_claim: String,
    scope_prefix: String,
    users: Arc<DefaultKeyedRateLimiter<Arc<str>>>,
    burst: NonZeroU32,
}

impl Door {
    pub(super) fn new(config: &config::Api) -> Self {
        let tokens = config.jwt.then(|| {
            let (quota, burst) = keys::quota(config.requests_per_second, config.requests_burst);
            Tokens {
                scope_claim: config.scope_claim.clone(),
                scope_prefix: config.scope_prefix.clone(),
                users: Arc::new(RateLimiter::keyed(quota)),
                burst,
            }
        });
        Self {
            keys: Keys::new(config),
            tokens,
            wrong: AddressLimiter::new(Quota::per_second(WRONG_PER_SECOND).allow_burst(WRONG_BURST)),
            in_flight: Arc::new(Semaphore::new(config.in_flight)),
            body_bytes: config.body_bytes,
            replays: Replays::new(config),
        }
    }

    /// Forgets addresses and users that were quiet. To be called every few seconds.
    pub fn sweep(&self) {
        self.wrong.sweep();
        self.replays.sweep();
        if let Some(tokens) = &self.tokens {
            tokens.users.retain_recent();
            tokens.users.shrink_to_fit();
        }
    }

    /// The bearer's name and rights.
    pub(super) async fn admit(&self, node: &Node, parts: &Parts, operation: ApiOperation) -> Result<Caller, Problem> {
        let address = address(parts);
        let presented = bearer(parts)?;
        let found = if presented.starts_with(keys::PREFIX) {
            self.by_key(presented, address)
        } else {
            self.by_token(node, presented, address).await
        };
        found.map_err(|refused| self.count_wrong(node, address, operation, refused))
    }

    fn by_key(&self, presented: &str, address: IpAddr) -> Result<Caller, Problem> {
        let key = self.keys.find(presented).ok_or_else(|| {
            invalid(
                "key_wrong",
                "that is no key of [[api.keys]]",
                "was it replaced, or is it that of another server? \"conclave api-key new\" makes a key",
            )
        })?;
        if key.expires_at.is_some_and(|expires_at| auth::now() >= expires_at) {
            return Err(invalid(
                "key_expired",
                "the key has expired",
                "make a new one with \"conclave api-key new\"",
            ));
        }
        Ok(Caller::new(
            Arc::clone(&key.name),
            Via::Key,
            address,
            key.scopes,
            key.reach.clone(),
            key.budget.clone(),
        ))
    }

    async fn by_token(&self, node: &Node, presented: &str, address: IpAddr) -> Result<Caller, Problem> {
        let Some(tokens) = &self.tokens else {
            return Err(invalid(
                "key_wrong",
                "that is no API key: one begins with ck_",
                "send a key, or set api.jwt = true for tokens with scopes",
            ));
        };
        let verified = node.policy.verify_patiently(presented, address).await;
        let verified = verified.map_err(|refused| match refused {
            NotVerified::Denied(denied) => invalid(
                denied.word().as_str(),
                "the token is not good, for the reason in `code`",
                "\"conclave token --check\" says more",
            ),
            NotVerified::Unavailable => Problem::unavailable(
                "unavailable",
                "whoever has the key of this token does not answer",
                "come again after Retry-After",
                BUSY_RETRY,
            ),
        })?;
        // Who is known to be revoked was told so; nobody else can be vouched for, as on a socket.
        if node.warden.turns_away() {
            return Err(Problem::unavailable(
                "unavailable",
                "this node does not know now which tokens are revoked",
                "come again after Retry-After, or use a key; the runbook of BackplaneDown says more",
                BUSY_RETRY,
            ));
        }
        let identity = Arc::clone(verified.identity());
        let mut scopes = Scopes::default();
        for word in auth::scope::words(presented, &tokens.scope_claim) {
            if let Some(word) = word.strip_prefix(tokens.scope_prefix.as_str()) {
                scopes.add(word);
            }
        }
        // Probes are in rooms of their own, and nobody else is to notice them.
        if scopes.is_empty() || identity.is_probe {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "scope_missing",
                "the token is good, but has no scope for this API",
                "have it made with one, in the claim that api.scope_claim names, such as conclave:publish",
            ));
        }
        let known = tokens.users.len() < USERS_MAX;
        let user: Arc<str> = if known {
            Arc::clone(&identity.user_id)
        } else {
            Arc::from("")
        };
        Ok(Caller::new(
            Arc::clone(&identity.user_id),
            Via::Jwt,
            address,
            scopes,
            Reach::Token(identity),
            Budget::User(Arc::clone(&tokens.users), user, tokens.burst),
        ))
    }

    /// Only what is wrong is counted: whoever has a good key is served, wrong ones from the same address or not.
    fn count_wrong(&self, node: &Node, address: IpAddr, operation: ApiOperation, refused: Problem) -> Problem {
        if refused.status != StatusCode::UNAUTHORIZED {
            return refused;
        }
        match self.wrong.check(address) {
            Ok(()) => {
                audit::bad_key(address, operation.word(), refused.code);
                refused
            }
            Err(wait) => {
                node.metrics.rate_limited(RateLimit::ApiWrongKeys);
                Problem::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "throttled",
                    "too many wrong keys came from this address",
                    "come again after Retry-After, with a good one",
                )
                .retry_after(wait)
            }
        }
    }

    /// A place among those that are served.
    pub(super) fn room(&self, metrics: &Metrics) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.in_flight).try_acquire_owned().map_err(|_| {
            metrics.limit_hit(Limit::ApiInFlight);
            Problem::unavailable(
                "busy",
                "api.in_flight requests are being served already",
                "come again after Retry-After",
                BUSY_RETRY,
            )
        })
    }

    /// The whole body, so that no handler waits for one.
    pub(super) async fn body(&self, body: Body, metrics: &Metrics) -> Result<Bytes, Problem> {
        let whole = tokio::time::timeout(BODY_TIME_MAX, to_bytes(body, self.body_bytes)).await;
        match whole {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(_)) => {
                metrics.limit_hit(Limit::ApiBodyBytes);
                Err(Problem::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "too_large",
                    format!("the body is longer than api.body_bytes, {} bytes", self.body_bytes),
                    "send less at once",
                ))
            }
            Err(_) => Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "too_slow",
                "the body took too long",
                "send it at once",
            )),
        }
    }
}

/// The one bearer of the one Authorization header. Never of the query, which logs keep, nor of a cookie, which browsers
/// send along for other pages.
fn bearer(parts: &Parts) -> Result<&str, Problem> {
    let mut values = parts.headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or_else(Problem::key_missing)?;
    if values.next().is_some() {
        return Err(Problem::bad_request("two Authorization headers", "send one"));
    }
    let text = value.to_str().map_err(|_| Problem::key_missing())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(Problem::key_missing)?;
    let token = token.trim();
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() {
        Ok(token)
    } else {
        Err(Problem::key_missing())
    }
}

fn invalid(code: &'static str, detail: &'static str, fix: &'static str) -> Problem {
    Problem::unauthorized(code, detail, fix, ", error=\"invalid_token\"")
}

fn address(parts: &Parts) -> IpAddr {
    let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let peer = parts.extensions.get::<PeerAddress>();
    peer.map_or(unknown, |peer| peer.0.ip())
}
