//! Who is here: users, not connections; told once each, and right in the end.

use std::collections::BTreeSet;
use std::time::Instant;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{self, Client};

fn ids(list: &Value) -> BTreeSet<String> {
    let users = list["users"].as_array().expect("users");
    let ids: BTreeSet<_> = users
        .iter()
        .map(|user| user["id"].as_str().expect("an id").to_owned())
        .collect();
    assert_eq!(ids.len(), users.len(), "nobody is listed twice: {list}");
    ids
}

async fn list(client: &mut Client) -> Value {
    client.ask(json!({"type": "list", "room": "lobby"})).await
}

#[tokio::test]
async fn everybody_comes_and_goes_once_however_many_tabs_do() {
    for runtime in ["per-core", "shared"] {
        let node = harness::node()
            .runtime(runtime)
            .set("server.threads", "3")
            .start()
            .await;
        let mut witness = node.client("witness").await;
        witness.join("lobby").await;
        // Twelve tabs of four users come and go at the same time, some politely, some not.
        join_all((0..12).map(|tab| {
            let node = &node;
            async move {
                for round in 0..6 {
                    let mut client = node.client(&format!("u{}", tab % 4)).await;
                    client.join("lobby").await;
                    match (tab + round) % 3 {
                        0 => client.close(1000).await,
                        1 => drop(client),
                        _ => {
                            assert_eq!(
                                client.ask(json!({"type": "leave", "room": "lobby"})).await["type"],
                                "ok"
                            );
                        }
                    }
                }
            }
        }))
        .await;
        harness::within("everybody to be gone", async {
            while node.metrics().await.sum("conclave_members", &[]) > 1.0 {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
        let mut here = BTreeSet::new();
        for event in witness.pending().await {
            let id = event["user"]["id"].as_str().expect("a user").to_owned();
            match event["type"].as_str() {
                Some("join") => assert!(here.insert(id), "came twice: {event}"),
                Some("left") => assert!(here.remove(&id), "left without having come: {event}"),
                _ => panic!("{event}"),
            }
        }
        assert_eq!(here, BTreeSet::new(), "and did not leave");
        assert_eq!(ids(&list(&mut witness).await), BTreeSet::from(["witness".to_owned()]));
    }
}

#[tokio::test]
async fn a_large_room_is_told_counts_at_most_once_a_second_and_right_in_the_end() {
    for runtime in ["per-core", "shared"] {
        let node = harness::node()
            .runtime(runtime)
            .set("room.users_shown", "3")
            .start()
            .await;
        let mut witness = node.client("witness").await;
        assert_eq!(witness.welcome["limits"]["users_shown"], 3);
        witness.join("lobby").await;
        let mut others = Vec::new();
        for number in 0..2 {
            let mut client = node.client(&format!("u{number}")).await;
            client.join("lobby").await;
            others.push(client);
            let came = witness.expect("join").await;
            assert_eq!(came["user"]["id"], format!("u{number}"), "a room of three is small");
        }
        let began = Instant::now();
        let mut counts = Vec::new();
        for number in 2..30 {
            let mut client = node.client(&format!("u{number}")).await;
            let list = client.join("lobby").await;
            assert_eq!(list["count"], number + 2, "exact at any time");
            let shown = ids(&list);
            assert_eq!(shown.len(), 3);
            assert!(shown.contains(&format!("u{number}")), "oneself among them");
            others.push(client);
        }
        while counts.last() != Some(&json!(31)) {
            let count = witness.expect("count").await;
            counts.push(count["count"].clone());
        }
        // Down again, politely or not, to a room that is small.
        for (number, client) in others.drain(4..).enumerate() {
            if number % 2 == 0 {
                client.close(1000).await;
            }
        }
        while counts.last() != Some(&json!(5)) {
            let count = witness.expect("count").await;
            counts.push(count["count"].clone());
        }
        // A tick that was late may be followed by one in time.
        let seconds = began.elapsed().as_secs() as usize;
        assert!(
            counts.len() <= seconds + 2,
            "{} in {seconds} s: {counts:?}",
            counts.len()
        );
        others.pop().unwrap().close(1000).await;
        assert_eq!(witness.until("count").await["count"], 4);
        others.pop().unwrap().close(1000).await;
        assert_eq!(
            witness.until("left").await["user"]["id"],
            "u2",
            "a room of three is small again"
        );
        let list = list(&mut witness).await;
        assert_eq!((&list["count"], ids(&list).len()), (&json!(3), 3));
    }
}

#[tokio::test]
async fn a_user_who_is_not_in_the_first_rows_is_listed_to_itself() {
    let node = harness::node().set("room.users_shown", "1").start().await;
    let mut clients = Vec::new();
    for name in ["ann", "bob", "cem"] {
        let mut client = node.client(name).await;
        assert_eq!(ids(&client.join("lobby").await), BTreeSet::from([name.to_owned()]));
        clients.push((name, client));
    }
    for (name, client) in &mut clients {
        assert_eq!(ids(&list(client).await), BTreeSet::from([(*name).to_owned()]));
    }
}

#[tokio::test]
async fn a_name_is_the_one_of_the_newest_tab() {
    let node = harness::node().start().await;
    let mut witness = node.client("witness").await;
    witness.join("lobby").await;
    let mut claims = harness::token::claims("ann");
    let mut tabs = Vec::new();
    for name in ["Ann", "Anna"] {
        claims["name"] = json!(name);
        let mut tab = node.client_with(&claims).await;
        tab.join("lobby").await;
        let list = list(&mut witness).await;
        let users = list["users"].as_array().expect("users");
        let ann = users.iter().find(|user| user["id"] == "ann").expect("ann");
        assert_eq!(ann["name"], name);
        tabs.push(tab);
    }
    tabs[0].chat("lobby", 1).await;
    assert_eq!(
        witness.until("chat").await["from"]["name"],
        "Ann",
        "as in the sender's own token"
    );
}
