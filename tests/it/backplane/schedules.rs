//! Random schedules against a real Redis: publishing and following rooms while the server is killed, cut, frozen, put
//! back to an older state, flushed, and robbed of single keys.
//!
//! What followers saw is judged by `checker`, which knows nothing of the engine. A schedule is its seed, which a failure
//! prints: `CONCLAVE_SEED=7 CONCLAVE_SCHEDULES=1 cargo test --test it schedules`.

mod checker;
mod dice;
mod follower;
mod run;

use run::{Form, run};

/// Without the variable `CONCLAVE_SCHEDULES`, of each form.
const SCHEDULES: u64 = 25;

async fn schedules(form: Form) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("CONCLAVE_SEED").unwrap_or(1);
    let count = number("CONCLAVE_SCHEDULES").unwrap_or(SCHEDULES);
    for seed in first..first + count {
        eprintln!("seed {seed}");
        let violations = run(form, seed).await;
        assert!(violations.is_empty(), "seed {seed} of {form:?}: {violations:#?}");
    }
}

/// Nothing is lost, nothing is reset, whatever happens to links and processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_keeps_all_it_took_is_never_doubted() {
    schedules(Form::Safe).await;
}

/// What was lost is told to everybody who had seen it, and to nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_forgets_is_never_believed() {
    schedules(Form::Lossy).await;
}
