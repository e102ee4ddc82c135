//! What the engine takes from the configuration.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use crate::backplane::url::BackplaneUrl;
use crate::config::{Config, Kept};

use super::names::Names;

/// Streams keep a message at least so long: what a node said last must still be there when it looks again. Readers apply
/// a shorter `history.age` themselves.
const AGE_MIN: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub url: BackplaneUrl,
    pub ca_file: Option<PathBuf>,
    pub names: Names,
    /// From dialling to a link that can be used.
    pub connect_timeout: Duration,
    /// How long an answer is waited for.
    pub call_timeout: Duration,
    /// Messages of a room that can be read; a stream keeps one more, which shows that nothing lies before the rest.
    pub history_messages: usize,
    pub history_age: Duration,
    /// How long a stream keeps anything.
    pub stream_age: Duration,
    /// How long a stream knows a message's id.
    pub key_window: Duration,
    /// `kept = "disk"`: the operator says that the server writes through.
    pub disk: bool,
}

impl Settings {
    /// # Errors
    /// A prefix that no subject can begin with.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let backplane = &config.backplane;
        let whole = backplane.prefix.split('.').all(|token| !token.is_empty());
        whole.then_some(()).with_context(|| {
            format!("backplane.prefix = \"{}\": NATS has no subject with an empty part; write it without dots at its ends and next to each other", backplane.prefix)
        })?;
        Ok(Self {
            url: backplane.url.clone(),
            ca_file: backplane.ca_file.clone(),
            names: Names::new(&backplane.prefix),
            connect_timeout: backplane.connect_timeout,
            call_timeout: backplane.call_timeout,
            history_messages: config.history.messages,
            history_age: config.history.age,
            stream_age: config.history.age.max(config.room.key_window).max(AGE_MIN),
            key_window: config.room.key_window,
            disk: backplane.kept == Kept::Disk,
        })
    }
}
