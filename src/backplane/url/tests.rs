use secrecy::ExposeSecret;

use super::*;

/// Hosts, form, TLS, user, password and database in one line.
fn told(text: &str) -> Result<String, UrlError> {
    let url = BackplaneUrl::parse(text)?;
    let form = match &url.form {
        Form::Single => "single".to_owned(),
        Form::Sentinel { master } => format!("sentinel {master}"),
        Form::Cluster => "cluster".to_owned(),
    };
    Ok(format!(
        "{:?} {form} tls={} {}:{}@{} /{}",
        url.engine,
        url.tls,
        url.user.as_deref().unwrap_or("-"),
        url.password.as_ref().map_or("-", |password| password.expose_secret()),
        url.hosts_shown(),
        url.database
    ))
}

#[test]
fn urls_of_every_form() {
    for (text, expected) in [
        ("redis://127.0.0.1:6379", "Redis single tls=false -:-@127.0.0.1:6379 /0"),
        ("redis://cache/", "Redis single tls=false -:-@cache:6379 /0"),
        (" redis://cache\n", "Redis single tls=false -:-@cache:6379 /0"),
        ("REDISS://cache:7000/3", "Redis single tls=true -:-@cache:7000 /3"),
        ("redis://:pa%40ss@cache", "Redis single tls=false -:pa@ss@cache:6379 /0"),
        (
            "redis://ann:p%2Fw%25@[::1]:6380/15",
            "Redis single tls=false ann:p/w%@[::1]:6380 /15",
        ),
        (
            "redis+sentinel://ann:pw@s1:26380,s2/mymaster/2",
            "Redis sentinel mymaster tls=false ann:pw@s1:26380, s2:26379 /2",
        ),
        (
            "rediss+sentinel://s1,s2,s3/my%20master",
            "Redis sentinel my master tls=true -:-@s1:26379, s2:26379, s3:26379 /0",
        ),
        ("redis+cluster://n1:7000", "Redis cluster tls=false -:-@n1:7000 /0"),
        (
            "rediss+cluster://ann:pw@n1,n2/0",
            "Redis cluster tls=true ann:pw@n1:6379, n2:6379 /0",
        ),
        (
            "redis://ann:pw@n1,redis://ann:pw@n2",
            "Redis cluster tls=false ann:pw@n1:6379, n2:6379 /0",
        ),
        (
            "redis://ann:pw@n1,n2:1",
            "Redis cluster tls=false ann:pw@n1:6379, n2:1 /0",
        ),
        ("nats://127.0.0.1", "Nats single tls=false -:-@127.0.0.1:4222 /0"),
        (
            "tls://ann:pw@n1,tls://n2:4333",
            "Nats single tls=true ann:pw@n1:4222, n2:4333 /0",
        ),
        (
            "nats://secret-token@n1",
            "Nats single tls=false -:secret-token@n1:4222 /0",
        ),
    ] {
        assert_eq!(told(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (text, expected) in [
        ("", UrlError::Scheme),
        ("127.0.0.1:6379", UrlError::Scheme),
        ("http://127.0.0.1", UrlError::Scheme),
        ("redis+nats://127.0.0.1", UrlError::Scheme),
        ("redis://", UrlError::NoHost),
        ("redis://:6379", UrlError::NoHost),
        ("redis://n1,,n2", UrlError::NoHost),
        ("redis://a b", UrlError::Host),
        ("redis://[::1", UrlError::Host),
        ("redis://[n1]", UrlError::Host),
        ("redis://[::1]6379", UrlError::Host),
        ("redis://n1:", UrlError::Port),
        ("redis://n1:0", UrlError::Port),
        ("redis://n1:65536", UrlError::Port),
        ("redis://n1:+1", UrlError::Port),
        ("redis://::1", UrlError::NoHost),
        ("redis://n1,rediss://n2", UrlError::Mixed),
        ("redis://n1,nats://n2", UrlError::Mixed),
        ("redis://a:b@n1,redis://a:c@n2", UrlError::Mixed),
        ("redis://n1/1,redis://n2/2", UrlError::Mixed),
        ("redis://:pa/ss@n1", UrlError::Account),
        ("redis://:pa@ss@n1", UrlError::Account),
        ("redis://:pa:ss@n1", UrlError::Account),
        ("redis://:100%@n1", UrlError::Account),
        ("redis://:%ff@n1", UrlError::Account),
        ("redis://ann@n1", UrlError::NoPassword),
        ("redis://ann:@n1", UrlError::NoPassword),
        ("redis://@n1", UrlError::NoPassword),
        ("nats://@n1", UrlError::NoPassword),
        ("redis+sentinel://s1,s2", UrlError::NoMaster),
        ("redis+sentinel://s1,s2/", UrlError::NoMaster),
        ("redis+sentinel://s1//2", UrlError::NoMaster),
        ("redis+sentinel://s1/m/x", UrlError::Database),
        ("redis://n1/x", UrlError::Database),
        ("redis://n1/-1", UrlError::Database),
        ("redis://n1/65536", UrlError::Database),
        ("redis+cluster://n1/1", UrlError::ClusterDatabase),
        ("redis://n1,n2/1", UrlError::ClusterDatabase),
        ("nats://n1/stream", UrlError::NatsPath),
        ("redis://n1?db=1", UrlError::Query),
        ("redis://n1#1", UrlError::Query),
        ("redis://:a#b@n1", UrlError::Account),
    ] {
        assert_eq!(told(text), Err(expected), "{text}");
        assert!(!expected.remedy().is_empty() && !expected.to_string().is_empty());
    }
}

#[test]
fn neither_debug_nor_hosts_show_the_account() {
    let url = BackplaneUrl::parse("redis://ann:hunter2@cache:6379").expect("a URL");
    assert!(!format!("{url:?} {}", url.hosts_shown()).contains("hunter2"));
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "(redis|rediss|nats|tls)?(\\+sentinel|\\+cluster)?(://)?[a-z0-9:/@%,\\[\\]é. ]{0,40}") {
        let _ = BackplaneUrl::parse(&text);
    }

    #[test]
    fn what_was_encoded_is_read_back(password in "\\PC{1,20}") {
        let encoded: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let url = BackplaneUrl::parse(&format!("redis://:{encoded}@n1")).expect("a URL");
        let read = url.password.expect("a password");
        proptest::prop_assert_eq!(read.expose_secret(), password.as_str());
    }
}
