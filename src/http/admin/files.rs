//! The files of the operator's page. They say nothing of this node; what it knows comes through the API.

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// Nothing from another host, nothing inline, no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// On every answer but those of `/metrics` and health.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, POLICY),
    // Not `no-referrer`: with it the browser says `Origin: null` of our own form.
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
];

const HTML: &str = "text/html; charset=utf-8";

/// Path, type and content of what only somebody who is signed in gets.
const FILES: [(&str, &str, &str); 6] = [
    ("/", HTML, include_str!("../../web/admin/index.html")),
    ("/admin.js", JAVASCRIPT, include_str!("../../web/admin/admin.js")),
    (
        "/admin-view.js",
        JAVASCRIPT,
        include_str!("../../web/admin/admin-view.js"),
    ),
    (
        "/admin-rates.js",
        JAVASCRIPT,
        include_str!("../../web/admin/admin-rates.js"),
    ),
    (
        "/admin-tap.js",
        JAVASCRIPT,
        include_str!("../../web/admin/admin-tap.js"),
    ),
    (
        "/admin-ask.js",
        JAVASCRIPT,
        include_str!("../../web/admin/admin-ask.js"),
    ),
];
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// What the sign-in form needs.
const PUBLIC: [(&str, &str, &str); 2] = [
    (
        "/admin.css",
        "text/css; charset=utf-8",
        include_str!("../../web/admin/admin.css"),
    ),
    ("/favicon.svg", "image/svg+xml", include_str!("../../web/favicon.svg")),
];

const SIGN_IN: &str = include_str!("../../web/admin/sign-in.html");

/// Where a word on what went wrong stands in the form.
const SAID: &str = "<!-- said -->";

/// Files for whoever is signed in.
pub fn guarded<S: Clone + Send + Sync + 'static>() -> Router<S> {
    routes(&FILES)
}

/// Files for whoever comes.
pub fn public<S: Clone + Send + Sync + 'static>() -> Router<S> {
    routes(&PUBLIC)
}

fn routes<S: Clone + Send + Sync + 'static>(files: &'static [(&str, &str, &str)]) -> Router<S> {
    files.iter().fold(Router::new(), |router, (path, kind, content)| {
        router.route(path, get(async move || ([(header::CONTENT_TYPE, *kind)], *content)))
    })
}

/// The form; `said` is a sentence of ours.
pub fn sign_in(status: StatusCode, said: &'static str) -> Response {
    let page = SIGN_IN.replace(SAID, said);
    (status, [(header::CONTENT_TYPE, HTML)], page).into_response()
}

/// Puts the headers of this listener on an answer.
pub fn seal(headers: &mut HeaderMap) {
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
