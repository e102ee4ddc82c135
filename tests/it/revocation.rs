//! Who is revoked or kicked is out on every node at once, and stays out: two nodes on one Redis, told by the verbs.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::harness::{self, Builder, Client, Frame, Node, Redis, Sentinels, token, within};

const REVOKED: (u16, &str) = (1008, "token_revoked");
const KICKED: (u16, &str) = (1008, "kicked");

fn node_on(redis: &Redis) -> Builder {
    node_at(&redis.url())
}

fn node_at(url: &str) -> Builder {
    harness::node().set("backplane.kind", "redis").set("backplane.url", url)
}

/// Runs a verb in the folder of a node.
async fn conclave(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conclave"));
    command
        .args(words)
        .args(["--config", "conclave.toml"])
        .current_dir(folder);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CONCLAVE_") {
            command.env_remove(name);
        }
    }
    let output = tokio::task::spawn_blocking(move || command.output());
    within("the end of the verb", output).await.unwrap().expect("it runs")
}

/// As [`conclave`], which must do it; what it says.
async fn done(node: &Node, words: &[&str]) -> String {
    let output = conclave(node.folder(), words).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
    assert!(output.stderr.is_empty(), "{words:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn claims_with(sub: &str, more: Value) -> Value {
    let mut claims = token::claims(sub);
    claims
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    claims
}

async fn ends(client: &mut Client, with: (u16, &str)) {
    let (code, reason) = within("the close", client.closed()).await;
    assert_eq!((code, reason.as_str()), with);
}

/// What comes first to somebody with these claims: the type of a message, or a close.
async fn arrives(node: &Node, claims: &Value) -> Result<(), (u16, String)> {
    let mut client = node.socket().query_token(&node.token_with(claims)).open().await;
    loop {
        match client.next().await {
            Some(Frame::Text(text)) if text.contains("\"connected\"") => return Ok(()),
            Some(Frame::Text(text)) => assert!(text.contains("\"closing\""), "{text}"),
            Some(Frame::Close(code, reason)) => return Err((code, reason)),
            other => panic!("{other:?}"),
        }
    }
}

async fn is_let_in(node: &Node, claims: &Value) {
    assert_eq!(arrives(node, claims).await, Ok(()));
}

async fn is_revoked(node: &Node, claims: &Value) {
    assert_eq!(arrives(node, claims).await, Err((REVOKED.0, REVOKED.1.to_owned())));
}

/// Waits until that has been heard of.
async fn becomes_revoked(node: &Node, claims: &Value) {
    within("the revocation", async {
        while arrives(node, claims).await != Err((REVOKED.0, REVOKED.1.to_owned())) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}

async fn still_there(client: &mut Client) {
    assert_eq!(client.ask(json!({"type": "ping"})).await["type"], "pong");
}

#[tokio::test]
async fn a_revoked_user_is_out_everywhere_and_others_notice_nothing() {
    let redis = Redis::start().await;
    let here = node_on(&redis).start().await;
    let there = node_on(&redis).runtime("shared").start().await;
    let old = claims_with("ann", json!({"iat": token::now() - 100}));
    let new = claims_with("ann", json!({"iat": token::now()}));
    let mut out = [
        here.client_with(&old).await,
        there.client_with(&old).await,
        // Nobody knows when this one was issued.
        there.client("ann").await,
    ];
    let mut stay = [
        here.client_with(&new).await,
        there.client_with(&new).await,
        here.client("bob").await,
        there.client("bob").await,
    ];
    // A token that is replaced is not what counts any more.
    let mut renewed = here.client_with(&old).await;
    let ok = renewed
        .ask(json!({"type": "auth", "token": here.token_with(&new)}))
        .await;
    assert_eq!(ok["type"], "ok", "{ok}");

    let until = (token::now() - 10).to_string();
    let said = done(&there, &["revoke", "--user", "ann", "--issued-before", &until]).await;
    assert!(said.starts_with("revoked user ann: tokens issued until "), "{said}");
    for client in &mut out {
        ends(client, REVOKED).await;
    }
    for client in stay.iter_mut().chain([&mut renewed]) {
        still_there(client).await;
    }
    for node in [&here, &there] {
        is_revoked(node, &old).await;
        is_revoked(node, &token::claims("ann")).await;
        is_let_in(node, &new).await;
        node.metric_reaches("conclave_revocation_effect_seconds_count", &[], 1.0)
            .await;
        let metrics = node.metrics().await;
        assert_eq!(metrics.sum("conclave_revocation_entries", &[]), 1.0);
        assert_eq!(
            metrics.sum("conclave_auth_failures_total", &[("reason", "token_revoked")]),
            2.0
        );
    }
    let closed = [("kind", "user")];
    let closed_on = async |node: &Node| {
        let metrics = node.metrics().await;
        metrics.sum("conclave_revocation_connections_closed_total", &closed)
    };
    assert_eq!((closed_on(&here).await, closed_on(&there).await), (1.0, 2.0));
    // Who has a good token cannot go back to a revoked one.
    let refused = stay[0]
        .ask(json!({"type": "auth", "token": here.token_with(&old)}))
        .await;
    assert_eq!(
        (&refused["code"], &refused["reason"]),
        (&json!("forbidden"), &json!("token_revoked"))
    );
    still_there(&mut stay[0]).await;
}

#[tokio::test]
async fn a_session_and_a_token_are_revoked_by_their_ids() {
    let redis = Redis::start().await;
    let (here, there) = (node_on(&redis).start().await, node_on(&redis).start().await);
    let ann = |jti: &str| claims_with("ann", json!({"jti": jti}));
    let mut by_session = here.client_with(&ann("t1")).await;
    let mut by_token = [here.client_with(&ann("t2")).await, there.client_with(&ann("t2")).await];
    let mut stays = there.client_with(&ann("t1")).await;
    let session = by_session.welcome["session"].as_str().unwrap().to_owned();
    done(&there, &["revoke", "--session", &session]).await;
    ends(&mut by_session, REVOKED).await;
    done(&here, &["revoke", "--token", "t2"]).await;
    for client in &mut by_token {
        ends(client, REVOKED).await;
    }
    is_revoked(&here, &ann("t2")).await;
    is_revoked(&there, &ann("t2")).await;
    is_let_in(&here, &ann("t1")).await;
    still_there(&mut stays).await;
}

#[tokio::test]
async fn a_kick_ends_connections_once_and_a_ban_keeps_them_out() {
    let redis = Redis::start().await;
    let (here, there) = (node_on(&redis).start().await, node_on(&redis).start().await);
    let mut out = [here.client("ann").await, there.client("ann").await];
    let mut one = there.client("bob").await;
    let mut stays = there.client("bob").await;
    assert!(
        done(&here, &["kick", "--user", "ann"])
            .await
            .starts_with("kicked user ann; ")
    );
    for client in &mut out {
        ends(client, KICKED).await;
    }
    let session = one.welcome["session"].as_str().unwrap().to_owned();
    done(&here, &["kick", "--session", &session]).await;
    ends(&mut one, KICKED).await;
    still_there(&mut stays).await;
    // Other shards may have been at it still.
    here.metric_reaches("conclave_revocation_effect_seconds_count", &[], 2.0)
        .await;
    let mut back = here.client("ann").await;
    still_there(&mut back).await;

    let said = done(&there, &["kick", "--user", "ann", "--ban", "1h", "-v"]).await;
    assert!(said.starts_with("kicked user ann, banned until "), "{said}");
    ends(&mut back, KICKED).await;
    for node in [&here, &there] {
        node.metric_reaches("conclave_revocation_entries", &[], 1.0).await;
        is_revoked(node, &claims_with("ann", json!({"iat": token::now()}))).await;
    }
    assert_eq!(done(&there, &["kick", "--user", "bob", "--ban", "1s", "-q"]).await, "");
    ends(&mut stays, KICKED).await;
    within("the end of the ban", async {
        while arrives(&here, &token::claims("bob")).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_revocation_outlives_nodes_and_what_redis_loses() {
    let mut redis = Redis::start().await;
    let empty = redis.snapshot().await;
    let here = node_on(&redis).start().await;
    let ann = token::claims("ann");
    is_let_in(&here, &ann).await;
    done(&here, &["revoke", "--user", "ann"]).await;
    becomes_revoked(&here, &ann).await;
    // A node that comes later reads it.
    let there = node_on(&redis).start().await;
    is_revoked(&there, &ann).await;
    // One node lives, and Redis forgets everything: in place, and by a failover to a replica that had got nothing.
    there.terminate("KILL");
    there.wait_exit().await;
    redis.cli(&["FLUSHALL"]).await;
    returned(&redis).await;
    let there = node_on(&redis).start().await;
    is_revoked(&there, &ann).await;
    here.terminate("KILL");
    here.wait_exit().await;
    redis.put_back(&empty).await;
    returned(&redis).await;
    let here = node_on(&redis).start().await;
    is_revoked(&here, &ann).await;
    is_let_in(&here, &token::claims("bob")).await;
}

#[tokio::test]
async fn a_revocation_outlives_a_failover_and_the_next_one_is_heard_from_the_new_master() {
    let mut sentinels = Sentinels::start().await;
    let url = sentinels.url();
    let (here, there) = (node_at(&url).start().await, node_at(&url).start().await);
    let mut bob = [here.client("bob").await, there.client("bob").await];
    let ann = token::claims("ann");
    done(&here, &["revoke", "--user", "ann"]).await;
    for node in [&here, &there] {
        becomes_revoked(node, &ann).await;
    }
    let old = sentinels.master().await;
    sentinels.servers[old].kill();
    sentinels.promoted(1 - old).await;
    // Whatever the new master has got by then, and if it is nothing at all.
    sentinels.servers[1 - old].cli(&["FLUSHALL"]).await;
    returned(&sentinels.servers[1 - old]).await;
    is_revoked(&there, &ann).await;
    done(&there, &["revoke", "--user", "bob"]).await;
    for client in &mut bob {
        ends(client, REVOKED).await;
    }
    let later = node_at(&url).start().await;
    is_revoked(&later, &ann).await;
    is_revoked(&later, &token::claims("bob")).await;
    is_let_in(&later, &token::claims("eve")).await;
}

/// Waits until a node has written back what it knows.
async fn returned(redis: &Redis) {
    let is_there = |value: &redis::Value| matches!(value, redis::Value::Int(1));
    redis.until(&["HLEN", "conclave:1:0:{ctl}rev"], is_there).await;
}

#[tokio::test]
async fn who_cannot_read_revocations_lets_nobody_in_unless_told_to() {
    let mut redis = Redis::start().await;
    let careful = node_on(&redis).set("backplane.max_staleness", "1s").start().await;
    let trusting = node_on(&redis)
        .set("backplane.max_staleness", "1s")
        .set("backplane.on_stale", "pass")
        .start()
        .await;
    let mut stays = careful.client("ann").await;
    redis.kill();
    within("the refusal", async {
        while arrives(&careful, &token::claims("bob")).await != Err((1013, "overloaded".to_owned())) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    still_there(&mut stays).await;
    let ok = stays.ask(json!({"type": "auth", "token": careful.token("ann")})).await;
    assert_eq!(ok["type"], "ok", "who is here may stay: {ok}");
    trusting
        .metric_reaches("conclave_revocation_staleness_seconds", &[], 1.0)
        .await;
    is_let_in(&trusting, &token::claims("bob")).await;
    // It knows nothing at all, however short the time.
    let ignorant = node_on(&redis).start().await;
    assert_eq!(
        arrives(&ignorant, &token::claims("bob")).await,
        Err((1013, "overloaded".to_owned()))
    );
    redis.restart().await;
    for node in [&careful, &ignorant] {
        within("the return", async {
            while arrives(node, &token::claims("bob")).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn the_verbs_say_what_they_cannot_do() {
    let alone = harness::node().start().await;
    let output = conclave(alone.folder(), &["revoke", "--user", "ann"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("backplane.kind is \"memory\""), "{said}");

    let mut redis = Redis::start().await;
    let node = node_on(&redis)
        .set("backplane.connect_timeout", "300ms")
        .set("backplane.call_timeout", "300ms")
        .start()
        .await;
    redis.kill();
    let output = conclave(node.folder(), &["kick", "--user", "ann"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("nobody was told"), "{said}");
}
