//! Several nodes over NATS, which keeps no outboxes: each node tells of what happened on it.

use serde_json::{Value, json};

use super::{App, EVERYTHING, chats, count, of_room, once};
use crate::harness::{NatsServer, within};

#[tokio::test]
async fn each_node_tells_of_its_own() {
    let (app, nats) = (App::start().await, NatsServer::start().await);
    let builder = |name: &str| {
        app.node(EVERYTHING, "")
            .set("server.name", name)
            .set("backplane.kind", "nats")
            .set("backplane.url", &nats.url())
            .set("backplane.leave_grace", "0s")
    };
    let (a, b) = (builder("a").start().await, builder("b").start().await);
    let (mut ann, mut bob) = (a.client("ann").await, b.client("bob").await);
    let is_bobs_join = |event: &Value| event["user"]["id"] == "bob" && event["event"] == "join";
    ann.join("lobby").await;
    bob.join("lobby").await;
    for number in 1..=10 {
        ann.chat("lobby", number).await;
    }
    ann.ask(json!({"type": "leave", "room": "lobby"})).await;
    let events = app
        .told("all of it", |events| {
            let all_of_ann = count(events, "chat") == 10 && count(events, "left") == 1;
            // Nothing orders what different nodes tell.
            all_of_ann && events.iter().any(is_bobs_join)
        })
        .await;
    assert_eq!(once(&events).len(), events.len(), "each once");
    let of_ann: Vec<_> = of_room(&events, "lobby")
        .into_iter()
        .filter(|event| event != "join bob")
        .collect();
    assert_eq!(of_ann[0], "join ann");
    assert_eq!(of_ann[1..11], chats(1..=10)[..]);
    assert_eq!(of_ann[11..], ["left ann"]);
    let join = events.iter().find(|event| is_bobs_join(event));
    assert_eq!(join.expect("bob is told of")["node"], "b");
    a.terminate("TERM");
    within("the end of it", a.wait_exit()).await;
    app.told("ann's close", |events| count(events, "close") == 1).await;
}
