//! `conclave probe`: a synthetic client that says what broke. Once, for a person or a script; or served to Prometheus.
//!
//! `place` is where to, `identity` whose token, `run` goes through the stages (`dial`: the way there, `talk`: what is
//! said), `stage` holds what they came to, `report` says it, `exporter` serves it.

mod dial;
mod exporter;
mod identity;
mod place;
mod report;
mod run;
mod stage;
mod talk;
mod witness;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use super::args::{Loudness, Probe};
use super::paint::Paint;
use super::{Environment, Failure};
use identity::Source;
use place::{Place, Resolve};

/// Bad arguments: another code than elsewhere, since 64 means nothing to whoever runs probes.
pub const EXIT_USAGE: u8 = 2;
/// The same with `--nagios`: unknown.
pub const EXIT_UNKNOWN: u8 = 3;

/// How to probe, whatever it is that is probed.
pub struct Plan {
    via: Option<Place>,
    room: Option<String>,
    tokens: Source,
    trust: Trust,
    timeout: Duration,
    resolve: Vec<Resolve>,
    origin: Option<String>,
    /// Its name; none: the token goes as `Authorization: Bearer`.
    cookie: Option<String>,
    environment: Environment,
}

/// Whose certificates are good.
pub enum Trust {
    /// Of this file; none: of `conclave dev` for this machine, else of the system.
    Authority(Option<PathBuf>),
    Anybody,
}

/// Probes, or serves probes; the exit code says which stage failed.
pub fn run(args: &Probe, loudness: Loudness, environment: &Environment) -> Result<(), Failure> {
    let done = match &args.listen {
        Some(listen) => exporter::serve(args, listen, loudness, environment),
        None => once(args, loudness, environment),
    };
    done.map_err(|failure| {
        let code = failure.report();
        let is_usage = code == super::EXIT_USAGE;
        Failure::Said(match (is_usage, args.nagios) {
            (true, true) => EXIT_UNKNOWN,
            (true, false) => EXIT_USAGE,
            (false, _) => code,
        })
    })
}

/// The exit code for arguments that could not even be parsed.
pub fn usage_code(arguments: &[std::ffi::OsString]) -> Option<u8> {
    let mut words = arguments.iter().skip(1);
    let verb = words.find(|word| !word.to_string_lossy().starts_with('-'))?;
    let nagios = arguments.iter().any(|word| word == "--nagios");
    (verb == "probe").then_some(if nagios { EXIT_UNKNOWN } else { EXIT_USAGE })
}

fn once(args: &Probe, loudness: Loudness, environment: &Environment) -> Result<(), Failure> {
    let [target] = args.target.as_slice() else {
        return Err(Failure::usage(
            "one URL at a time; --listen serves several to Prometheus",
        ));
    };
    let target = place("URL", target)?;
    let plan = Plan::from_flags(args, environment)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("a runtime could not be set up")?;
    let report = runtime.block_on(run::run(&plan, &target, plan.timeout));
    // A name that is still being looked up must not hold us.
    runtime.shutdown_background();
    if args.json {
        println!("{}", report::json::of(&report));
    } else if args.prometheus {
        print!("{}", report::prometheus::of(&report, Some(&report.target)));
    } else if args.nagios {
        let (line, code) = report::nagios::of(&report, args.warn, args.crit, plan.timeout);
        println!("{line}");
        return Failure::from_code(code);
    } else {
        if !loudness.quiet {
            let paint = Paint::for_stream(&std::io::stdout(), environment);
            print!("{}", report::table::of(&report, paint));
        }
        eprint!("{}", report::table::trouble(&report));
        if !report.is_probe && report.failed.is_none() && !loudness.quiet {
            eprintln!(
                "note: this token is no probe's, so the room saw it come, speak and go\n  help: mint one with conclave token --probe"
            );
        }
    }
    Failure::from_code(report.exit_code())
}

fn place(what: &str, url: &str) -> Result<Place, Failure> {
    Place::parse(url)
        .map_err(|why| Failure::usage(format_args!("{what}: {why}\n  help: such as wss://chat.example.com/ws")))
}

impl Plan {
    /// As the flags say.
    fn from_flags(args: &Probe, environment: &Environment) -> Result<Self, Failure> {
        let tokens = match (&args.token, &args.token_file, &args.sign_with) {
            (Some(dash), ..) if dash == "-" => Some(Source::stdin()?),
            (Some(token), ..) => Some(Source::Given(token.trim().to_owned().into())),
            (_, Some(file), _) => Some(Source::File(file.clone())),
            (.., Some(file)) => Some(Source::signing(file.clone(), environment)?),
            _ => Source::implied(environment),
        };
        let tokens = tokens.ok_or_else(|| {
            Failure::usage("no token to probe with\n  help: pass --token-file FILE (conclave token --probe mints one), or set CONCLAVE_TOKEN")
        })?;
        if let Source::File(_) = tokens {
            // Found out now rather than as a failed probe.
            tokens
                .token()
                .map_err(|why| Failure::usage(format_args!("--token-file {why}")))?;
        }
        if args.timeout.is_zero() {
            return Err(Failure::usage("--timeout: expected more than nothing"));
        }
        let resolve = args
            .resolve
            .iter()
            .map(|text| Resolve::parse(text).map_err(|why| Failure::usage(format_args!("--resolve {text}: {why}"))));
        let room = args.room.clone();
        if let Some(Err(why)) = room.as_deref().map(crate::protocol::room::check) {
            return Err(Failure::usage(format_args!("--room: {why}")));
        }
        Ok(Self {
            via: args.via.as_deref().map(|via| place("--via", via)).transpose()?,
            room,
            tokens,
            trust: if args.insecure {
                Trust::Anybody
            } else {
                Trust::Authority(args.ca.clone())
            },
            timeout: args.timeout,
            resolve: resolve.collect::<Result<_, _>>()?,
            origin: args.origin.clone(),
            cookie: args.cookie.clone(),
            environment: environment.clone(),
        })
    }
}
