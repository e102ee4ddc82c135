//! The streams: made at the first connection, compared at every other.

use anyhow::{anyhow, bail};
use serde_json::{Value, json};

use super::api::Info;
use super::link::Link;
use super::names::STREAMS;
use super::problem::{Problem, code};
use super::settings::Settings;

/// Copies of each stream where the servers are several.
const REPLICAS: usize = 3;

/// How long control is kept: a node that was away for longer loads all revocations anew.
const CONTROL_AGE_S: u64 = 600;

/// Longest life of a value that is to be used once.
pub(super) const ONCE_AGE_S: u64 = 24 * 3_600;

/// A room without messages is forgotten when nobody was in it for this many times as long as a message is kept.
const KNOWN_AGES: u32 = 2;

/// Why the streams cannot be used.
#[derive(Debug)]
pub(super) enum Unfit {
    /// It may be otherwise later.
    Yet(anyhow::Error),
    /// It never will, unless a person does something.
    Ever(anyhow::Error),
}

impl From<Problem> for Unfit {
    fn from(problem: Problem) -> Self {
        Self::Yet(problem.into())
    }
}

/// What the streams say of themselves.
pub(super) struct Streams {
    /// Of rooms, by number.
    pub rooms: Vec<Info>,
    pub log: Info,
}

/// Makes the streams that are missing and brings the others up to the configuration.
pub(super) async fn ensure(link: &Link, settings: &Settings) -> Result<Streams, Unfit> {
    check_server(link, settings).map_err(Unfit::Ever)?;
    let mut rooms = Vec::with_capacity(STREAMS);
    for stream in 0..STREAMS {
        rooms.push(ensure_one(link, &rooms_config(settings, stream)).await?);
        ensure_one(link, &users_config(settings, stream)).await?;
    }
    ensure_one(link, &known_config(settings)).await?;
    ensure_one(link, &state_config(settings)).await?;
    ensure_one(link, &once_config(settings)).await?;
    let log = ensure_one(link, &log_config(settings)).await?;
    Ok(Streams { rooms, log })
}

fn check_server(link: &Link, settings: &Settings) -> anyhow::Result<()> {
    let (major, minor) = link.version;
    if link.version < (2, 9) {
        bail!("NATS {major}.{minor} is too old: install nats-server 2.9 or newer");
    }
    if !link.jetstream && !link.clustered {
        bail!("NATS runs without JetStream: start it with -js, or give it a jetstream {{ }} block");
    }
    if settings.disk && link.version < (2, 10) {
        bail!(
            "backplane.kept = \"disk\" needs a server that writes through, and NATS {major}.{minor} cannot: \
             set backplane.kept = \"async\", or install nats-server 2.10 or newer with sync_interval: always"
        );
    }
    Ok(())
}

async fn ensure_one(link: &Link, wanted: &Value) -> Result<Info, Unfit> {
    let name = wanted["name"].as_str().unwrap_or_default();
    let found = match link.info(name).await {
        Ok(found) => found,
        Err(Problem::Api(error)) if error.err_code == code::STREAM_NOT_FOUND => return make(link, name, wanted).await,
        Err(Problem::Api(error)) if error.err_code == code::NOT_ENABLED_FOR_ACCOUNT => {
            return Err(Unfit::Ever(anyhow!(
                "this NATS account has no JetStream: enable it for the account of backplane.url"
            )));
        }
        Err(problem) => return Err(problem.into()),
    };
    for fixed in ["subjects", "republish", "retention"] {
        if wanted
            .get(fixed)
            .is_some_and(|wanted| Some(wanted) != found.config.get(fixed))
        {
            return Err(Unfit::Ever(anyhow!(
                "the NATS stream {name} was made by something else (its {fixed}): choose another backplane.prefix, \
                 or remove the stream"
            )));
        }
    }
    update(link, name, wanted, found).await
}

/// What the operator chose for the stream itself (replicas, placement, storage) stays.
async fn update(link: &Link, name: &str, wanted: &Value, found: Info) -> Result<Info, Unfit> {
    let mut config = found.config.clone();
    for (key, value) in wanted.as_object().into_iter().flatten() {
        if key != "storage" {
            config[key.as_str()] = value.clone();
        }
    }
    if config == found.config {
        return Ok(found);
    }
    tracing::info!(stream = name, "NATS: the stream takes on what the configuration says");
    let updated: Info = link.api(&format!("STREAM.UPDATE.{name}"), &config).await?;
    Ok(updated)
}

