//! The TOML file: every key it names looked up in the schema, every value read as its kind, every line known.

use std::path::Path;

use toml_edit::{Document, Item, Key, TableLike};

use super::problem::{At, Problem};
use super::schema::{OLD_ROOM, ROOM, SCHEMA};
use super::settings::Layer;
use super::suggest;

/// Reads `text`, the content of `file`.
///
/// # Errors
/// It is no TOML; then nothing in it is known.
pub fn read(file: &Path, text: &str) -> Result<Layer, Problem> {
    let document = Document::parse(text).map_err(|error| not_toml(file, text, &error))?;
    let mut reader = Reader {
        file,
        text,
        layer: Layer::default(),
    };
    reader.root(document.as_table());
    Ok(reader.layer)
}

struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
    layer: Layer,
}

impl Reader<'_> {
    fn root(&mut self, root: &dyn TableLike) {
        for (key, item) in entries(root) {
            let section = key.get();
            match item.as_table_like() {
                Some(table) if section == OLD_ROOM => self.old_room(key, table, root.contains_key(ROOM)),
                _ if SCHEMA.is_array(section) => self.array(section, key, item),
                _ if !SCHEMA.has_section(section) => self.unknown_section(key),
                Some(table) => self.section(section, None, table),
                None => {
                    let what = format!("expected a section, found {}", item.type_name());
                    let problem = Problem::error(section, what, format!("write [{section}] and its keys below"));
                    self.layer.refuse(problem.at(self.at(key)));
                }
            }
        }
    }

    fn section(&mut self, section: &str, index: Option<usize>, table: &dyn TableLike) {
        for (key, item) in entries(table) {
            let name = key.get();
            let inner = format!("{section}.{name}");
            if SCHEMA.is_array(&inner) {
                self.array(&inner, key, item);
                continue;
            }
            if SCHEMA.has_section(&inner)
                && let Some(table) = item.as_table_like()
            {
                self.section(&inner, None, table);
                continue;
            }
            let at = self.at(key);
            match (SCHEMA.find(section, name), item.as_value()) {
                (None, _) => self.unknown_key(section, index, name, at),
                (Some(entry), Some(value)) => self.layer.take(entry, index, entry.kind.read_toml(value), at),
                (Some(entry), None) => {
                    let problem = Problem::error(entry.dotted(), "expected a value, found a section", entry.takes());
                    self.layer.taint(entry.dotted());
                    self.layer.refuse(problem.at(at));
                }
            }
        }
    }

    /// `[rooms]`, as `[room]` was called before there were `[[rooms]]`.
    fn old_room(&mut self, key: &Key, table: &dyn TableLike, has_new: bool) {
        let problem = if has_new {
            Problem::error(
                OLD_ROOM,
                "the old name of [room], which is here too",
                "move its keys to [room]; [[rooms]] with two brackets is for classes of rooms",
            )
        } else {
            Problem::warning(
                OLD_ROOM,
                "[rooms] is now [room]",
                "rename it; [[rooms]] with two brackets is for classes of rooms",
            )
        };
        self.layer.refuse(problem.at(self.at(key)));
        if !has_new {
            self.section(ROOM, None, table);
        }
    }

    /// `[[auth.keys]]`, or the same as a list of inline tables.
    fn array(&mut self, section: &str, key: &Key, item: &Item) {
        let at = self.at(key);
        let tables: Option<Vec<(Option<usize>, &dyn TableLike)>> = match (item.as_array_of_tables(), item.as_array()) {
            (Some(tables), _) => Some(
                tables
                    .iter()
                    .map(|table| (table.span().map(|span| span.start), table as _))
                    .collect(),
            ),
            (_, Some(list)) => list
                .iter()
                .map(|member| Some((member.span().map(|span| span.start), member.as_inline_table()? as _)))
                .collect(),
            _ => None,
        };
        let Some(tables) = tables else {
            let problem = Problem::error(
                section,
                format!("expected entries, found {}", item.type_name()),
                format!("write [[{section}]] with two brackets, once per entry"),
            );
            self.layer.taint(section.to_owned());
            self.layer.refuse(problem.at(at));
            return;
        };
        for (index, (offset, table)) in tables.into_iter().enumerate() {
            let at = offset.map_or_else(|| at.clone(), |offset| self.at_offset(offset));
            self.layer.has_entry(section, index, at);
            self.section(section, Some(index), table);
        }
    }

    fn unknown_section(&mut self, key: &Key) {
        let section = key.get();
        let sections = || SCHEMA.sections().filter(|known| !known.contains('.'));
        let remedy = match suggest::nearest(section, sections()) {
            Some(known) => format!("did you mean [{known}]?"),
            None => format!("known sections are {}", sections().collect::<Vec<_>>().join(", ")),
        };
        let problem = Problem::error(section, "unknown section", remedy);
        self.layer.refuse(problem.at(self.at(key)));
    }

    fn unknown_key(&mut self, section: &str, index: Option<usize>, name: &str, at: At) {
        let key = match index {
            Some(index) => format!("{section}[{index}].{name}"),
            None => format!("{section}.{name}"),
        };
        let remedy = match suggest::nearest_key(section, name) {
            Some(meant) => {
                self.layer
                    .taint(index.map_or_else(|| meant.dotted(), |index| meant.dotted_in(index)));
                let place = if meant.section == section {
                    String::new()
                } else {
                    format!(" in [{}]", meant.section)
                };
                format!("did you mean \"{}\"{place}?", meant.name)
            }
            None => {
                let names = SCHEMA
                    .entries
                    .iter()
                    .filter(|entry| entry.section == section)
                    .map(|entry| entry.name.as_str());
                format!("known keys of {section} are {}", names.collect::<Vec<_>>().join(", "))
            }
        };
        self.layer.refuse(Problem::error(key, "unknown key", remedy).at(at));
    }

    fn at(&self, key: &Key) -> At {
        self.at_offset(key.span().map_or(0, |span| span.start))
    }

    fn at_offset(&self, offset: usize) -> At {
        At::File {
            file: self.file.to_owned(),
            line: line_of(self.text, offset),
        }
    }
}

