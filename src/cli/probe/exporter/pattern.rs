//! Which targets may be probed: an exporter that probed whatever anybody names would be everybody's port scanner.

/// A URL in which `*` stands for one or more letters, digits, `-` or `_`: part of a label, of a port, of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Reads `wss://*.nodes.example.com:8443/ws`; port and path may be left out.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let rest = text.strip_prefix("wss://").ok_or("expected wss://HOST[:PORT][/PATH]")?;
        if rest.contains(['@', '?', '#']) || rest.contains(char::is_whitespace) {
            return Err("only a host, a port and a path, in which * stands for part of a name");
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, "ws"));
        let authority = authority.strip_suffix(":443").unwrap_or(authority);
        if authority.is_empty() || authority.starts_with(':') {
            return Err("the host is missing");
        }
        let path = if path.is_empty() { "ws" } else { path };
        Ok(Self(format!("wss://{}/{path}", authority.to_ascii_lowercase())))
    }

    /// Whether the target, written as [`super::Place`] writes it, is one of these.
    pub fn fits(&self, target: &str) -> bool {
        fits(self.0.as_bytes(), target.as_bytes())
    }

    /// What it says, for the landing page.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Each star takes as little as possible, and more when what follows does not fit. Patterns are the operator's own and
/// targets short, so that this is never slow.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*', rest @ ..] => {
            let most = text.iter().take_while(|byte| is_part(**byte)).count();
            (1..=most).any(|taken| fits(rest, &text[taken..]))
        }
        [byte, rest @ ..] => text
            .split_first()
            .is_some_and(|(first, text)| first == byte && fits(rest, text)),
    }
}

const fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::super::super::place::Place;
    use super::*;

    #[test]
    fn a_star_is_part_of_a_name_and_nothing_more() {
        let check = |pattern: &str, url: &str| {
            let place = Place::parse(url).unwrap().to_string();
            Pattern::parse(pattern).unwrap().fits(&place)
        };
        for (pattern, url) in [
            ("wss://chat.example.com/ws", "wss://CHAT.example.com:443"),
            ("wss://chat.example.com:443", "wss://chat.example.com/ws"),
            ("wss://*.example.com/ws", "wss://chat.example.com/ws"),
            ("wss://node-*.example.com:8443/ws", "wss://node-17.example.com:8443/ws"),
            ("wss://10.1.*.*:8443/ws", "wss://10.1.2.3:8443/ws"),
            ("wss://localhost:*/ws", "wss://localhost:8443/ws"),
            ("wss://[::1]:8443/ws", "wss://[::1]:8443/ws"),
        ] {
            assert!(check(pattern, url), "{pattern} {url}");
        }
        for (pattern, url) in [
            ("wss://*.example.com/ws", "wss://example.com/ws"),
            ("wss://*.example.com/ws", "wss://a.b.example.com/ws"),
            ("wss://*.example.com/ws", "wss://evil.com/ws"),
            ("wss://*.example.com/ws", "wss://chat.example.com:22/ws"),
            ("wss://*.example.com/ws", "wss://chat.example.com/admin"),
            ("wss://*.example.com/ws", "wss://chat.example.com.evil.com/ws"),
            ("wss://10.1.*.*:8443/ws", "wss://10.2.2.3:8443/ws"),
            ("wss://*/ws", "wss://169.254.169.254/ws"),
        ] {
            assert!(!check(pattern, url), "{pattern} {url}");
        }
        for bad in [
            "chat.example.com",
            "https://a/",
            "wss:///ws",
            "wss://a@b/ws",
            "wss://a/ws?x=*",
            "wss://:1",
        ] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }
}
