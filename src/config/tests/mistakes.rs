//! One line of a file that is wrong: its line, its key, what is said and how to fix it.

use super::Place;
use crate::config::{At, Severity};

#[test]
#[rustfmt::skip] // One mistake per line, or the table could not be read.
#[expect(clippy::too_many_lines, reason = "a table")]
fn one_mistake_is_told_once_with_line_and_remedy() {
    let place = Place::new();
    place.write("short", "hunter2");
    place.write("binary", "");
    std::fs::write(place.path().join("binary"), [0xff, 0xfe]).expect("write");
    for (toml, line, key, what, remedy) in [
        // Names.
        ("[servr]\n", 9, "servr", "unknown section", "did you mean [server]?"),
        ("[zzz]\n", 9, "zzz", "unknown section", "known sections are server, tls"),
        ("[server]\nlisten_on = \"x\"\n", 10, "server.listen_on", "unknown key", "did you mean \"listen\"?"),
        ("[server]\nreload_poll = \"1s\"\n", 10, "server.reload_poll", "unknown key", "did you mean \"reload_poll\" in [tls]?"),
        ("[drain]\nzzz = 1\n", 10, "drain.zzz", "unknown key", "known keys of drain are grace, time"),
        ("isuer = \"a\"\n", 9, "auth.keys[0].isuer", "unknown key", "did you mean \"issuer\"?"),
        ("[backplane]\nkind = \"redsi\"\n", 10, "backplane.kind", "found \"redsi\"", "did you mean \"redis\"?"),
        ("[server]\nruntime = \"percore\"\n", 10, "server.runtime", "expected \"per-core\" or \"shared\"", "did you mean \"per-core\"?"),
        // Kinds.
        ("[heartbeat]\ninterval = 30\n", 10, "heartbeat.interval", "expected a duration with its unit such as \"30s\", found the number 30", "1s to 10m; the default is 30s"),
        ("[heartbeat]\ninterval = \"30\"\n", 10, "heartbeat.interval", "found \"30\"", "takes a duration"),
        ("[server]\npage = \"yes\"\n", 10, "server.page", "expected true or false, found the text \"yes\"", "the default is false"),
        ("[server]\nthreads = 1.5\n", 10, "server.threads", "found the number 1.5", "whole number"),
        ("[server]\nlisten = \":8443\"\n", 10, "server.listen", "found \":8443\"", "\"0.0.0.0:8443\""),
        ("[server]\nlisten = \"localhost:8443\"\n", 10, "server.listen", "found", "names are not looked up"),
        ("[server]\nlisten = \"10.0.0.1\"\n", 10, "server.listen", "found", "a port is missing"),
        ("[server]\nproxy_from = [\"10.0.0.1\"]\n", 10, "server.proxy_from", "is an address, not a network", "did you mean \"10.0.0.1/32\"?"),
        ("[server]\nproxy_from = [\"10.0.0.0/8\", \"balancer\"]\n", 10, "server.proxy_from", "\"balancer\" is not a network", "\"10.0.0.0/8\""),
        ("[origin]\nallow = [1]\n", 10, "origin.allow", "expected a list of texts", "takes a list"),
        ("[limits]\nmessage_bytes = -1\n", 10, "limits.message_bytes", "cannot be negative", "takes a size"),
        ("[limits]\nmessage_bytes = \"64 apples\"\n", 10, "limits.message_bytes", "found \"64 apples\"", "64KiB"),
        ("[log]\nlevel = {a = 1}\n", 10, "log.level", "expected text, found a table", "info"),
        // Ranges.
        ("[heartbeat]\ninterval = \"11m\"\n", 10, "heartbeat.interval", "11m is out of range, 1s to 10m", "the default is 30s"),
        ("[heartbeat]\ninterval = \"500ms\"\n", 10, "heartbeat.interval", "500ms is out of range", "1s to 10m"),
        ("[limits]\nmessage_bytes = \"1GiB\"\n", 10, "limits.message_bytes", "1GiB is out of range, 1KiB to 64MiB", "64KiB"),
        ("[traces]\nsample_ratio = nan\n", 10, "traces.sample_ratio", "out of range, 0 to 1", "0.01"),
        ("[server]\nthreads = -1\n", 10, "server.threads", "-1 is out of range, 0 to 1024", "default is 0"),
        // Keys.
        ("public_key_file = \"DIR/jwt\"\n", 5, "auth.keys[0]", "are set together", "set exactly one of"),
        ("[[auth.keys]]\nalgorithm = \"HS256\"\n", 9, "auth.keys[1]", "no key in this entry", "set exactly one of"),
        ("[[auth.keys]]\nsecret_file = \"DIR/jwt\"\n", 9, "auth.keys[1].algorithm", "not set", "HS256"),
        ("[[auth.keys]]\nalgorithm = \"none\"\nsecret_file = \"DIR/jwt\"\n", 10, "auth.keys[1].algorithm", "found \"none\"", "HS256"),
        ("[[auth.keys]]\nalgorithm = \"hs256\"\nsecret_file = \"DIR/jwt\"\n", 10, "auth.keys[1].algorithm", "found \"hs256\"", "did you mean \"HS256\"?"),
        ("[[auth.keys]]\nalgorithm = \"ES256\"\nsecret_file = \"DIR/jwt\"\n", 10, "auth.keys[1].algorithm", "verified with a public key", "public_key_file"),
        ("[[auth.keys]]\nalgorithm = \"HS256\"\npublic_key_file = \"DIR/tls.crt\"\n", 10, "auth.keys[1].algorithm", "no public key", "secret_file"),
        ("[[auth.keys]]\nalgorithm = \"HS256\"\nsecret_file = \"DIR/none\"\n", 11, "auth.keys[1].secret_file", "file not found: DIR/none", "correct the path"),
        ("[[auth.keys]]\njwks_file = \"DIR\"\n", 10, "auth.keys[1].jwks_file", "a directory, not a file", "correct the path"),
        ("[[auth.keys]]\nalgorithm = \"HS256\"\nsecret_file = \"DIR/short\"\n", 11, "auth.keys[1].secret_file", "a secret of 7 bytes is too short, at least 32", "openssl rand"),
        ("[[auth.keys]]\nalgorithm = \"HS512\"\nsecret_file = \"DIR/jwt\"\n", 11, "auth.keys[1].secret_file", "too short, at least 64", "openssl rand"),
        ("[[auth.keys]]\nalgorithm = \"HS256\"\nsecret = \"hunter2\"\n", 11, "auth.keys[1].secret", "too short", "openssl rand"),
        // Keys by URL.
        ("[[auth.keys]]\njwks_url = \"https://a.example/keys\"\n", 9, "auth.keys[1].issuer", "not set", "\"iss\" of this issuer's tokens"),
        ("[[auth.keys]]\nissuer = \"a\"\nuser_prefix = \"a:\"\njwks_url = \"https://u:p@a.example/\"\n", 12, "auth.keys[1].jwks_url", "a user name or a password", "as the issuer gives it"),
        ("[[auth.keys]]\nissuer = \"a\"\nuser_prefix = \"a:\"\njwks_url = \"https://169.254.169.254/\"\n", 12, "auth.keys[1].jwks_url", "link-local", "the issuer's own URL"),
        ("[[auth.keys]]\nissuer = \"a\"\nuser_prefix = \"a:\"\nkid = \"k\"\njwks_url = \"https://a.example/\"\n", 12, "auth.keys[1].kid", "have their own", "leave it out"),
        ("[[auth.keys]]\nissuer = \"a\"\nuser_prefix = \"a:\"\nalgorithm = \"ES256\"\njwks_url = \"https://a.example/\"\n", 12, "auth.keys[1].algorithm", "for a single key", "algorithms = [\"ES256\"]"),
        ("[[auth.keys]]\nissuer = \"a\"\nuser_prefix = \"a:\"\njwks_ca_file = \"DIR/none\"\njwks_url = \"https://a.example/\"\n", 12, "auth.keys[1].jwks_ca_file", "file not found", "correct the path"),
        ("algorithms = [\"HS256\"]\n", 9, "auth.keys[0].algorithms", "of a jwks_url only", "leave it out"),
        ("[[auth.keys]]\nissuer = \"a\"\nuser_prefix = \"a:\"\njwks_url = \"https://a.example/\"\n[auth]\njwks_maximum_age = \"20s\"\n", 14, "auth.jwks_maximum_age", "shorter than two readings", "hours are usual"),
        ("[outbound]\nnetworks = [\"unix\"]\n", 10, "outbound.networks", "not a network that can be called", "leave it out"),
        // Rules.
        ("[origin]\nallow = [\"app.example.com\"]\n", 10, "origin.allow", "no scheme", "https://app.example.com"),
        ("[session]\nenabled = true\nsecret_file = \"DIR/jwt\"\n[origin]\nallow = [\"*\"]\n", 13, "origin.allow", "session.enabled", "list the origins"),
        ("[session]\nsecret_file = \"DIR/none\"\n", 10, "session.secret_file", "file not found", "correct the path"),
        ("[session]\nsecret_file = \"DIR/binary\"\n", 10, "session.secret_file", "not text", "correct the path"),
        ("[session]\nsecret = \"hunter2\"\n", 10, "session.secret", "too short", "openssl rand"),
        ("[auth]\ncookie = \"a b\"\n", 10, "auth.cookie", "not a name", "letters"),
        ("[server]\nadmin_listen = \"127.0.0.1:8443\"\n", 10, "server.admin_listen", "takes the port", "127.0.0.1:9464"),
        ("[server]\nlisten = \"unix:\"\n", 10, "server.listen", "a path is missing", "unix:/run/"),
        ("[server]\nlisten = \"unix:/run/c.sock\"\n", 0, "tls.mode", "TLS is not spoken on unix:/run/c.sock", "tls.mode = \"off\""),
        ("[server]\nlisten_mode = \"rw\"\n", 10, "server.listen_mode", "\"rw\" is not the mode", "0660"),
        ("[server]\nforwarded_from = [\"10.0.0.1\"]\n", 10, "server.forwarded_from", "is an address, not a network", "10.0.0.1/32"),
        ("[server]\nname = \"a\\u0007\"\n", 10, "server.name", "no control characters", "host name"),
        ("[limits]\noutbox_bytes = \"64KiB\"\n", 10, "limits.outbox_bytes", "cannot hold one chat", "at least 73728"),
        ("[limits]\noutbox_bytes = \"512MiB\"\n", 0, "limits.node_outbox_bytes", "are less than limits.outbox_bytes", "raise it"),
        ("[limits]\nunsent_low_water = \"1MiB\"\n", 10, "limits.unsent_low_water", "would never be reached", "half"),
        ("[limits]\nbytes_per_second = 1000\n", 10, "limits.bytes_per_second", "could never pass", "raise it"),
        ("[limits]\nroom_bytes_per_second = 1000\n", 10, "limits.room_bytes_per_second", "could never pass", "raise it"),
        ("[history]\nbytes = \"16KiB\"\n", 10, "history.bytes", "promises that it is kept", "history.messages = 0"),
        // Classes of rooms.
        ("[[rooms]]\njoin = \"none\"\n", 9, "rooms[0].pattern", "not set", "the beginning of many"),
        ("[[rooms]]\npattern = \"a*b\"\n", 10, "rooms[0].pattern", "\"a*b\" has a \"*\" before its end", "at the end"),
        ("[[rooms]]\npattern = \"a\"\n[[rooms]]\npattern = \"**\"\n", 12, "rooms[1].pattern", "before its end", "at the end"),
        ("[[rooms]]\npattern = \" a*\"\n", 10, "rooms[0].pattern", "no room can match \" a*\"", "leading"),
        ("[[rooms]]\npattern = \"a \"\n", 10, "rooms[0].pattern", "no room can match \"a \"", "trailing"),
        ("[[rooms]]\npattern = \"a\\u0007*\"\n", 10, "rooms[0].pattern", "no room can match \"a\\u{7}*\"", "control"),
        ("[[rooms]]\npattern = \"e\\u0301*\"\n", 10, "rooms[0].pattern", "no room can match", "NFC"),
        ("[[rooms]]\npattern = \"a*\"\n[[rooms]]\npattern = \"a*\"\n", 12, "rooms[1].pattern", "\"a*\" has a class already, DIR/conclave.toml:9", "keep one"),
        ("[[rooms]]\npattern = \"a\"\njoin = \"grant\"\n", 11, "rooms[0].join", "found \"grant\"", "did you mean \"granted\"?"),
        ("[[rooms]]\npattern = \"a\"\nhistory_mesages = 1\n", 11, "rooms[0].history_mesages", "unknown key", "did you mean \"history_messages\"?"),
        ("[[rooms]]\npattern = \"a\"\nkey_window = \"1ms\"\n", 11, "rooms[0].key_window", "out of range, 1s to 24h", "the default is none"),
        ("[[rooms]]\npattern = \"a\"\nbytes_per_second = 10\n", 11, "rooms[0].bytes_per_second", "could never pass", "raise it"),
        ("[[rooms]]\npattern = \"a\"\nhistory_bytes = \"8KiB\"\n", 11, "rooms[0].history_bytes", "promises that it is kept", "history_messages = 0"),
        ("[backplane]\nkind = \"redis\"\n[[rooms]]\npattern = \"a\"\nkey_window = \"2s\"\n", 13, "rooms[0].key_window", "could be kept twice", "raise it"),
        ("[room]\n[rooms]\nusers_shown = 3\n", 10, "rooms", "the old name of [room]", "move its keys"),
        // The backplane.
        ("[backplane]\nurl = \"redis://:hun/ter2@n1\"\n", 10, "backplane.url", "user or password", "%2F"),
        ("[backplane]\nurl = \"hunter2@n1\"\n", 10, "backplane.url", "no scheme", "redis://"),
        ("[backplane]\nurl = 6379\n", 10, "backplane.url", "expected text", "it takes text"),
        ("[backplane]\nkind = \"redis\"\nurl = \"redis+sentinel://:hunter2@s1,s2\"\n", 11, "backplane.url", "without the name of the master", "/mymaster"),
        ("[backplane]\nkind = \"redis\"\nurl = \"redis+cluster://:hunter2@n1/1\"\n", 11, "backplane.url", "Redis Cluster has none", "leave it out"),
        ("[backplane]\nkind = \"redis\"\nurl = \"nats://hunter2@n1\"\n", 11, "backplane.url", "not a URL of backplane.kind, \"redis\"", "redis://"),
        ("[backplane]\nkind = \"nats\"\nurl = \"redis://:hunter2@n1\"\n", 11, "backplane.url", "not a URL of backplane.kind, \"nats\"", "nats://"),
        ("[backplane]\nurl = \"redis://n1\"\nurl_file = \"DIR/jwt\"\n", 10, "backplane.url", "both set", "the file is safer"),
        ("[backplane]\nurl_file = \"DIR/none\"\n", 10, "backplane.url_file", "file not found", "correct the path"),
        ("[backplane]\nurl_file = \"DIR/short\"\n", 10, "backplane.url_file", "no scheme", "redis://"),
        ("[backplane]\nkept = \"memory\"\n", 10, "backplane.kept", "found \"memory\"", "\"async\" or \"disk\" or \"replica\""),
        ("[backplane]\nkind = \"nats\"\nkept = \"replica\"\n", 11, "backplane.kept", "JetStream does not say", "use \"async\""),
        ("[backplane]\nprefix = \"\"\n", 10, "backplane.prefix", "not a word", "conclave-staging"),
        ("[backplane]\nprefix = \"a{b}\"\n", 10, "backplane.prefix", "not a word", "\".\""),
        ("[backplane]\nprefix = \"012345678901234567890123456789012\"\n", 10, "backplane.prefix", "not a word", "1 to 32"),
        ("[backplane]\nkind = \"nats\"\nprefix = \"a.b\"\n", 11, "backplane.prefix", "streams", "1 to 32"),
        ("[backplane]\nkind = \"redis\"\nlease = \"3s\"\n", 11, "backplane.lease", "less than 4 times backplane.call_timeout, 1s", "raise it"),
        ("[backplane]\nkind = \"redis\"\nkept = \"replica\"\nwait_timeout = \"2s\"\n", 12, "backplane.wait_timeout", "not less than backplane.publish_timeout, 2s", "lower it"),
        ("[backplane]\nkind = \"redis\"\npublish_timeout = \"30s\"\n[room]\nkey_window = \"30s\"\n", 11, "backplane.publish_timeout", "could be kept twice", "room.key_window"),
        ("[backplane]\nkind = \"redis\"\nca_file = \"DIR/none\"\n", 11, "backplane.ca_file", "file not found", "correct the path"),
        ("[backplane]\nkind = \"redis\"\nca_file = \"DIR/tls.key\"\n", 11, "backplane.ca_file", "no PEM certificates", "authority"),
        ("[backplane]\nkind = \"redis\"\nsentinel_password_file = \"DIR/none\"\n", 11, "backplane.sentinel_password_file", "file not found", "correct the path"),
        ("[backplane]\nkind = \"redis\"\nroom_queue_bytes = \"16KiB\"\n", 11, "backplane.room_queue_bytes", "cannot hold one chat", "at least 73728"),
        ("[backplane]\nkind = \"redis\"\nnode_queue_bytes = \"1MiB\"\n", 11, "backplane.node_queue_bytes", "are less than", "raise it"),
        ("[log]\nlevel = \"inof\"\n", 10, "log.level", "unknown level \"inof\"", "did you mean \"info\"?"),
        ("[traces]\nendpoint = \"127.0.0.1:4318\"\n", 10, "traces.endpoint", "not a", "http://127.0.0.1:4318"),
        ("[traces]\nheaders = [\"hunter2\"]\n", 10, "traces.headers", "a header without \"=\"", "name=value"),
        ("[traces]\nheaders = [\"a b=hunter2\"]\n", 10, "traces.headers", "header 1 is none that HTTP allows", "name=value"),
    ] {
        let problems = place.load(toml).map(|_| ()).expect_err(toml);
        assert_eq!(problems.0.len(), 1, "{toml}\n{problems}");
        let problem = &problems.0[0];
        assert_eq!((problem.severity, problem.key.as_str()), (Severity::Error, key), "{toml}\n{problem}");
        assert!(problem.what.contains(&place.fill(what)), "{toml}\n{problem}");
        assert!(problem.remedy.contains(remedy), "{toml}\n{problem}");
        let found = match &problem.at {
            Some(At::File { line, .. }) => *line,
            _ => 0,
        };
        assert_eq!(found, line, "{toml}\n{problem}");
        assert!(!problems.to_string().contains("hun"), "{toml}\n{problem}");
    }
}
