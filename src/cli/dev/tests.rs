use super::*;

fn environment(directory: &tempfile::TempDir) -> Environment {
    let path = directory.path().join("state").display().to_string();
    Environment::new(vec![("CONCLAVE_STATE_DIR".to_owned(), path)])
}

fn args() -> Dev {
    Dev {
        listen: "127.0.0.1:0".parse().unwrap(),
        admin_listen: "[::1]:0".parse().unwrap(),
        name: "Ann".to_owned(),
        origin: vec!["http://localhost:5173".to_owned()],
    }
}

#[test]
fn only_this_machine_is_served() {
    for address in ["0.0.0.0:8443", "[::]:8443", "192.0.2.1:8443", "127.0.0.2:8443"] {
        let refused = loopback_only("--listen", address.parse().unwrap()).unwrap_err();
        assert_eq!(refused.report(), 64, "{address}");
    }
    assert!(loopback_only("--listen", "[::1]:0".parse().unwrap()).is_ok());
}

#[test]
fn a_busy_port_is_said_with_a_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let Failure::Other(said) = must_be_free("--listen", taken.local_addr().unwrap()).unwrap_err() else {
        panic!("not a failure of the machine")
    };
    assert!(
        said.to_string().contains("in use") && said.to_string().contains("--listen 127.0.0.1:0"),
        "{said}"
    );
}

#[test]
fn secrets_are_kept_and_the_token_is_made_with_them() {
    let directory = tempfile::tempdir().unwrap();
    let environment = environment(&directory);
    assert!(key(&environment).is_none() && authority(&environment).is_none());
    let first = Kept::prepare(&environment, SystemTime::now()).unwrap();
    let second = Kept::prepare(&environment, SystemTime::now()).unwrap();
    assert_eq!(first.session_secret, second.session_secret);
    assert_eq!(first.session_secret.len(), 43);
    assert!(key(&environment).is_some() && authority(&environment).is_some());
    assert_eq!(token("Ann", &first).unwrap().split('.').count(), 3);
}

#[test]
fn the_configuration_is_for_one_developer() {
    let directory = tempfile::tempdir().unwrap();
    let kept = Kept::prepare(&environment(&directory), SystemTime::now()).unwrap();
    let config = configure(
        &args(),
        Loudness {
            quiet: true,
            verbose: 0,
        },
        &kept,
    );
    assert!(config.server.page && config.session.enabled);
    assert_eq!(config.log.level, "warn");
    assert_eq!(config.origin.allow, ["http://localhost:5173"]);
    assert!(config.tls.certificate.is_absolute());
}
