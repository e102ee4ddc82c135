//! What a subscriber link brings unasked, handed on at once by the task that reads it.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use redis::aio::{AsyncPushSender, SendError};
use redis::{PushInfo, PushKind, Value};
use tokio_util::sync::CancellationToken;

use super::super::contract::Sink;
use super::canary::Readiness;
use super::keys::{CANARY, Keys};
use super::payload::Payload;
use super::shard::Shard;
use super::subscriptions::Step;
use super::telemetry::Telemetry;

/// Hears one subscriber link.
pub(super) struct Pushes {
    keys: Keys,
    sink: Arc<dyn Sink>,
    shard: Weak<Shard>,
    readiness: Arc<Readiness>,
    telemetry: Telemetry,
    /// Confirmations that must come next, oldest first. Only the owner of the link asks, one batch at a time.
    expected: Mutex<VecDeque<(bool, Vec<u8>)>>,
    /// A subscription ended that nobody had ended. The crate has taken that for the answer to another question: the link
    /// is out of step and must go.
    unasked: CancellationToken,
}

impl Pushes {
    pub(super) fn new(
        keys: Keys,
        sink: Arc<dyn Sink>,
        readiness: Arc<Readiness>,
        shard: &Arc<Shard>,
        telemetry: Telemetry,
    ) -> Arc<Self> {
        Arc::new(Self {
            keys,
            sink,
            readiness,
            shard: Arc::downgrade(shard),
            telemetry,
            expected: Mutex::default(),
            unasked: CancellationToken::new(),
        })
    }

    /// These are about to be asked, in this order.
    pub(super) fn expect(&self, steps: &[Step]) {
        let steps = steps.iter().map(|step| (step.subscribe, self.keys.channel(&step.room)));
        *self.expected.lock() = steps.collect();
    }

    /// A subscription ended that nobody had ended. Cancel safe.
    pub(super) async fn unasked(&self) {
        self.unasked.cancelled().await;
    }

    pub(super) fn was_unasked(&self) -> bool {
        self.unasked.is_cancelled()
    }

    fn confirmed(&self, subscribed: bool, data: Vec<Value>) {
        let Some(Value::BulkString(channel)) = data.into_iter().next() else {
            return self.unasked.cancel();
        };
        let mut expected = self.expected.lock();
        // Those before it were answered with errors.
        match expected
            .iter()
            .position(|(subscribe, asked)| *subscribe == subscribed && *asked == channel)
        {
            Some(at) => drop(expected.drain(..=at)),
            None => self.unasked.cancel(),
        }
    }

    fn message(&self, data: Vec<Value>) {
        let mut data = data.into_iter();
        let (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) = (data.next(), data.next()) else {
            return;
        };
        let Some((_, room)) = self.keys.room_of(&channel) else {
            return self.telemetry.unreadable();
        };
        match Payload::parse(Bytes::from(payload)) {
            Ok(Payload::Messages(entries)) if room == CANARY => {
                if let Some(shard) = self.shard.upgrade() {
                    for entry in entries {
                        shard.canary.heard(&entry.envelope, &self.telemetry, &self.readiness);
                    }
                }
            }
            Ok(Payload::Messages(entries)) => self.sink.messages(room, entries),
            Ok(Payload::Presence(event)) => self.sink.presence(room, event),
            // The check of permissions at the start says nothing there.
            Err(_) if room == CANARY => {}
            Err(_) => self.telemetry.unreadable(),
        }
    }
}

impl AsyncPushSender for Pushes {
    fn send(&self, push: PushInfo) -> Result<(), SendError> {
        match push.kind {
            PushKind::SMessage => self.message(push.data),
            PushKind::SSubscribe => self.confirmed(true, push.data),
            PushKind::SUnsubscribe => self.confirmed(false, push.data),
            _ => {}
        }
        Ok(())
    }
}
