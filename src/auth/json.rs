//! JSON from strangers, read strictly: a name twice in one object, or nesting over 32, is refused at any depth.
//! Two readers of a token that has a claim twice may each see another one.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

const NESTING_MAX: usize = 32;

/// What is wrong with a JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    NotJson,
    NotAnObject,
    NameTwice,
    TooDeep,
}

/// The object that `bytes` spell, whole; else what is wrong with it.
pub(super) fn object(bytes: &[u8]) -> Result<Map<String, Value>, Flaw> {
    let flaw = Cell::new(Flaw::NotJson);
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: 0, flaw: &flaw }
        .deserialize(&mut json)
        .map_err(|_| flaw.get())?;
    json.end().map_err(|_| Flaw::NotJson)?;
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(Flaw::NotAnObject),
    }
}

#[derive(Clone, Copy)]
struct Strict<'f> {
    depth: usize,
    flaw: &'f Cell<Flaw>,
}

impl Strict<'_> {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth == NESTING_MAX {
            return Err(self.fail(Flaw::TooDeep));
        }
        Ok(Self {
            depth: self.depth + 1,
            ..self
        })
    }

    /// The flaw goes by the side, so that no text of the input can end in an error message.
    fn fail<E: Error>(self, flaw: Flaw) -> E {
        self.flaw.set(flaw);
        E::custom("flaw")
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut map = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            if map.contains_key(&name) {
                return Err(self.fail(Flaw::NameTwice));
            }
            map.insert(name, entries.next_value_seed(inner)?);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_after_unescaping_at_every_depth() {
        assert!(object(br#"{"sub":"a","s\u0075b2":1}"#).is_ok());
        assert_eq!(object(br#"{"sub":"a","\u0073ub":"b"}"#), Err(Flaw::NameTwice));
        assert_eq!(object(br#"{"info":[{"a":1,"a":1}]}"#), Err(Flaw::NameTwice));
    }

    #[test]
    fn depth_and_form() {
        let nested = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(object(nested(31).as_bytes()).is_ok());
        assert_eq!(object(nested(32).as_bytes()), Err(Flaw::TooDeep));
        assert_eq!(object(nested(4000).as_bytes()), Err(Flaw::TooDeep));
        assert_eq!(object(b"[]"), Err(Flaw::NotAnObject));
        for bad in [
            &b""[..],
            b"{",
            b"{}x",
            b"\xef\xbb\xbf{}",
            b"{\"a\":\"\xff\"}",
            b"{\"a\":1e999}",
            b"{\"a\":\"\\ud800\"}",
        ] {
            assert_eq!(object(bad), Err(Flaw::NotJson));
        }
    }
}
