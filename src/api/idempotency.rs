//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a `POST` that is sent again under the same key is done
//! once, and answered as it was the first time.
//!
//! A key belongs to its caller, with what that may do now, and to the operation: nobody is shown an answer from the time
//! when it might see more. Whoever comes first claims it, for a little longer than an answer may take;
//! the answer is then kept for `api.idempotency`. Both are in the backplane, so that the second try may go to another
//! node; a single node keeps them itself. What is not known to have been done (5xx), or was refused before it began, is
//! not kept: the next try does it. What is said has a `key` of its own then ([`Retries`]), so that even that says it once.

mod here;

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use axum::body::{Body, to_bytes};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};

use self::here::{Found, Here};
use super::caller::Caller;
use super::problem::{self, Problem};
use crate::backplane::contract::{Backplane, Failed};
use crate::config;
use crate::telemetry::metrics::{ApiOperation, Label};

/// The request's header.
pub const HEADER: &str = "idempotency-key";
/// In the answer: it is that of the first time.
pub const REPLAYED: &str = "idempotency-replayed";

/// The word of the problem that no more answers can be kept.
pub const FULL: &str = "idempotency_full";

/// Longest key.
pub const KEY_BYTES_MAX: usize = 255;
/// How long one who claimed a key may take; longer than any answer does.
const CLAIM: Duration = Duration::from_secs(20);
/// When one who found a key claimed may come again.
const RUNNING_RETRY: Duration = Duration::from_secs(1);
/// Longest answer that is kept.
const ANSWER_BYTES_MAX: usize = 512 * 1024;

/// Bytes of a hash in the `key` of something said: no two are alike, and it stays short.
const KEY_PRINT_BYTES: usize = 16;

/// SHA-256 of what a key was used for, or of the key and whose it is.
type Print = [u8; 32];

/// What keys were used for.
pub struct Replays {
    kept: Duration,
    here: Here,
}

/// What became of a key.
pub enum Begun {
    /// It is the caller's to use, until [`Replays::end`].
    Claimed(Claim),
    /// It was used; this was the answer.
    Replayed(Response),
}

/// A key that is being used.
pub struct Claim {
    name: Print,
    used_for: Print,
    retries: Retries,
}

/// What all tries of one request have in common, also those of a caller who may do more or less by now.
#[derive(Debug, Clone, Copy)]
pub struct Retries(Print);

impl Retries {
    /// The `key` of what is said as the `index`th operation, where the request gives it none.
    pub fn key(&self, index: usize) -> String {
        let print = print(&[&self.0, &(index as u64).to_be_bytes()]);
        format!("retry-{}", hex(&print[..KEY_PRINT_BYTES]))
    }
}

/// Mark of an answer of which a part may do better next time: it is not kept.
#[derive(Debug, Clone, Copy)]
pub struct Unfinished;

impl Replays {
    #[must_use]
    pub fn new(config: &config::Api) -> Self {
        Self {
            kept: config.idempotency,
            here: Here::new(config.idempotency_bytes),
        }
    }

    /// Forgets what was kept for long enough. To be called every few seconds.
    pub fn sweep(&self) {
        self.here.sweep(Instant::now());
    }

    /// # Errors
    /// The key was used for something else (422), is being used (409), or nobody can say (503).
    pub async fn begin(&self, backplane: Option<&Arc<dyn Backplane>>, claim: Claim) -> Result<Begun, Problem> {
        let found = match backplane {
            None => self.here.claim(&claim.name, &claim.used_for, Instant::now(), CLAIM)?,
            Some(backplane) => claim_shared(&**backplane, &claim).await.map_err(unavailable)?,
        };
        match found {
            Found::Nothing => Ok(Begun::Claimed(claim)),
            Found::Running(used_for) | Found::Answer(used_for, _) if used_for != claim.used_for => Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "this Idempotency-Key came with another request before",
                "make a new key for each request, and keep it for its retries only",
            )),
            Found::Running(_) => Err(Problem::new(
                StatusCode::CONFLICT,
                "idempotency_key_running",
                "a request with this Idempotency-Key is being served",
                "come again after Retry-After for its answer",
            )
            .retry_after(RUNNING_RETRY)),
            Found::Answer(_, answer) => decode(&answer)
                .map(Begun::Replayed)
                .ok_or_else(|| unavailable(Failed::Refused(crate::backplane::contract::Refusal::Broken))),
        }
    }

    /// Keeps the answer, or sets the key free if there is none to keep.
    pub async fn end(&self, backplane: Option<&Arc<dyn Backplane>>, claim: Claim, answer: Response) -> Response {
        let (parts, body) = answer.into_parts();
        let Ok(body) = to_bytes(body, usize::MAX).await else {
            return Response::from_parts(parts, Body::empty());
        };
        let is_finished = parts.extensions.get::<Unfinished>().is_none();
        let is_kept = is_to_be_kept(parts.status) && is_finished && body.len() <= ANSWER_BYTES_MAX;
        let record = is_kept.then(|| encode(parts.status, &body));
        match (backplane, record) {
            (None, Some(record)) => {
                if !self.here.keep(&claim.name, record, Instant::now(), self.kept) {
                    tracing::warn!("api.idempotency_bytes are full: a retry of this request will be done again");
                }
            }
            (None, None) => self.here.free(&claim.name),
            (Some(backplane), Some(record)) => {
                let record = [&claim.used_for[..], &record].concat();
                let kept = backplane.put(&name("r", &claim.name), &record, self.kept).await;
                if let Err(failed) = kept {
                    tracing::warn!(%failed, "the answer to an Idempotency-Key could not be kept: a retry will be done again");
                }
            }
            // It runs out by itself if this does not reach the engine.
            (Some(backplane), None) => drop(backplane.take(&name("c", &claim.name)).await),
        }
        Response::from_parts(parts, Body::from(body))
    }
}

