//! Against a real server.

use std::time::Duration;

use redis::Value;

use super::super::super::contract::{Control, Revocation, Subject};
use super::super::child::{Node, Server};

/// Far from being forgotten.
const LATER: u64 = 1 << 40;

fn user(name: &str, issued_before: u64, forget_after: u64) -> Revocation {
    Revocation {
        subject: Subject::User(name.into()),
        issued_before,
        forget_after,
    }
}

/// An engine that reads the control log, and has noted where it ended.
async fn reader(server: &Server) -> Node {
    let node = server.engine().await;
    node.heard.until(|_, suspicions| suspicions == 1).await;
    node
}

async fn revocations(node: &Node) -> Vec<Revocation> {
    let mut found = node.read_revocations().await.expect("revocations");
    found.sort_by(|a, b| a.subject.cmp(&b.subject));
    found
}

#[tokio::test]
async fn what_one_tells_all_hear_in_order() {
    let server = Server::start();
    let (a, b) = (reader(&server).await, reader(&server).await);
    let told: Vec<_> = [
        Subject::User("ann: a b".into()),
        Subject::Session("s-1".into()),
        Subject::Token("ü".into()),
    ]
    .into_iter()
    .flat_map(|subject| {
        let revocation = Revocation {
            subject: subject.clone(),
            issued_before: 7,
            forget_after: LATER,
        };
        [Control::Revoke(revocation), Control::Kick { subject, time_ms: 1 }]
    })
    .collect();
    for control in &told {
        a.tell_all(control).await.expect("told");
    }
    for node in [&a, &b] {
        let (heard, suspicions) = node.heard.until(|heard, _| heard.len() >= told.len()).await;
        assert_eq!(heard, told);
        assert_eq!(suspicions, 1, "nothing was missed");
    }
    assert_eq!(revocations(&b).await.len(), 3);
}

#[tokio::test]
async fn revocations_merge_to_the_later_of_each_time() {
    let server = Server::start();
    let node = reader(&server).await;
    let first = user("ann", 100, LATER + 5);
    node.tell_all(&Control::Revoke(first.clone())).await.expect("told");
    let merged = user("ann", 200, LATER + 5);
    node.write_revocations(&[user("ann", 200, LATER), user("ann", 50, 60)])
        .await
        .expect("merged");
    assert_eq!(revocations(&node).await, [merged.clone()]);
    node.write_revocations(&[merged.clone(), first.clone()])
        .await
        .expect("merged");
    node.tell_all(&Control::Revoke(user("ann", 1, 1))).await.expect("told");

    // Merging tells what is new only; telling always tells.
    let (heard, _) = node.heard.until(|heard, _| heard.len() == 3).await;
    let [first, merged, again] = [first, merged.clone(), merged].map(Control::Revoke);
    assert_eq!(heard, [first, merged, again]);
}

#[tokio::test]
async fn what_may_be_forgotten_is() {
    let server = Server::start();
    let node = server.engine().await;
    let many: Vec<_> = (0..1_000)
        .map(|i| user(&format!("u{i:04}"), 1, if i < 600 { 2 } else { LATER }))
        .collect();
    node.write_revocations(&many).await.expect("merged");
    server
        .ask("HSET conclave:1:0:{ctl}rev somebody else's user:x nothing")
        .await;
    assert_eq!(revocations(&node).await, many[600..]);
    assert_eq!(server.ask("HLEN conclave:1:0:{ctl}rev").await, Value::Int(402));
}

#[tokio::test]
async fn a_revocation_that_the_server_lost_comes_back() {
    let server = Server::start();
    let (a, b) = (reader(&server).await, reader(&server).await);
    let known = user("ann", 100, LATER);
    a.tell_all(&Control::Revoke(known.clone())).await.expect("told");
    b.heard.until(|heard, _| heard.len() == 1).await;

    server.ask("FLUSHALL").await;
    for node in [&a, &b] {
        node.heard.until(|_, suspicions| suspicions >= 2).await;
    }
    assert_eq!(revocations(&a).await, []);
    a.write_revocations(std::slice::from_ref(&known)).await.expect("merged");
    let (heard, _) = b.heard.until(|heard, _| heard.len() == 2).await;
    assert_eq!(heard[1], Control::Revoke(known.clone()));
    assert_eq!(revocations(&b).await, [known]);
}

