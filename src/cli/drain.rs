//! `conclave drain`: has a running node send its clients elsewhere and end, or says what that would be like.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use reqwest::blocking::Response;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::args::{Drain, Loudness};
use super::{Environment, Failure, admin, configuration};
use crate::config::{self, Config, default_config};
use crate::http::admin::drain::Shown;
use crate::runtime::drain::plan::{Outlook, Plan, Room, plan};

/// How often `--wait` looks.
const LOOK: Duration = Duration::from_millis(500);

/// `--wait` gives up so long after the deadline that the node named.
const OVERDUE: Duration = Duration::from_secs(15);

/// What a node takes per second and core, until it has measured that itself.
const ACCEPTS_PER_SECOND: u32 = 1_000;

/// Asks the node, or calculates where `--clients` says for how many.
pub fn run(args: &Drain, loudness: Loudness, environment: &Environment) -> Result<(), Failure> {
    if let Some(clients) = args.clients {
        let plan = plan(&outlook(args, clients, environment)?);
        show(&plan, args.json, loudness);
        return Ok(());
    }
    let node = Node::find(args, environment)?;
    if args.dry_run {
        let shown = node.look()?;
        show(&shown.plan, args.json, loudness);
        return Ok(());
    }
    let shown = node.begin()?;
    show(&shown.plan, args.json, loudness);
    if args.wait {
        node.wait(&shown, loudness)?;
    }
    Ok(())
}

/// A cluster that is not there.
fn outlook(args: &Drain, clients: u64, environment: &Environment) -> Result<Outlook, Failure> {
    let sources = environment.sources(args.config.clone());
    let config = match &sources.file {
        Some(_) => config::load(&sources)?.config,
        None => default_config(),
    };
    let accepts_per_second = args.rate.unwrap_or(ACCEPTS_PER_SECOND);
    let other = Room {
        accepts_per_second,
        free: args.free.unwrap_or(u64::from(u32::MAX)),
    };
    Ok(Outlook {
        clients,
        grace: args.grace.unwrap_or(config.drain.grace),
        time: args.time.unwrap_or(config.drain.time),
        accepts_per_second,
        others: vec![other; args.nodes.saturating_sub(1) as usize],
    })
}

fn show(plan: &Plan, json: bool, loudness: Loudness) {
    if json {
        println!("{}", serde_json::to_string(plan).unwrap_or_default());
    } else if !loudness.quiet {
        print!("{}", story(plan));
    }
}

/// For a person.
fn story(plan: &Plan) -> String {
    let whither = match (plan.others, plan.clients) {
        (_, 0) => "Nobody is connected.".to_owned(),
        (0, clients) => format!("{clients} clients, and no other node: they come back once this one has a successor."),
        (others, clients) => format!(
            "{clients} clients; {others} other node{} room for {} of them.",
            if others == 1 { " has" } else { "s have" },
            plan.moving
        ),
    };
    let mut text = format!("{whither}\n");
    let mut row = |at: f64, what: &str| text.push_str(&format!("{at:8.1} s  {what}\n"));
    row(0.0, "readiness fails; whoever comes is still served");
    row(
        plan.grace_seconds,
        "the first client is told when to come back, and closed",
    );
    row(plan.end_seconds, "the last one is; the node ends");
    row(plan.deadline_seconds, "at the latest: whoever is left is cut");
    row(plan.last_return_seconds, "the last client is back");
    text.push_str(&format!(
        "At most {:.0} clients come back per second.\n",
        plan.returns_per_second.ceil()
    ));
    text.push_str(if plan.fits {
        "It fits.\n"
    } else {
        "It does not fit: raise drain.time, or have more nodes with more room.\n"
    });
    text
}

/// A running node's admin listener, and what opens it.
struct Node {
    url: String,
    token: SecretString,
    client: reqwest::blocking::Client,
}

impl Node {
    fn find(args: &Drain, environment: &Environment) -> Result<Self, Failure> {
        let sources = environment.sources(args.config.clone());
        let config = match &sources.file {
            Some(_) => Some(configuration::load(&sources)?.config),
            None => None,
        };
        let url = match (&args.url, &config) {
            (Some(url), _) => url.trim_end_matches('/').to_owned(),
            (None, Some(config)) => admin::url(config.server.admin_listen),
            (None, None) => admin::DEFAULT_URL.to_owned(),
        };
        if !url.starts_with("http://") {
            return Err(Failure::usage(
                "--url: the admin listener speaks plain HTTP; expected http://ADDRESS:PORT",
            ));
        }
        Ok(Self {
            token: token(args, config.as_ref())?,
            client: admin::client()?,
            url,
        })
    }

