//! The nodes of a cluster as they describe themselves: each writes its facts with every renewal of its lease and reads
//! those of the others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::contract::{Advertised, Incarnation};

/// Facts that are longer than this are nobody's: a node writes a few hundred bytes, and some 30 KiB about its rooms.
pub const FACTS_BYTES_MAX: usize = 64 * 1024;

/// What a node says of itself, stored as JSON: `{"name":"a:8443","version":"0.1.0","connections":7,…}`. A node of another
/// version may say less or more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeFacts {
    /// `server.name`
    pub name: String,
    /// Of the program.
    pub version: String,
    /// Sockets that are open.
    pub connections: u64,
    /// Connections that it takes at most.
    pub connections_max: u64,
    /// New connections that it can take per second; 0 when it does not say.
    pub accepts_per_second: u32,
    /// It wants new connections.
    pub is_ready: bool,
    /// It is on its way out.
    pub is_draining: bool,
    /// Its largest and busiest rooms, if it serves the server API.
    #[serde(skip_serializing_if = "<[TopRoom]>::is_empty")]
    pub rooms: Arc<[TopRoom]>,
}

/// A room, as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopRoom {
    pub room: Arc<str>,
    /// Connections on this node.
    #[serde(rename = "m")]
    pub members: u64,
    /// Users on all nodes.
    #[serde(rename = "u")]
    pub users: u64,
    /// Chats in 1,000 seconds.
    #[serde(rename = "r")]
    pub rate: u64,
}

type Own = Box<dyn Fn() -> NodeFacts + Send + Sync>;

/// What was last read of the others.
#[derive(Default)]
struct Read {
    at: Option<Instant>,
    others: Arc<[NodeFacts]>,
}

/// The last read facts.
pub struct Directory {
    /// Facts older than this say nothing any more.
    lease: Duration,
    own: std::sync::OnceLock<Own>,
    read: Mutex<Read>,
}

impl Directory {
    #[must_use]
    pub fn new(lease: Duration) -> Self {
        Self {
            lease,
            own: std::sync::OnceLock::new(),
            read: Mutex::default(),
        }
    }

    /// What this node will say of itself from now on. A second call changes nothing.
    pub fn describe(&self, own: Own) {
        drop(self.own.set(own));
    }

    /// This node's facts at this moment, as they are stored; none before [`Directory::describe`].
    #[must_use]
    pub fn own(&self) -> Option<Vec<u8>> {
        serde_json::to_vec(&self.own.get()?()).ok()
    }

    /// Takes what was read: the facts of those who live, but for `own`, in the order of their names.
    pub fn heard(&self, own: &Incarnation, living: &[Incarnation], advertised: &[Advertised]) {
        let mut others: Vec<NodeFacts> = advertised
            .iter()
            .filter(|(incarnation, facts)| {
                incarnation != own && living.contains(incarnation) && facts.len() <= FACTS_BYTES_MAX
            })
            .filter_map(|(_, facts)| serde_json::from_slice(facts).ok())
            .collect();
        others.sort_by(|one: &NodeFacts, other| one.name.cmp(&other.name));
        *self.read.lock() = Read {
            at: Some(Instant::now()),
            others: others.into(),
        };
    }

    /// The other nodes, as they were at most a lease ago.
    #[must_use]
    pub fn others(&self) -> Arc<[NodeFacts]> {
        let read = self.read.lock();
        let is_fresh = read.at.is_some_and(|at| at.elapsed() <= self.lease);
        if is_fresh {
            Arc::clone(&read.others)
        } else {
            Arc::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn facts(name: &str) -> NodeFacts {
        NodeFacts {
            name: name.to_owned(),
            connections: 7,
            ..NodeFacts::default()
        }
    }

    fn names(directory: &Directory) -> Vec<String> {
        directory.others().iter().map(|facts| facts.name.clone()).collect()
    }

    #[test]
    fn the_living_are_known_but_oneself() {
        let directory = Directory::new(Duration::from_secs(60));
        assert_eq!(directory.own(), None);
        directory.describe(Box::new(|| facts("own")));
        let own = directory.own().expect("facts");
        let stored = |name: &str| Bytes::from(serde_json::to_vec(&facts(name)).expect("JSON"));
        let [me, one, two, dead]: [Incarnation; 4] = ["me", "one", "two", "dead"].map(Into::into);
        let advertised = [
            (Arc::clone(&two), stored("z")),
            (Arc::clone(&one), stored("a")),
            (Arc::clone(&me), own.into()),
            (Arc::clone(&dead), stored("dead")),
        ];
        directory.heard(&me, &[Arc::clone(&me), one, two], &advertised);
        assert_eq!(names(&directory), ["a", "z"]);
    }

    /// Nodes of other versions, and what is no node's.
    #[test]
    fn facts_that_cannot_be_read_are_left_out() {
        let directory = Directory::new(Duration::from_secs(60));
        let lives: Vec<Incarnation> = ["a", "b", "c"].map(Into::into).into();
        let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(FACTS_BYTES_MAX));
        let stored = [r#"{"name":"later","colour":3}"#.to_owned(), "garbage".to_owned(), long];
        let advertised: Vec<_> = lives.iter().cloned().zip(stored.map(Bytes::from)).collect();
        directory.heard(&"own".into(), &lives, &advertised);
        assert_eq!(names(&directory), ["later"]);
        assert_eq!(directory.others()[0].connections_max, 0);
    }

    #[test]
    fn old_facts_say_nothing() {
        let directory = Directory::new(Duration::ZERO);
        let one = Incarnation::from("one");
        let stored = Bytes::from_static(br#"{"name":"one"}"#);
        directory.heard(&"own".into(), &[Arc::clone(&one)], &[(one, stored)]);
        std::thread::sleep(Duration::from_millis(1));
        assert!(directory.others().is_empty());
    }
}
