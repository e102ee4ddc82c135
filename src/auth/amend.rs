//! What the application changes of a good token when it is asked about the connection. It may rename the user and narrow
//! what the token allows; it never widens it, so that no answer is worth more than the token. Pure.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::claims;
use super::grants::{Grants, Verb};
use super::{Admitted, Identity, UnixSeconds, Verified};

/// Changes that hold for as long as the connection, also when its token is replaced.
#[derive(Debug)]
pub struct Amendment {
    name: Change<String>,
    info: Change<Value>,
    /// What is allowed must be allowed by these, too.
    rooms: Option<Grants>,
    /// The connection ends then at the latest.
    ends_at: Option<UnixSeconds>,
}

/// What becomes of something that the token says.
#[derive(Debug)]
enum Change<T> {
    /// Nothing.
    Kept,
    /// It is taken away.
    Gone,
    /// This stands in its place.
    Now(T),
}

impl<T: Clone + Into<Value>> Change<T> {
    /// `null` takes away, a missing field changes nothing.
    fn read(said: Option<Value>, read: impl Fn(Value) -> Result<T, &'static str>) -> Result<Self, &'static str> {
        match said {
            None => Ok(Self::Kept),
            Some(Value::Null) => Ok(Self::Gone),
            Some(value) => read(value).map(Self::Now),
        }
    }

    fn of(&self, old: Option<Value>) -> Option<Value> {
        match self {
            Self::Kept => old,
            Self::Gone => None,
            Self::Now(new) => Some(new.clone().into()),
        }
    }

    fn is_none(&self) -> bool {
        matches!(self, Self::Kept)
    }
}

impl Amendment {
    /// Reads `user` (`name`, `info`; `null` takes them away), `rooms` (as the claim) and `expires_in`, each with the
    /// bounds of claims. `None` if nothing is to be changed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(
        user: Option<Map<String, Value>>,
        rooms: Option<&Map<String, Value>>,
        expires_in_s: Option<u64>,
        now: UnixSeconds,
    ) -> Result<Option<Self>, &'static str> {
        if user.is_none() && rooms.is_none() && expires_in_s.is_none() {
            return Ok(None);
        }
        let mut user = user.unwrap_or_default();
        Ok(Some(Self {
            name: Change::read(user.remove("name"), claims::name)?,
            info: Change::read(user.remove("info"), claims::info)?,
            rooms: rooms.map(Grants::from_claim).transpose()?,
            ends_at: expires_in_s.map(|seconds| now.saturating_add(seconds)),
        }))
    }

    pub(super) fn allows(&self, room: &str, verb: Verb) -> bool {
        self.rooms.as_ref().is_none_or(|rooms| rooms.allows(room, verb))
    }
}

impl Admitted {
    /// With these changes.
    pub fn amended(self, amendment: Arc<Amendment>) -> Self {
        Self {
            verified: self.verified.amended(Some(amendment)),
            ..self
        }
    }
}

impl Verified {
    /// With the changes that hold for the connection already, if there are any.
    pub fn amended(self, amendment: Option<Arc<Amendment>>) -> Self {
        let Some(amendment) = amendment else { return self };
        let expires_at = match (self.expires_at, amendment.ends_at) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let identity = &self.identity;
        Self {
            identity: Arc::new(Identity {
                user_id: Arc::clone(&identity.user_id),
                user_json: user_json(&identity.user_json, &amendment),
                grants: identity.grants.clone(),
                token_id: identity.token_id.clone(),
                issued_at: identity.issued_at,
                is_probe: identity.is_probe,
                amendment: Some(amendment),
            }),
            expires_at,
            leeway_s: self.leeway_s,
        }
    }
}

