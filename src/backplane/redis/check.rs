//! What a server must be like. Each refusal names the remedy.

use std::sync::Arc;

use redis::{Value, cmd};

use super::super::contract::{Failed, Refusal, RoomKey};
use super::Redis;
use super::error::judge;
use super::info::Info;
use super::keys::LAYOUT;
use super::link::Link;
use super::log::OPEN;
use super::problem::Problem;
use super::reply::{array, integer, text};
use super::settings::{Host, Kept, Places};
use super::shard::Shard;
use super::topology::Place;

/// Sharded Pub/Sub came with it.
const VERSION_MIN: u32 = 7;

impl Redis {
    /// One server that turns out to be a node of a cluster: the others are looked for from there.
    pub(super) fn check_mode(&self, shard: &Arc<Shard>, host: &Host, info: &Info) -> Result<(), Problem> {
        let is_cluster = info.field("redis_mode") == Some("cluster") || info.field("cluster_enabled") == Some("1");
        let unfit = |what: &str| Err(Problem::Unfit(host.clone(), what.to_owned()));
        match &self.settings.places {
            Places::Cluster(_) if !is_cluster => {
                unfit("it is no node of a cluster\n  help: give one URL in backplane.url, or one of Sentinel")
            }
            Places::Sentinels { .. } if is_cluster => unfit(
                "it is a node of a cluster, which has no use for Sentinel\n  help: backplane.url = \"redis+cluster://…\"",
            ),
            _ if is_cluster && self.settings.db != 0 => unfit(
                "a cluster has no database but 0\n  help: leave it out of backplane.url; backplane.prefix keeps two \
                 installations apart",
            ),
            Places::One(_) if is_cluster && !self.is_cluster() => {
                let seeds = vec![host.clone()];
                let started = self.started();
                if let Some(engine) = self.me.upgrade() {
                    shard.retired.cancel();
                    started.tasks.spawn("redis cluster", engine.follow_cluster(seeds));
                }
                Err(Problem::IsCluster(host.clone()))
            }
            _ => Ok(()),
        }
    }

    /// What can never work, before the first message is lost to it.
    pub(super) async fn check(
        &self,
        command: &Link,
        info: &Info,
        canary: Option<&RoomKey>,
        shard: &Arc<Shard>,
    ) -> Result<(), Problem> {
        let host = &command.host;
        let unfit = |what: String| Err(Problem::Unfit(host.clone(), what));
        if let Some(major) = info.major_version().filter(|major| *major < VERSION_MIN) {
            return unfit(format!(
                "it is Redis {major}, without sharded Pub/Sub\n  help: Redis or Valkey from version {VERSION_MIN}"
            ));
        }
        if let Some(policy) = info.field("maxmemory_policy").filter(|policy| *policy != "noeviction") {
            return unfit(format!(
                "maxmemory-policy is {policy}, which forgets rooms and keys silently\n  help: CONFIG SET \
                 maxmemory-policy noeviction, and the same in redis.conf"
            ));
        }
        if info.server().replid.is_empty() {
            tracing::warn!(
                server = %host,
                "redis: master_replid is hidden; a tail lost in a failover is noticed only where a node knows a later \
                 message"
            );
        }
        self.check_kept(command, info).await?;
        if let Some(room) = canary {
            self.check_permissions(command, room).await?;
        }
        let holds_control = self.shard(Place::Control).is_some_and(|it| Arc::ptr_eq(&it, shard));
        if holds_control {
            self.check_layout(command).await
        } else {
            Ok(())
        }
    }

