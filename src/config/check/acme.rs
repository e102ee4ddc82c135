//! `[acme]`: names that can be proven, a folder to keep things in, an authority to ask.

use std::io::ErrorKind;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::origin::is_host;
use crate::config::files::{self, Readers};
use crate::config::problem::Problem;
use crate::config::{Acme, Tls};

/// Names in one certificate: what Let's Encrypt gives.
const DOMAINS_MAX: usize = 100;

/// Checks everything of a section that is on.
pub fn check(acme: &Acme) -> Vec<Problem> {
    let mut problems: Vec<Problem> = acme.domains.iter().filter_map(|domain| name(domain)).collect();
    if acme.domains.len() > DOMAINS_MAX {
        let what = format!(
            "{} names; authorities put at most {DOMAINS_MAX} into a certificate",
            acme.domains.len()
        );
        problems.push(Problem::error("acme.domains", what, "leave out some"));
    }
    problems.extend(acme.contact.iter().filter_map(|contact| address(contact)));
    problems.extend(directory(&acme.directory));
    problems.extend(cache(&acme.cache_dir));
    problems.extend(
        acme.ca_file
            .as_deref()
            .and_then(|path| authorities("acme.ca_file", path)),
    );
    problems
}

/// A certificate of one's own is not served beside.
pub fn is_alone(tls: &Tls) -> Option<Problem> {
    let is_set = !tls.certificate.as_os_str().is_empty() || !tls.key.as_os_str().is_empty();
    is_set.then(|| {
        Problem::error(
            "acme.domains",
            "set together with tls.certificate or tls.key: one certificate is served",
            "keep the one you want: files of your own, or names to get a certificate for",
        )
    })
}

fn name(domain: &str) -> Option<Problem> {
    let (why, remedy) = match domain {
        _ if domain.starts_with("*.") => (
            "a wildcard cannot be proven by TLS-ALPN-01",
            "list each name, or get the certificate by DNS with another tool and name it in tls.certificate",
        ),
        _ if domain.parse::<std::net::IpAddr>().is_ok() => ("an address, not a name", "use a DNS name"),
        _ if domain.contains("://") || domain.contains(':') || domain.contains('/') => {
            ("not a name alone", "leave out scheme, port and path")
        }
        _ if !domain.is_ascii() => (
            "authorities want its ASCII form",
            "write the form that starts with \"xn--\"",
        ),
        _ if !is_host(domain) => ("not a host name", "write it as rooms.example.com"),
        _ => return None,
    };
    Some(Problem::error("acme.domains", format!("\"{domain}\": {why}"), remedy))
}

fn address(contact: &str) -> Option<Problem> {
    let is_mail = contact.strip_prefix("mailto:").is_some_and(|mail| mail.contains('@'));
    (!is_mail).then(|| {
        Problem::error(
            "acme.contact",
            format!("\"{contact}\" is no address that an authority can write to"),
            "write it as mailto:ops@example.com",
        )
    })
}

fn directory(url: &str) -> Option<Problem> {
    let host = url
        .strip_prefix("https://")
        .map(|rest| rest.split('/').next().unwrap_or_default());
    match host {
        None | Some("") => Some(Problem::error(
            "acme.directory",
            format!("\"{url}\" is not an https:// URL"),
            "leave it out for Let's Encrypt, or ask your authority for its ACME directory",
        )),
        Some(host) if host.contains("staging") => Some(Problem::warning(
            "acme.directory",
            "an authority for trials: no browser trusts its certificates",
            "leave it out once it works, for Let's Encrypt itself",
        )),
        Some(_) => None,
    }
}

