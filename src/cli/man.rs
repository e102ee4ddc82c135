//! `conclave man [DIR]`: manual pages made from the same definition as `--help`.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::Failure;
use super::args::Arguments;

/// In roff; shown in the main page only.
const EXIT_CODES: &str = "\
.SH \"EXIT CODES\"
.TP
0
Done; for \\fBserve\\fR and \\fBdev\\fR: stopped by a signal and drained.
.TP
1
It could not be done: the server failed, the token is bad, the node is not ready, messages were lost in a bench.
.TP
64
Bad arguments, or a configuration with problems; all problems are listed.
.PP
\\fBconclave probe\\fR has codes of its own, one per stage: 2 bad arguments, 3 name or TCP, 4 TLS, 5 upgrade refused, 6 token
refused, 7 nothing in time.
.SH ENVIRONMENT
.TP
CONCLAVE_SECTION__KEY
Any key of the configuration file, see \\fBconclave config env\\fR.
.TP
CONCLAVE_CONFIG
The configuration file when \\fB--config\\fR is not given.
.TP
CONCLAVE_STATE_DIR
Where \\fBconclave dev\\fR keeps its certificate and secret; else $XDG_STATE_HOME/conclave or ~/.local/state/conclave.
.TP
CONCLAVE_TOKEN
The token of \\fBconclave probe\\fR when no flag names one.
.TP
NO_COLOR
When set, no colours.
";

/// Writes the main page to stdout, or one page per verb into `directory`.
pub fn run(directory: Option<&Path>) -> Result<(), Failure> {
    let mut command = Arguments::command();
    command.build();
    match directory {
        None => {
            let page = page(&command, true)?;
            std::io::stdout()
                .write_all(&page)
                .context("the manual page could not be written")?;
        }
        Some(directory) => write_pages(&command, directory)?,
    }
    Ok(())
}

fn write_pages(command: &Command, directory: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    write_page(command, directory, true)?;
    for verb in visible(command) {
        write_page(verb, directory, false)?;
        for deeper in visible(verb) {
            write_page(deeper, directory, false)?;
        }
    }
    Ok(())
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command
        .get_subcommands()
        .filter(|verb| !verb.is_hide_set() && verb.get_name() != "help")
}

fn write_page(command: &Command, directory: &Path, main: bool) -> anyhow::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let path = directory.join(format!("{name}.1"));
    std::fs::write(&path, page(command, main)?).with_context(|| format!("cannot write {}", path.display()))
}

fn page(command: &Command, main: bool) -> anyhow::Result<Vec<u8>> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let mut page = Vec::new();
    Man::new(command.clone())
        .title(name)
        .render(&mut page)
        .context("the manual page could not be made")?;
    if main {
        page.extend_from_slice(EXIT_CODES.as_bytes());
    }
    Ok(page)
}
