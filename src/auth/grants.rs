//! What a token allows in which room. Pure.

use serde_json::{Map, Value};

use crate::config::Who;
use crate::config::classes::Class;

/// Most patterns in one token.
const PATTERNS_MAX: usize = 256;
/// A room name (128 bytes) and a `*`.
const PATTERN_BYTES_MAX: usize = 129;

/// Something that one may do in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Verb {
    Join = 1,
    Chat = 2,
    List = 4,
    History = 8,
}

impl Verb {
    /// Who may do it in the rooms of a class.
    pub fn who(self, class: &Class) -> Who {
        match self {
            Self::Join => class.join,
            Self::Chat => class.chat,
            Self::List => class.list,
            Self::History => class.history,
        }
    }
}

const EVERY_VERB: u8 = 15;

/// The `rooms` claim: patterns, most specific first, so that the first one that matches decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants(Box<[Grant]>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Grant {
    /// Without its `*`.
    literal: Box<str>,
    prefix: bool,
    /// Bits of `Verb`.
    verbs: u8,
}

impl Grants {
    /// Reads `{"lobby":["join","chat"],"team-42/*":["*"]}`.
    pub(super) fn from_claim(rooms: &Map<String, Value>) -> Result<Self, &'static str> {
        if rooms.len() > PATTERNS_MAX {
            return Err("rooms has more than 256 patterns");
        }
        let mut grants = rooms.iter().map(grant).collect::<Result<Vec<_>, _>>()?;
        // Longest literal first; of two equally long ones the exact name before the prefix.
        grants.sort_by_key(|grant| (std::cmp::Reverse(grant.literal.len()), grant.prefix));
        Ok(Self(grants.into_boxed_slice()))
    }

    /// What [`Grants::from_claim`] reads as the same grants.
    pub fn to_claim(&self) -> Map<String, Value> {
        let claim = self.0.iter().map(|grant| {
            let star = if grant.prefix { "*" } else { "" };
            (format!("{}{star}", grant.literal), verbs_of(grant.verbs))
        });
        claim.collect()
    }

    /// Whether the most specific pattern for `room` names `verb`. No pattern, no permission.
    pub fn allows(&self, room: &str, verb: Verb) -> bool {
        self.0
            .iter()
            .find(|grant| grant.matches(room))
            .is_some_and(|grant| grant.verbs & verb as u8 != 0)
    }
}

impl Grant {
    fn matches(&self, room: &str) -> bool {
        if self.prefix {
            room.starts_with(&*self.literal)
        } else {
            room == &*self.literal
        }
    }
}

fn grant((pattern, verbs): (&String, &Value)) -> Result<Grant, &'static str> {
    if pattern.is_empty() || pattern.len() > PATTERN_BYTES_MAX {
        return Err("a pattern in rooms is empty or longer than 129 bytes");
    }
    let literal = pattern.strip_suffix('*').unwrap_or(pattern);
    if literal.contains('*') {
        return Err("a pattern in rooms has a * before its end");
    }
    let verbs = verbs.as_array().ok_or("a pattern in rooms has no array of verbs")?;
    let verbs = verbs
        .iter()
        .try_fold(0, |bits, verb| Ok::<u8, &'static str>(bits | verb_bits(verb)?))?;
    Ok(Grant {
        literal: literal.into(),
        prefix: literal.len() < pattern.len(),
        verbs,
    })
}

fn verb_bits(verb: &Value) -> Result<u8, &'static str> {
    match verb.as_str() {
        Some("join") => Ok(Verb::Join as u8),
        Some("chat") => Ok(Verb::Chat as u8),
        Some("list") => Ok(Verb::List as u8),
        Some("history") => Ok(Verb::History as u8),
        Some("*") => Ok(EVERY_VERB),
        _ => Err("a verb in rooms is none of join, chat, list, history, *"),
    }
}

fn verbs_of(bits: u8) -> Value {
    let words = [
        (Verb::Join, "join"),
        (Verb::Chat, "chat"),
        (Verb::List, "list"),
        (Verb::History, "history"),
    ];
    let named = words.into_iter().filter(|(verb, _)| bits & *verb as u8 != 0);
    named.map(|(_, word)| word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn grants(claim: Value) -> Result<Grants, &'static str> {
        Grants::from_claim(claim.as_object().unwrap())
    }

    #[test]
    fn the_most_specific_pattern_decides() {
        let grants = grants(json!({
            "*": ["list"], "team/*": ["join", "chat"], "team/secret*": [], "team/secret": ["history"], "lobby": ["*"],
        }))
        .unwrap();
        let check = |room, verb, expected| assert_eq!(grants.allows(room, verb), expected, "{room} {verb:?}");
        check("lobby", Verb::Join, true);
        check("lobby", Verb::History, true);
        check("lobby2", Verb::Join, false);
        check("lobby2", Verb::List, true);
        check("team/a", Verb::Chat, true);
        check("team/a", Verb::List, false);
        check("team/", Verb::Join, true);
        check("team", Verb::Join, false);
        check("team/secret", Verb::History, true);
        check("team/secret", Verb::Join, false);
        check("team/secrets", Verb::History, false);
        check("team/secrets", Verb::Join, false);
    }

    #[test]
    fn a_claim_made_of_grants_grants_the_same() {
        for claim in [
            json!({}),
            json!({"*": ["*"]}),
            json!({"lobby": [], "lobby*": ["join"], "team/*": ["join", "chat"], "t": ["list", "history"]}),
        ] {
            let granted = grants(claim).unwrap();
            assert_eq!(Grants::from_claim(&granted.to_claim()), Ok(granted));
        }
    }

    #[test]
    fn nothing_granted_is_nothing_allowed() {
        let grants = grants(json!({})).unwrap();
        assert!(!grants.allows("lobby", Verb::Join));
    }

    #[test]
    fn a_bad_claim_is_refused() {
        for bad in [
            json!({"a*b": ["join"]}),
            json!({"**": ["join"]}),
            json!({"": ["join"]}),
            json!({"a": "join"}),
            json!({"a": ["fly"]}),
            json!({"a": [1]}),
            json!({"a": ["JOIN"]}),
            json!({"a": null}),
            json!({"a".repeat(130): ["join"]}),
        ] {
            assert!(grants(bad.clone()).is_err(), "{bad}");
        }
        let many: Map<String, Value> = (0..257).map(|n| (format!("r{n}"), json!(["join"]))).collect();
        assert!(Grants::from_claim(&many).is_err());
    }
}
