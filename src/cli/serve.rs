//! `conclave serve`: the server, as configured.

use super::args::{Loudness, Serve};
use super::{Environment, Failure, configuration};
use crate::config::{Facts, Sources};
use crate::net::inherited::Inherited;
use crate::runtime::{self, Start};

/// Blocks until the server has drained.
pub fn run(args: &Serve, loudness: Loudness, environment: &Environment) -> Result<(), Failure> {
    let loaded = configuration::load(&sources(args, loudness, environment))?;
    let inherited = Inherited::take(environment.value("LISTEN_FDNAMES")).map_err(Failure::usage)?;
    let start = Start {
        on_ready: None,
        inherited,
        effective: loaded.effective,
        warnings: loaded.warnings,
    };
    runtime::run(loaded.config, start)?;
    Ok(())
}

/// The file and the environment, overlaid with the flags.
fn sources(args: &Serve, loudness: Loudness, environment: &Environment) -> Sources {
    let level = args.log_level.clone().map(|level| (level, "--log-level"));
    let level = level.or_else(|| loudness.log_level().map(|(level, flag)| (level.to_owned(), flag)));
    let mut sources = environment.sources(args.config.clone());
    sources.facts = Some(Facts::here());
    let mut set = |key: &str, value: Option<String>, flag: &str| {
        sources
            .overrides
            .extend(value.map(|value| (key.to_owned(), value, flag.to_owned())));
    };
    set("server.listen", args.listen.clone(), "--listen");
    set("server.admin_listen", args.admin_listen.clone(), "--admin-listen");
    set("log.format", args.log_format.clone(), "--log-format");
    if let Some((level, flag)) = level {
        set("log.level", Some(level), flag);
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_override_and_name_themselves() {
        let args = Serve {
            config: Some("c.toml".into()),
            listen: Some("127.0.0.1:1".to_owned()),
            admin_listen: None,
            log_level: None,
            log_format: Some("human".to_owned()),
        };
        let found = sources(
            &args,
            Loudness {
                quiet: false,
                verbose: 1,
            },
            &Environment::new(Vec::new()),
        );
        let found: Vec<_> = found
            .overrides
            .iter()
            .map(|(key, value, flag)| [key.as_str(), value, flag])
            .collect();
        assert_eq!(
            found,
            [
                ["server.listen", "127.0.0.1:1", "--listen"],
                ["log.format", "human", "--log-format"],
                ["log.level", "conclave=debug,info", "--verbose"],
            ]
        );
    }
}
