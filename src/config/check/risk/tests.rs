use secrecy::SecretString;

use super::*;
use crate::backplane::url::BackplaneUrl;
use crate::config::{Key, Listen, Severity, default_config};

const GOOD: &str = "8mC0JY2m0k1lqWcWmVb3R6m0u7R2l3pVt0WfE2cKxk0y5oG4dB1nHs9aZQvTiUjX";

fn sound() -> Config {
    let mut config = default_config();
    config.auth.keys = vec![Key {
        algorithm: "HS256".to_owned(),
        source: KeySource::Secret(SecretString::from(GOOD)),
        kid: None,
        issuer: None,
        audience: vec!["conclave".to_owned()],
        user_prefix: String::new(),
        set_in: String::new(),
    }];
    config
}

fn facts() -> Facts {
    Facts {
        open_files_max: Some(1 << 20),
        memory_bytes_max: Some(4 << 30),
        grace_period: None,
    }
}

/// What a change of a sound configuration is told: key and a part of the words.
#[track_caller]
fn expect(change: impl FnOnce(&mut Config, &mut Facts), expected: &[(&str, &str)]) {
    let (mut config, mut facts) = (sound(), facts());
    change(&mut config, &mut facts);
    let found = check(&config, &facts);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (problem, (key, words)) in found.iter().zip(expected) {
        assert_eq!(problem.key, *key, "{problem}");
        assert!(problem.to_string().contains(words), "{words}: {problem}");
        assert!(
            problem.severity != Severity::Error && !problem.remedy.is_empty(),
            "{problem}"
        );
        assert!(!problem.to_string().contains(GOOD));
    }
}

#[test]
fn a_sound_configuration_is_told_nothing() {
    expect(|_, _| (), &[]);
    // What is not known is not judged.
    expect(|_, facts| *facts = Facts::default(), &[]);
}

#[test]
fn a_heartbeat_slower_than_balancers() {
    let at = |seconds: u64| {
        move |config: &mut Config, _: &mut Facts| config.heartbeat.interval = Duration::from_secs(seconds)
    };
    expect(at(45), &[]);
    expect(at(50), &[("heartbeat.interval", "HAProxy")]);
    expect(
        at(60),
        &[("heartbeat.interval", "AWS ALB 60 s, nginx (proxy_read_timeout) 60 s")],
    );
    expect(at(300), &[("heartbeat.interval", "Azure Load Balancer 240 s")]);
}

#[test]
fn a_drain_longer_than_its_grace_period() {
    let drain = |seconds: u64, given: Option<u64>| {
        move |config: &mut Config, facts: &mut Facts| {
            config.drain.time = Duration::from_secs(seconds);
            facts.grace_period = given.map(Duration::from_secs);
        }
    };
    expect(drain(20, Some(30)), &[]);
    expect(drain(60, None), &[("drain.time", "Kubernetes gives by default")]);
    expect(drain(60, Some(90)), &[]);
    expect(
        drain(20, Some(10)),
        &[(
            "drain.time",
            "29 s with what follows them, more than the 10 s of --grace-period",
        )],
    );
}

#[test]
fn tokens_for_anybody_and_for_ever() {
    expect(
        |config, _| config.auth.keys[0].audience.clear(),
        &[("auth.keys[0].audience", "signed with this secret")],
    );
    expect(
        |config, _| {
            config.auth.keys[0].audience.clear();
            config.auth.keys[0].source = KeySource::JwksFile("keys.json".into());
        },
        &[("auth.keys[0].audience", "made for another service")],
    );
    expect(
        |config, _| config.auth.require_expiry = false,
        &[("auth.require_expiry", "for ever")],
    );
    expect(
        |config, _| config.auth.keys[0].source = KeySource::Secret(SecretString::from("a".repeat(40))),
        &[("auth.keys[0].secret", "the same byte")],
    );
    expect(
        |config, _| config.session.secret = Some(SecretString::from("this is my session password, keep it")),
        &[("session.secret", "a word in it")],
    );
}

#[test]
fn more_than_the_machine_has() {
    expect(
        |config, facts| {
            config.limits.connections = 50_000;
            facts.open_files_max = Some(1_024);
        },
        &[("limits.connections", "or lower it to 896")],
    );
    expect(
        |_, facts| facts.open_files_max = Some(1_024),
        &[("limits.connections", "896 connections")],
    );
    expect(
        |_, facts| facts.memory_bytes_max = Some(512 << 20),
        &[("history.node_bytes", "of the 512.0 MiB that there are here")],
    );
    // 256 MiB of outboxes and 488 MiB of connections.
    expect(
        |config, facts| {
            config.limits.connections = 50_000;
            config.history.messages = 0;
            facts.memory_bytes_max = Some(768 << 20);
        },
        &[(
            "limits.connections",
            "limits.connections 488.3 MiB; an idle connection counts as 10.0 KiB",
        )],
    );
}

#[test]
fn what_is_for_trials() {
    expect(
        |config, _| (config.server.page, config.echo.enabled) = (true, true),
        &[("server.page", "production"), ("echo.enabled", "production")],
    );
    expect(
        |config, _| config.limits.connections_per_address = 0,
        &[("limits.connections_per_address", "every connection")],
    );
}

#[test]
fn a_certificate_for_this_machine_only() {
    let place = tempfile::tempdir().expect("directory");
    let file = place.path().join("tls.crt");
    for (names, expected) in [
        (
            &["localhost", "127.0.0.1"][..],
            &[("tls.certificate", "this machine only")][..],
        ),
        (&["localhost", "rooms.example.com"], &[]),
    ] {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("certificate");
        std::fs::write(&file, made.cert.pem()).expect("write");
        expect(|config, _| config.tls.certificate = file.clone(), expected);
    }
    expect(
        |config, _| {
            config.tls.certificate = file.clone();
            config.server.listen = Listen::Tcp(([127, 0, 0, 1], 8443).into());
        },
        &[],
    );
}

#[test]
fn a_backplane_in_the_clear() {
    let at = |url: &'static str| {
        move |config: &mut Config, _: &mut Facts| {
            config.backplane.kind = BackplaneKind::Redis;
            config.backplane.kept = Kept::Disk;
            config.backplane.url = BackplaneUrl::parse(url).expect("a URL");
        }
    };
    expect(at("redis://127.0.0.1"), &[]);
    expect(at("redis://localhost:6380"), &[]);
    expect(at("rediss://:pw@redis.example.com"), &[]);
    expect(at("redis://:pw@10.0.0.7"), &[("backplane.url", "in the clear")]);
    expect(
        at("rediss://redis.example.com"),
        &[("backplane.url", "without a password")],
    );
    expect(
        |config, _| {
            config.backplane.kind = BackplaneKind::Redis;
            config.backplane.kept = Kept::Async;
        },
        &[("backplane.kept", "note: ")],
    );
}
