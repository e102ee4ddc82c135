//! Where a backplane is, read from text. Pure: no name is looked up, and no error quotes what was written, since a
//! slip puts the password anywhere in it.
//!
//! ```text
//! redis://[user:password@]host[:port][/database]                one Redis (rediss:// with TLS)
//! redis+sentinel://[…@]host[:port],…/master[/database]          Redis behind Sentinel (rediss+sentinel://)
//! redis+cluster://[…@]host[:port],…                             Redis Cluster (rediss+cluster://), as are several
//! redis://host[:port],redis://host[:port]                       URLs of single ones
//! nats://[user:password@ or token@]host[:port],…                NATS (tls://)
//! ```

use std::fmt;

use secrecy::SecretString;

#[cfg(test)]
mod tests;

/// A backplane's address and account.
#[derive(Debug, Clone)]
pub struct BackplaneUrl {
    pub engine: Engine,
    pub form: Form,
    /// Never empty. Of Sentinel: the sentinels; of a cluster: nodes to begin with.
    pub hosts: Vec<Host>,
    /// Certificates are verified, against the name or address written here.
    pub tls: bool,
    /// Of the data nodes; sentinels have a password of their own.
    pub user: Option<String>,
    /// Of Redis without a user: of the default user. Of NATS without a user: a token.
    pub password: Option<SecretString>,
    /// Redis' database number; its channels do not know it.
    pub database: u16,
}

/// Who answers there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Redis,
    Nats,
}

/// How the servers belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// One server, which may turn out to be a node of a cluster; of NATS any number.
    Single,
    Sentinel {
        /// The name under which sentinels know it.
        master: String,
    },
    Cluster,
}

/// A name or address with a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Without the brackets of an IPv6 address.
    pub name: String,
    pub port: u16,
}

/// As written in a URL.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

/// Why a text is no such URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("no scheme that a backplane has")]
    Scheme,
    #[error("the URLs have different schemes, accounts or databases")]
    Mixed,
    #[error("no host")]
    NoHost,
    #[error("a host that is neither a name nor an address")]
    Host,
    #[error("a port that is not one of 1 to 65535")]
    Port,
    #[error("a user or password that is not written as a URL has it")]
    Account,
    #[error("a user without a password")]
    NoPassword,
    #[error("Sentinel without the name of the master")]
    NoMaster,
    #[error("a path that is not the number of a database")]
    Database,
    #[error("a database number, and Redis Cluster has none but 0")]
    ClusterDatabase,
    #[error("a path, and NATS has none")]
    NatsPath,
    #[error("a query or a fragment, which mean nothing here")]
    Query,
}

impl UrlError {
    /// What to do about it.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Scheme => {
                "begin with redis://, rediss://, redis+sentinel://, rediss+sentinel://, redis+cluster://, \
                 rediss+cluster://, nats:// or tls://"
            }
            Self::Mixed => "the nodes of a cluster share all of these",
            Self::NoHost | Self::Host => "write it as redis://127.0.0.1:6379; an IPv6 address goes in brackets",
            Self::Port => "write it as redis://127.0.0.1:6379",
            Self::Account => {
                "write \"@\", \":\", \"/\", \",\", \"?\", \"#\" and \"%\" in it as %40, %3A, %2F, %2C, %3F, %23 and %25"
            }
            Self::NoPassword => "write user:password@, or :password@ for the default user",
            Self::NoMaster => "write it as redis+sentinel://host:26379,host:26379/mymaster",
            Self::Database => "write it as redis://127.0.0.1:6379/2",
            Self::ClusterDatabase => "leave it out; backplane.prefix keeps two installations apart",
            Self::NatsPath => "leave it out; backplane.prefix keeps two installations apart",
            Self::Query => "leave it out: such settings are keys of [backplane]",
        }
    }
}

/// What a scheme says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Scheme {
    engine: Engine,
    topology: Topology,
    tls: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topology {
    Plain,
    Sentinel,
    Cluster,
}

impl Scheme {
    fn read(word: &str) -> Result<Self, UrlError> {
        let (engine, topology, tls) = match word.to_ascii_lowercase().as_str() {
            "redis" => (Engine::Redis, Topology::Plain, false),
            "rediss" => (Engine::Redis, Topology::Plain, true),
            "redis+sentinel" => (Engine::Redis, Topology::Sentinel, false),
            "rediss+sentinel" => (Engine::Redis, Topology::Sentinel, true),
            "redis+cluster" => (Engine::Redis, Topology::Cluster, false),
            "rediss+cluster" => (Engine::Redis, Topology::Cluster, true),
            "nats" => (Engine::Nats, Topology::Plain, false),
            "tls" => (Engine::Nats, Topology::Plain, true),
            _ => return Err(UrlError::Scheme),
        };
        Ok(Self { engine, topology, tls })
    }

    const fn port(self) -> u16 {
        match (self.engine, self.topology) {
            (Engine::Nats, _) => 4222,
            (_, Topology::Sentinel) => 26379,
            _ => 6379,
        }
    }
}

/// One of the parts between commas.
#[derive(Debug, Default, Clone, Copy)]
struct Part<'a> {
    scheme: Option<&'a str>,
    account: Option<&'a str>,
    host: &'a str,
    path: Option<&'a str>,
}

impl<'a> Part<'a> {
    fn split(text: &'a str) -> Result<Self, UrlError> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme), rest),
            None => (None, text),
        };
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, Some(path)),
            None => (rest, None),
        };
        // A "/" that belongs to the password has cut it in two.
        if path.is_some_and(|path| path.contains('@')) {
            return Err(UrlError::Account);
        }
        let (account, host) = match authority.rsplit_once('@') {
            Some((account, host)) => (Some(account), host),
            None => (None, authority),
        };
        Ok(Self {
            scheme,
            account,
            host,
            path: path.filter(|path| !path.is_empty()),
        })
    }
}

