use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::get;
use tower::ServiceExt;

use super::names::{ALL, MetricKind, probe};
use super::*;
use crate::backplane::contract::Refusal;
use crate::protocol::close::{Close, DeniedWord};
use crate::protocol::error::ErrorCode;

fn node() -> Arc<Metrics> {
    Metrics::install(BuildInfo {
        version: "0.1.0",
        revision: "abc",
        rustc: "1.95",
        backplane: "memory",
    })
}

/// Samples of an exposition by `name{labels}`.
fn samples(text: &str) -> BTreeMap<String, f64> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (key, value) = line.rsplit_once(' ').unwrap();
            (key.to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[test]
fn names_follow_the_rules() {
    let mut seen = BTreeSet::new();
    for definition in ALL.iter().chain(probe::ALL) {
        let name = definition.name;
        assert!(seen.insert(name), "{name} twice");
        let ours = ["conclave_", "http_server_", "process_", "tokio_"];
        assert!(ours.iter().any(|prefix| name.starts_with(prefix)), "{name}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
        assert_eq!(
            name.ends_with("_total"),
            definition.kind == MetricKind::Counter,
            "{name}"
        );
        assert_eq!(
            definition.kind == MetricKind::Histogram,
            !definition.buckets.is_empty(),
            "{name}"
        );
        assert!(definition.buckets.is_sorted_by(|a, b| a < b), "{name}");
        assert!(
            !["_ms", "_kb", "_count", "_millis"]
                .iter()
                .any(|unit| name.contains(unit)),
            "{name}"
        );
        assert!(
            definition.kind != MetricKind::Histogram || name.ends_with("_seconds"),
            "{name}"
        );
        assert!(
            definition.help.ends_with('.') && !definition.help.contains('\n'),
            "{name}"
        );
        for label in definition.labels {
            assert!(
                !["room", "user", "address", "origin", "token", "le"].contains(label),
                "{name}"
            );
            // Which link, which call: there is no other word for it.
            let is_noun = ["link", "call", "stage", "hook"].contains(label);
            assert!(
                is_noun || !name.contains(&format!("_{label}_")),
                "{name} repeats its label {label}"
            );
        }
    }
}

#[test]
fn everything_starts_at_zero_with_help() {
    let text = node().render();
    let samples = samples(&text);
    for definition in ALL {
        // Routes are known only once one was asked for, issuers and hooks from the configuration.
        let is_later = definition.name == names::HTTP_DURATION.name
            || definition.labels.iter().any(|label| ["hook", "issuer"].contains(label));
        if is_later {
            continue;
        }
        let name = definition.name;
        assert!(text.contains(&format!("# HELP {name} {}\n", definition.help)), "{name}");
        assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
        let own = |key: &&String| {
            key.strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['{', '_']))
        };
        assert!(samples.keys().any(|key| own(&key)), "{name}");
    }
    let check = |key: &str| assert_eq!(samples.get(key), Some(&0.0), "{key}\n{text}");
    check("conclave_handshakes_total{result=\"tls_timeout\"}");
    check("conclave_upgrades_total{result=\"foreign_origin\"}");
    check("conclave_auth_failures_total{reason=\"cookie_origin\"}");
    check("conclave_disconnects_total{code=\"1013\",reason=\"slow_reader\",initiator=\"server\"}");
    check("conclave_disconnects_total{code=\"1001\",reason=\"none\",initiator=\"client\"}");
    check("conclave_messages_total{direction=\"in\",kind=\"text\"}");
    check("conclave_ping_rtt_seconds_count");
    check("conclave_drain_phase{phase=\"grace\"}");
    assert_eq!(samples["conclave_drain_phase{phase=\"serving\"}"], 1.0);
    assert_eq!(samples["conclave_nodes"], 1.0);
}

#[test]
fn shards_are_summed_and_readers_asked_at_each_scrape() {
    let metrics = node();
    let shards = [Arc::new(ShardCounters::default()), Arc::new(ShardCounters::default())];
    for shard in &shards {
        metrics.register_shard(shard.clone());
        shard.connections_opened.add(3);
        shard.connections_closed.inc();
        shard.messages_in.of(Kind::Text).add(5);
        shard.outbox_bytes.add(100);
        shard.outbox_bytes.sub(40);
        shard.deliveries.add(7);
    }
    metrics.on_scrape(Box::new(|now| now.rooms += 2));
    metrics.on_scrape(Box::new(|now| {
        now.rooms += 1;
        now.ready = true;
    }));
    let check = |key: &str, value: f64| assert_eq!(samples(&metrics.render())[key], value, "{key}");
    check("conclave_connections", 4.0);
    check("conclave_connections_opened_total", 6.0);
    check("conclave_messages_total{direction=\"in\",kind=\"text\"}", 10.0);
    check("conclave_messages_total{direction=\"out\",kind=\"text\"}", 0.0);
    check("conclave_send_queue_bytes", 120.0);
    check("conclave_deliveries_total", 14.0);
    check("conclave_rooms", 3.0);
    check("conclave_ready", 1.0);
    shards[0].deliveries.inc();
    check("conclave_deliveries_total", 15.0);
}