fn cache(path: &Path) -> Vec<Problem> {
    const KEY: &str = "acme.cache_dir";
    let shown = path.display();
    if path.as_os_str().is_empty() {
        return vec![Problem::error(
            KEY,
            "not set: account and certificate would be lost with each start, and authorities give few per week",
            "name a folder on a disk that lasts, such as /var/lib/conclave/acme",
        )];
    }
    let is_folder = match std::fs::metadata(path) {
        Ok(metadata) => metadata.is_dir(),
        // The server makes it, for its owner alone.
        Err(error) if error.kind() == ErrorKind::NotFound && is_in_reach(path) => {
            return Vec::new();
        }
        Err(error) => {
            let remedy = format!("install -d -m 700 {shown}, owned by the server's user");
            return vec![Problem::error(KEY, files::describe(path, &error), remedy)];
        }
    };
    if !is_folder {
        return vec![Problem::error(KEY, format!("not a folder: {shown}"), "name a folder")];
    }
    let mut problems = Vec::new();
    if !files::is_writable(path) {
        let what = format!("this user may not write to {shown}");
        problems.push(Problem::error(KEY, what, "give the folder to the server's user"));
    }
    if files::readers(path) == Readers::World {
        let what = format!("{shown} can be read by every user of this machine");
        problems.push(Problem::warning(KEY, what, format!("chmod 700 {shown}")));
    }
    problems
}

/// Whether the folder could be made.
fn is_in_reach(path: &Path) -> bool {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => files::is_writable(Path::new(".")),
        Some(parent) => files::is_writable(parent),
        None => false,
    }
}

/// Whether a file holds certificates at all.
pub fn authorities(key: &str, path: &Path) -> Option<Problem> {
    let pem = match files::read(path) {
        Ok(pem) => pem,
        Err(what) => return Some(Problem::error(key, what, "put the file there, or correct the path")),
    };
    let count = CertificateDer::pem_slice_iter(&pem).try_fold(0, |count, certificate| certificate.map(|_| count + 1));
    match count {
        Ok(0) | Err(_) => {
            let what = format!("no PEM certificates: {}", path.display());
            Some(Problem::error(key, what, "give it the certificate of the authority"))
        }
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Severity, default_config};

    fn acme(place: &Path) -> Acme {
        Acme {
            domains: vec!["rooms.example.com".to_owned()],
            contact: vec!["mailto:ops@example.com".to_owned()],
            cache_dir: place.to_owned(),
            ..default_config().acme
        }
    }

    #[test]
    fn a_good_section_passes_and_mistakes_are_named() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().expect("directory");
        std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o700)).expect("mode");
        let good = acme(place.path());
        assert_eq!(check(&good), []);
        for (domain, why) in [
            ("*.example.com", "wildcard"),
            ("192.0.2.1", "an address"),
            ("2001:db8::1", "an address"),
            ("https://a.example", "leave out scheme"),
            ("a.example:443", "leave out scheme"),
            ("bücher.example", "xn--"),
            ("a..example", "not a host"),
            ("../etc/passwd", "not a name alone"),
        ] {
            let problems = check(&Acme {
                domains: vec![domain.to_owned()],
                ..good.clone()
            });
            assert!(problems[0].to_string().contains(why), "{domain}: {problems:?}");
        }
        let bad = Acme {
            contact: vec!["ops@example.com".to_owned()],
            directory: "http://a.example/dir".to_owned(),
            cache_dir: place.path().join("none/none"),
            ca_file: Some(place.path().join("none.pem")),
            ..good.clone()
        };
        let keys: Vec<String> = check(&bad).into_iter().map(|problem| problem.key).collect();
        assert_eq!(
            keys,
            ["acme.contact", "acme.directory", "acme.cache_dir", "acme.ca_file"]
        );
        let staging = Acme {
            directory: "https://acme-staging-v02.api.letsencrypt.org/directory".to_owned(),
            ..good.clone()
        };
        assert_eq!(check(&staging)[0].severity, Severity::Warning);
        let none = Acme {
            cache_dir: "".into(),
            ..good.clone()
        };
        assert!(check(&none)[0].what.contains("lost with each start"));
        std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).expect("mode");
        assert!(check(&good)[0].remedy.contains("chmod 700"));
    }

    #[test]
    fn files_and_orders_exclude_each_other() {
        let mut tls = default_config().tls;
        assert_eq!(is_alone(&tls), None);
        tls.key = "tls.key".into();
        assert!(is_alone(&tls).is_some());
    }
}