/// `{"id":"u7","name":"Ann","info":{…}}` with another name and info.
fn user_json(json: &Arc<str>, amendment: &Amendment) -> Arc<str> {
    if amendment.name.is_none() && amendment.info.is_none() {
        return Arc::clone(json);
    }
    // We have written it ourselves, and it is an object.
    let mut old: Map<String, Value> = serde_json::from_str(json).unwrap_or_default();
    let id = old.remove("id").unwrap_or_default();
    let mut new = format!("{{\"id\":{id}");
    let name = amendment.name.of(old.remove("name"));
    let info = amendment.info.of(old.remove("info"));
    for (field, value) in [("name", name), ("info", info)] {
        if let Some(value) = value {
            new.push_str(&format!(",\"{field}\":{value}"));
        }
    }
    new.push('}');
    new.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn verified(rooms: Option<Value>) -> Verified {
        Verified {
            identity: Arc::new(Identity {
                user_id: "u7".into(),
                user_json: r#"{"id":"u7","name":"Ann","info":{"age":7}}"#.into(),
                grants: rooms.map(|rooms| Box::new(Grants::from_claim(rooms.as_object().unwrap()).unwrap())),
                token_id: None,
                issued_at: None.into(),
                is_probe: false,
                amendment: None,
            }),
            expires_at: Some(100),
            leeway_s: 5,
        }
    }

    fn amendment(answer: &Value) -> Result<Option<Amendment>, &'static str> {
        let object = |name: &str| answer[name].as_object().cloned();
        let rooms = object("rooms");
        Amendment::read(object("user"), rooms.as_ref(), answer["expires_in"].as_u64(), 50)
    }

    fn amended(rooms: Option<Value>, answer: &Value) -> Verified {
        verified(rooms).amended(amendment(answer).unwrap().map(Arc::new))
    }

    #[test]
    fn name_and_info_are_replaced_one_by_one() {
        for (user, expected) in [
            (json!({}), r#"{"id":"u7","name":"Ann","info":{"age":7}}"#),
            (json!({"name": "Bo"}), r#"{"id":"u7","name":"Bo","info":{"age":7}}"#),
            (json!({"info": null}), r#"{"id":"u7","name":"Ann"}"#),
            (json!({"name": null, "info": {"x": 1}}), r#"{"id":"u7","info":{"x":1}}"#),
            (json!({"id": "root"}), r#"{"id":"u7","name":"Ann","info":{"age":7}}"#),
        ] {
            let answer = json!({"user": user});
            assert_eq!(&*amended(None, &answer).identity.user_json, expected, "{answer}");
        }
    }

    #[test]
    fn rooms_are_narrowed_and_never_widened() {
        let answer = json!({"rooms": {"lobby": ["join", "chat"], "team/*": ["*"]}});
        let narrowed = amended(Some(json!({"lobby": ["join"], "other": ["*"]})), &answer);
        let allows = |verified: &Verified, room, verb| verified.identity.is_granted(room, verb, true);
        assert!(allows(&narrowed, "lobby", Verb::Join));
        assert!(!allows(&narrowed, "lobby", Verb::Chat), "the token does not");
        assert!(!allows(&narrowed, "team/a", Verb::Join), "the token does not");
        assert!(!allows(&narrowed, "other", Verb::Join), "the answer does not");
        let narrowed = amended(None, &answer);
        assert!(allows(&narrowed, "team/a", Verb::List) && !allows(&narrowed, "x", Verb::Join));
    }

    #[test]
    fn a_life_is_shortened_and_never_made_longer() {
        assert_eq!(amended(None, &json!({"expires_in": 10})).expires_at, Some(60));
        assert_eq!(amended(None, &json!({"expires_in": 90})).expires_at, Some(100));
        assert_eq!(amended(None, &json!({"expires_in": 10})).ends_at(), Some(65));
    }

    #[test]
    fn changes_outlive_the_token_and_bad_ones_are_refused() {
        let first = amended(None, &json!({"user": {"name": "Bo"}, "rooms": {}, "expires_in": 10}));
        let again = verified(None).amended(first.identity.amendment.clone());
        assert_eq!(again.identity.user_json, first.identity.user_json);
        assert!(!again.identity.is_granted("lobby", Verb::Join, true) && again.expires_at == Some(60));
        assert!(amendment(&json!({})).unwrap().is_none());
        for bad in [
            json!({"user": {"name": 7}}),
            json!({"user": {"info": "x"}}),
            json!({"user": {"info": {"x": "y".repeat(1024)}}}),
            json!({"rooms": {"a*b": []}}),
        ] {
            assert!(amendment(&bad).is_err(), "{bad}");
        }
    }
}
