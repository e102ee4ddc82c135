//! The map of a Cluster: which master holds which slots, asked for again whenever somebody finds it wrong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use redis::{PushInfo, Value, cmd};

use super::super::contract::{Failed, Refusal};
use super::Redis;
use super::backoff::Backoff;
use super::error::judge;
use super::link::Link;
use super::problem::Problem;
use super::reply::{array, bytes, integer, text};
use super::settings::Host;
use super::shard::{Reason, Shard};
use super::topology::{Map, Partitions, SLOTS};

/// How often the map is asked for though nobody found it wrong.
const REFRESH_EVERY: Duration = Duration::from_secs(10);

/// Between two refreshes, however many find it wrong.
const REFRESH_GAP: Duration = Duration::from_millis(100);

/// Nodes asked for their view; the one that knows the latest epoch is believed.
const VIEWS_MAX: usize = 5;

/// One node's view of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
struct View {
    epoch: u64,
    /// First and last slot, and who holds them.
    ranges: Vec<(u16, u16, Host)>,
}

impl Redis {
    /// Keeps the map. Cancel safe.
    pub(super) async fn follow_cluster(self: Arc<Self>, seeds: Vec<Host>) {
        let (mut backoff, mut told) = (Backoff::default(), String::new());
        loop {
            match self.look(&seeds).await {
                Ok(view) => {
                    backoff.reset();
                    told.clear();
                    self.adopt(&view);
                    tokio::time::sleep(REFRESH_GAP).await;
                    // Nothing is lost: a notice that comes meanwhile is kept for the next round.
                    let _due = tokio::time::timeout(REFRESH_EVERY, self.refresh.notified()).await;
                }
                Err(problem) => {
                    self.note_first(Some(&problem));
                    let text = problem.to_string();
                    if text != told {
                        tracing::warn!(problem = text, "redis: away");
                        told = text;
                    }
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    }

    async fn look(&self, seeds: &[Host]) -> Result<View, Problem> {
        let mut links: Vec<Arc<Link>> = self
            .map
            .load()
            .shards()
            .iter()
            .filter_map(|shard| shard.command())
            .collect();
        links.truncate(VIEWS_MAX);
        let mut problem = String::from("no answer");
        if links.is_empty() {
            for seed in seeds {
                match self
                    .started()
                    .dialer
                    .dial(seed, None::<fn(PushInfo) -> Result<(), ()>>)
                    .await
                {
                    Ok(link) => links.push(link),
                    Err(why) => problem = why.to_string(),
                }
            }
        }
        let views = links.iter().map(|link| async move { (view(link).await, &link.host) });
        let mut best: Option<View> = None;
        for (view, host) in futures_util::future::join_all(views).await {
            match view {
                Ok(view) if best.as_ref().is_none_or(|best| best.epoch < view.epoch) => best = Some(view),
                Ok(_) => {}
                Err(why) => problem = format!("{host}: {why}"),
            }
        }
        best.ok_or(Problem::NoCluster(problem))
    }

    /// Makes the map that of the view. Shards that stay keep their links.
    fn adopt(self: &Arc<Self>, view: &View) {
        let before = self.map.load_full();
        let mut shards: Vec<Arc<Shard>> = Vec::new();
        let mut index = BTreeMap::new();
        let mut fresh = Vec::new();
        for (_, _, host) in &view.ranges {
            if index.contains_key(host) {
                continue;
            }
            let known = before.shards().iter().find(|shard| shard.host.as_ref() == Some(host));
            let shard = known
                .filter(|shard| !shard.retired.is_cancelled())
                .cloned()
                .unwrap_or_else(|| {
                    let shard = Shard::at(Some(host.clone()));
                    fresh.push(Arc::clone(&shard));
                    shard
                });
            index.insert(host.clone(), shards.len());
            shards.push(shard);
        }
        let owner = |slot| {
            let range = view
                .ranges
                .iter()
                .find(|(first, last, _)| (*first..=*last).contains(&slot));
            range.and_then(|(_, _, host)| index.get(host).copied())
        };
        let map = Arc::new(Map::clustered(shards, owner));
        self.map.store(Arc::clone(&map));
        for shard in before.shards() {
            if !map.shards().iter().any(|stays| Arc::ptr_eq(stays, shard)) {
                shard.retired.cancel();
            }
        }
        for shard in map.shards() {
            if fresh.iter().any(|fresh| Arc::ptr_eq(fresh, shard)) {
                let keep = Arc::clone(self).keep(Arc::clone(shard));
                self.started().tasks.spawn("redis shard", keep);
            } else {
                self.move_rooms(shard, &before.partitions_of(shard), &map.partitions_of(shard));
            }
        }
        self.changed.send_modify(|version| *version += 1);
        self.tell_up();
    }

    /// A shard that has links holds other partitions than before.
    fn move_rooms(&self, shard: &Arc<Shard>, before: &Partitions, after: &Partitions) {
        if before == after {
            return;
        }
        if before.first() != after.first() {
            // Its canary's room is elsewhere.
            return shard.doubt(Reason::Moved);
        }
        let mut came = Partitions::default();
        for partition in after.iter().filter(|partition| !before.has(*partition)) {
            came.insert(partition);
        }
        shard.add_moved(&came);
        for room in self.subscriptions.wanted(&came) {
            shard.queue.push(room);
        }
        shard.queue.wake();
    }
}

async fn view(link: &Link) -> Result<View, Failed> {
    let mut slots = cmd("CLUSTER");
    slots.arg("SLOTS");
    let mut info = cmd("CLUSTER");
    info.arg("INFO");
    let epoch = text(Some(judge(link.send(&info).await?)?))?;
    let epoch = epoch
        .lines()
        .find_map(|line| line.strip_prefix("cluster_current_epoch:")?.trim().parse().ok());
    let ranges = ranges(judge(link.send(&slots).await?)?, &link.host)?;
    Ok(View {
        epoch: epoch.unwrap_or(0),
        ranges,
    })
}

/// Reads `CLUSTER SLOTS`: per range first, last, master, replicas; a node is address, port, id, more.
fn ranges(answer: Value, asked: &Host) -> Result<Vec<(u16, u16, Host)>, Failed> {
    let mut ranges = Vec::new();
    for range in array(answer)? {
        let mut range = array(range)?;
        let (first, last) = (slot_number(range.next())?, slot_number(range.next())?);
        let mut master = array(range.next().ok_or(Refusal::Broken)?)?;
        // A node that does not know its own address leaves it out: it is where we asked.
        let name = bytes(master.next()).ok().filter(|name| !name.is_empty());
        let name = match name {
            Some(name) => String::from_utf8(name.into()).map_err(|_| Refusal::Broken)?,
            None => asked.name.clone(),
        };
        let port = u16::try_from(integer(master.next())?).map_err(|_| Refusal::Broken)?;
        ranges.push((first, last, Host { name, port }));
    }
    if ranges.is_empty() {
        return Err(Refusal::Away.into());
    }
    Ok(ranges)
}

fn slot_number(value: Option<Value>) -> Result<u16, Failed> {
    let slot = integer(value)?;
    u16::try_from(slot)
        .ok()
        .filter(|slot| *slot < SLOTS)
        .ok_or(Refusal::Broken.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_name_their_masters() {
        let node = |name: &str, port| {
            let name = Value::BulkString(name.into());
            Value::Array(vec![
                name,
                Value::Int(port),
                Value::BulkString(b"id".to_vec()),
                Value::Array(vec![]),
            ])
        };
        let range =
            |first, last, nodes: Vec<Value>| Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat());
        let answer = Value::Array(vec![
            range(0, 8_191, vec![node("127.0.0.1", 7_000), node("127.0.0.1", 7_001)]),
            range(8_192, 16_383, vec![node("", 7_002)]),
        ]);
        let asked = Host::parse("redis:6379").expect("a host");
        let shown: Vec<_> = ranges(answer, &asked)
            .expect("ranges")
            .into_iter()
            .map(|(first, last, host)| format!("{first}-{last} {host}"))
            .collect();
        assert_eq!(shown, ["0-8191 127.0.0.1:7000", "8192-16383 redis:7002"]);
        assert!(ranges(Value::Array(vec![range(0, 16_384, vec![node("a", 1)])]), &asked).is_err());
        assert!(ranges(Value::Array(Vec::new()), &asked).is_err());
    }
}
