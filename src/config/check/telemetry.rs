//! Logs and traces: what would otherwise fail silently, far from the person who set it.

use http::{HeaderName, HeaderValue, Uri};
use secrecy::ExposeSecret;
use tracing_subscriber::EnvFilter;

use crate::config::problem::Problem;
use crate::config::{Log, Traces};

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Checks the filter of logs, and where traces go.
pub fn check(log: &Log, traces: &Traces) -> Vec<Problem> {
    let mut problems = Vec::from_iter(level(&log.level));
    problems.extend(traces.endpoint.as_deref().and_then(endpoint));
    problems.extend(headers(traces));
    problems
}

fn level(filter: &str) -> Option<Problem> {
    let remedy = format!(
        "a level is one of {}; a filter looks like conclave=debug,info",
        LEVELS.join(", ")
    );
    let bare = filter.split(',').map(str::trim).find(|part| is_unknown_level(part));
    if let Some(word) = bare {
        let remedy = match crate::config::suggest::nearest(word, LEVELS) {
            Some(level) => format!("did you mean \"{level}\"?"),
            None => remedy,
        };
        return Some(Problem::error("log.level", format!("unknown level \"{word}\""), remedy));
    }
    let error = EnvFilter::try_new(filter).err()?;
    Some(Problem::error("log.level", format!("not a filter: {error}"), remedy))
}

/// The filter takes a lone word for the name of a module and would log nothing but that.
fn is_unknown_level(part: &str) -> bool {
    let is_word = !part.contains(['=', '[', ']', '{', '}', ':', '"']);
    is_word && !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(part))
}

/// The endpoint is not quoted: it may carry a password.
fn endpoint(endpoint: &str) -> Option<Problem> {
    let problem = |what: &str| {
        Some(Problem::error(
            "traces.endpoint",
            what,
            "write it as http://127.0.0.1:4318",
        ))
    };
    let Ok(uri) = endpoint.parse::<Uri>() else {
        return problem("not a URL");
    };
    match (uri.scheme_str(), uri.authority()) {
        (Some("http" | "https"), Some(authority)) if authority.as_str().contains('@') => {
            let remedy = "send it in traces.headers_file, as \"authorization=Basic ...\"";
            Some(Problem::error(
                "traces.endpoint",
                "a password in a URL ends up in logs",
                remedy,
            ))
        }
        (Some("http" | "https"), Some(_)) if uri.query().is_some() => problem("a collector's URL has no query"),
        (Some("http" | "https"), Some(_)) => None,
        _ => problem("not an http or https URL"),
    }
}

/// Values are not quoted; of a name only its number is told, since a line without "=" may be a value.
fn headers(traces: &Traces) -> Option<Problem> {
    let is_wrong = |(name, value): &(String, secrecy::SecretString)| {
        HeaderName::from_bytes(name.as_bytes()).is_err() || HeaderValue::from_str(value.expose_secret()).is_err()
    };
    let index = traces.headers.iter().position(is_wrong)?;
    let what = format!("header {} is none that HTTP allows", index + 1);
    Some(Problem::error(
        "traces.headers",
        what,
        "write each as \"name=value\", in ASCII",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters() {
        for (filter, problem) in [
            ("info", None),
            ("INFO", None),
            ("conclave=debug,info", None),
            ("conclave::net=trace,warn", None),
            ("inof", Some("did you mean \"info\"?")),
            ("loud", Some("a level is one of")),
            ("", Some("a level is one of")),
            ("conclave=loud", Some("a level is one of")),
        ] {
            let remedy = level(filter).map(|problem| problem.remedy);
            match problem {
                None => assert_eq!(remedy, None, "{filter}"),
                Some(part) => assert!(
                    remedy.as_ref().is_some_and(|remedy| remedy.contains(part)),
                    "{filter}: {remedy:?}"
                ),
            }
        }
    }

    #[test]
    fn endpoints_are_plain_urls_and_never_quoted() {
        for (url, is_good) in [
            ("http://127.0.0.1:4318", true),
            ("https://collector.example/v1", true),
            ("127.0.0.1:4318", false),
            ("grpc://127.0.0.1:4317", false),
            ("http://user:hunter2@collector.example", false),
            ("https://collector.example/?token=hunter2", false),
            ("http://", false),
            ("a b", false),
        ] {
            let problem = endpoint(url);
            assert_eq!(problem.is_none(), is_good, "{url}");
            assert!(
                problem.is_none_or(|problem| !problem.to_string().contains("hunter2")),
                "{url}"
            );
        }
    }
}