#[tokio::test]
async fn another_server_is_told_what_the_one_before_it_knew() {
    let mut server = Server::start();
    let (a, b) = (reader(&server).await, reader(&server).await);
    let known = user("ann", 100, LATER);
    a.tell_all(&Control::Revoke(known.clone())).await.expect("told");
    for node in [&a, &b] {
        node.heard.until(|heard, _| heard.len() == 1).await;
    }
    server.restart();
    for node in [&a, &b] {
        node.heard.until(|_, suspicions| suspicions >= 2).await;
    }
    // The way of commands may take a moment longer.
    let written = async {
        while a.write_revocations(std::slice::from_ref(&known)).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), written)
        .await
        .expect("written back");
    let (heard, _) = b.heard.until(|heard, _| heard.len() == 2).await;
    assert_eq!(heard[1], Control::Revoke(known.clone()));
    assert_eq!(revocations(&b).await, [known]);
}

#[tokio::test]
async fn a_log_that_was_cut_is_noticed_and_a_connection_that_was_cut_is_not() {
    let server = Server::start();
    let node = reader(&server).await;
    let kick = |time_ms| Control::Kick {
        subject: Subject::User("ann".into()),
        time_ms,
    };
    node.tell_all(&kick(0)).await.expect("told");
    node.heard.until(|heard, _| heard.len() == 1).await;
    // It stands behind an entry now that is not the one before the next.
    server.ask("XTRIM conclave:1:0:{ctl}log MAXLEN 0").await;
    let (_, suspicions) = node.heard.until(|_, suspicions| suspicions >= 2).await;

    let mut raw = server.raw().await;
    for time_ms in 1..20 {
        let blocked: String = redis::cmd("CLIENT")
            .arg("LIST")
            .query_async(&mut raw)
            .await
            .expect("clients");
        let of_reader = blocked.lines().find(|line| line.contains("cmd=xread")).map(|line| {
            let id = line.split(' ').next().expect("id=…");
            id.trim_start_matches("id=").to_owned()
        });
        if let Some(id) = of_reader {
            let _: Value = redis::cmd("CLIENT")
                .arg("KILL")
                .arg("ID")
                .arg(id)
                .query_async(&mut raw)
                .await
                .expect("killed");
        }
        node.tell_all(&kick(time_ms)).await.expect("told");
    }
    let (heard, now) = node.heard.until(|heard, _| heard.len() == 20).await;
    assert_eq!(heard, (0..20).map(kick).collect::<Vec<_>>(), "each once, in order");
    assert_eq!(now, suspicions, "nothing was missed");
}

/// What the reader waits for does not come for a very long time: it would never hear anything again.
#[tokio::test]
async fn a_connection_that_brings_nothing_is_made_anew() {
    let server = Server::start();
    let node = reader(&server).await;
    server.ask("XADD conclave:1:0:{ctl}log 9999999999999-0 c t").await;
    node.heard.until(|_, suspicions| suspicions == 2).await;
    server.ask("DEL conclave:1:0:{ctl}log").await;
    node.heard.until(|_, suspicions| suspicions == 3).await;
    let kick = Control::Kick {
        subject: Subject::User("ann".into()),
        time_ms: 1,
    };
    node.tell_all(&kick).await.expect("told");
    let (heard, _) = node.heard.until(|heard, _| !heard.is_empty()).await;
    assert_eq!(heard, [kick]);
}

#[tokio::test]
async fn of_two_takers_one_gets_it() {
    let server = Server::start();
    let (a, b) = (server.engine().await, server.engine().await);
    let life = Duration::from_secs(60);
    assert_eq!(a.put_once("t_1", b"\x00claims", life).await, Ok(true));
    assert_eq!(b.put_once("t_1", b"other", life).await, Ok(false));
    let (one, two) = tokio::join!(a.take_once("t_1"), b.take_once("t_1"));
    let taken: Vec<_> = [one, two]
        .into_iter()
        .filter_map(|taken| taken.expect("an answer"))
        .collect();
    assert_eq!(taken, [&b"\x00claims"[..]]);
    assert_eq!(b.put_once("t_1", b"", life).await, Ok(true), "the name is free again");
    assert_eq!(a.take_once("t_1").await, Ok(Some(bytes::Bytes::new())));
    let Value::Array(names) = server.ask("KEYS *t_1*").await else {
        panic!("a list");
    };
    assert!(names.is_empty(), "no name is stored");
}
