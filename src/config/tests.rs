//! Whole configurations in, values or problems out.

mod mistakes;
mod readme;
mod rooms;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::schema::{Entry, KEYS, SCHEMA};
use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A directory with everything that a good configuration names.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("directory"));
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("certificate");
        place.write("tls.crt", &pair.cert.pem());
        place.write("tls.key", &pair.signing_key.serialize_pem());
        place.write("jwt", &format!("{SECRET}\n"));
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path().join(name);
        std::fs::write(&path, content).expect("write");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("mode");
    }

    /// `DIR` stands for the directory.
    fn sources(&self, toml: &str) -> Sources {
        self.write("conclave.toml", &self.fill(toml));
        Sources {
            file: Some(self.path().join("conclave.toml")),
            ..Sources::default()
        }
    }

    fn fill(&self, text: &str) -> String {
        text.replace("DIR", &self.path().display().to_string())
    }

    /// Loads `toml` after the lines that every configuration needs; line 1 of it is line 9 of the file.
    fn load(&self, toml: &str) -> Result<Loaded, Problems> {
        load(&self.sources(&format!("{NEEDED}{toml}")))
    }
}

const NEEDED: &str = r#"[tls]
certificate = "DIR/tls.crt"
key = "DIR/tls.key"

[[auth.keys]]
algorithm = "HS256"
secret_file = "DIR/jwt"

"#;

fn variables(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect()
}

/// One line per problem: severity, key, what.
fn told(result: Result<Loaded, Problems>) -> Vec<String> {
    let problems = result.map_or_else(|problems| problems.0, |loaded| loaded.warnings);
    problems
        .iter()
        .map(|problem| format!("{} {}: {}", problem.severity.as_str(), problem.key, problem.what))
        .collect()
}

#[test]
fn the_struct_and_default_toml_have_the_same_keys() {
    let printed = format!("{:#?}", default_config());
    let mut fields = BTreeSet::new();
    let (mut section, mut inner) = ("", String::new());
    for line in printed.lines() {
        let depth = line.len() - line.trim_start().len();
        match (depth, line.trim_start().split_once(": ")) {
            (4, Some((name, _))) => section = name,
            (8, Some((name, _))) => {
                inner = format!("{section}.{name}");
                if !SCHEMA.has_section(&inner) {
                    fields.insert(inner.clone());
                }
            }
            (12, Some((name, _))) if SCHEMA.has_section(&inner) && !SCHEMA.is_array(&inner) => {
                fields.insert(format!("{inner}.{name}"));
            }
            _ => {}
        }
    }
    let twins = [
        "session.secret_file",
        "traces.headers_file",
        "backplane.url_file",
        "hooks.secret_file",
    ];
    assert!(fields.remove("hooks.previous_secret"));
    fields.insert("hooks.previous_secret_file".to_owned());
    assert!(fields.remove("backplane.sentinel_password"));
    fields.insert("backplane.sentinel_password_file".to_owned());
    assert!(fields.remove("admin.tokens"));
    fields.insert("admin.token_file".to_owned());
    // Each key by URL has its own copy of these.
    fields
        .extend(["grace", "maximum_age", "minimum_gap", "refresh", "timeout"].map(|name| format!("auth.jwks_{name}")));
    let single = SCHEMA
        .entries
        .iter()
        .filter(|entry| !entry.is_repeated)
        .map(Entry::dotted);
    let known: BTreeSet<String> = single.filter(|key| !twins.contains(&key.as_str())).collect();
    assert_eq!(fields, known);
}

