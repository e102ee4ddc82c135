//! One probe, stage by stage, within one deadline.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::Plan;
use super::dial;
use super::identity::Claims;
use super::place::Place;
use super::stage::{Kind, Report, Stage, Step, Trouble};
use super::talk::Link;

/// Shorter than any JWT: three parts and two dots.
const TOKEN_BYTES_MIN: usize = 16;

/// The stage that did not pass is in the report.
struct Failed;

/// Goes through all stages, up to the first that fails.
pub async fn run(plan: &Plan, target: &Place, timeout: Duration) -> Report {
    let mut way = Way::new(target, timeout);
    let started = Instant::now();
    match plan.tokens.token() {
        Ok(token) => {
            let claims = Claims::read(&token);
            way.report.is_probe = claims.is_probe;
            let room = plan.room.clone().unwrap_or_else(|| claims.room());
            way.report.room = Some(room.clone());
            // A failure is in the report.
            let _ = way.all(plan, target, &token, &room).await;
            way.report.scrub(&token);
        }
        Err(why) => {
            let trouble = Trouble::new(Kind::Auth, format!("no token: {why}"), "check the file of the token");
            way.report.failed = Some((Stage::Auth, trouble));
        }
    }
    way.report.took = started.elapsed();
    way.report
}

impl Report {
    /// A server may say back what it was told.
    fn scrub(&mut self, token: &SecretString) {
        let token = token.expose_secret();
        // What is shorter is no token, and may be part of any word.
        if token.len() < TOKEN_BYTES_MIN {
            return;
        }
        let scrub = |text: &mut String| {
            if text.contains(token) {
                *text = text.replace(token, "(token)");
            }
        };
        self.steps.iter_mut().for_each(|step| scrub(&mut step.detail));
        if let Some((_, trouble)) = &mut self.failed {
            scrub(&mut trouble.what);
            scrub(&mut trouble.help);
        }
        self.room.iter_mut().for_each(scrub);
        self.session.iter_mut().for_each(scrub);
        self.kept.iter_mut().for_each(scrub);
    }
}

/// How far it has come.
struct Way {
    report: Report,
    deadline: Instant,
    timeout: Duration,
}

impl Way {
    fn new(target: &Place, timeout: Duration) -> Self {
        let report = Report {
            target: target.to_string(),
            ..Report::default()
        };
        Self {
            report,
            deadline: Instant::now() + timeout,
            timeout,
        }
    }

    /// Times a stage; `late` says what it means when nothing comes.
    async fn step<T>(
        &mut self,
        stage: Stage,
        late: impl FnOnce() -> Trouble,
        work: impl Future<Output = Result<(T, String), Trouble>>,
    ) -> Result<T, Failed> {
        let started = Instant::now();
        let done = tokio::time::timeout_at(self.deadline, work).await;
        let took = started.elapsed();
        let mut note = |detail| self.report.steps.push(Step { stage, took, detail });
        match done.unwrap_or_else(|_| Err(late())) {
            Ok((value, detail)) => {
                note(detail);
                Ok(value)
            }
            Err(trouble) => {
                note(String::new());
                self.report.failed = Some((stage, trouble));
                Err(Failed)
            }
        }
    }

    fn late(&self, what: &str, help: &str) -> Trouble {
        let timeout = humantime::format_duration(self.timeout);
        Trouble::new(Kind::Timeout, format!("{what} within {timeout}"), help)
    }

    async fn all(&mut self, plan: &Plan, target: &Place, token: &SecretString, room: &str) -> Result<(), Failed> {
        let mut link = self.enter(plan, target, token, room).await?;
        let mut other = match &plan.via {
            Some(via) => Some(self.via(plan, via, token, room).await?),
            None => None,
        };
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        self.publish(&mut link, other.as_mut(), room, &nonce).await?;
        let late = self.late(
            "no pong",
            "the node answers nothing any more: is one of its cores stuck?",
        );
        let ping = async { link.ping().await.map(|detail| ((), detail)) };
        self.step(Stage::Ping, || late, ping).await?;
        let late = self.late("no answer to our close", "a proxy in between may hold it back");
        let close = async { link.close().await.map(|detail| ((), detail)) };
        self.step(Stage::Close, || late, close).await?;
        if let Some(other) = other {
            // Its end is no part of the verdict.
            drop(tokio::time::timeout_at(self.deadline, other.close()).await);
        }
        Ok(())
    }