impl BackplaneUrl {
    /// Reads one URL, or several with commas between them.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if let Some(at) = text.find(['?', '#']) {
            let is_password = text[at..].contains('@');
            return Err(if is_password {
                UrlError::Account
            } else {
                UrlError::Query
            });
        }
        let parts = text.trim().split(',').map(Part::split).collect::<Result<Vec<_>, _>>()?;
        let first = parts.first().copied().unwrap_or_default();
        let scheme = Scheme::read(first.scheme.ok_or(UrlError::Scheme)?)?;
        let has_scheme = |part: &Part| part.scheme.is_none_or(|word| Scheme::read(word) == Ok(scheme));
        let account = shared(&parts, |part| part.account)?;
        let path = shared(&parts, |part| part.path)?;
        if !parts.iter().all(has_scheme) {
            return Err(UrlError::Mixed);
        }
        let hosts = parts
            .iter()
            .map(|part| host(part.host, scheme.port()))
            .collect::<Result<Vec<_>, _>>()?;
        let (user, password) = match account {
            Some(account) => read_account(account, scheme.engine)?,
            None => (None, None),
        };
        let (form, database) = read_path(scheme, path, hosts.len())?;
        Ok(Self {
            engine: scheme.engine,
            form,
            hosts,
            tls: scheme.tls,
            user,
            password,
            database,
        })
    }

    /// The engine's usual port on this machine.
    pub fn local(is_nats: bool) -> Self {
        let (engine, port) = if is_nats {
            (Engine::Nats, 4222)
        } else {
            (Engine::Redis, 6379)
        };
        Self {
            engine,
            form: Form::Single,
            hosts: vec![Host {
                name: "127.0.0.1".to_owned(),
                port,
            }],
            tls: false,
            user: None,
            password: None,
            database: 0,
        }
    }

    /// Hosts as in a URL, without account: for logs.
    pub fn hosts_shown(&self) -> String {
        let hosts: Vec<String> = self.hosts.iter().map(Host::to_string).collect();
        hosts.join(", ")
    }
}

/// What those parts that say something say alike.
fn shared<'a>(parts: &[Part<'a>], read: impl Fn(&Part<'a>) -> Option<&'a str>) -> Result<Option<&'a str>, UrlError> {
    let mut said = parts.iter().filter_map(read);
    let first = said.next();
    if said.all(|other| Some(other) == first) {
        Ok(first)
    } else {
        Err(UrlError::Mixed)
    }
}

fn host(text: &str, port_default: u16) -> Result<Host, UrlError> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or(UrlError::Host)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| UrlError::Host)?;
            let port = match after {
                "" => None,
                _ => Some(after.strip_prefix(':').ok_or(UrlError::Host)?),
            };
            (address, port)
        }
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    if name.is_empty() {
        return Err(UrlError::NoHost);
    }
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if !text.starts_with('[') && !name.bytes().all(is_name) {
        return Err(UrlError::Host);
    }
    let port = match port {
        None => port_default,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().filter(|port| *port > 0).ok_or(UrlError::Port)?
        }
        Some(_) => return Err(UrlError::Port),
    };
    Ok(Host {
        name: name.to_owned(),
        port,
    })
}

fn read_account(text: &str, engine: Engine) -> Result<(Option<String>, Option<SecretString>), UrlError> {
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    match text.split_once(':') {
        Some((_, password)) if password.contains(':') => Err(UrlError::Account),
        Some((user, password)) => {
            let password = some(decode(password)?).ok_or(UrlError::NoPassword)?;
            Ok((some(decode(user)?), Some(password.into())))
        }
        None if engine == Engine::Nats => {
            let token = some(decode(text)?).ok_or(UrlError::NoPassword)?;
            Ok((None, Some(token.into())))
        }
        None => Err(UrlError::NoPassword),
    }
}

fn read_path(scheme: Scheme, path: Option<&str>, hosts: usize) -> Result<(Form, u16), UrlError> {
    let database = |text: Option<&str>| match text {
        None | Some("") => Ok(0),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().map_err(|_| UrlError::Database)
        }
        Some(_) => Err(UrlError::Database),
    };
    match (scheme.engine, scheme.topology) {
        (Engine::Nats, _) if path.is_some() => Err(UrlError::NatsPath),
        (Engine::Nats, _) => Ok((Form::Single, 0)),
        (_, Topology::Sentinel) => {
            let (master, number) = match path.ok_or(UrlError::NoMaster)?.split_once('/') {
                Some((master, number)) => (master, Some(number)),
                None => (path.unwrap_or_default(), None),
            };
            let master = decode(master)?;
            if master.is_empty() {
                return Err(UrlError::NoMaster);
            }
            Ok((Form::Sentinel { master }, database(number)?))
        }
        (_, Topology::Plain) if hosts == 1 => Ok((Form::Single, database(path)?)),
        _ => match database(path)? {
            0 => Ok((Form::Cluster, 0)),
            _ => Err(UrlError::ClusterDatabase),
        },
    }
}

/// Percent-decoding (RFC 3986 section 2.1). What has to be encoded and is not shows that a character of the password
/// was meant to be one of the URL's own.
fn decode(text: &str) -> Result<String, UrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
                let (high, low) = digit().zip(digit()).ok_or(UrlError::Account)?;
                bytes.push(u8::try_from(high * 16 + low).map_err(|_| UrlError::Account)?);
            }
            b'@' | b'/' | b':' => return Err(UrlError::Account),
            byte if byte.is_ascii_control() || byte == b' ' => return Err(UrlError::Account),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| UrlError::Account)
}
