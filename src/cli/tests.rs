use std::path::Path;

use clap::CommandFactory;

use super::*;

fn environment(directory: &Path) -> Vec<(String, String)> {
    vec![(
        "CONCLAVE_STATE_DIR".to_owned(),
        directory.join("state").display().to_string(),
    )]
}

fn code(arguments: &[&str], directory: &Path) -> u8 {
    let arguments = std::iter::once("conclave").chain(arguments.iter().copied());
    run(arguments.map(OsString::from), environment(directory))
}

#[test]
fn the_definition_is_sound() {
    Arguments::command().debug_assert();
}

#[test]
fn every_verb_has_help_with_an_example() {
    fn check(command: &clap::Command) {
        let help = command.clone().render_long_help().to_string();
        assert!(
            command.get_about().is_some(),
            "{} has no description",
            command.get_name()
        );
        let leaf = command.get_subcommands().next().is_none();
        let explained = help.contains("xample") || help.contains("Start here");
        assert!(
            !leaf || explained || command.get_name() == "env" || help.contains("--connections"),
            "{}",
            command.get_name()
        );
        command.get_subcommands().for_each(check);
    }
    check(&Arguments::command());
}

#[test]
fn exit_codes() {
    let directory = tempfile::tempdir().unwrap();
    for (arguments, expected) in [
        (&["--help"][..], 0),
        (&["--version"], 0),
        (&["bench", "idle", "--help"], 0),
        (&[], 64),
        (&["srve"], 64),
        (&["serve", "--listne", "x"], 64),
        (&["serve", "-q", "-v"], 64),
        (&["serve", "--config", "/nonexistent/conclave.toml"], 64),
        (&["dev", "--listen", "0.0.0.0:8443"], 64),
        (&["token"], 64),
        (&["token", "--sub", "u1"], 64),
        (&["api-key"], 64),
        (&["api-key", "new", "--name", "backend"], 64),
        (&["api-key", "new", "--name", "backend", "--scope", "fly"], 64),
        (&["api-key", "new", "--name", "", "--scope", "read"], 64),
        (
            &["api-key", "new", "--name", "b", "--scope", "read", "--room", "a*b"],
            64,
        ),
        (
            &["api-key", "new", "--name", "b", "--scope", "read", "--expires", "soon"],
            64,
        ),
        (
            &[
                "api-key",
                "new",
                "--name",
                "b",
                "--scope",
                "*",
                "--room",
                "a/*",
                "--expires",
                "2030-01-31",
            ],
            0,
        ),
        (&["revoke"], 64),
        (&["revoke", "--user", "u1", "--token", "t1"], 64),
        (&["revoke", "--session", "s-1", "--issued-before", "1"], 64),
        (&["revoke", "--user", "u1", "--issued-before", "yesterday"], 64),
        (&["revoke", "--user", "u1", "--issued-before", "1767225600000"], 64),
        (
            &["revoke", "--user", "u1", "--config", "/nonexistent/conclave.toml"],
            64,
        ),
        (&["kick"], 64),
        (&["kick", "--session", "s-1", "--ban", "1h"], 64),
        (&["drain"], 64),
        (&["drain", "--clients", "10"], 64),
        (&["drain", "--dry-run", "--nodes", "3"], 64),
        (&["drain", "--dry-run", "--clients", "10", "--nodes", "0"], 64),
        (&["drain", "--dry-run", "--clients", "10", "--nodes", "3", "--json"], 0),
        (&["drain", "--dry-run", "--wait"], 64),
        (&["healthcheck", "--url", "http://127.0.0.1:1/readyz"], 1),
        (&["healthcheck", "--url", "x", "--config", "y"], 64),
        (&["bench", "idle", "--url", "ws://127.0.0.1:1/ws", "--token", "t"], 64),
        (
            &[
                "bench",
                "idle",
                "--url",
                "wss://127.0.0.1:1/ws?token=t",
                "--token",
                "t",
                "--insecure",
            ],
            64,
        ),
        (
            &[
                "bench",
                "idle",
                "--url",
                "wss://192.0.2.1:1/ws",
                "--token",
                "t",
                "--insecure",
            ],
            64,
        ),
        (&["bench", "idle", "--url", "wss://127.0.0.1:1/ws", "--insecure"], 64),
        (
            &[
                "bench",
                "idle",
                "--url",
                "wss://127.0.0.1:1/ws",
                "--token",
                "t",
                "--insecure",
            ],
            1,
        ),
        (
            &[
                "bench",
                "broadcast",
                "-n",
                "1",
                "--publishers",
                "2",
                "--token",
                "t",
                "--insecure",
            ],
            64,
        ),
        (&["bench", "echo", "--size", "3", "--token", "t", "--insecure"], 64),
    ] {
        assert_eq!(code(arguments, directory.path()), expected, "{arguments:?}");
    }
}

