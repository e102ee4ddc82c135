//! The files a browser gets: the demo room, and the JavaScript client that other pages may import.

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, HeaderValue,
    IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, StatusCode};

/// Nothing from another host, nothing inline, no frame around it. `'self'` covers `wss` to the same host and port.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

const FIXED_HEADERS: [(HeaderName, &str); 6] = [
    // Asks each time and mostly hears 304: after an upgrade nobody runs yesterday's client.
    (CACHE_CONTROL, "no-cache"),
    (CONTENT_SECURITY_POLICY, POLICY),
    (REFERRER_POLICY, "no-referrer"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
];

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const TYPESCRIPT: &str = "text/typescript; charset=utf-8";
const SVG: &str = "image/svg+xml";

const NO_PAGE: &str = "<!doctype html><html lang=\"en\"><title>Conclave</title>\
                       <p>Conclave is running. It shows no page here; its WebSocket is at <code>/ws</code>.</p>";

/// Who may load a file.
#[derive(Clone, Copy)]
enum Readers {
    /// Pages of this host.
    SameOrigin,
    /// Any page: the client library, which holds nothing of anybody.
    Anyone,
}

struct File {
    path: &'static str,
    content_type: &'static str,
    readers: Readers,
    body: &'static str,
}

const fn file(path: &'static str, content_type: &'static str, readers: Readers, body: &'static str) -> File {
    File {
        path,
        content_type,
        readers,
        body,
    }
}

const PAGE: File = file("/", HTML, Readers::SameOrigin, include_str!("../web/index.html"));

const FILES: [File; 8] = [
    file("/style.css", CSS, Readers::SameOrigin, include_str!("../web/style.css")),
    file(
        "/room.js",
        JAVASCRIPT,
        Readers::SameOrigin,
        include_str!("../web/room.js"),
    ),
    file(
        "/room-view.js",
        JAVASCRIPT,
        Readers::SameOrigin,
        include_str!("../web/room-view.js"),
    ),
    file(
        "/room-session.js",
        JAVASCRIPT,
        Readers::SameOrigin,
        include_str!("../web/room-session.js"),
    ),
    file(
        "/room-words.js",
        JAVASCRIPT,
        Readers::SameOrigin,
        include_str!("../web/room-words.js"),
    ),
    file(
        "/favicon.svg",
        SVG,
        Readers::SameOrigin,
        include_str!("../web/favicon.svg"),
    ),
    file(
        "/conclave.js",
        JAVASCRIPT,
        Readers::Anyone,
        include_str!("../web/conclave.js"),
    ),
    file(
        "/conclave.d.ts",
        TYPESCRIPT,
        Readers::Anyone,
        include_str!("../web/conclave.d.ts"),
    ),
];

/// Every page and file, for GET and HEAD. Without `page` there is no demo room at `/`, which then is 404.
pub fn routes(page: bool) -> Router {
    let start = if page { serve(PAGE) } else { get(no_page) };
    FILES
        .into_iter()
        .fold(Router::new().route(PAGE.path, start), |router, file| {
            router.route(file.path, serve(file))
        })
}

fn serve(file: File) -> axum::routing::MethodRouter {
    let tag = entity_tag(file.body);
    let mut headers = fixed_headers(file.readers);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.content_type));
    headers.insert(ETAG, tag.clone());
    get(move |request: Request| {
        let (known, headers) = (is_known(request.headers(), &tag), headers.clone());
        async move { respond(known, headers, file.body) }
    })
}

fn respond(known: bool, headers: HeaderMap, body: &'static str) -> Response {
    if known {
        (StatusCode::NOT_MODIFIED, headers).into_response()
    } else {
        (headers, body).into_response()
    }
}

async fn no_page() -> Response {
    let mut headers = fixed_headers(Readers::SameOrigin);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(HTML));
    (StatusCode::NOT_FOUND, headers, NO_PAGE).into_response()
}

fn fixed_headers(readers: Readers) -> HeaderMap {
    let mut headers: HeaderMap = FIXED_HEADERS
        .into_iter()
        .map(|(name, value)| (name, HeaderValue::from_static(value)))
        .collect();
    let policy = match readers {
        Readers::SameOrigin => "same-origin",
        Readers::Anyone => {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            "cross-origin"
        }
    };
    headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static(policy));
    headers
}

/// Weak, because a compressing layer may change the bytes but not what they mean.
fn entity_tag(body: &str) -> HeaderValue {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body.as_bytes());
    let word: String = hash
        .as_ref()
        .iter()
        .take(12)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    HeaderValue::try_from(format!("W/\"{word}\"")).expect("hexadecimal digits are a header value")
}

/// If-None-Match by the weak comparison of RFC 9110 section 13.1.2.
fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let Ok(ours) = tag.to_str() else { return false };
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|theirs| theirs.trim() == "*" || opaque(theirs) == opaque(ours))
}

#[cfg(test)]
mod tests;
