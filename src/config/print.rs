//! The configuration on a terminal and in README: tables that come from the schema, so that they cannot differ.

use comfy_table::{Table, presets};

use super::load::Effective;
use super::schema::SCHEMA;

/// A configuration for production to start from; it fits on one screen.
pub const PRODUCTION_TOML: &str = include_str!("production.toml");

/// Key, value and source of everything that holds.
pub fn effective_table(effective: &[Effective]) -> String {
    let rows = effective
        .iter()
        .map(|row| [row.key.clone(), row.value_shown.clone(), row.source.clone()]);
    plain(["key", "value", "set by"], rows)
}

/// Every environment variable with its default and meaning.
pub fn env_table() -> String {
    let rows = SCHEMA.entries.iter().map(|entry| {
        [
            entry.variable(),
            entry.default_shown(),
            entry.kind.shown().replace('`', ""),
        ]
    });
    plain(["variable", "default", "takes"], rows)
}

/// README's table: every key with default, kind, range and meaning.
pub fn table_markdown() -> String {
    let mut table = String::from("| Key | Default | Takes | Meaning |\n| --- | --- | --- | --- |\n");
    for entry in &SCHEMA.entries {
        let key = if entry.is_repeated {
            entry.dotted_in(0).replace("[0]", "[]")
        } else {
            entry.dotted()
        };
        let range = entry
            .kind
            .range_shown()
            .map(|range| format!(", {range}"))
            .unwrap_or_default();
        let default = match entry.default_shown().as_str() {
            word @ "none" => word.to_owned(),
            value => format!("`{value}`"),
        };
        let cells = [
            format!("`{key}`"),
            default,
            format!("{}{range}", entry.kind.shown()),
            entry.meaning.clone(),
        ];
        table.push_str(&format!(
            "| {} |\n",
            cells.map(|cell| cell.replace('|', "\\|")).join(" | ")
        ));
    }
    table
}

fn plain(head: [&str; 3], rows: impl Iterator<Item = [String; 3]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head);
    table.add_rows(rows);
    table.lines().map(|line| format!("{}\n", line.trim())).collect()
}
