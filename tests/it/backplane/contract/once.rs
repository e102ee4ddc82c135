//! Values that are kept for a while and taken once.

use std::time::Duration;

use super::super::engines::Engine;
use super::super::peer::{LONG, eventually};

super::promises! {
    a_value_is_taken_once_on_any_node
    a_value_is_read_on_any_node_and_stays
    of_two_takers_one_gets_it
    a_value_is_gone_after_its_lifetime
}

async fn a_value_is_taken_once_on_any_node(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let binary: Vec<u8> = (0..=255).collect();
    let longest = "n".repeat(128);
    for name in ["t", "a b:{c}", "ü", ">", &longest] {
        assert_eq!(b.take(name).await, Ok(None));
        assert_eq!(a.put(name, &binary, LONG).await, Ok(true));
        assert_eq!(b.put(name, b"other", LONG).await, Ok(false), "the name is taken");
        assert_eq!(b.take(name).await.unwrap().as_deref(), Some(&binary[..]));
        assert_eq!(a.take(name).await, Ok(None));
        assert_eq!(b.put(name, b"", LONG).await, Ok(true), "it is free again");
        assert_eq!(a.take(name).await.unwrap().as_deref(), Some(&b""[..]));
    }
}

async fn a_value_is_read_on_any_node_and_stays(engine: &Engine) {
    let [a, b] = engine.pair().await;
    let binary: Vec<u8> = (0..=255).collect();
    assert_eq!(b.get("g").await, Ok(None));
    assert_eq!(a.put("g", &binary, LONG).await, Ok(true));
    for peer in [&a, &b, &a] {
        assert_eq!(peer.get("g").await.unwrap().as_deref(), Some(&binary[..]));
    }
    assert_eq!(
        b.put("g", b"other", LONG).await,
        Ok(false),
        "reading does not free the name"
    );
    assert!(a.take("g").await.unwrap().is_some());
    assert_eq!(b.get("g").await, Ok(None));
    assert_eq!(a.put("h", b"1", Duration::from_millis(1)).await, Ok(true));
    eventually("the end of a lifetime", async || {
        b.get("h").await.unwrap().is_none().then_some(())
    })
    .await;
}

async fn of_two_takers_one_gets_it(engine: &Engine) {
    let [a, b] = engine.pair().await;
    for round in 0..20 {
        let name = format!("n{round}");
        let (one, other) = tokio::join!(a.put(&name, b"a", LONG), b.put(&name, b"b", LONG));
        assert!(one.unwrap() ^ other.unwrap(), "one of two keeps it");
        let (one, other) = tokio::join!(a.take(&name), b.take(&name));
        assert!(one.unwrap().is_some() ^ other.unwrap().is_some(), "one of two gets it");
    }
}

async fn a_value_is_gone_after_its_lifetime(engine: &Engine) {
    let [a, b] = engine.pair().await;
    assert_eq!(a.put("t", b"1", Duration::from_secs(1)).await, Ok(true));
    eventually("the end of a lifetime", async || {
        b.put("t", b"2", LONG).await.unwrap().then_some(())
    })
    .await;
    assert_eq!(a.take("t").await.unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(a.put("u", b"1", Duration::from_millis(1)).await, Ok(true));
    eventually("the end of a lifetime", async || {
        // Nobody puts anything there: it goes by itself.
        b.take("u").await.unwrap().is_none().then_some(())
    })
    .await;
}
