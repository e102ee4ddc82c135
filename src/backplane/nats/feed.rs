//! What comes over one link: a subscription for each attached room, read by one task.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_nats::{Message, Subscriber};
use futures_util::stream::{SelectAll, Stream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::backplane::contract::RoomKey;

use super::places::Places;

/// An attached room. Lives across links.
pub(super) struct Room {
    pub key: RoomKey,
    pub places: Mutex<Places>,
    /// Dropped when the room is detached: that ends its subscription.
    subscribed: Mutex<Option<oneshot::Sender<()>>>,
}

impl Room {
    pub fn new(key: RoomKey) -> Self {
        Self {
            key,
            places: Mutex::default(),
            subscribed: Mutex::default(),
        }
    }

    /// Whether the reader of a link still has its subscription.
    pub fn is_subscribed(&self) -> bool {
        self.subscribed.lock().as_ref().is_some_and(|end| !end.is_closed())
    }

    /// The subscription of this room. One before it ends.
    pub fn feed(self: &Arc<Self>, subscriber: Subscriber) -> Feed {
        let (end, ended) = oneshot::channel();
        *self.subscribed.lock() = Some(end);
        Feed {
            room: Arc::clone(self),
            subscriber,
            ended,
        }
    }

    /// Ends the subscription.
    pub fn end(&self) {
        self.subscribed.lock().take();
    }
}

/// The messages of one room until it is detached. Dropped, it unsubscribes.
pub(super) struct Feed {
    room: Arc<Room>,
    subscriber: Subscriber,
    ended: oneshot::Receiver<()>,
}

impl Stream for Feed {
    type Item = (Arc<Room>, Message);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if Pin::new(&mut self.ended).poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        let next = self.subscriber.poll_next_unpin(cx);
        next.map(|next| next.map(|message| (Arc::clone(&self.room), message)))
    }
}

/// Reads all rooms of a link, and takes new ones, until the link ends.
pub(super) async fn read(mut fed: mpsc::Receiver<Feed>, mut hear: impl FnMut(&Room, Message)) {
    let mut feeds = SelectAll::new();
    loop {
        tokio::select! {
            feed = fed.recv() => match feed {
                Some(feed) => feeds.push(feed),
                None => return,
            },
            Some((room, message)) = feeds.next() => hear(&room, message),
        }
    }
}