#[test]
fn the_defaults_are_these() {
    let config = default_config();
    assert_eq!(config.server.listen.to_string(), "0.0.0.0:8443");
    assert_eq!(config.server.admin_listen.to_string(), "127.0.0.1:9464");
    assert_eq!(
        (config.server.runtime, config.server.threads, config.server.page),
        (RuntimeKind::PerCore, 0, false)
    );
    assert_eq!(config.server.header_bytes, 64 << 10);
    assert_eq!(
        (config.auth.cookie.as_str(), config.auth.require_expiry),
        ("conclave_token", true)
    );
    assert_eq!(
        (config.auth.refusals_per_second, config.auth.refusals_burst),
        (50, 1000)
    );
    assert_eq!(
        (config.session.enabled, config.session.ttl),
        (false, Duration::from_secs(12 * 3600))
    );
    assert_eq!(config.heartbeat.interval, Duration::from_secs(30));
    assert_eq!((config.limits.message_bytes, config.limits.fragments), (64 << 10, 1024));
    assert_eq!(
        (config.limits.outbox_bytes, config.limits.node_outbox_bytes),
        (256 << 10, 256 << 20)
    );
    assert_eq!((config.history.messages, config.history.bytes), (1000, 1 << 20));
    assert_eq!(
        (config.room.users_shown, config.room.flush_window),
        (100, Duration::ZERO)
    );
    let backplane = &config.backplane;
    assert_eq!((backplane.kind, backplane.kept), (BackplaneKind::Memory, Kept::Memory));
    assert_eq!(
        (backplane.prefix.as_str(), backplane.replicas, backplane.on_stale),
        ("conclave", 1, OnStale::Refuse)
    );
    assert_eq!(backplane.url.hosts_shown(), "127.0.0.1:6379");
    assert_eq!((config.echo.message_bytes, config.echo.fragments), (17 << 20, 70_000));
    assert_eq!(
        (config.drain.grace, config.drain.time),
        (Duration::from_secs(5), Duration::from_secs(20))
    );
    assert_eq!(
        (config.log.format, config.log.level.as_str()),
        (LogFormat::Json, "info")
    );
    assert_eq!((config.traces.endpoint, config.traces.sample_ratio), (None, 0.01));
    assert!(config.auth.keys.is_empty() && config.session.secret.is_none() && config.traces.headers.is_empty());
}

#[test]
fn bounds_in_code_and_in_default_toml_agree() {
    let range = |section, name| {
        SCHEMA
            .find(section, name)
            .expect(name)
            .kind
            .range_shown()
            .expect("a range")
    };
    let heartbeat_min = format!("{}s to", crate::limits::HEARTBEAT_MIN.as_secs());
    assert!(range("heartbeat", "interval").starts_with(&heartbeat_min));
    let outbox_min = format!("{}KiB to", crate::limits::OUTBOX_BYTES_MIN >> 10);
    assert!(range("limits", "outbox_bytes").starts_with(&outbox_min));
}

#[test]
fn the_production_file_fits_on_a_screen_and_loads() {
    assert!(PRODUCTION_TOML.lines().count() <= 40);
    let place = Place::new();
    let text = PRODUCTION_TOML
        .replace("certs/", "DIR/")
        .replace("/run/secrets/", "DIR/");
    let loaded = load(&place.sources(&text)).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.config.origin.allow, ["https://app.example.com"]);
    assert_eq!(loaded.config.auth.keys[0].algorithm, "HS256");
    let line = text
        .lines()
        .position(|line| line.starts_with("[[auth.keys]]"))
        .expect("keys")
        + 1;
    assert_eq!(
        loaded.config.auth.keys[0].set_in,
        format!("{}:{line}", place.path().join("conclave.toml").display())
    );
}

#[test]
fn every_default_can_be_written_into_a_file() {
    let place = Place::new();
    let mut text = String::new();
    for section in SCHEMA
        .sections()
        .filter(|section| *section != "tls" && !SCHEMA.is_array(section))
    {
        text.push_str(&format!("[{section}]\n"));
        for entry in SCHEMA
            .entries
            .iter()
            .filter(|entry| entry.section == section && !entry.default.is_unset())
        {
            let shown = entry.default.show();
            let is_bare = matches!(
                entry.kind,
                kind::Kind::Bool | kind::Kind::Integer(_) | kind::Kind::Float(_)
            );
            let value = if is_bare { shown } else { format!("\"{shown}\"") };
            text.push_str(&format!("{} = {value}\n", entry.name));
        }
    }
    let loaded = place.load(&text).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(
        format!("{:?}", loaded.config.limits),
        format!("{:?}", default_config().limits)
    );
}

