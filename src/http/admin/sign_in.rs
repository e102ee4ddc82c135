//! A token for a cookie, and the cookie's end. A plain form, which needs no script and no header; [`super::guard`] keeps
//! forms of other sites away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Form;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::audit::Caller;
use super::guard::{Ends, Refused};
use super::{Admin, files};

/// What the form sends.
#[derive(Deserialize)]
pub struct Wish {
    token: String,
}

/// `GET /sign-in`
pub async fn form() -> Response {
    files::sign_in(StatusCode::OK, "")
}

/// `POST /sign-in`
pub async fn sign_in(
    State(admin): State<Arc<Admin>>,
    Extension(ends): Extension<Ends>,
    wish: Result<Form<Wish>, axum::extract::rejection::FormRejection>,
) -> Response {
    let Ok(Form(wish)) = wish else {
        return files::sign_in(StatusCode::BAD_REQUEST, "That was not the form of this page.");
    };
    let now = Instant::now();
    let address = ends.peer.ip();
    let name = match admin.guard.try_token(wish.token.trim(), address, "sign_in", now) {
        Ok(name) => name,
        Err(Refused::Throttled(_)) => {
            let said = "Too many wrong tokens came from your address. Wait a moment.";
            return files::sign_in(StatusCode::TOO_MANY_REQUESTS, said);
        }
        Err(_) => return files::sign_in(StatusCode::UNAUTHORIZED, "That is no token of admin.token_file."),
    };
    let caller = Caller { name, address };
    let audit = caller.begin("sign_in", "");
    let sessions = &admin.guard.sessions;
    let cookie = sessions
        .begin(Arc::clone(&caller.name), now)
        .and_then(|value| admin.guard.set_cookie(&value, sessions.ttl()));
    let Some(cookie) = cookie else {
        audit.done("failed: no random bytes");
        return files::sign_in(StatusCode::INTERNAL_SERVER_ERROR, "The system gave no random bytes.");
    };
    audit.done("ok");
    (
        StatusCode::SEE_OTHER,
        [(header::LOCATION, "/".parse().ok()), (header::SET_COOKIE, Some(cookie))]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect::<HeaderMap>(),
    )
        .into_response()
}

/// `POST /sign-out`
pub async fn sign_out(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Response {
    if let Some(value) = admin.guard.cookie_of(&headers) {
        admin.guard.sessions.end(value);
    }
    caller.begin("sign_out", "").done("ok");
    let gone: HeaderMap = (admin.guard.set_cookie("", Duration::ZERO).into_iter())
        .map(|cookie| (header::SET_COOKIE, cookie))
        .collect();
    (StatusCode::NO_CONTENT, gone).into_response()
}
