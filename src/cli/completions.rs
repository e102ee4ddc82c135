//! `conclave completions SHELL`.

use std::io::Write;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use super::Failure;
use super::args::Arguments;

/// Writes the completion script of `shell` to stdout.
pub fn run(shell: Shell) -> Result<(), Failure> {
    // Into memory first: the generator panics on a closed pipe (`completions bash | head`).
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "conclave", &mut script);
    std::io::stdout()
        .write_all(&script)
        .context("the completion script could not be written")?;
    Ok(())
}
