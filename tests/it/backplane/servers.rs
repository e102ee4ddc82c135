//! The servers that all other tests here stand on do what their names say.

use ::redis::Value;

use crate::harness::{NatsServer, Redis, RedisCluster, Sentinels, redis};

#[tokio::test]
async fn a_redis_is_killed_frozen_rewound_and_found_again() {
    let mut server = Redis::start().await;
    server.cli(&["SET", "a", "1"]).await;
    let old = server.snapshot().await;
    server.cli(&["SET", "a", "2"]).await;
    server.put_back(&old).await;
    assert_eq!(server.text(&["GET", "a"]).await, "1");
    let line = server.info("replication", "master_replid").await.expect("there is one");
    server.kill();
    assert!(server.connection().await.is_err());
    server.restart().await;
    assert_ne!(server.info("replication", "master_replid").await, Some(line));
    server.freeze();
    let late = server.ask(&["PING"]);
    tokio::pin!(late);
    assert!(futures_util::poll!(&mut late).is_pending());
    server.thaw();
    assert!(late.await.is_ok());

    let mut safe = redis().aof("always").start().await;
    safe.cli(&["SET", "a", "3"]).await;
    safe.kill();
    safe.restart().await;
    assert_eq!(safe.text(&["GET", "a"]).await, "3");
}

#[tokio::test]
async fn sentinels_promote_the_replica_when_the_master_freezes() {
    let sentinels = Sentinels::start().await;
    assert_eq!(sentinels.master().await, 0);
    sentinels.servers[0].cli(&["SET", "a", "1"]).await;
    sentinels.servers[0].cli(&["WAIT", "1", "0"]).await;
    sentinels.servers[0].freeze();
    sentinels.promoted(1).await;
    assert_eq!(sentinels.servers[1].text(&["GET", "a"]).await, "1");
    sentinels.servers[0].thaw();
    sentinels.follows(0).await;
}

#[tokio::test]
async fn a_cluster_serves_every_slot_and_moves_one() {
    let cluster = RedisCluster::start().await;
    let slot = cluster.slot_of("a").await;
    let from = cluster.owner(slot).await;
    cluster.ask(&["SET", "a", "1"], "a").await.expect("its owner takes it");
    let to = (from + 1) % 3;
    cluster.move_slot(slot, from, to).await;
    cluster.agreed(slot, to).await;
    assert_eq!(
        cluster.masters[to].cli(&["GET", "a"]).await,
        Value::BulkString(b"1".to_vec())
    );
    assert!(cluster.masters[from].ask(&["GET", "a"]).await.is_err());
}

#[tokio::test]
async fn a_nats_server_keeps_its_streams() {
    let mut server = NatsServer::start().await;
    let made = async_nats::connect(server.url()).await.expect("it listens");
    let stream = || async_nats::jetstream::stream::Config {
        name: "a".to_owned(),
        ..Default::default()
    };
    async_nats::jetstream::new(made)
        .create_stream(stream())
        .await
        .expect("JetStream is on");
    server.kill();
    server.restart().await;
    let back = async_nats::connect(server.url()).await.expect("it is back");
    assert!(async_nats::jetstream::new(back).get_stream("a").await.is_ok());
    server.wipe().await;
    let empty = async_nats::connect(server.url()).await.expect("it is back");
    assert!(async_nats::jetstream::new(empty).get_stream("a").await.is_err());
}
