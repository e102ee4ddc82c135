//! What the engine takes from the configuration.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use crate::backplane::url::BackplaneUrl;
use crate::config::classes::{Class, Classes};
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
    /// Of which messages of a room can be read, and how old ones.
    pub classes: Classes,
    /// The most of any class: a stream keeps as much of every room, and one message more, which shows that nothing lies
    /// before the rest.
    pub stream_messages: usize,
    /// How long a stream keeps anything.
    pub stream_age: Duration,
    /// How long a stream knows a message's id: the longest of any class.
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
        let classes = Classes::new(config);
        let longest =
            |time: fn(&Class) -> Duration| classes.all().iter().map(|class| time(class)).max().unwrap_or_default();
        let key_window = longest(|class| class.key_window);
        let history_age = longest(|class| class.history_age);
        let messages = classes.all().iter().map(|class| class.history_messages);
        Ok(Self {
            url: backplane.url.clone(),
            ca_file: backplane.ca_file.clone(),
            names: Names::new(&backplane.prefix),
            connect_timeout: backplane.connect_timeout,
            call_timeout: backplane.call_timeout,
            stream_messages: messages.max().unwrap_or_default(),
            stream_age: history_age.max(key_window).max(AGE_MIN),
            key_window,
            classes,
            disk: backplane.kept == Kept::Disk,
        })
    }
}
