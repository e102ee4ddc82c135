//! What `conclave revoke` and `conclave kick` share: a moment on the backplane, to tell all nodes something.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::args::Whom;
use super::{Environment, Failure, configuration};
use crate::backplane;
use crate::backplane::contract::{Backplane, Control, Entry, Failed, PresenceEvent, Refusal, Scope, Sink, Subject};
use crate::config::{BackplaneKind, Config};
use crate::runtime::Tasks;
use crate::telemetry::metrics::{BuildInfo, Metrics};

/// Between two tries while the backplane cannot be reached or is not able to.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The configuration, if it names a backplane on which other processes can be told anything.
pub fn shared_backplane(file: Option<PathBuf>, environment: &Environment) -> Result<Config, Failure> {
    let config = configuration::load(&environment.sources(file))?.config;
    if config.backplane.kind == BackplaneKind::Memory {
        return Err(Failure::usage(
            "backplane.kind is \"memory\": a node without a shared backplane cannot be told anything from another process\n  help: pass the --config of the nodes; with kind = \"redis\" or \"nats\" all of them are told; one node alone kicks from the operator's page, or by POST /api/kick",
        ));
    }
    Ok(config)
}

/// Whom it is about, as nodes know it.
pub fn subject(whom: &Whom) -> Result<Subject, Failure> {
    let (subject, flag) = match (&whom.user, &whom.session, &whom.token) {
        (Some(id), None, None) => (Subject::User(id.as_str().into()), "--user"),
        (None, Some(id), None) => (Subject::Session(id.as_str().into()), "--session"),
        (None, None, Some(id)) => (Subject::Token(id.as_str().into()), "--token"),
        _ => return Err(Failure::usage("exactly one of --user, --session and --token says whom")),
    };
    let (Subject::User(id) | Subject::Session(id) | Subject::Token(id)) = &subject;
    if id.is_empty() || id.len() > crate::limits::USER_ID_BYTES_MAX {
        return Err(Failure::usage(format_args!("{flag}: expected 1 to 256 bytes")));
    }
    if flag == "--token" && id.split('.').count() == 3 {
        // Its claims would be stored and shown for everybody to see.
        return Err(Failure::usage(
            "--token: this looks like a whole token; expected its id, the jti claim",
        ));
    }
    Ok(subject)
}

/// For a person: `user ann`.
pub fn named(subject: &Subject) -> String {
    match subject {
        Subject::User(id) => format!("user {id}"),
        Subject::Session(id) => format!("session {id}"),
        Subject::Token(id) => format!("token {id}"),
    }
}

/// Tells all nodes of each, in order. How long that took, without getting there.
pub fn tell(config: &Config, controls: &[Control]) -> Result<Duration, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("a runtime could not be set up")?;
    runtime.block_on(async {
        let tasks = Tasks::default();
        let told = tell_from(config, controls, &tasks).await;
        tasks.stop_services();
        told
    })
}

async fn tell_from(config: &Config, controls: &[Control], tasks: &Tasks) -> Result<Duration, Failure> {
    let metrics = Metrics::install(BuildInfo {
        version: env!("CARGO_PKG_VERSION"),
        revision: super::COMMIT,
        rustc: super::RUSTC,
        backplane: config.backplane.kind.as_str(),
    });
    let backplane = backplane::connect(config, &metrics)?.context("no backplane")?;
    let ear = Arc::new(Ear::default());
    Arc::clone(&backplane).start(Arc::clone(&ear) as _, tasks).await?;
    let patience = config.backplane.connect_timeout + config.backplane.call_timeout;
    // Not up by then: what it says to the call is said to the person.
    let _ = timeout(patience, ear.is_up.notified()).await;
    let since = Instant::now();
    for control in controls {
        tell_one(&*backplane, control, patience).await.map_err(explained)?;
    }
    Ok(since.elapsed())
}

/// Tries again what was certainly not done, while that may pass.
async fn tell_one(backplane: &dyn Backplane, control: &Control, patience: Duration) -> Result<(), Failed> {
    let since = Instant::now();
    loop {
        match backplane.tell(control).await {
            Err(Failed::Refused(refusal)) if refusal.may_pass() && since.elapsed() < patience => {
                sleep(RETRY_PAUSE).await;
            }
            told => return told,
        }
    }
}

fn explained(failed: Failed) -> Failure {
    let why = match failed {
        Failed::Refused(Refusal::Away) => {
            "the backplane cannot be reached: nobody was told\n  help: is backplane.url right, and is it running?"
        }
        Failed::Refused(Refusal::Late) => "the backplane came to it too late: nobody was told; try again",
        Failed::Refused(Refusal::Full) => {
            "the backplane is full: nobody was told\n  help: give it memory, then try again"
        }
        Failed::Refused(Refusal::Unsafe) => {
            "the backplane could not keep it as backplane.kept demands: nobody was told\n  help: are its replicas and its disk well?"
        }
        Failed::Refused(Refusal::Broken) => {
            "the backplane holds something else under our names: nobody was told\n  help: does somebody else use backplane.prefix?"
        }
        Failed::Refused(Refusal::Forbidden) => {
            "the backplane's account may not do this: nobody was told\n  help: README's cluster section lists what it must be allowed to"
        }
        Failed::Unknown => "no answer came: it may have been done or not; do it again to be sure",
    };
    Failure::other(why)
}

/// RFC 3339, in whole seconds.
pub fn rfc3339(unix_seconds: u64) -> String {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(unix_seconds));
    time.map_or_else(
        || unix_seconds.to_string(),
        |time| humantime::format_rfc3339_seconds(time).to_string(),
    )
}

/// Hears only whether the backplane can be reached.
#[derive(Default)]
struct Ear {
    is_up: Notify,
}

impl Sink for Ear {
    fn message(&self, _: &str, _: Entry) {}

    fn presence(&self, _: &str, _: PresenceEvent) {}

    fn control(&self, _: Control) {}

    fn control_suspect(&self) {}

    fn suspect(&self, _: Scope<'_>) {}

    fn up(&self, up: bool) {
        if up {
            self.is_up.notify_one();
        }
    }

    fn unready(&self, _: bool) {}
}
