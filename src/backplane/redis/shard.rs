//! One master and the links to it.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::clock::Clock;
use super::link::Link;

/// A master, its command link and its subscriber link.
#[derive(Debug, Default)]
pub(super) struct Shard {
    command: ArcSwapOption<Link>,
    pub(super) clock: Clock,
}

impl Shard {
    /// The link for commands, while there is one.
    pub(super) fn command(&self) -> Option<Arc<Link>> {
        self.command.load_full().filter(|link| !link.is_closed())
    }

    pub(super) fn set_command(&self, link: Option<Arc<Link>>) {
        self.command.store(link);
    }
}
