//! Browsers that are signed in. Only a hash of what their cookie says is kept, here and nowhere else: a restart, a
//! sign-out and the end of `admin.session_ttl` each end it for good.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;

/// Browsers signed in at once; one more signs out the one that would end first.
const SESSIONS_MAX: usize = 64;

/// SHA-256 of a cookie's value.
type Hash = [u8; 32];

/// Who is signed in.
#[derive(Debug)]
pub struct Sessions {
    ttl: Duration,
    signed_in: Mutex<HashMap<Hash, Session>>,
}

#[derive(Debug)]
struct Session {
    /// Name of the token that it began with.
    name: Arc<str>,
    ends: Instant,
}

impl Sessions {
    #[must_use]
    pub fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            signed_in: Mutex::default(),
        }
    }

    /// How long one lasts.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Signs in whose token is called `name`; the value of the cookie, or none if the system has no random bytes.
    #[must_use]
    pub fn begin(&self, name: Arc<str>, now: Instant) -> Option<String> {
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes).ok()?;
        let value = URL_SAFE_NO_PAD.encode(bytes);
        let ends = now + self.ttl;
        let mut signed_in = self.signed_in.lock();
        signed_in.retain(|_, session| session.ends > now);
        if signed_in.len() >= SESSIONS_MAX {
            let first = signed_in.iter().min_by_key(|(_, session)| session.ends);
            if let Some(hash) = first.map(|(hash, _)| *hash) {
                signed_in.remove(&hash);
            }
        }
        signed_in.insert(hash(&value), Session { name, ends });
        Some(value)
    }

    /// Whose cookie that is. What is looked up is a hash, so that the time it takes tells nothing of the value.
    #[must_use]
    pub fn name_of(&self, value: &str, now: Instant) -> Option<Arc<str>> {
        let signed_in = self.signed_in.lock();
        let session = signed_in.get(&hash(value)).filter(|session| session.ends > now)?;
        Some(Arc::clone(&session.name))
    }

    /// Signs out.
    pub fn end(&self, value: &str) {
        self.signed_in.lock().remove(&hash(value));
    }
}

fn hash(value: &str) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, value.as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_with_its_time_or_at_the_sign_out_and_they_are_bounded() {
        let sessions = Sessions::new(Duration::from_secs(60));
        let now = Instant::now();
        let ann = sessions.begin("ann".into(), now).unwrap();
        let bob = sessions.begin("bob".into(), now + Duration::from_secs(1)).unwrap();
        assert_ne!(ann, bob);
        assert_eq!(sessions.name_of(&ann, now).as_deref(), Some("ann"));
        assert_eq!(sessions.name_of("", now), None);
        assert_eq!(sessions.name_of(&ann, now + Duration::from_secs(60)), None);
        sessions.end(&bob);
        assert_eq!(sessions.name_of(&bob, now), None);
        for _ in 0..SESSIONS_MAX {
            let _ = sessions.begin("eve".into(), now + Duration::from_secs(2));
        }
        assert_eq!(sessions.signed_in.lock().len(), SESSIONS_MAX);
        assert_eq!(sessions.name_of(&ann, now), None);
        let late = now + Duration::from_secs(3_600);
        let _ = sessions.begin("eve".into(), late);
        assert_eq!(sessions.signed_in.lock().len(), 1);
    }
}
