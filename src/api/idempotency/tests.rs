use super::*;
use crate::backplane::memory::Memory;
use crate::config::default_config;

fn claim(key: u8, used_for: u8) -> Claim {
    Claim {
        name: [key; 32],
        used_for: [used_for; 32],
        retries: Retries([key; 32]),
    }
}

fn answer(status: u16, body: &'static str) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

async fn claimed(replays: &Replays, backplane: Option<&Arc<dyn Backplane>>, claim: Claim) -> Claim {
    match replays.begin(backplane, claim).await {
        Ok(Begun::Claimed(claim)) => claim,
        Ok(Begun::Replayed(_)) => panic!("replayed"),
        Err(problem) => panic!("{problem:?}"),
    }
}

async fn refused(replays: &Replays, backplane: Option<&Arc<dyn Backplane>>, claim: Claim) -> u16 {
    match replays.begin(backplane, claim).await {
        Err(problem) => problem.status.as_u16(),
        Ok(_) => 0,
    }
}

async fn replayed(replays: &Replays, backplane: Option<&Arc<dyn Backplane>>, claim: Claim) -> (u16, Bytes) {
    match replays.begin(backplane, claim).await {
        Ok(Begun::Replayed(response)) => {
            assert_eq!(response.headers()[REPLAYED], "true");
            let status = response.status().as_u16();
            (status, to_bytes(response.into_body(), 1_000).await.unwrap())
        }
        Ok(Begun::Claimed(_)) => panic!("claimed"),
        Err(problem) => panic!("{problem:?}"),
    }
}

/// As one node, and as two that share a backplane.
async fn check(one: &Replays, other: &Replays, backplane: Option<&Arc<dyn Backplane>>) {
    let first = claimed(one, backplane, claim(1, 1)).await;
    assert_eq!(refused(other, backplane, claim(1, 1)).await, 409);
    assert_eq!(refused(other, backplane, claim(1, 2)).await, 422);
    let kept = one.end(backplane, first, answer(200, "{\"seq\":1}")).await;
    assert!(!kept.headers().contains_key(REPLAYED));
    let (status, body) = replayed(other, backplane, claim(1, 1)).await;
    assert_eq!((status, &body[..]), (200, &b"{\"seq\":1}"[..]));
    assert_eq!(refused(other, backplane, claim(1, 2)).await, 422);
    for failed in [401, 403, 409, 429, 500, 503] {
        let again = claimed(one, backplane, claim(2, 1)).await;
        one.end(backplane, again, answer(failed, "")).await;
    }
    // A batch of which a part was refused for now.
    let again = claimed(other, backplane, claim(2, 1)).await;
    let mut partly = answer(200, "{}");
    partly.extensions_mut().insert(Unfinished);
    other.end(backplane, again, partly).await;
    let again = claimed(other, backplane, claim(2, 1)).await;
    other.end(backplane, again, answer(404, "{}")).await;
    assert_eq!(replayed(one, backplane, claim(2, 1)).await.0, 404);
}

#[tokio::test]
async fn a_key_is_used_once_on_one_node() {
    let replays = Replays::new(&default_config().api);
    check(&replays, &replays, None).await;
}

#[tokio::test]
async fn a_key_is_used_once_on_all_nodes() {
    let memory = Memory::new(&default_config());
    let backplane: Arc<dyn Backplane> = memory.node();
    let config = default_config().api;
    check(&Replays::new(&config), &Replays::new(&config), Some(&backplane)).await;
}

fn caller(scope: &str, rooms: &[&str]) -> Caller {
    use crate::api::caller::{Budget, Reach, Scopes, Via};
    let mut scopes = Scopes::default();
    assert!(scopes.add(scope));
    let burst = std::num::NonZeroU32::MIN;
    let limiter = governor::RateLimiter::direct(governor::Quota::per_second(burst));
    let rooms: Vec<String> = rooms.iter().map(|&room| room.to_owned()).collect();
    let (reach, budget) = (Reach::Patterns(rooms.into()), Budget::Key(Arc::new(limiter), burst));
    Caller::new("shop".into(), Via::Key, [127, 0, 0, 1].into(), scopes, reach, budget)
}

fn claim_of(caller: &Caller, body: &'static str) -> Claim {
    let request = http::Request::post("/api/v1/batch").header(HEADER, "k");
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let claim = Claim::of(
        &parts,
        &Bytes::from_static(body.as_bytes()),
        caller,
        ApiOperation::Batch,
    );
    claim.ok().flatten().expect("a claim")
}

#[test]
fn nobody_is_shown_what_it_might_see_before_and_what_was_said_is_said_once_all_the_same() {
    let now = claim_of(&caller("read", &["a"]), "{}");
    let same = claim_of(&caller("read", &["a"]), "{}");
    assert_eq!((now.name, now.retries().key(0)), (same.name, same.retries().key(0)));
    for other in [caller("publish", &["a"]), caller("read", &["a", "b"])] {
        let other = claim_of(&other, "{}");
        assert_ne!(now.name, other.name);
        assert_eq!(now.retries().key(0), other.retries().key(0));
    }
    let another = claim_of(&caller("read", &["a"]), "{ }");
    assert!(now.name == another.name && now.used_for != another.used_for);
    assert_ne!(now.retries().key(0), another.retries().key(0));
    assert_ne!(now.retries().key(0), now.retries().key(1));
    assert!(now.retries().key(0).len() <= crate::protocol::client::KEY_BYTES_MAX);
}