/// The keys of a table with their spans, which the plain iterator leaves out.
fn entries(table: &dyn TableLike) -> impl Iterator<Item = (&Key, &Item)> {
    table.iter().filter_map(|(name, _)| table.get_key_value(name))
}

/// Counted from 1.
fn line_of(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

fn not_toml(file: &Path, text: &str, error: &toml_edit::TomlError) -> Problem {
    let offset = error.span().map_or(text.len(), |span| span.start.min(text.len()));
    let line = line_of(text, offset);
    let mut what = format!("not valid TOML: {}", error.message());
    if let Some(source) = text
        .lines()
        .nth(line - 1)
        .map(str::trim_end)
        .filter(|source| may_be_shown(source))
    {
        let start = text.as_bytes()[..offset]
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let column = String::from_utf8_lossy(&text.as_bytes()[start..offset]).chars().count();
        let gutter = " ".repeat(line.to_string().len());
        what.push_str(&format!("\n  {line} | {source}\n  {gutter} | {}^", " ".repeat(column)));
    }
    let at = At::File {
        file: file.to_owned(),
        line,
    };
    Problem::error("", what, "text stands in double quotes, sections in brackets").at(at)
}

/// A line is quoted only if it names a key that holds no secret, or a section: a broken line may be anything.
fn may_be_shown(line: &str) -> bool {
    let line = line.trim_start();
    if line.to_lowercase().contains("secret") {
        return false;
    }
    match line.split_once('=') {
        Some((name, _)) => {
            let name = name.trim().rsplit('.').next().unwrap_or_default();
            let known = || SCHEMA.entries.iter().filter(|entry| entry.name == name);
            // Whichever section it is in: `headers` of one holds secrets, of another only names.
            known().next().is_some() && known().all(|entry| !entry.kind.is_secret())
        }
        None => line.starts_with('[') && !line.contains(['"', '\'']),
    }
}
