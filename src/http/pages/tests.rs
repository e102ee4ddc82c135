use super::*;
use axum::body::{Body, to_bytes};
use tower::ServiceExt as _;

async fn ask(page: bool, method: &str, path: &str, known: Option<&str>) -> (StatusCode, HeaderMap, String) {
    let mut request = http::Request::builder().method(method).uri(path);
    if let Some(tag) = known {
        request = request.header(IF_NONE_MATCH, tag);
    }
    let request = request.body(Body::empty()).unwrap();
    let (parts, body) = routes(page).oneshot(request).await.unwrap().into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn every_file_has_its_type_and_the_fixed_headers() {
    for file in FILES.iter().chain([&PAGE]) {
        let (status, headers, body) = ask(true, "GET", file.path, None).await;
        assert_eq!(status, StatusCode::OK, "{}", file.path);
        assert_eq!(body, file.body, "{}", file.path);
        assert_eq!(headers[CONTENT_TYPE], file.content_type, "{}", file.path);
        for (name, value) in FIXED_HEADERS {
            assert_eq!(headers[&name], value, "{}", file.path);
        }
    }
}

#[tokio::test]
async fn a_known_tag_gets_304_without_a_body() {
    let (_, headers, _) = ask(true, "GET", "/", None).await;
    let tag = headers[ETAG].to_str().unwrap();
    let strong = tag.trim_start_matches("W/");
    for known in [tag, strong, "*", &format!("\"other\", {tag}")] {
        let (status, again, body) = ask(true, "GET", "/", Some(known)).await;
        assert_eq!(status, StatusCode::NOT_MODIFIED, "{known}");
        assert_eq!(again[ETAG], headers[ETAG]);
        assert_eq!(again[CONTENT_SECURITY_POLICY], POLICY);
        assert_eq!(body, "");
    }
    let (status, ..) = ask(true, "GET", "/", Some("\"other\"")).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn tags_differ_between_files() {
    let tags: std::collections::HashSet<_> = FILES.iter().map(|file| entity_tag(file.body)).collect();
    assert_eq!(tags.len(), FILES.len());
}

#[tokio::test]
async fn head_has_the_headers_and_no_body() {
    let (status, headers, body) = ask(true, "HEAD", "/conclave.js", None).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers[CONTENT_TYPE], JAVASCRIPT);
    assert_eq!(body, "");
}

#[tokio::test]
async fn only_the_client_may_be_loaded_by_other_sites() {
    for file in FILES.iter().chain([&PAGE]) {
        let (_, headers, _) = ask(true, "GET", file.path, None).await;
        let client = file.path.starts_with("/conclave.");
        let policy = if client { "cross-origin" } else { "same-origin" };
        assert_eq!(headers[CROSS_ORIGIN_RESOURCE_POLICY], policy, "{}", file.path);
        assert_eq!(
            headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN),
            client,
            "{}",
            file.path
        );
    }
}

#[tokio::test]
async fn without_the_page_the_client_is_still_there() {
    let (status, headers, _) = ask(false, "GET", "/", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(headers[CONTENT_TYPE], HTML);
    let (status, ..) = ask(false, "GET", "/conclave.js", None).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn other_methods_are_refused() {
    let (status, ..) = ask(true, "POST", "/", None).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
}

/// The policy forbids them, so they would be dead text that a browser complains about.
#[test]
fn the_page_has_nothing_inline_and_no_other_host() {
    let page = PAGE.body;
    for forbidden in [
        "<style",
        " style=",
        " onclick=",
        " onsubmit=",
        "javascript:",
        "http://",
        "https://",
    ] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    for script in page.split("<script").skip(1) {
        assert!(script.split('>').next().unwrap().contains(" src=\"/"));
    }
}

#[test]
fn what_the_page_loads_is_served() {
    let loaded = PAGE
        .body
        .split(['"'])
        .filter(|part| part.starts_with('/') && part.contains('.'));
    let imported = FILES
        .iter()
        .filter(|file| file.path.starts_with("/room"))
        .flat_map(|file| file.body.split('"').filter(|part| part.starts_with("./")))
        .map(|part| &part[1..]);
    for path in loaded.chain(imported) {
        assert!(FILES.iter().any(|file| file.path == path), "{path}");
    }
}

#[test]
#[expect(clippy::case_sensitive_file_extension_comparisons, reason = "the list is ours")]
fn text_reaches_the_page_as_text_only() {
    for file in FILES.iter().filter(|file| file.path.ends_with(".js")) {
        for forbidden in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!file.body.contains(forbidden), "{} {forbidden}", file.path);
        }
    }
}