#[test]
fn events_are_counted_under_their_words_and_unknown_words_under_other() {
    let metrics = node();
    metrics.handshake(HandshakeResult::NotTls);
    metrics.upgrade(UpgradeResult::Admitted, 0.002);
    metrics.auth_failure("token_expired");
    metrics.auth_failure("never heard of");
    metrics.disconnected(1008, "token_expired", Initiator::Server, 30.0);
    metrics.disconnected(4999, "private", Initiator::Client, 1.0);
    metrics.disconnected(1000, "whatever the client wrote", Initiator::Client, 1.0);
    metrics.error_sent("bad_json");
    metrics.rate_limited(RateLimit::Messages);
    metrics.slow_consumer(SlowConsumer::Node);
    metrics.drain_phase(DrainPhase::Closing);
    let samples = samples(&metrics.render());
    let check = |key: &str| assert_eq!(samples.get(key), Some(&1.0), "{key}");
    check("conclave_handshakes_total{result=\"not_tls\"}");
    check("conclave_upgrade_duration_seconds_count");
    check("conclave_auth_failures_total{reason=\"token_expired\"}");
    check("conclave_auth_failures_total{reason=\"other\"}");
    check("conclave_disconnects_total{code=\"1008\",reason=\"token_expired\",initiator=\"server\"}");
    check("conclave_disconnects_total{code=\"other\",reason=\"other\",initiator=\"client\"}");
    check("conclave_disconnects_total{code=\"1000\",reason=\"none\",initiator=\"client\"}");
    check("conclave_protocol_errors_total{code=\"bad_json\"}");
    check("conclave_rate_limited_total{limit=\"messages_per_second\"}");
    check("conclave_slow_consumers_total{limit=\"node\"}");
    check("conclave_drain_phase{phase=\"closing\"}");
    assert_eq!(samples["conclave_drain_phase{phase=\"serving\"}"], 0.0);
    assert_eq!(samples["conclave_connection_duration_seconds_sum"], 32.0);
}

#[test]
fn the_backplane_is_counted_under_its_words() {
    let metrics = node();
    let backplane = metrics.backplane();
    backplane.link_up(Link::Subscriber, true);
    backplane.link_rebuilt(Link::Subscriber, Reason::SwitchMaster);
    backplane.lag(0.000_4);
    backplane.peer_age(1.0);
    backplane.call(CallKind::Publish, "ok", 0.001);
    backplane.call(CallKind::Range, "never heard of", 0.001);
    backplane.queue(1, 100);
    backplane.refused("room_queue");
    backplane.repair(RepairResult::Rewound);
    backplane.wakeup(Wakeup::Behind);
    backplane.audit(AuditResult::Same);
    backplane.audit_seconds(0.02);
    backplane.attached_rooms(1);
    backplane.permit(false);
    backplane.unready(true);
    metrics.presence().change(true);
    metrics.presence().event(PresenceResult::Missed);
    metrics.presence().renewal(RenewalResult::Expired);
    metrics.presence().reaped(1);
    metrics.presence().incarnation();
    metrics.presence().queue(1);
    metrics.revocation().entries(1);
    metrics.revocation().effect(0.02);
    metrics.revocation().staleness(1.0);
    metrics.revocation().closed(SubjectKind::Token, 1);
    metrics.revocation().reload();
    metrics.revocation().kick();
    metrics.nodes(3);
    let samples = samples(&metrics.render());
    for key in [
        "conclave_backplane_up{backend=\"memory\"}",
        "conclave_backplane_link_up{link=\"subscriber\"}",
        "conclave_backplane_link_rebuilds_total{link=\"subscriber\",reason=\"switch_master\"}",
        "conclave_backplane_lag_seconds_count",
        "conclave_backplane_peer_age_seconds",
        "conclave_backplane_calls_total{call=\"publish\",result=\"ok\"}",
        "conclave_backplane_calls_total{call=\"range\",result=\"other\"}",
        "conclave_backplane_call_duration_seconds_count{call=\"publish\"}",
        "conclave_backplane_publish_queue_messages",
        "conclave_backplane_refused_total{reason=\"room_queue\"}",
        "conclave_backplane_repairs_total{result=\"rewound\"}",
        "conclave_backplane_wakeups_total{result=\"behind\"}",
        "conclave_backplane_audits_total{result=\"same\"}",
        "conclave_backplane_audit_duration_seconds_count",
        "conclave_backplane_attached_rooms",
        "conclave_backplane_permits_total{result=\"denied\"}",
        "conclave_backplane_unready",
        "conclave_presence_changes_total{change=\"enter\"}",
        "conclave_presence_events_total{result=\"missed\"}",
        "conclave_presence_lease_renewals_total{result=\"expired\"}",
        "conclave_presence_reaped_users_total",
        "conclave_presence_incarnations_total",
        "conclave_presence_queue",
        "conclave_revocation_entries",
        "conclave_revocation_effect_seconds_count",
        "conclave_revocation_staleness_seconds",
        "conclave_revocation_connections_closed_total{kind=\"token\"}",
        "conclave_revocation_reloads_total",
        "conclave_kicks_total",
    ] {
        assert_eq!(samples.get(key), Some(&1.0), "{key}");
    }
    assert_eq!(samples["conclave_backplane_publish_queue_bytes"], 100.0);
    assert_eq!(samples["conclave_backplane_link_up{link=\"command\"}"], 0.0);
    assert_eq!(samples["conclave_nodes"], 3.0);
}