    /// Name, TCP, TLS, upgrade, token, join.
    async fn enter(&mut self, plan: &Plan, place: &Place, token: &SecretString, room: &str) -> Result<Link, Failed> {
        let late = self.late(
            "no answer from DNS",
            "does this machine's resolver (/etc/resolv.conf) work?",
        );
        let addresses = self.step(Stage::Dns, || late, dial::resolve(plan, place)).await?;
        let left = self.deadline.saturating_duration_since(Instant::now());
        let late = self.late(
            "no TCP connection",
            "a firewall that drops, a machine that is gone, or a full accept queue",
        );
        let stream = self.step(Stage::Tcp, || late, dial::connect(&addresses, left)).await?;
        let late = self.late(
            "TCP was accepted, but no TLS handshake ended",
            "the node is overloaded or stuck, or what listens there speaks no TLS",
        );
        let mut seen = None;
        let hello = async {
            let (made, shown) = dial::handshake(plan, place, stream).await;
            seen = shown;
            let made = made?;
            let detail = made.version.clone();
            Ok((made, detail))
        };
        let made = self.step(Stage::Tls, || late, hello).await;
        self.report.certificate = seen;
        let made = made?;
        self.report.tls_version = Some(made.version.clone());
        let late = self.late(
            "no answer to the upgrade request",
            "a proxy in between waits for its node, or the node is stuck",
        );
        let upgrade = async {
            let socket = dial::upgrade(plan, place, made.stream, token).await?;
            Ok((Link::new(socket), "101".to_owned()))
        };
        let mut link = self.step(Stage::Upgrade, || late, upgrade).await?;
        let late = self.late(
            "upgraded, but no first frame",
            "a proxy in between answers 101 itself, or the node is stuck",
        );
        let welcome = async {
            let welcome = link.welcome().await?;
            let ends = welcome.expires.and_then(|at| i64::try_from(at).ok());
            let ends = ends.map_or_else(|| "for ever".to_owned(), |at| format!("until {}", dial::when(Some(at))));
            let detail = format!("user {}, session {}, token good {ends}", welcome.user, welcome.session);
            Ok((welcome, detail))
        };
        let welcome = self.step(Stage::Auth, || late, welcome).await?;
        self.report.session = Some(welcome.session);
        self.report.kept = Some(welcome.kept);
        let late = self.late(
            "no answer to join",
            "the node waits for its backplane: conclave_backplane_up, conclave_backplane_call_duration_seconds",
        );
        let join = async { link.join(room).await.map(|detail| ((), detail)) };
        self.step(Stage::Join, || late, join).await?;
        Ok(link)
    }

    /// The same on the other node, as one stage.
    async fn via(&mut self, plan: &Plan, via: &Place, token: &SecretString, room: &str) -> Result<Link, Failed> {
        let mut way = Self::new(via, self.timeout);
        way.deadline = self.deadline;
        let started = Instant::now();
        let entered = way.enter(plan, via, token, room).await;
        self.report.steps.push(Step {
            stage: Stage::Via,
            took: started.elapsed(),
            detail: via.to_string(),
        });
        entered.inspect_err(|_| {
            if let Some((stage, trouble)) = way.report.failed {
                let what = format!("{via}: {}: {}", stage.word(), trouble.what);
                self.report.failed = Some((Stage::Via, Trouble { what, ..trouble }));
            }
        })
    }

    async fn publish(
        &mut self,
        link: &mut Link,
        other: Option<&mut Link>,
        room: &str,
        nonce: &str,
    ) -> Result<(), Failed> {
        let said = Instant::now();
        let acked = AtomicBool::new(false);
        let timeout = humantime::format_duration(self.timeout);
        let late = || {
            if acked.load(Ordering::Relaxed) {
                let what = format!("the message was acknowledged, but did not come back within {timeout}");
                let help = "deliveries do not reach this node's members: look at conclave_backplane_up, \
                            conclave_backplane_lag_seconds and conclave_send_queue_bytes";
                return Trouble::new(Kind::Wrong, what, help);
            }
            let what = format!("no answer to a message within {timeout}");
            let help = "the node waits for its backplane, or is stuck: conclave_backplane_publish_queue_messages";
            Trouble::new(Kind::Timeout, what, help)
        };
        let publish = async { link.publish(room, nonce, &acked).await.map(|detail| ((), detail)) };
        self.step(Stage::Publish, late, publish).await?;
        let Some(other) = other else { return Ok(()) };
        let late = Trouble::new(
            Kind::Wrong,
            format!("the message came back here, but not on the other node within {timeout}"),
            "the two share no backplane (same backplane.url and prefix?), or the other node's subscription is gone: \
             conclave_backplane_up and conclave_backplane_lag_seconds there",
        );
        let hear = async { other.hear(nonce).await.map(|detail| ((), detail)) };
        self.step(Stage::ViaDelivery, || late, hear).await?;
        if let Some(step) = self.report.steps.last_mut() {
            // It was on its way while we waited for our own.
            step.took = said.elapsed();
        }
        Ok(())
    }
}
