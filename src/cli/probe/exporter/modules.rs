//! What may be probed, and how: the file of `--config`, with all of its mistakes named at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml_edit::{Document, Item, Value};

use super::super::identity::Source;
use super::super::place::{Place, Resolve};
use super::super::{Plan, Trust};
use super::pattern::Pattern;
use crate::cli::{Environment, Failure};
use crate::protocol::room;

/// The module of a request that names none.
pub const DEFAULT: &str = "default";
/// Longest file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Where a module says nothing.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A probe of a scrape that takes longer tells nobody anything.
const TIMEOUT_MAX: Duration = Duration::from_secs(120);

const KEYS: [&str; 11] = [
    "targets",
    "token_file",
    "sign_with",
    "room",
    "via",
    "ca_file",
    "insecure",
    "timeout",
    "resolve",
    "origin",
    "cookie",
];

/// One `[modules.NAME]`.
pub struct Module {
    pub plan: Plan,
    pub targets: Vec<Pattern>,
}

impl Module {
    pub fn allows(&self, target: &Place) -> bool {
        let target = target.to_string();
        self.targets.iter().any(|pattern| pattern.fits(&target))
    }
}

/// All modules, by name.
pub type Modules = BTreeMap<String, Module>;

/// Reads the file.
pub fn load(file: &Path, environment: &Environment) -> Result<Modules, Failure> {
    let shown = file.display();
    let text = read(file).map_err(|why| Failure::usage(format_args!("--config {shown}: {why}")))?;
    let document = Document::parse(text.as_str())
        .map_err(|error| Failure::usage(format_args!("{shown} is no TOML: {}", error.to_string().trim_end())))?;
    let mut reader = Reader {
        file,
        text: &text,
        environment,
        problems: Vec::new(),
    };
    let modules = reader.modules(document.as_item());
    if reader.problems.is_empty() {
        Ok(modules)
    } else {
        Err(Failure::usage(reader.problems.join("\n")))
    }
}

fn read(file: &Path) -> Result<String, String> {
    let size = std::fs::metadata(file).map_err(|error| error.to_string())?.len();
    if size > FILE_BYTES_MAX {
        return Err("longer than 1 MiB: is it the right file?".to_owned());
    }
    std::fs::read_to_string(file).map_err(|error| error.to_string())
}

struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
    environment: &'a Environment,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn modules(&mut self, root: &Item) -> Modules {
        let mut modules = Modules::new();
        for (name, item) in root.as_table_like().into_iter().flat_map(|root| root.iter()) {
            if name != "modules" {
                self.refuse(item, name, "unknown; there is only [modules.NAME]");
            }
        }
        let found = root.get("modules").and_then(Item::as_table_like);
        for (name, item) in found.into_iter().flat_map(|found| found.iter()) {
            match item.as_table_like() {
                Some(_) => modules.extend(self.module(name, item).map(|module| (name.to_owned(), module))),
                None => self.refuse(item, name, "expected a table: [modules.NAME] and its keys below"),
            }
        }
        if modules.is_empty() && self.problems.is_empty() {
            let problem = format!(
                "{}: no module\n  help: such as\n    [modules.default]\n    targets = [\"wss://chat.example.com/ws\"]\n    token_file = \"probe.jwt\"",
                self.file.display()
            );
            self.problems.push(problem);
        }
        modules
    }

    fn module(&mut self, name: &str, table: &Item) -> Option<Module> {
        for (key, item) in table.as_table_like().into_iter().flat_map(|table| table.iter()) {
            if !KEYS.contains(&key) {
                self.refuse(item, key, &format!("unknown key; there are {}", KEYS.join(", ")));
            }
        }
        let targets = self.each(table, "targets", Pattern::parse);
        if targets.is_empty() {
            self.refuse(
                table,
                &format!("modules.{name}"),
                "targets are missing: which servers may be probed, such as [\"wss://*.example.com/ws\"]",
            );
        }
        let tokens = self.tokens(name, table);
        let via = self.text(table, "via");
        let via = via.and_then(|via| self.checked(table, "via", Place::parse(&via)));
        let room = self.text(table, "room");
        if let Some(Err(why)) = room.as_deref().map(room::check) {
            self.refuse(table.get("room").unwrap_or(table), "room", why);
        }
        let insecure = self.flag(table, "insecure");
        let timeout = self.timeout(table);
        let resolve = self.each(table, "resolve", Resolve::parse);
        Some(Module {
            targets,
            plan: Plan {
                via,
                room,
                tokens: tokens?,
                trust: if insecure {
                    Trust::Anybody
                } else {
                    Trust::Authority(self.text(table, "ca_file").map(|file| self.beside(&file)))
                },
                timeout,
                resolve,
                origin: self.text(table, "origin"),
                cookie: self.text(table, "cookie"),
                environment: self.environment.clone(),
            },
        })
    }

    fn tokens(&mut self, name: &str, table: &Item) -> Option<Source> {
        let (file, key) = (self.text(table, "token_file"), self.text(table, "sign_with"));
        match (file, key) {
            (Some(file), None) => {
                let source = Source::File(self.beside(&file));
                let tried = source.token().map(drop);
                self.checked(table, "token_file", tried)?;
                Some(source)
            }
            (None, Some(config)) => {
                let source = Source::signing(self.beside(&config), self.environment);
                let source =
                    source.map_err(|_| "no key of this configuration can sign: conclave check-config says more");
                self.checked(table, "sign_with", source)
            }
            (Some(_), Some(_)) => {
                self.refuse(table, &format!("modules.{name}"), "token_file or sign_with, not both");
                None
            }
            (None, None) => {
                let what =
                    "token_file is missing (conclave token --probe mints one); or sign_with, a server's configuration";
                self.refuse(table, &format!("modules.{name}"), what);
                None
            }
        }
    }

    fn timeout(&mut self, table: &Item) -> Duration {
        let Some(text) = self.text(table, "timeout") else {
            return TIMEOUT;
        };
        let read = humantime::parse_duration(&text).ok();
        let fits = read.filter(|time| !time.is_zero() && *time <= TIMEOUT_MAX);
        let fits = fits.ok_or("expected a duration up to 2m, such as \"5s\"");
        self.checked(table, "timeout", fits).unwrap_or(TIMEOUT)
    }

    fn checked<T>(&mut self, table: &Item, key: &str, read: Result<T, impl std::fmt::Display>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(why) => {
                self.refuse(table.get(key).unwrap_or(table), key, &why.to_string());
                None
            }
        }
    }

    fn text(&mut self, table: &Item, key: &str) -> Option<String> {
        let item = table.get(key)?;
        let text = item.as_str().map(str::to_owned);
        if text.is_none() {
            self.refuse(
                item,
                key,
                &format!("expected a text in quotes, found {}", item.type_name()),
            );
        }
        text
    }

    fn flag(&mut self, table: &Item, key: &str) -> bool {
        let Some(item) = table.get(key) else { return false };
        if item.as_bool().is_none() {
            self.refuse(item, key, "expected true or false");
        }
        item.as_bool().unwrap_or(false)
    }

    fn each<T>(&mut self, table: &Item, key: &str, read: impl Fn(&str) -> Result<T, &'static str>) -> Vec<T> {
        let Some(item) = table.get(key) else { return Vec::new() };
        let Some(array) = item.as_array() else {
            self.refuse(item, key, "expected a list of texts");
            return Vec::new();
        };
        let read_one = |value: &Value| value.as_str().ok_or("expected a text").and_then(&read);
        let mut all = Vec::new();
        for value in array {
            match read_one(value) {
                Ok(one) => all.push(one),
                Err(why) => self.refuse(item, key, why),
            }
        }
        all
    }

    /// Files are named as seen from the file that names them.
    fn beside(&self, name: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(name)
    }

    fn refuse(&mut self, item: &Item, key: &str, why: &str) {
        let line = item.span().map_or(1, |span| {
            1 + self.text.as_bytes()[..span.start.min(self.text.len())]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count()
        });
        self.problems
            .push(format!("{}:{line}: {key}: {why}", self.file.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Modules, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("probe.toml");
        std::fs::write(&file, text).unwrap();
        std::fs::write(folder.path().join("probe.jwt"), "a.b.c\n").unwrap();
        load(&file, &Environment::new(Vec::new())).map_err(|failure| match failure {
            Failure::Usage(error) => error.to_string().replace(&file.display().to_string(), "probe.toml"),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn a_module_says_what_and_how() {
        let modules = read(
            "[modules.default]\ntargets = [\"wss://*.example.com/ws\"]\ntoken_file = \"probe.jwt\"\ntimeout = \"3s\"\nroom = \"lobby\"\n",
        );
        let modules = modules.unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let module = &modules[DEFAULT];
        assert!(module.allows(&Place::parse("wss://chat.example.com").unwrap()));
        assert!(!module.allows(&Place::parse("wss://chat.example.org").unwrap()));
        assert_eq!(
            (module.plan.timeout, module.plan.room.as_deref()),
            (Duration::from_secs(3), Some("lobby"))
        );
    }

    #[test]
    fn every_mistake_is_named_with_its_line() {
        let mistakes = |text: &str| read(text).err().expect("it has mistakes");
        let said = mistakes(
            "[modules.a]\ntargets = [\"https://x\"]\ntoken_file = \"none.jwt\"\ntimeout = \"1h\"\ntarget = 1\n[modules.b]\nroom = \"a*\"\ninsecure = 1\n[modul]\n",
        );
        for wanted in [
            "probe.toml:2: targets: expected wss://",
            "probe.toml:3: token_file:",
            "probe.toml:4: timeout:",
            "probe.toml:5: target: unknown key",
            "modules.b: targets are missing",
            "modules.b: token_file is missing",
            "probe.toml:7: room:",
            "probe.toml:8: insecure: expected true or false",
            "modul: unknown",
        ] {
            assert!(said.contains(wanted), "{wanted}\n{said}");
        }
        assert!(mistakes("").contains("no module"));
        assert!(mistakes("modules = 1 2").contains("no TOML"));
    }
}
