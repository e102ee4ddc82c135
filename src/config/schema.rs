//! What keys there are. `default.toml` is the only definition: this file reads names, defaults, kinds, ranges
//! and meanings out of it, and everything else (files, variables, flags, tables) asks here.

use std::sync::LazyLock;

use toml_edit::{DocumentMut, Item, Table};

use super::kind::Kind;
use super::value::Value;

/// The file that the server is built with.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// The array of tables that holds keys; one of its keys is `auth.keys[0].algorithm`.
pub const KEYS: &str = "auth.keys";

/// The array of tables that holds classes of rooms.
pub const ROOMS: &str = "rooms";

/// The name that `[room]` had before there were classes, and that it may still be written by.
pub const OLD_ROOM: &str = "rooms";

/// The section with what holds in all rooms.
pub const ROOM: &str = "room";

/// One key of the configuration.
#[derive(Debug)]
pub struct Entry {
    /// `server`, or `auth.keys`.
    pub section: String,
    /// The section is an array of tables: there is one of this key per entry of it.
    pub is_repeated: bool,
    /// `listen`.
    pub name: String,
    pub kind: Kind,
    /// Of a repeated key: what an entry has that does not name it.
    pub default: Value,
    /// What it is for, one paragraph.
    pub meaning: String,
}

impl Entry {
    /// `server.listen`; of a repeated key without the entry's number.
    pub fn dotted(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The dotted key of entry `index` of its section.
    pub fn dotted_in(&self, index: usize) -> String {
        format!("{}[{index}].{}", self.section, self.name)
    }

    /// Its environment variable; of a repeated key that of the first entry.
    pub fn variable(&self) -> String {
        let number = if self.is_repeated { "__0" } else { "" };
        let section = self.section.replace('.', "__");
        format!("{}{section}{number}__{}", super::environment::PREFIX, self.name).to_uppercase()
    }

    /// The default as a person reads it.
    pub fn default_shown(&self) -> String {
        match self.default.show() {
            shown if shown.is_empty() => "none".to_owned(),
            shown => shown,
        }
    }

    /// What may be written there, for a remedy.
    pub fn takes(&self) -> String {
        let range = self
            .kind
            .range_shown()
            .map(|range| format!(", {range}"))
            .unwrap_or_default();
        format!(
            "it takes {}{range}; the default is {}",
            self.kind.expected(),
            self.default_shown()
        )
    }
}

/// All keys, in the order of `default.toml`.
#[derive(Debug)]
pub struct Schema {
    pub entries: Vec<Entry>,
}

/// The schema; reading it cannot fail for a binary whose tests have passed.
pub static SCHEMA: LazyLock<Schema> =
    LazyLock::new(|| Schema::parse(DEFAULT_TOML).expect("default.toml is part of the binary, and a test parses it"));

impl Schema {
    /// The key `name` of `section`.
    pub fn find(&self, section: &str, name: &str) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.section == section && entry.name == name)
    }

    /// Whether there is such a section.
    pub fn has_section(&self, section: &str) -> bool {
        self.sections().any(|known| known == section)
    }

    /// Whether the section is an array of tables.
    pub fn is_array(&self, section: &str) -> bool {
        self.arrays().any(|array| array == section)
    }

    /// The sections that are arrays of tables, in order, each once.
    pub fn arrays(&self) -> impl Iterator<Item = &str> {
        self.sections().filter(|section| {
            let mut keys = self.entries.iter().filter(|entry| entry.section == *section);
            keys.any(|entry| entry.is_repeated)
        })
    }

    /// Sections in order, each once.
    pub fn sections(&self) -> impl Iterator<Item = &str> {
        let mut last = "";
        self.entries
            .iter()
            .map(|entry| entry.section.as_str())
            .filter(move |section| {
                let is_new = *section != last;
                last = section;
                is_new
            })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let document: DocumentMut = text.parse().map_err(|error| format!("{error}"))?;
        let mut entries = Vec::new();
        for (section, item) in document.iter() {
            if let Some(template) = template(item) {
                read_section(section, true, template, &mut entries)?;
                continue;
            }
            let table = item.as_table().ok_or_else(|| format!("{section} is not a section"))?;
            read_section(section, false, table, &mut entries)?;
        }
        Ok(Self { entries })
    }
}

