//! `conclave probe --listen`: a Prometheus exporter of many targets, as blackbox_exporter is one.
//!
//! `/probe?target=wss://…&module=…` probes and answers with what came of it, `/metrics` tells of the exporter itself.

mod modules;
mod pattern;
mod server;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::Semaphore;

use super::place::Place;
use super::report::prometheus::Text;
use super::stage::{Report, Stage, plain};
use super::{Plan, report, run};
use crate::cli::args::{Loudness, Probe};
use crate::cli::{Environment, Failure};
use crate::telemetry::metrics::names::probe as names;
use modules::{DEFAULT, Module, Modules};
use pattern::Pattern;

/// Probes at a time; one more is told to come again.
const PROBES_MAX: usize = 64;
/// Of the scrape's own time, for the way of the answer.
const TIMEOUT_OFFSET: Duration = Duration::from_millis(500);
/// Pairs of module and target whose last verdict is remembered, so that the log has changes only.
const VERDICTS_MAX: usize = 4_096;

/// What became of a request, for the metric of the exporter itself.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    Ok,
    Failed,
    /// No such module, no URL.
    BadRequest,
    /// The target is none of the module's.
    Forbidden,
    /// [`PROBES_MAX`]
    Busy,
}

const OUTCOMES: [(Outcome, &str); 5] = [
    (Outcome::Ok, "ok"),
    (Outcome::Failed, "failed"),
    (Outcome::BadRequest, "bad_request"),
    (Outcome::Forbidden, "forbidden"),
    (Outcome::Busy, "busy"),
];

/// The exporter, shared by its requests.
struct Exporter {
    modules: Modules,
    places: Semaphore,
    outcomes: [AtomicU64; OUTCOMES.len()],
    verdicts: Mutex<HashMap<(String, String), Option<Stage>>>,
    quiet: bool,
}

/// Serves until SIGTERM or SIGINT.
pub fn serve(args: &Probe, listen: &str, loudness: Loudness, environment: &Environment) -> Result<(), Failure> {
    let modules = match &args.config {
        Some(file) => modules::load(file, environment)?,
        None => from_flags(args, environment)?,
    };
    let listener = bind(listen)?;
    let shown = listener.local_addr().context("the listener has no address")?;
    let exporter = Arc::new(Exporter {
        modules,
        places: Semaphore::new(PROBES_MAX),
        outcomes: Default::default(),
        verdicts: Mutex::default(),
        quiet: loudness.quiet,
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("a runtime could not be set up")?;
    println!("probe exporter listens on {shown}");
    let served = runtime.block_on(server::serve(listener, exporter));
    runtime.shutdown_background();
    Ok(served.context("the exporter cannot serve")?)
}

/// The module `default`: the flags say how, and the URLs which.
fn from_flags(args: &Probe, environment: &Environment) -> Result<Modules, Failure> {
    if args.target.is_empty() {
        return Err(Failure::usage(
            "--listen: which servers may be probed?\n  help: name their URLs (* stands for part of a name), or pass --config probe.toml with [modules.default] targets",
        ));
    }
    let targets = args.target.iter().map(|url| {
        Pattern::parse(url)
            .map_err(|why| Failure::usage(format_args!("URL: {why}\n  help: such as wss://chat.example.com/ws")))
    });
    let module = Module {
        targets: targets.collect::<Result<_, _>>()?,
        plan: Plan::from_flags(args, environment)?,
    };
    Ok(Modules::from([(DEFAULT.to_owned(), module)]))
}

/// `:9115` is every address of both families, as with other exporters.
fn bind(listen: &str) -> Result<TcpListener, Failure> {
    let refuse = || {
        Failure::usage(format_args!(
            "--listen {listen}: expected [ADDRESS]:PORT, such as :9115"
        ))
    };
    let all = listen
        .strip_prefix(':')
        .map(|port| port.parse().map_err(|_| refuse()))
        .transpose()?;
    let address = match all {
        Some(port) => SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port),
        None => listen.parse().map_err(|_| refuse())?,
    };
    let bound = open(address, all.is_some()).or_else(|error| match all {
        // A machine without IPv6.
        Some(port) if error.kind() != std::io::ErrorKind::AddrInUse => {
            open(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port), false)
        }
        _ => Err(error),
    });
    bound.map_err(|error| {
        Failure::other(format_args!(
            "--listen {listen}: {error}\n  help: is another exporter there? Choose another port"
        ))
    })
}

fn open(address: SocketAddr, both: bool) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!both)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    Ok(socket.into())
}

/// Why a request is not probed.
struct Refused {
    outcome: Outcome,
    why: String,
}

impl Exporter {
    /// Probes, or says why not. `scrape` is the time that Prometheus gives the whole answer.
    async fn probe(
        &self,
        target: Option<&str>,
        module: Option<&str>,
        scrape: Option<Duration>,
    ) -> Result<String, Refused> {
        let asked = self.asked(target, module, scrape).await;
        let outcome = match &asked {
            Ok((report, _)) if report.failed.is_some() => Outcome::Failed,
            Ok(_) => Outcome::Ok,
            Err(refused) => refused.outcome,
        };
        self.count(outcome);
        asked.map(|(_, text)| text)
    }