#[test]
fn flags_go_before_variables_and_variables_before_the_file() {
    let place = Place::new();
    let mut sources = place.sources(&format!(
        "{NEEDED}[server]\nlisten = \"127.0.0.1:1\"\npage = true\n[log]\nlevel = \"warn\"\n"
    ));
    sources.environment = variables(&[
        ("CONCLAVE_SERVER__LISTEN", "127.0.0.1:2"),
        ("CONCLAVE_LOG__LEVEL", "debug"),
        ("CONCLAVE_ORIGIN__ALLOW", "https://a.example, https://b.example"),
        ("CONCLAVE_LIMITS__MESSAGE_BYTES", "32768"),
        ("CONCLAVE_AUTH__KEYS__0__ISSUER", "shop"),
        ("HOME", "/root"),
    ]);
    sources.overrides = vec![(
        "server.listen".to_owned(),
        "127.0.0.1:3".to_owned(),
        "--listen".to_owned(),
    )];
    let loaded = load(&sources).unwrap_or_else(|problems| panic!("{problems}"));
    let config = &loaded.config;
    assert_eq!(
        (
            config.server.listen.tcp().map(|listen| listen.port()),
            config.server.page,
            config.log.level.as_str()
        ),
        (Some(3), true, "debug")
    );
    assert_eq!(config.origin.allow, ["https://a.example", "https://b.example"]);
    assert_eq!(config.limits.message_bytes, 32 << 10);
    assert_eq!(config.auth.keys[0].issuer.as_deref(), Some("shop"));
    let source = |key: &str| {
        loaded
            .effective
            .iter()
            .find(|row| row.key == key)
            .expect("row")
            .source
            .clone()
    };
    assert_eq!(source("server.listen"), "--listen");
    assert_eq!(source("log.level"), "CONCLAVE_LOG__LEVEL");
    assert!(
        source("server.page").ends_with("conclave.toml:11"),
        "{}",
        source("server.page")
    );
    assert_eq!(source("drain.time"), "default");
}

#[test]
fn a_server_can_be_configured_by_variables_alone() {
    let place = Place::new();
    let path = |name: &str| place.path().join(name).display().to_string();
    let environment = variables(&[
        ("CONCLAVE_TLS__CERTIFICATE", &path("tls.crt")),
        ("CONCLAVE_TLS__KEY", &path("tls.key")),
        ("CONCLAVE_AUTH__KEYS__0__ALGORITHM", "HS256"),
        ("CONCLAVE_AUTH__KEYS__0__SECRET", SECRET),
        ("CONCLAVE_AUTH__KEYS__1__JWKS_FILE", &path("jwt")),
        ("CONCLAVE_AUTH__KEYS__1__AUDIENCE", "a,b"),
        ("CONCLAVE_AUTH__FORWARD__URL", "http://127.0.0.1:3000/whoami"),
        ("CONCLAVE_AUTH__FORWARD__IN_FLIGHT", "7"),
        ("CONCLAVE_SESSION__ENABLED", "true"),
        ("CONCLAVE_SESSION__SECRET_FILE", &path("jwt")),
    ]);
    let loaded = load(&Sources {
        environment,
        ..Sources::default()
    })
    .unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.config.auth.keys.len(), 2);
    assert_eq!(loaded.config.auth.keys[1].audience, ["a", "b"]);
    let forward = &loaded.config.auth.forward;
    assert_eq!(
        (forward.url.as_deref(), forward.in_flight),
        (Some("http://127.0.0.1:3000/whoami"), 7)
    );
    let secret = loaded.config.session.secret.as_ref().expect("secret");
    assert_eq!(secret.expose_secret(), SECRET, "one trailing newline is removed");
    assert_eq!(loaded.config.auth.keys[0].set_in, "CONCLAVE_AUTH__KEYS__0__ALGORITHM");
}

