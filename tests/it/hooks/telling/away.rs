//! Redis or the application is away for a while.

use super::nodes::on;
use super::{App, Manner, chats, count, lost, of_room, once};
use crate::harness::{Redis, redis};

#[tokio::test]
async fn nothing_is_lost_while_the_backend_is_down_and_redis_restarts() {
    let app = App::start().await;
    let mut store = redis().aof("always").start().await;
    let node = on(app.node(r#""join", "chat", "left""#, ""), &store, "a").start().await;
    app.is_now(Manner::Refuses(503));
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    for number in 1..=25 {
        ann.chat("lobby", number).await;
    }
    app.refused(2).await;
    store.kill();
    store.restart().await;
    node.metric_reaches("conclave_backplane_up", &[], 1.0).await;
    app.is_now(Manner::Takes);
    let events = app
        .told("everything", |events| count(&once(events), "chat") == 25)
        .await;
    let told = of_room(&once(&events), "lobby");
    assert_eq!(told[0], "join ann");
    let told: Vec<_> = told.into_iter().filter(|event| event.starts_with("chat")).collect();
    assert_eq!(told, chats(1..=25));
}

#[tokio::test]
async fn what_waits_for_a_backend_outlives_every_node() {
    let (app, store) = (App::start().await, Redis::start().await);
    app.is_now(Manner::Refuses(503));
    let first = app.node(super::EVERYTHING, "").set("drain.time", "20s");
    let node = on(first, &store, "a").start().await;
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    for number in 1..=10 {
        ann.chat("lobby", number).await;
    }
    let session = ann.welcome["session"].clone();
    node.terminate("TERM");
    ann.closed().await;
    assert!(node.wait_exit().await.success());
    app.is_now(Manner::Takes);
    let next = on(app.node(super::EVERYTHING, ""), &store, "b").start().await;
    let events = app
        .told("everything", |events| {
            count(events, "close") == 1 && count(events, "left") == 1
        })
        .await;
    let told = of_room(&events, "lobby");
    assert_eq!((&*told[0], &*told[11]), ("join ann", "left ann"));
    assert_eq!(told[1..11], chats(1..=10)[..]);
    let close = events.iter().find(|event| event["event"] == "close").expect("a close");
    assert_eq!((&close["session"], &close["code"]), (&session, &1012.into()));
    drop(next);
}

#[tokio::test]
async fn what_finds_an_outbox_full_is_counted() {
    let (app, store) = (App::start().await, Redis::start().await);
    let node = on(app.node(r#""chat""#, "queue_events = 100"), &store, "a")
        .start()
        .await;
    app.is_now(Manner::Refuses(500));
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    for number in 1..=150 {
        ann.chat("lobby", number).await;
    }
    app.is_now(Manner::Takes);
    let events = app
        .told("all that is left", |events| {
            let events = once(events);
            count(&events, "chat") as u64 + lost(&events) == 150
        })
        .await;
    let events = once(&events);
    assert_eq!(of_room(&events, "lobby"), chats(1..=100));
    assert_eq!(lost(&events), 50);
    ann.chat("lobby", 151).await;
    app.told("what comes after", |events| count(&once(events), "chat") == 101)
        .await;
    node.metric_reaches("conclave_hook_lost_events_total", &[], 50.0).await;
}

#[tokio::test]
async fn a_backend_that_never_answers_slows_no_room() {
    let (app, store) = (App::start().await, Redis::start().await);
    let node = on(app.node(super::EVERYTHING, "timeout = \"30s\""), &store, "a")
        .start()
        .await;
    app.is_now(Manner::TakesInSilence);
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    app.told("a batch that is not answered", |events| count(events, "join") == 1)
        .await;
    for number in 1..=200 {
        ann.chat("lobby", number).await;
    }
    assert_eq!(
        count(&app.events(), "chat"),
        0,
        "all of that while one request was under way"
    );
}
