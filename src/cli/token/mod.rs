//! `conclave token`: mint one, or say why one is bad.

mod check;
mod claims;

use std::time::SystemTime;

use anyhow::Context;

use super::args::{Loudness, Token};
use super::paint::Paint;
use super::{Environment, Failure, dev};
use crate::auth;
use crate::config::{self, Config, Key, KeySource};
pub use claims::Wish;

/// A token that was just made.
pub struct Minted {
    pub token: String,
    /// When it stops being good.
    pub expires: SystemTime,
}

/// Mints, or checks when asked to.
pub fn run(args: &Token, loudness: Loudness, environment: &Environment) -> Result<(), Failure> {
    let config = configuration(args, environment)?;
    if let Some(token) = &args.check {
        return check::run(token, &config, loudness);
    }
    let sub = args.sub.as_deref().ok_or_else(|| Failure::usage("--sub is missing"))?;
    let wish = Wish {
        sub,
        name: args.name.as_deref(),
        ttl: args.ttl,
        rooms: &args.room,
        probe: args.probe,
        claims: &args.claim,
    };
    let key = choose(&config.auth.keys, args.kid.as_deref())?;
    let minted = mint(&wish, key, SystemTime::now())?;
    println!("{}", minted.token);
    if !loudness.quiet {
        describe(&wish, &minted, key, &config, environment);
    }
    Ok(())
}

/// Signs what `wish` asks for.
pub fn mint(wish: &Wish<'_>, key: &Key, now: SystemTime) -> Result<Minted, Failure> {
    let (claims, expires) = wish.claims(key, now)?;
    let token = auth::mint(&claims, key).with_context(|| format!("cannot sign with the key of {}", key.set_in))?;
    Ok(Minted { token, expires })
}

/// The operator's, else what `conclave dev` would run with.
fn configuration(args: &Token, environment: &Environment) -> Result<Config, Failure> {
    let sources = environment.sources(args.config.clone());
    if sources.file.is_some() {
        return Ok(config::load(&sources)?.config);
    }
    let key = dev::key(environment).ok_or_else(|| {
        Failure::usage("no key to work with\n  help: pass --config FILE, or run conclave dev once, which makes one")
    })?;
    let mut config = config::default_config();
    config.auth.keys = vec![key];
    Ok(config)
}

/// The key of this id, else the first one that can sign.
pub fn choose<'k>(keys: &'k [Key], kid: Option<&str>) -> Result<&'k Key, Failure> {
    let Some(kid) = kid else {
        return keys.iter().find(|key| can_sign(key)).ok_or_else(|| {
            Failure::usage("no key here can sign: public keys only verify, a secret does both\n  help: mint the token where the private key is, or add an HS256 key with secret_file")
        });
    };
    keys.iter().find(|key| key.kid.as_deref() == Some(kid)).ok_or_else(|| {
        let known: Vec<&str> = keys.iter().filter_map(|key| key.kid.as_deref()).collect();
        let known = if known.is_empty() {
            "none has a kid".to_owned()
        } else {
            format!("there are: {}", known.join(", "))
        };
        Failure::usage(format_args!("--kid {kid}: no key in auth.keys has this id; {known}"))
    })
}

fn can_sign(key: &Key) -> bool {
    matches!(key.source, KeySource::Secret(_) | KeySource::SecretFile(_))
}

/// For a person, on stderr: stdout holds the token and nothing else.
fn describe(wish: &Wish<'_>, minted: &Minted, key: &Key, config: &Config, environment: &Environment) {
    let paint = Paint::for_stream(&std::io::stderr(), environment);
    let name = wish.name.map(|name| format!(" ({name})")).unwrap_or_default();
    let host = match config.server.listen.tcp() {
        Some(listen) if listen.ip().is_unspecified() || listen.ip().is_loopback() && listen.is_ipv4() => {
            format!("localhost:{}", listen.port())
        }
        Some(listen) => listen.to_string(),
        // Whatever the proxy in front is called.
        None => "localhost".to_owned(),
    };
    eprintln!();
    eprintln!("{} {}{}{name}", paint.faint("user   "), key.user_prefix, wish.sub);
    eprintln!(
        "{} {}",
        paint.faint("until  "),
        humantime::format_rfc3339_seconds(minted.expires)
    );
    eprintln!(
        "{} {}",
        paint.faint("rooms  "),
        if wish.rooms.is_empty() {
            "every room"
        } else {
            "as --room says"
        }
    );
    eprintln!("{} wss://{host}/ws?token={}", paint.faint("connect"), minted.token);
}

#[cfg(test)]
mod tests;