#[test]
fn a_table_in_a_table_has_keys_of_its_own() {
    let place = Place::new();
    let load = |toml: &str| place.load(toml);
    for toml in [
        "[auth.forward]\nurl = \"http://127.0.0.1:1/\"\n",
        "[auth]\nforward.url = \"http://127.0.0.1:1/\"\n",
        "[auth]\nforward = { url = \"http://127.0.0.1:1/\" }\n",
    ] {
        let loaded = load(toml).unwrap_or_else(|problems| panic!("{toml}: {problems}"));
        assert_eq!(
            loaded.config.auth.forward.url.as_deref(),
            Some("http://127.0.0.1:1/"),
            "{toml}"
        );
    }
    for (toml, part) in [
        ("[auth.forward]\nulr = \"x\"\n", "auth.forward.ulr: unknown key"),
        ("[auth]\nforward = 5\n", "auth.forward: unknown key"),
    ] {
        let told = told(load(toml));
        assert!(told.iter().any(|line| line.contains(part)), "{told:#?}");
    }
}

#[test]
fn a_higher_layer_replaces_a_twin_and_the_same_layer_may_not_have_both() {
    let place = Place::new();
    let mut sources = place.sources(NEEDED);
    sources.environment = variables(&[("CONCLAVE_AUTH__KEYS__0__SECRET", SECRET)]);
    let loaded = load(&sources).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(matches!(loaded.config.auth.keys[0].source, KeySource::Secret(_)));

    let both = format!("secret = \"{SECRET}\"\n[session]\nsecret = \"{SECRET}\"\nsecret_file = \"DIR/jwt\"\n");
    let told = told(place.load(&both));
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(
        told.iter()
            .any(|line| line.contains("auth.keys[0].secret_file, auth.keys[0].secret are set together")),
        "{told:#?}"
    );
    assert!(
        told.iter()
            .any(|line| line.contains("session.secret and session.secret_file are both set")),
        "{told:#?}"
    );
}