/// With three copies where there can be, else with one: a single server says that it can have but one.
async fn make(link: &Link, name: &str, wanted: &Value) -> Result<Info, Unfit> {
    let mut config = wanted.clone();
    config["num_replicas"] = json!(REPLICAS);
    let call = format!("STREAM.CREATE.{name}");
    let made = match link.api(&call, &config).await {
        Err(Problem::Api(error)) if error.err_code == code::REPLICAS_NOT_SUPPORTED => {
            config["num_replicas"] = json!(1);
            link.api(&call, &config).await
        }
        made => made,
    };
    match made {
        Ok(info) => Ok(info),
        // Another node made it just now.
        Err(Problem::Api(error)) if error.err_code == code::STREAM_NAME_IN_USE => Ok(link.info(name).await?),
        Err(Problem::Api(error)) if error.err_code == code::STREAM_SUBJECTS_OVERLAP => Err(Unfit::Ever(anyhow!(
            "another NATS stream takes the subjects of {name}: choose another backplane.prefix, or remove that stream"
        ))),
        Err(Problem::Api(error)) if error.err_code == code::CLUSTER_NO_PEERS => Err(Unfit::Yet(anyhow!(
            "NATS cannot place three copies of {name} ({error}): start three servers with JetStream, or make the streams \
             yourself with fewer copies"
        ))),
        Err(problem) => Err(problem.into()),
    }
}

fn nanos(seconds: u64) -> u64 {
    seconds.saturating_mul(1_000_000_000)
}

fn rooms_config(settings: &Settings, stream: usize) -> Value {
    let names = &settings.names;
    let (subject, live) = (names.subject("c"), names.subject("l"));
    json!({
        "name": names.rooms_stream(stream), "subjects": [format!("{subject}.{stream}.*")],
        "retention": "limits", "storage": "file", "discard": "old",
        // One more than can be read: if it is still there, nothing is missing after it.
        "max_msgs_per_subject": settings.stream_messages + 1,
        "max_age": nanos(settings.stream_age.as_secs()),
        "duplicate_window": nanos(settings.key_window.as_secs().max(1)),
        "allow_rollup_hdrs": true,
        "republish": {"src": format!("{subject}.*.*"), "dest": format!("{live}.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}.m")},
    })
}

fn users_config(settings: &Settings, stream: usize) -> Value {
    let names = &settings.names;
    let (subject, live) = (names.subject("u"), names.subject("l"));
    let words = "{{wildcard(1)}}.{{wildcard(2)}}.p.{{wildcard(3)}}.{{wildcard(4)}}";
    json!({
        "name": names.users_stream(stream), "subjects": [format!("{subject}.{stream}.*.*.*")],
        "retention": "limits", "storage": "file", "discard": "old", "max_msgs_per_subject": 1,
        "republish": {"src": format!("{subject}.*.*.*.*"), "dest": format!("{live}.{words}")},
    })
}

fn known_config(settings: &Settings) -> Value {
    let names = &settings.names;
    json!({
        "name": names.stream("known"), "subjects": [names.subject("r.*")],
        "retention": "limits", "storage": "file", "discard": "old", "max_msgs_per_subject": 1,
        "max_age": nanos((settings.stream_age * KNOWN_AGES).as_secs()),
    })
}

fn state_config(settings: &Settings) -> Value {
    let names = &settings.names;
    json!({
        "name": names.stream("state"), "subjects": [names.subject("s.*.*")],
        "retention": "limits", "storage": "file", "discard": "old", "max_msgs_per_subject": 1,
        "republish": {
            "src": names.subject("s.*.*"), "dest": format!("{}.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}", names.subject("w")),
        },
    })
}

fn log_config(settings: &Settings) -> Value {
    let names = &settings.names;
    json!({
        "name": names.stream("log"), "subjects": [names.subject("k.*.*")],
        "retention": "limits", "storage": "file", "discard": "old", "max_msgs_per_subject": 1,
        "max_age": nanos(CONTROL_AGE_S),
        "republish": {
            "src": names.subject("k.*.*"), "dest": format!("{}.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}", names.subject("y")),
        },
    })
}

/// The second value under one name is refused by the store itself, on every copy alike.
fn once_config(settings: &Settings) -> Value {
    let names = &settings.names;
    json!({
        "name": names.stream("once"), "subjects": [names.subject("o.*")],
        "retention": "limits", "storage": "file", "discard": "new", "discard_new_per_subject": true,
        "max_msgs_per_subject": 1, "max_age": nanos(ONCE_AGE_S),
    })
}
