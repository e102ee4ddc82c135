//! What is looked at once a second: whether both links are with the same master, and whether what is published comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Value;

use super::super::contract::{Draft, RoomKey};
use super::Redis;
use super::canary::PERMIT_LIFE;
use super::info::Info;
use super::keep::Links;
use super::log::{Limits, PUBLISH};
use super::reply::{array, integer};
use super::script::{Script, script};
use super::shard::{Reason, Shard};
use crate::telemetry::metrics::CallKind;

static PERMIT: Script = script!("permit");

impl Redis {
    /// Once a second: are both links with the same master, and does it hear itself?
    pub(super) async fn beat(&self, shard: &Arc<Shard>, links: &Links) -> Result<(), Reason> {
        self.compare(links).await?;
        if let Some(room) = &links.canary {
            self.sing(shard, links, room).await;
        }
        let now = Instant::now();
        if let Some(age) = shard.canary.peer_age(now) {
            self.telemetry.peer_age(age);
        }
        if shard.canary.wants_permit(now) {
            let granted = self.ask_permit().await;
            shard.canary.permitted(granted, &self.started().readiness);
        }
        if shard.canary.is_link_deaf(now) {
            Err(Reason::Canary)
        } else {
            Ok(())
        }
    }

    async fn compare(&self, links: &Links) -> Result<(), Reason> {
        // A first replica that attaches changes the id between the two questions: they are asked again.
        for is_last in [false, true] {
            let section = ["replication"];
            let (here, there) = tokio::join!(
                Info::ask(&links.command, &section),
                Info::ask(&links.subscriber, &section),
            );
            let (Ok(here), Ok(there)) = (here, there) else {
                let is_out_of_step = links.pushes.was_unasked();
                return Err(if is_out_of_step {
                    Reason::Unsubscribed
                } else {
                    Reason::Timeout
                });
            };
            let (here, there) = (here.server(), there.server());
            if !here.is_master || !there.is_master {
                return Err(Reason::Role);
            }
            if here.replid == there.replid {
                return Ok(());
            }
            if is_last {
                return Err(Reason::Replid);
            }
        }
        Ok(())
    }

    /// Publishes the canary. Its link is the shard's own, whatever the map says.
    async fn sing(&self, shard: &Arc<Shard>, links: &Links, room: &RoomKey) {
        let asked = Instant::now();
        let limits = Limits {
            messages: 1,
            bytes: 1_024,
            age: Duration::from_secs(60),
        };
        let draft = Draft {
            user: "".into(),
            key: None,
            envelope: shard.canary.next(asked).into(),
        };
        shard.canary.sending(asked);
        // After a second nobody waits for it.
        let Some(not_after) = shard.clock.in_ms(self.settings.call_timeout, asked) else {
            return;
        };
        let (keys, args) = self.publish_call(room, &[draft], not_after, limits);
        let answer = self.on_link(&links.command, &PUBLISH, &keys, &args).await;
        self.telemetry
            .call(CallKind::Canary, answer.as_ref().err().copied(), asked);
        let time = answer.and_then(array).and_then(|mut answer| integer(answer.next()));
        match time {
            Ok(server_ms) => shard.clock.learn(server_ms, asked, Instant::now()),
            Err(_) => shard.canary.failed(&self.started().readiness),
        }
    }

    async fn ask_permit(&self) -> bool {
        let (permits, leases) = (self.keys.control("permit"), self.keys.control("lease"));
        let life = PERMIT_LIFE.as_millis().to_string();
        let args = [self.started().me.as_bytes(), life.as_bytes()];
        let granted = matches!(
            self.call_ctl(&PERMIT, &[&permits, &leases], &args).await,
            Ok(Value::Int(1))
        );
        self.telemetry.permit(granted);
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::super::child::Server;

    #[tokio::test]
    async fn a_third_of_the_nodes_may_be_unready_and_at_least_one() {
        let server = Server::start();
        let (one, two, three) = (server.engine().await, server.engine().await, server.engine().await);
        assert!(one.ask_permit().await, "nobody else has one");
        assert!(one.ask_permit().await, "it is renewed");
        assert!(!two.ask_permit().await, "of fewer than six one");
        for node in 0..6 {
            let lease = format!("ZADD conclave:1:0:{{ctl}}lease 99999999999999 n{node}");
            server.ask(&lease).await;
        }
        assert!(two.ask_permit().await);
        assert!(!three.ask_permit().await, "of six two");
    }
}