/// The one table of an array of tables, whose values are the defaults of each entry.
fn template(item: &Item) -> Option<&Table> {
    item.as_array_of_tables().and_then(|tables| tables.get(0))
}

fn read_section(section: &str, is_repeated: bool, table: &Table, entries: &mut Vec<Entry>) -> Result<(), String> {
    for (name, item) in table {
        if let Some(template) = template(item) {
            read_section(&format!("{section}.{name}"), true, template, entries)?;
            continue;
        }
        if let (false, Some(table)) = (is_repeated, item.as_table()) {
            read_section(&format!("{section}.{name}"), false, table, entries)?;
            continue;
        }
        let comment = table
            .key(name)
            .and_then(|key| key.leaf_decor().prefix())
            .and_then(|prefix| prefix.as_str());
        let entry = read_entry(section, name, item, comment.unwrap_or_default());
        let entry = entry.map_err(|error| format!("{section}.{name}: {error}"))?;
        entries.push(Entry { is_repeated, ..entry });
    }
    Ok(())
}

fn read_entry(section: &str, name: &str, item: &Item, comment: &str) -> Result<Entry, String> {
    let lines = || comment.lines().map(str::trim);
    let annotation = lines()
        .find_map(|line| line.strip_prefix("#:"))
        .ok_or("no line with #:")?;
    let annotation = annotation.trim();
    let kind = Kind::parse(annotation)?;
    let meaning: Vec<&str> = lines().filter_map(|line| line.strip_prefix("# ")).collect();
    if meaning.is_empty() {
        return Err("no meaning".to_owned());
    }
    let default = item.as_value().ok_or("not a value")?;
    let default = match default.as_str() {
        // "" means not set, of whatever kind.
        Some("") => Value::unset(&kind),
        _ => kind.read_toml(default).map_err(|mismatch| mismatch.what)?,
    };
    Ok(Entry {
        section: section.to_owned(),
        is_repeated: false,
        name: name.to_owned(),
        kind,
        default,
        meaning: meaning.join(" "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_toml_parses_and_every_key_has_kind_and_meaning() {
        let schema = Schema::parse(DEFAULT_TOML).expect("default.toml");
        assert!(schema.entries.len() > 60, "{} keys", schema.entries.len());
        assert!(schema.is_array(KEYS) && !schema.is_array("auth"));
        let listen = schema.find("server", "listen").expect("server.listen");
        assert_eq!(listen.variable(), "CONCLAVE_SERVER__LISTEN");
        assert_eq!(
            schema.find(KEYS, "kid").expect("kid").variable(),
            "CONCLAVE_AUTH__KEYS__0__KID"
        );
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<String> = SCHEMA.entries.iter().map(Entry::dotted).collect();
        names.sort();
        let before = names.len();
        names.dedup();
        assert_eq!(names.len(), before);
    }

    #[test]
    fn a_key_without_kind_or_meaning_is_refused() {
        for (text, error) in [
            ("[a]\n# Why.\nb = 1\n", "no line with #:"),
            ("[a]\n#: integer 0..2\nb = 1\n", "no meaning"),
            ("[a]\n# Why.\n#: integer 0..2\nb = 3\n", "out of range"),
            ("[a]\n# Why.\n#: number\nb = 3\n", "unknown kind"),
            ("a = 1\n", "not a section"),
            ("[[a]]\n# Why.\nb = 1\n", "a.b: no line with #:"),
        ] {
            let answer = Schema::parse(text).expect_err(text);
            assert!(answer.contains(error), "{text}: {answer}");
        }
    }
}
