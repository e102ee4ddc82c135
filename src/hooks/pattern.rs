//! Which names a hook is for: whole names, or beginnings that end in `*`. Pure.

/// A room's name (128 bytes) and a `*`.
const BYTES_MAX: usize = 129;

/// Shortest beginning that makes a message's `type` a call: `*` alone is for the names of `call`s, or every mistyped
/// `type` would be one.
pub const TYPE_LITERAL_MIN: usize = 1;

/// `team/*`, or `lobby`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// Without its `*`.
    literal: Box<str>,
    is_prefix: bool,
}

impl Pattern {
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() || text.len() > BYTES_MAX {
            return Err("is empty or longer than 129 bytes");
        }
        let literal = text.strip_suffix('*').unwrap_or(text);
        if literal.contains('*') {
            return Err("has a * before its end");
        }
        Ok(Self {
            is_prefix: literal.len() < text.len(),
            literal: literal.into(),
        })
    }

    pub fn matches(&self, name: &str) -> bool {
        if self.is_prefix {
            name.starts_with(&*self.literal)
        } else {
            name == &*self.literal
        }
    }
}

/// Patterns that lead to something, the closest first: the longest literal wins, and a whole name before a beginning.
#[derive(Debug, Clone)]
pub struct Routes<T>(Box<[(Pattern, T)]>);

impl<T: Copy> Routes<T> {
    pub fn new(mut routes: Vec<(Pattern, T)>) -> Self {
        routes.sort_by_key(|(pattern, _)| (std::cmp::Reverse(pattern.literal.len()), pattern.is_prefix));
        Self(routes.into())
    }

    /// Whether a pattern has at least so many literal bytes.
    pub fn has_literals(&self, literal_min: usize) -> bool {
        self.0.iter().any(|(pattern, _)| pattern.literal.len() >= literal_min)
    }

    /// Where `name` leads.
    pub fn find(&self, name: &str) -> Option<T> {
        self.find_from(name, 0)
    }

    /// As [`find`](Self::find), by patterns with at least so many literal bytes.
    pub fn find_from(&self, name: &str, literal_min: usize) -> Option<T> {
        let fits = |(pattern, _): &&(Pattern, T)| pattern.literal.len() >= literal_min && pattern.matches(name);
        self.0.iter().find(fits).map(|(_, to)| *to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(patterns: &[&str]) -> Routes<usize> {
        let each = patterns.iter().enumerate();
        Routes::new(each.map(|(to, text)| (Pattern::parse(text).unwrap(), to)).collect())
    }

    #[test]
    fn the_closest_pattern_wins() {
        let routes = routes(&["*", "team/*", "team/a", "team/a*"]);
        let check = |name, to| assert_eq!(routes.find(name), Some(to), "{name}");
        check("lobby", 0);
        check("team/b", 1);
        check("team/a", 2);
        check("team/ab", 3);
        assert_eq!(routes.find_from("lobby", 1), None);
        assert_eq!(routes.find_from("team/", 1), Some(1));
    }

    #[test]
    fn no_pattern_is_no_way() {
        assert_eq!(routes(&[]).find("lobby"), None);
        assert_eq!(routes(&["a.*"]).find("b"), None);
    }

    #[test]
    fn a_bad_pattern_is_refused() {
        for bad in ["", "a*b", "**", &"a".repeat(130)] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }
}