/// A word that the contract has and the lists of labels have not would be counted as `other`.
#[test]
fn every_refusal_is_a_label() {
    for refusal in [
        Refusal::Away,
        Refusal::Late,
        Refusal::Full,
        Refusal::Unsafe,
        Refusal::Broken,
        Refusal::Forbidden,
    ] {
        assert!(CALL_RESULTS.contains(&refusal.as_str()), "{refusal:?}");
        assert!(REFUSED_REASONS.contains(&refusal.as_str()), "{refusal:?}");
    }
}

/// A word that the protocol has and the list of labels has not would be counted as `other`.
#[test]
fn every_word_of_the_protocol_is_a_label() {
    for close in Close::ALL {
        assert!(SERVER_CLOSES.contains(&(close.code, close.reason)), "{close:?}");
    }
    let codes: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(codes, ERROR_CODES[..ERROR_CODES.len() - 1]);
    let of_tokens = |word: &&DeniedWord| !matches!(word, DeniedWord::Kicked | DeniedWord::Abuse);
    let words: Vec<_> = DeniedWord::ALL
        .iter()
        .filter(of_tokens)
        .map(|word| word.as_str())
        .collect();
    assert_eq!(words, AUTH_REASONS[..AUTH_REASONS.len() - 1]);
}

#[test]
fn two_nodes_in_one_process_count_apart() {
    let (one, other) = (node(), node());
    one.handshake(HandshakeResult::Ok);
    let key = "conclave_handshakes_total{result=\"ok\"}";
    assert_eq!(samples(&one.render())[key], 1.0);
    assert_eq!(samples(&other.render())[key], 0.0);
}

#[tokio::test]
async fn requests_are_timed_by_route_and_never_by_path() {
    let metrics = node();
    let routes = Router::new().route("/rooms/{room}", get(|| async { "ok" }));
    let routes = http::measured(routes, metrics.clone());
    for (method, path) in [
        ("GET", "/rooms/hunter-a?token=hunter-b"),
        ("BREW", "/rooms/hunter-a"),
        ("GET", "/hunter-c"),
    ] {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        routes.clone().oneshot(request).await.unwrap();
    }
    let text = metrics.render();
    assert!(!text.contains("hunter"));
    let samples = samples(&text);
    let check = |labels: &str| {
        let key = format!("http_server_request_duration_seconds_count{{{labels}}}");
        assert_eq!(samples.get(&key), Some(&1.0), "{labels}\n{text}");
    };
    check("method=\"GET\",route=\"/rooms/{room}\",status=\"200\"");
    check("method=\"_OTHER\",route=\"/rooms/{room}\",status=\"405\"");
    check("method=\"GET\",route=\"unmatched\",status=\"404\"");
}

#[tokio::test]
async fn promtool_finds_nothing_to_object_to() {
    let metrics = node();
    metrics.register_runtime(tokio::runtime::Handle::current());
    metrics.http_request("GET", "/ws", 101, 0.01);
    metrics.broadcast_seconds(0.000_2);
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is needed; it comes with the package `prometheus`");
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(metrics.render().as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.is_empty(),
        "{said}\n{}",
        metrics.render()
    );
}

#[test]
fn the_pages_for_operators_name_metrics_that_exist() {
    for page in [
        include_str!("../../../README.md"),
        include_str!("../../../ops/certificates.md"),
        include_str!("../../../ops/check-config.md"),
        include_str!("../../../ops/limits.md"),
        include_str!("../../../ops/observability.md"),
        include_str!("../../../ops/operators-page.md"),
        include_str!("../../../ops/probing.md"),
        include_str!("../../../ops/proxies.md"),
        include_str!("../../../ops/stopping.md"),
        include_str!("../../../ops/runbooks/closes.md"),
        include_str!("../../../ops/runbooks/backplane.md"),
        include_str!("../../../certs/README.md"),
    ] {
        let words = page.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let named = words.filter(|word| {
            ["conclave_", "process_", "tokio_", "http_server_"]
                .iter()
                .any(|prefix| word.len() > prefix.len() && word.starts_with(prefix))
        });
        // `conclave_backplane_*` stands for all that begin so.
        let is_metric = |name: &str| {
            ALL.iter()
                .chain(probe::ALL)
                .any(|metric| metric.name == name || (name.ends_with('_') && metric.name.starts_with(name)))
        };
        for name in named.filter(|name| *name != "conclave_token") {
            assert!(is_metric(name.trim_end_matches("_bucket")), "{name}");
        }
    }
}
