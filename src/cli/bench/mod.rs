//! `conclave bench`: what a server can hold and carry, for capacity planning.
//!
//! One coordinator (this thread) leads a crew of client threads through a run: every connection opens and joins its
//! room, a warm-up, the measured window, and a drain in which late deliveries still count. The numbers about the
//! server come from `/proc` when `--pid` names it.

mod broadcast;
mod crew;
mod echo;
mod idle;
mod link;
mod meter;
mod plan;
mod process;
mod progress;
mod report;
mod soak;
mod stamp;
mod target;
mod tokens;

use super::args::{Bench, BenchTest, Loudness};
use super::{EXIT_FAILURE, Environment, Failure};
use plan::{Plan, Work};
use report::Report;

/// Runs one test and prints its numbers; exit code 1 when connections or deliveries were lost.
pub fn run(args: &Bench, loudness: Loudness, environment: &Environment) -> Result<(), Failure> {
    let (load, work) = match &args.test {
        BenchTest::Idle(load) => (load, Work::Idle),
        BenchTest::Broadcast { load, publishing } => (load, Work::broadcast(load, publishing)?),
        BenchTest::Soak {
            load,
            publishing,
            churn,
        } => (load, Work::soak(load, publishing, *churn)?),
        BenchTest::Echo { load, size } => (load, Work::echo(*size)?),
    };
    let plan = Plan::new(load, work, environment)?;
    let show = !(load.json || loudness.quiet);
    let report = match plan.work {
        Work::Idle => idle::run(plan, show)?,
        Work::Broadcast(_) => broadcast::run(plan, show)?,
        Work::Soak { .. } => soak::run(plan, show)?,
        Work::Echo { .. } => echo::run(plan, show)?,
    };
    print(&report, load.json);
    if report.is_whole() {
        Ok(())
    } else {
        Err(Failure::Said(EXIT_FAILURE))
    }
}

fn print(report: &Report, json: bool) {
    let text = if json { report.json() } else { report.table() };
    println!("{text}");
    for note in report.notes() {
        eprintln!("note: {note}");
    }
}

#[cfg(test)]
mod tests;