    async fn asked(
        &self,
        target: Option<&str>,
        module: Option<&str>,
        scrape: Option<Duration>,
    ) -> Result<(Report, String), Refused> {
        let refuse = |outcome, why: String| Err(Refused { outcome, why });
        let name = module.filter(|name| !name.is_empty()).unwrap_or(DEFAULT);
        let Some(module) = self.modules.get(name) else {
            return refuse(Outcome::BadRequest, "there is no such module".to_owned());
        };
        let target = match target.map(Place::parse) {
            Some(Ok(target)) => target,
            Some(Err(why)) => return refuse(Outcome::BadRequest, format!("target: {why}")),
            None => {
                return refuse(
                    Outcome::BadRequest,
                    "target is missing: /probe?target=wss://…".to_owned(),
                );
            }
        };
        if !module.allows(&target) {
            return refuse(
                Outcome::Forbidden,
                "this target is none of the module's targets".to_owned(),
            );
        }
        let Ok(_place) = self.places.try_acquire() else {
            return refuse(Outcome::Busy, "too many probes are under way".to_owned());
        };
        let report = run::run(&module.plan, &target, timeout(&module.plan, scrape)).await;
        self.note(name, &report);
        let mut text = report::prometheus::of(&report, None);
        if let Some((stage, trouble)) = &report.failed {
            // For whoever looks with a browser; Prometheus passes over it.
            text.push_str(&format!(
                "# {}: {}\n# {}\n",
                stage.word(),
                plain(&trouble.what),
                plain(&trouble.help)
            ));
        }
        Ok((report, text))
    }

    /// Says in the log what has changed.
    fn note(&self, module: &str, report: &Report) {
        let failed = report.failed.as_ref();
        let mut verdicts = self.verdicts.lock();
        if verdicts.len() >= VERDICTS_MAX {
            verdicts.clear();
        }
        let key = (module.to_owned(), report.target.clone());
        let before = verdicts.insert(key, failed.map(|(stage, _)| *stage));
        drop(verdicts);
        let target = &report.target;
        match (before.flatten(), failed) {
            (before, Some((stage, trouble))) if before != Some(*stage) => {
                let what = plain(&trouble.what);
                eprintln!("module {module}, {target}: failed: {}: {what}", stage.word());
            }
            (Some(_), None) if !self.quiet => eprintln!("module {module}, {target}: passes again"),
            _ => {}
        }
    }

    fn count(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Of the exporter itself.
    fn metrics(&self) -> String {
        let mut text = Text::new(None);
        text.head(&names::EXPORTER_REQUESTS);
        for (outcome, word) in OUTCOMES {
            let count = self.outcomes[outcome as usize].load(Ordering::Relaxed);
            text.labelled(&names::EXPORTER_REQUESTS, &format!("result=\"{word}\""), count as f64);
        }
        text.head(&names::EXPORTER_RUNNING);
        let running = PROBES_MAX.saturating_sub(self.places.available_permits());
        text.labelled(&names::EXPORTER_RUNNING, "", running as f64);
        text.text
    }
}

/// The module's, but the answer must be there before Prometheus gives up.
fn timeout(plan: &Plan, scrape: Option<Duration>) -> Duration {
    let scrape = scrape.map_or(plan.timeout, |scrape| {
        scrape.checked_sub(TIMEOUT_OFFSET).unwrap_or_default().max(scrape / 2)
    });
    scrape.min(plan.timeout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::probe::Trust;
    use crate::cli::probe::identity::Source;

    #[test]
    fn the_answer_comes_before_prometheus_gives_up() {
        let plan = Plan {
            via: None,
            room: None,
            tokens: Source::Given("t".to_owned().into()),
            trust: Trust::Anybody,
            timeout: Duration::from_secs(5),
            resolve: Vec::new(),
            origin: None,
            cookie: None,
            environment: Environment::new(Vec::new()),
        };
        let ms = Duration::from_millis;
        for (scrape, expected) in [
            (None, 5_000),
            (Some(10_000), 5_000),
            (Some(3_000), 2_500),
            (Some(600), 300),
        ] {
            assert_eq!(timeout(&plan, scrape.map(ms)), ms(expected), "{scrape:?}");
        }
    }

    #[test]
    fn a_port_alone_is_every_address() {
        let all = bind(":0").unwrap();
        let port = all.local_addr().unwrap().port();
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert!(bind(&format!("127.0.0.1:{port}")).is_err() || cfg!(not(target_os = "linux")));
        for bad in ["9115", "localhost:9115", ":x", ""] {
            assert_eq!(bind(bad).unwrap_err().report(), 64, "{bad}");
        }
    }
}