#[test]
fn a_mistyped_verb_or_flag_is_answered_with_the_right_one() {
    for (typed, meant) in [(&["serv"][..], "serve"), (&["serve", "--confg", "x"], "--config")] {
        let typed = std::iter::once("conclave").chain(typed.iter().copied());
        let said = Arguments::try_parse_from(typed).unwrap_err().to_string();
        assert!(said.contains(meant), "{said}");
    }
}

#[test]
fn version_says_what_a_bug_report_needs() {
    let said = version::long();
    for needed in ["commit:", "rustc:", "target:", "features:"] {
        assert!(said.contains(needed), "{said}");
    }
}

#[test]
fn manual_pages_are_written_for_every_verb() {
    let directory = tempfile::tempdir().unwrap();
    assert!(man::run(Some(directory.path())).is_ok());
    for page in [
        "conclave",
        "conclave-serve",
        "conclave-token",
        "conclave-bench-broadcast",
        "conclave-config-init",
    ] {
        let text = std::fs::read_to_string(directory.path().join(format!("{page}.1"))).unwrap();
        assert_eq!(text.contains("EXIT CODES"), page == "conclave", "{page}");
    }
}

#[test]
fn folders_and_files_come_from_the_environment_where_no_flag_names_them() {
    let variables = [
        ("CONCLAVE_STATE_DIR", "/s"),
        ("CONCLAVE_CONFIG", "/c.toml"),
        ("HOME", "/h"),
        ("NO_COLOR", "1"),
    ];
    let own = |list: &[(&str, &str)]| {
        list.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    let environment = Environment::new(own(&variables));
    assert!(environment.no_color());
    assert_eq!(environment.state_directory().unwrap(), Path::new("/s"));
    assert_eq!(environment.sources(None).file.unwrap(), Path::new("/c.toml"));
    assert_eq!(
        environment.sources(Some("/f.toml".into())).file.unwrap(),
        Path::new("/f.toml")
    );

    let at = |list: &[(&str, &str)]| Environment::new(own(list)).state_directory();
    assert_eq!(at(&[("HOME", "/h")]).unwrap(), Path::new("/h/.local/state/conclave"));
    assert_eq!(
        at(&[("HOME", "/h"), ("XDG_STATE_HOME", "/x")]).unwrap(),
        Path::new("/x/conclave")
    );
    assert_eq!(
        at(&[("HOME", "/h"), ("XDG_STATE_HOME", "relative")]).unwrap(),
        Path::new("/h/.local/state/conclave")
    );
    assert_eq!(at(&[]), None);
}

#[test]
fn a_key_that_cannot_be_used_is_a_problem_of_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let (pem, file) = (directory.path().join("key.pem"), directory.path().join("conclave.toml"));
    std::fs::write(&pem, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n").unwrap();
    let text = format!(
        "[[auth.keys]]\nalgorithm = \"RS256\"\npublic_key_file = \"{}\"\n",
        pem.display()
    );
    std::fs::write(&file, text).unwrap();
    let sources = Environment::new(Vec::new()).sources(Some(file));
    let Err(Failure::Config(problems)) = configuration::load(&sources) else {
        panic!("accepted")
    };
    let about_keys = problems.0.iter().find(|problem| problem.key == "auth.keys").unwrap();
    assert!(about_keys.to_string().contains("conclave.toml line"), "{about_keys}");
}
