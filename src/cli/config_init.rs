//! `conclave config init` and `conclave config env`: a configuration to start from, and its variables.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::config::PRODUCTION_TOML;

/// Writes a configuration for production to `path`, or to stdout when there is none. An existing file is left
/// alone unless `force` is set. Returns the exit code.
pub fn run(path: Option<PathBuf>, force: bool) -> u8 {
    let Some(path) = path else {
        print!("{PRODUCTION_TOML}");
        return 0;
    };
    match write(&path, force) {
        Ok(()) => {
            let path = path.display();
            println!("wrote {path}\nnext: set its paths and origins, then \"conclave check-config --config {path}\"");
            0
        }
        Err(message) => {
            eprintln!("{message}");
            1
        }
    }
}

/// What `conclave config env` prints.
pub fn env_table() -> String {
    crate::config::env_table()
}

fn write(path: &Path, force: bool) -> Result<(), String> {
    let mut options = OpenOptions::new();
    options.write(true).truncate(force);
    if force {
        options.create(true);
    } else {
        options.create_new(true);
    }
    let shown = path.display();
    let mut file = options.open(path).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            format!("error: {shown} exists already\n  help: \"--force\" replaces it")
        }
        ErrorKind::NotFound => {
            format!("error: the directory of {shown} does not exist\n  help: create it first")
        }
        _ => format!("error: cannot write {shown}: {error}"),
    })?;
    file.write_all(PRODUCTION_TOML.as_bytes())
        .map_err(|error| format!("error: cannot write {shown}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_writes_once_and_replaces_only_when_told() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("conclave.toml");
        assert_eq!(run(Some(path.clone()), false), 0);
        std::fs::write(&path, "mine, and longer than nothing").expect("edit");
        assert_eq!(run(Some(path.clone()), false), 1);
        assert!(write(&path, false).expect_err("exists").contains("--force"));
        assert_eq!(
            std::fs::read_to_string(&path).expect("read"),
            "mine, and longer than nothing"
        );
        assert_eq!(run(Some(path.clone()), true), 0);
        assert_eq!(std::fs::read_to_string(&path).expect("read"), PRODUCTION_TOML);
    }

    #[test]
    fn a_missing_directory_is_named() {
        let directory = tempfile::tempdir().expect("directory");
        let answer = write(&directory.path().join("none/conclave.toml"), false).expect_err("no directory");
        assert!(answer.contains("create it first"), "{answer}");
    }
}
