//! The only way a request target may be shown: its path, never its query.

use std::fmt;

/// Longest path shown; the rest of a longer one says nothing to an operator.
const SHOWN_BYTES_MAX: usize = 128;

/// Shows the path of a request target. The query may hold a token, so it is not even measured;
/// control characters are escaped, so that a path cannot forge a second log line.
///
/// ```
/// # use conclave::telemetry::redact::Target;
/// assert_eq!(Target("/ws?token=secret").to_string(), "/ws");
/// ```
#[derive(Clone, Copy)]
pub struct Target<'a>(pub &'a str);

impl fmt::Display for Target<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self.0;
        // An absolute form (`https://user:password@host/path`) may hold credentials before its path.
        let path = match target.find("://") {
            Some(_) => "(absolute)",
            None => target.split(['?', '#']).next().unwrap_or_default(),
        };
        let mut end = path.len().min(SHOWN_BYTES_MAX);
        while !path.is_char_boundary(end) {
            end -= 1;
        }
        write!(out, "{}", path[..end].escape_debug())?;
        if end < path.len() { out.write_str("…") } else { Ok(()) }
    }
}

impl fmt::Debug for Target<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn only_the_path_is_shown() {
        let check = |target: &str, shown: &str| {
            assert_eq!(Target(target).to_string(), shown);
            assert_eq!(format!("{:?}", Target(target)), shown);
        };
        check("/ws", "/ws");
        check("/ws?token=canary", "/ws");
        check("/ws#token=canary", "/ws");
        check("?token=canary", "");
        check("https://a:canary@host/ws?token=canary", "(absolute)");
        check("/a\r\nforged", "/a\\r\\nforged");
        check(&format!("/{}", "é".repeat(200)), &format!("/{}…", "é".repeat(63)));
    }
}