    async fn check_kept(&self, command: &Link, info: &Info) -> Result<(), Problem> {
        let host = &command.host;
        let unfit = |what: String| Err(Problem::Unfit(host.clone(), what));
        match self.settings.kept {
            Kept::Async => Ok(()),
            Kept::Disk => {
                let (aof, fsync) = (
                    setting(command, "appendonly").await,
                    setting(command, "appendfsync").await,
                );
                if aof.as_deref() == Some("yes") && fsync.as_deref() == Some("always") {
                    return Ok(());
                }
                unfit(
                    "backplane.kept = \"disk\" needs appendonly yes and appendfsync always (and a right to CONFIG GET)\n  \
                     help: set both in redis.conf, or backplane.kept = \"async\""
                        .to_owned(),
                )
            }
            Kept::Replica(wait) => {
                let least = setting(command, "min-replicas-to-write")
                    .await
                    .and_then(|least| least.parse().ok());
                if least.is_none_or(|least: u32| least < wait.replicas) {
                    return unfit(format!(
                        "backplane.kept = \"replica\" needs min-replicas-to-write {0} (and a right to CONFIG GET), or a \
                         master that was replaced goes on taking writes\n  help: CONFIG SET min-replicas-to-write {0}, \
                         min-replicas-max-lag 3, and the same in redis.conf",
                        wait.replicas
                    ));
                }
                let has = info.server().replicas;
                if has >= wait.replicas {
                    return Ok(());
                }
                // During a failover one may still be on its way; nothing is acknowledged until it is there.
                tracing::error!(
                    server = %host,
                    replicas = has,
                    needed = wait.replicas,
                    "redis: too few replicas for backplane.kept = \"replica\": nothing is acknowledged until there are more"
                );
                Ok(())
            }
        }
    }

    /// Tries what is done all the time.
    async fn check_permissions(&self, command: &Link, room: &RoomKey) -> Result<(), Problem> {
        let host = &command.host;
        let keys = [self.keys.meta(room), self.keys.log(room)];
        let args: [&[u8]; 3] = [b"0", b"60000", b"60000"];
        match self.on_link(command, &OPEN, &keys, &args).await {
            Err(Failed::Refused(Refusal::Forbidden)) => {
                return Err(Problem::Unfit(
                    host.clone(),
                    format!(
                        "this user may not run the scripts or use the keys\n  help: ACL SETUSER … {}",
                        self.keys.acl()
                    ),
                ));
            }
            Err(why) => return Err(Problem::Failed(host.clone(), why)),
            Ok(_) => {}
        }
        let mut publish = cmd("SPUBLISH");
        publish.arg(self.keys.channel(room)).arg("");
        let answer = command
            .send(&publish)
            .await
            .map_err(|why| Problem::Failed(host.clone(), why))?;
        judge(answer).map_err(|said| self.no_channels(host, said.into()))?;
        Ok(())
    }

    /// A channel could not be used.
    pub(super) fn no_channels(&self, host: &Host, why: Failed) -> Problem {
        if why != Failed::Refused(Refusal::Forbidden) {
            return Problem::Failed(host.clone(), why);
        }
        Problem::Unfit(
            host.clone(),
            format!(
                "this user may not use the channels\n  help: ACL SETUSER … {}",
                self.keys.acl()
            ),
        )
    }

    async fn check_layout(&self, command: &Link) -> Result<(), Problem> {
        let host = &command.host;
        let failed = |why| Problem::Failed(host.clone(), why);
        let mut set = cmd("SET");
        set.arg(self.keys.layout()).arg(LAYOUT).arg("NX").arg("GET");
        let answer = command.send(&set).await.map_err(failed)?;
        match judge(answer).map_err(|said| failed(said.into()))? {
            Value::Nil => Ok(()),
            found if integer(Some(found.clone())) == Ok(u64::from(LAYOUT)) => Ok(()),
            found => Err(Problem::Unfit(
                host.clone(),
                format!(
                    "what is stored there has layout {}, and this version has {LAYOUT}\n  help: another \
                     backplane.prefix, or the version that wrote it",
                    text(Some(found)).unwrap_or_default()
                ),
            )),
        }
    }
}

/// `CONFIG GET`; none where that is not allowed.
async fn setting(link: &Link, name: &str) -> Option<String> {
    let mut get = cmd("CONFIG");
    get.arg("GET").arg(name);
    match judge(link.send(&get).await.ok()?).ok()? {
        Value::Map(fields) => text(fields.into_iter().next().map(|(_, value)| value)).ok(),
        fields => text(array(fields).ok()?.nth(1)).ok(),
    }
}