    fn look(&self) -> Result<Shown, Failure> {
        let request = self.client.get(self.path());
        self.answer(request)
    }

    fn begin(&self) -> Result<Shown, Failure> {
        let request = self.client.post(self.path()).header("conclave-admin", "1");
        self.answer(request)
    }

    fn path(&self) -> String {
        format!("{}/api/drain", self.url)
    }

    fn answer(&self, request: reqwest::blocking::RequestBuilder) -> Result<Shown, Failure> {
        let request = request.bearer_auth(self.token.expose_secret());
        let response = request.send().map_err(|error| self.unreachable(&error))?;
        if !response.status().is_success() {
            return Err(self.refused(response));
        }
        parse(response).ok_or_else(|| {
            Failure::other(format_args!(
                "{}: the answer is not that of a conclave node\n  help: is this its server.admin_listen?",
                self.url
            ))
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let why = if error.is_timeout() {
            "no answer within 3 s"
        } else {
            "no connection"
        };
        Failure::other(format_args!(
            "{}: {why}\n  help: is the node running, and is this its server.admin_listen? Pass --config FILE or --url URL",
            self.url
        ))
    }

    fn refused(&self, response: Response) -> Failure {
        let status = response.status();
        let problem: Value = parse(response).unwrap_or_default();
        let detail = problem["detail"].as_str().unwrap_or_default();
        let help = match status {
            StatusCode::NOT_FOUND => {
                "the node has no admin.token_file, and then nobody may drain it over its admin listener; SIGTERM does the same"
            }
            StatusCode::UNAUTHORIZED => "the token is none of the node's admin.token_file",
            _ => problem["fix"].as_str().unwrap_or("the node's log says more"),
        };
        let detail = if detail.is_empty() {
            String::new()
        } else {
            format!(": {detail}")
        };
        Failure::other(format_args!("{} answered {status}{detail}\n  help: {help}", self.url))
    }

    /// Until nobody answers any more.
    fn wait(&self, begun: &Shown, loudness: Loudness) -> Result<(), Failure> {
        let time = Duration::from_secs_f64(begun.plan.deadline_seconds.max(0.0)) + OVERDUE;
        let give_up = Instant::now() + time;
        let mut said: Option<(String, usize)> = None;
        while Instant::now() < give_up {
            let request = self.client.get(self.path()).bearer_auth(self.token.expose_secret());
            let shown = match request.send() {
                Err(error) if error.is_timeout() => continue,
                answer => answer.ok().and_then(parse::<Shown>),
            };
            // At the same address its successor may answer; but first the node has to begin.
            let has_begun = said.as_ref().is_some_and(|(phase, _)| phase != "serving");
            let Some(shown) = shown.filter(|shown| shown.phase != "serving" || !has_begun) else {
                say_ended(loudness);
                return Ok(());
            };
            let now = (shown.phase, shown.left);
            if !loudness.quiet && said.as_ref() != Some(&now) {
                eprintln!("{}: {} clients have not been told yet", now.0, now.1);
            }
            said = Some(now);
            std::thread::sleep(LOOK);
        }
        Err(Failure::other(format_args!(
            "{}: the node has not ended within {} s\n  help: its log says what it waits for",
            self.url,
            time.as_secs()
        )))
    }
}

fn parse<T: DeserializeOwned>(response: Response) -> Option<T> {
    serde_json::from_str(&response.text().ok()?).ok()
}

fn say_ended(loudness: Loudness) {
    if !loudness.quiet {
        eprintln!("the node has ended");
    }
}

/// From `--token-file`, else from the node's configuration.
fn token(args: &Drain, config: Option<&Config>) -> Result<SecretString, Failure> {
    if let Some(path) = &args.token_file {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::usage(format_args!(
                "--token-file {}: {error}\n  help: the file that the node has as admin.token_file, or one with one of its tokens",
                path.display()
            ))
        })?;
        let lines = text.lines().map(str::trim);
        let first = lines
            .filter(|line| !line.starts_with('#'))
            .find_map(|line| line.split_whitespace().last());
        return first
            .map(SecretString::from)
            .ok_or_else(|| Failure::usage(format_args!("--token-file {}: there is no token in it", path.display())));
    }
    let configured = config.and_then(|config| config.admin.tokens.first());
    configured.map(|token| token.secret.clone()).ok_or_else(|| {
        Failure::usage(match config {
            Some(_) => {
                "admin.token_file is not set: without it nobody may drain the node over its admin listener\n  help: set it and restart the node, or send SIGTERM, which drains too"
            }
            None => {
                "which node, and with which token?\n  help: pass the node's --config FILE, or --url URL and --token-file FILE; --clients N predicts without a node"
            }
        })
    })
}

#[cfg(test)]
mod tests;