impl Claim {
    /// What the request's header asks for; none if there is no header, or nothing that a second time could spoil.
    ///
    /// # Errors
    /// 400: not a key.
    pub fn of(parts: &Parts, body: &Bytes, caller: &Caller, operation: ApiOperation) -> Result<Option<Self>, Problem> {
        if parts.method != Method::POST {
            return Ok(None);
        }
        let mut values = parts.headers.get_all(HEADER).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        let bytes = value.as_bytes();
        // The draft has a quoted string; most who send the header leave the quotes out.
        let bare = bytes.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
        let key = bare.unwrap_or(bytes);
        let is_key = (1..=KEY_BYTES_MAX).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
        if !is_key || values.next().is_some() {
            return Err(Problem::bad_request(
                "Idempotency-Key is not one word of 1 to 255 visible ASCII characters, once",
                "a random UUID does",
            ));
        }
        let path = parts.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
        let (via, name, word) = (caller.via.as_str(), &caller.name, operation.word());
        let whose = print(&[via.as_bytes(), name.as_bytes(), word.as_bytes(), key]);
        let used_for = print(&[path.as_bytes(), body]);
        Ok(Some(Self {
            name: print(&[&whose, caller.rights().as_bytes()]),
            used_for,
            retries: Retries(print(&[&whose, &used_for])),
        }))
    }

    /// What its tries have in common.
    pub const fn retries(&self) -> Retries {
        self.retries
    }
}

async fn claim_shared(backplane: &dyn Backplane, claim: &Claim) -> Result<Found, Failed> {
    let (claims, answers) = (name("c", &claim.name), name("r", &claim.name));
    let is_mine = backplane.put(&claims, &claim.used_for, CLAIM).await?;
    // Also of one's own: the claim before may have run out after its answer was kept.
    if let Some(record) = backplane.get(&answers).await? {
        let used_for = print_of(&record).ok_or(Failed::Refused(crate::backplane::contract::Refusal::Broken))?;
        return Ok(Found::Answer(used_for, record.slice(used_for.len()..)));
    }
    if is_mine {
        return Ok(Found::Nothing);
    }
    let running = backplane.get(&claims).await?;
    Ok(Found::Running(
        running.and_then(|record| print_of(&record)).unwrap_or(claim.used_for),
    ))
}

fn name(kind: &str, print: &Print) -> String {
    format!("api-{kind}-{}", hex(print))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn print_of(record: &[u8]) -> Option<Print> {
    record.get(..32)?.try_into().ok()
}

/// Each part with its length, so that no two lists of parts are alike.
fn print(parts: &[&[u8]]) -> Print {
    let mut hash = Context::new(&SHA256);
    for part in parts {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut print = [0; 32];
    print.copy_from_slice(hash.finish().as_ref());
    print
}

/// What was done, and what was found to make no sense; not what may do better next time.
fn is_to_be_kept(status: StatusCode) -> bool {
    status.is_success() || matches!(status.as_u16(), 400 | 404 | 422)
}

/// The status in two bytes, then the body.
fn encode(status: StatusCode, body: &[u8]) -> Bytes {
    let mut record = BytesMut::with_capacity(2 + body.len());
    record.put_u16(status.as_u16());
    record.put_slice(body);
    record.freeze()
}

fn decode(record: &Bytes) -> Option<Response> {
    let status: [u8; 2] = record.get(..2)?.try_into().ok()?;
    let status = StatusCode::from_u16(u16::from_be_bytes(status)).ok()?;
    let mut response = Response::new(Body::from(record.slice(2..)));
    *response.status_mut() = status;
    let kind = if status.is_success() {
        "application/json"
    } else {
        problem::MEDIA_TYPE
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    Some(response)
}

fn unavailable(_: Failed) -> Problem {
    Problem::unavailable(
        "unavailable",
        "the backplane cannot say whether this Idempotency-Key was used: nothing was done",
        "come again after Retry-After, with the same key",
        RUNNING_RETRY,
    )
}

#[cfg(test)]
mod tests;