#[test]
fn what_a_person_should_know_is_a_warning() {
    let place = Place::new();
    place.write("open", SECRET);
    std::fs::set_permissions(place.path().join("open"), PermissionsExt::from_mode(0o640)).expect("mode");
    for (toml, key, what) in [
        (
            "[server]\nadmin_listen = \"0.0.0.0:9464\"\n",
            "server.admin_listen",
            "can be reached from other machines",
        ),
        (
            "[server]\nproxy_from = [\"10.0.0.0/8\", \"::/0\"]\n",
            "server.proxy_from",
            "may claim to be anyone",
        ),
        (
            "[server]\nforwarded_from = [\"0.0.0.0/0\"]\n",
            "server.forwarded_from",
            "may claim to be anyone",
        ),
        ("[origin]\nallow = [\"*\"]\n", "origin.allow", "every web site"),
        (
            "[session]\nenabled = true\n",
            "session.enabled",
            "signed out whenever the server restarts",
        ),
        (
            "[limits]\nmessages_burst = 5\n",
            "limits.messages_burst",
            "limits nothing",
        ),
        (
            "[[auth.keys]]\nalgorithm = \"HS256\"\nsecret_file = \"DIR/open\"\n",
            "auth.keys[1].secret_file",
            "can be read by its group",
        ),
        (
            "[[auth.keys]]\nalgorithm = \"HS256\"\nsecret_file = \"DIR/jwt\"\nissuer = \"b\"\n",
            "auth.keys[1].user_prefix",
            "different issuers",
        ),
        (
            "[session]\nenabled = true\nsecret_file = \"DIR/open\"\n",
            "session.secret_file",
            "can be read by its group",
        ),
    ] {
        let loaded = place.load(toml).unwrap_or_else(|problems| panic!("{toml}\n{problems}"));
        assert_eq!(loaded.warnings.len(), 1, "{toml}\n{:?}", loaded.warnings);
        assert_eq!(loaded.warnings[0].key, key, "{toml}");
        assert!(loaded.warnings[0].what.contains(what), "{toml}\n{}", loaded.warnings[0]);
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let place = Place::new();
    let mut sources = place.sources(
        "[servr]\n[tls]\ncertificate = \"DIR/none.crt\"\nkey = \"DIR/tls.key\"\n[heartbeat]\ninterval = \"5h\"\n[server]\nlisten = \"127.0.0.1:9464\"\n",
    );
    sources.environment = variables(&[("CONCLAVE_LOG__LEVL", "info")]);
    sources.overrides = vec![("server.threads".to_owned(), "many".to_owned(), "--threads".to_owned())];
    let told = told(load(&sources));
    let expected = [
        "error servr: unknown section",
        "error heartbeat.interval: 5h is out of range",
        "error CONCLAVE_LOG__LEVL: unknown variable",
        "error server.threads: expected a whole number",
        "error server.admin_listen: 127.0.0.1:9464 takes the port",
        "error tls.certificate: file not found",
        "error auth.keys: no key, and no sign-in",
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (line, start) in told.iter().zip(expected) {
        assert!(line.starts_with(start), "{line}\nexpected {start}");
    }
}

#[test]
fn unknown_variables_are_refused_with_the_right_name() {
    for (name, text, remedy) in [
        ("CONCLAVE_SERVER_LISTEN", "x", Some("CONCLAVE_SERVER__LISTEN?")),
        ("CONCLAVE_LISTEN", "x", Some("CONCLAVE_SERVER__LISTEN?")),
        ("CONCLAVE_server__listen", "x", Some("CONCLAVE_SERVER__LISTEN?")),
        ("CONCLAVE_TLS__CERT", "x", Some("CONCLAVE_TLS__CERTIFICATE?")),
        (
            "CONCLAVE_AUTH__KEYS__0__SECRETFILE",
            "x",
            Some("CONCLAVE_AUTH__KEYS__0__SECRET_FILE?"),
        ),
        (
            "CONCLAVE_AUTH__KEYS__FIRST__SECRET",
            "hunter2",
            Some("CONCLAVE_AUTH__KEYS__0__SECRET?"),
        ),
        ("CONCLAVE_", "x", Some("conclave config env")),
        ("CONCLAVE_QQQ__ZZZ", "x", Some("conclave config env")),
        // Not ours, or no key.
        ("CONCLAVE_STATE_DIR", "/tmp", None),
        ("CONCLAVE_CONFIG", "/etc/conclave/conclave.toml", None),
        ("CONCLAVE_SERVICE_HOST", "10.0.0.1", None),
        ("CONCLAVE_SERVICE_PORT_HTTPS", "443", None),
        ("CONCLAVE_ADMIN_SERVICE_PORT", "9464", None),
        ("CONCLAVE_PORT", "tcp://10.0.0.1:443", None),
        ("CONCLAVE_PORT_443_TCP_ADDR", "10.0.0.1", None),
        ("CONCLAVE_PORT", "9000", Some("conclave config env")),
        ("CONCLAVER_X", "x", None),
    ] {
        let layer = environment::read(&variables(&[(name, text)]));
        let problem = layer.problems().first();
        match remedy {
            None => assert_eq!(problem, None, "{name}"),
            Some(remedy) => {
                let problem = problem.unwrap_or_else(|| panic!("{name} passed"));
                assert!(problem.remedy.contains(remedy), "{problem}");
                assert!(!problem.to_string().contains("hunter2"));
            }
        }
    }
}

#[test]
fn what_is_no_toml_is_shown_with_a_caret() {
    let place = Place::new();
    let problems = load(&place.sources("[server]\nlisten = \"0.0.0.0:8443\npage = true\n")).expect_err("open text");
    let text = problems.to_string();
    assert!(text.starts_with("error: not valid TOML: "), "{text}");
    assert!(
        text.contains("\n  2 | listen = \"0.0.0.0:8443\n    |          ") && text.contains('^'),
        "{text}"
    );
    assert!(text.contains("conclave.toml line 2\n"), "{text}");

    let twice = load(&place.sources("[server]\npage = true\npage = false\n"))
        .expect_err("twice")
        .to_string();
    assert!(twice.contains("duplicate key") && twice.contains("line 3"), "{twice}");
}

#[test]
fn a_broken_line_with_a_secret_is_not_shown() {
    let place = Place::new();
    for toml in [
        "[session]\nsecret = \"hunter2\n",
        "[session]\nsecret = hunter2\n",
        "[session]\nsecret \"hunter2\"\n",
        "[session]\n\"hunter2\n",
        "[session]\nsecret = \"\"\"\nhunter2\n",
        "[traces]\nheaders = [\"authorization=hunter2\n",
        "[traces]\nheaders = [\n\"level=hunter2\n",
        "[auth]\nkeys = [{ secret = \"hunter2 }]\n",
        "session.secret = hunter2\n",
        "[\"hunter2\n",
    ] {
        let problems = load(&place.sources(toml)).expect_err(toml);
        assert_eq!(problems.0.len(), 1, "{toml}");
        assert!(!problems.to_string().contains("hunter2"), "{toml}\n{problems}");
    }
}

#[test]
fn a_file_that_was_asked_for_must_be_there() {
    let sources = Sources {
        file: Some("/nowhere/conclave.toml".into()),
        ..Sources::default()
    };
    let text = load(&sources).expect_err("missing").to_string();
    assert!(
        text.starts_with("error: file not found: /nowhere/conclave.toml\n  help: "),
        "{text}"
    );
    assert!(text.contains("conclave config init"), "{text}");
}

#[test]
fn entries_of_keys_are_numbered_without_gaps() {
    let place = Place::new();
    let mut sources = place.sources(NEEDED);
    sources.environment = variables(&[("CONCLAVE_AUTH__KEYS__2__ISSUER", "a")]);
    let told = told(load(&sources));
    assert!(
        told.iter()
            .any(|line| line.starts_with("error auth.keys[2]: there is no entry 1 before it")),
        "{told:#?}"
    );
}

#[test]
fn inline_entries_and_dotted_keys_mean_the_same() {
    let place = Place::new();
    let toml = "tls.certificate = \"DIR/tls.crt\"\ntls.key = \"DIR/tls.key\"\nauth.keys = [\n  { algorithm = \"HS256\", secret_file = \"DIR/jwt\", audience = \"shop\" },\n]\n";
    let loaded = load(&place.sources(toml)).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.config.auth.keys[0].audience, ["shop"]);
    assert!(
        loaded.config.auth.keys[0].set_in.ends_with(":4"),
        "{}",
        loaded.config.auth.keys[0].set_in
    );
}

#[test]
fn single_brackets_for_keys_are_explained() {
    let place = Place::new();
    let toml = NEEDED.replace("[[auth.keys]]", "[auth.keys]");
    let told = told(load(&place.sources(&toml)));
    assert_eq!(told, ["error auth.keys: expected entries, found table"]);
}

#[test]
fn a_backplane_as_it_is_written() {
    let place = Place::new();
    place.write("url", "redis+sentinel://ann:canary-1@s1,s2/main/3\n");
    place.write("sentinels", "canary-2\n");
    let toml = "[backplane]\nkind = \"redis\"\nurl_file = \"DIR/url\"\nsentinel_password_file = \"DIR/sentinels\"\nkept = \"replica\"\non_stale = \"pass\"\nlease = \"5s\"\n";
    let loaded = place.load(toml).unwrap_or_else(|problems| panic!("{problems}"));
    let backplane = &loaded.config.backplane;
    assert_eq!((backplane.kind, backplane.kept), (BackplaneKind::Redis, Kept::Replica));
    assert_eq!(
        (backplane.on_stale, backplane.lease),
        (OnStale::Pass, Duration::from_secs(5))
    );
    assert_eq!(backplane.url.hosts_shown(), "s1:26379, s2:26379");
    assert_eq!(
        (backplane.url.user.as_deref(), backplane.url.database),
        (Some("ann"), 3)
    );
    let exposed = |secret: &Option<secrecy::SecretString>| secret.as_ref().map(|s| s.expose_secret().to_owned());
    assert_eq!(exposed(&backplane.url.password).as_deref(), Some("canary-1"));
    assert_eq!(exposed(&backplane.sentinel_password).as_deref(), Some("canary-2"));
    assert_eq!(loaded.warnings, []);
    let shown = format!("{loaded:?}\n{}", effective_table(&loaded.effective));
    assert!(!shown.contains("canary"), "{shown}");

    let mut sources = place.sources(&format!("{NEEDED}{toml}"));
    sources.environment = variables(&[("CONCLAVE_BACKPLANE__URL", "redis://:canary-3@n1,n2")]);
    let loaded = load(&sources).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.config.backplane.url.hosts_shown(), "n1:6379, n2:6379");
    let shown = format!("{loaded:?}\n{}", effective_table(&loaded.effective));
    assert!(!shown.contains("canary"), "{shown}");
    assert_eq!(loaded.warnings[0].key, "backplane.sentinel_password_file");
}

#[test]
fn what_a_backplane_makes_worth_knowing() {
    let place = Place::new();
    for (toml, warning) in [
        (
            "kind = \"nats\"\nkept = \"disk\"\n",
            "warning backplane.kept: holds only while",
        ),
        (
            "kind = \"redis\"\nca_file = \"DIR/tls.crt\"\n",
            "warning backplane.ca_file: backplane.url is one without TLS",
        ),
        (
            "kind = \"redis\"\n[session]\nenabled = true\n",
            "warning session.enabled: no session.secret_file: a guest of one node is none on the others",
        ),
    ] {
        let told = told(place.load(&format!("[backplane]\n{toml}")));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with(warning), "{told:?}");
    }
}

#[test]
fn secrets_are_shown_nowhere() {
    let place = Place::new();
    place.write(
        "headers",
        "authorization=Bearer canary-header\nx-tenant=canary-tenant\n",
    );
    let secret = "canary-0123456789abcdef0123456789abcdef";
    let toml = format!(
        "[[auth.keys]]\nalgorithm = \"HS256\"\nsecret = \"{secret}\"\n[session]\nenabled = true\nsecret = \"{secret}\"\n[traces]\nheaders_file = \"DIR/headers\"\n"
    );
    let loaded = place.load(&toml).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.config.traces.headers[1].0, "x-tenant");
    let shown = format!("{loaded:?}\n{}", effective_table(&loaded.effective));
    assert!(!shown.contains("canary"), "{shown}");
    let row = |key: &str| {
        loaded
            .effective
            .iter()
            .find(|row| row.key == key)
            .expect("row")
            .value_shown
            .clone()
    };
    assert_eq!(row("session.secret"), "***");
    assert_eq!(row("auth.keys[1].secret"), "***");
    assert_eq!(row("auth.keys[0].secret_file"), place.fill("DIR/jwt"));
}

#[test]
fn checks_of_other_parts_are_asked_once_the_entries_of_keys_are_sound() {
    let place = Place::new();
    let extra = |config: &Config| {
        vec![Problem::error(
            format!("{KEYS}[0]"),
            format!("{} key", config.auth.keys.len()),
            "",
        )]
    };
    let problems = load_with(&place.sources(NEEDED), extra).expect_err("extra");
    assert_eq!(problems.0[0].what, "1 key");
    assert!(matches!(problems.0[0].at, Some(At::File { line: 5, .. })), "{problems}");
    let broken = place.sources(&format!("{NEEDED}[[auth.keys]]\n"));
    let problems = load_with(&broken, extra).expect_err("broken");
    assert_eq!(problems.0.len(), 1, "{problems}");
}

#[test]
fn tables_have_every_key() {
    let (markdown, variables) = (table_markdown(), env_table());
    for entry in &SCHEMA.entries {
        assert!(
            markdown.contains(&entry.name) && markdown.contains(&entry.meaning.replace('|', "\\|")),
            "{}",
            entry.name
        );
        assert!(variables.contains(&entry.variable()), "{}", entry.name);
    }
    assert_eq!(markdown.lines().count(), SCHEMA.entries.len() + 2);
    assert!(
        markdown.contains("| `heartbeat.interval` | `30s` | duration, 1s to 10m |"),
        "{markdown}"
    );
}
