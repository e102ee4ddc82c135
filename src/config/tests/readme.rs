//! README shows the configuration as it is.

use std::path::Path;

use super::*;

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");

/// After a change of `default.toml`: `CONCLAVE_BLESS=1 cargo test --lib readme` writes the table.
#[test]
fn the_table_of_keys_is_that_of_the_schema() {
    let readme = std::fs::read_to_string(README).expect("README.md");
    let (before, rest) = readme.split_once("<!-- config-table -->\n").expect("its beginning");
    let (shown, after) = rest.split_once("<!-- /config-table -->").expect("its end");
    let table = table_markdown();
    #[expect(clippy::disallowed_methods, reason = "a switch of this test, which is no server")]
    if std::env::var_os("CONCLAVE_BLESS").is_some() && shown != table {
        let written = format!("{before}<!-- config-table -->\n{table}<!-- /config-table -->{after}");
        std::fs::write(README, written).expect("README.md is written");
        return;
    }
    assert!(
        shown == table,
        "README.md has another table: CONCLAVE_BLESS=1 cargo test --lib readme"
    );
}

#[test]
fn the_smallest_configuration_is_one() {
    let readme = std::fs::read_to_string(README).expect("README.md");
    let (_, rest) = readme.split_once("```toml\n").expect("a configuration");
    let (small, _) = rest.split_once("```").expect("its end");
    let place = Place::new();
    let folder = place.path().display();
    let small = small
        .replace("certs/tls", &format!("{folder}/tls"))
        .replace("jwt.secret", &format!("{folder}/jwt"));
    place.write("small.toml", &small);
    let sources = Sources {
        file: Some(place.path().join("small.toml")),
        ..Sources::default()
    };
    let loaded = load(&sources).expect("no problems");
    assert_eq!(loaded.warnings, []);
}

/// Folders that README's map and the runbooks send people to.
#[test]
fn what_readme_links_to_is_there() {
    let readme = std::fs::read_to_string(README).expect("README.md");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let links = readme.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    for (link, _) in links.filter(|(link, _)| !link.starts_with("http")) {
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        assert!(root.join(file).exists(), "{link}");
        if !anchor.is_empty() {
            let page = if file.is_empty() { "README.md" } else { file };
            let text = std::fs::read_to_string(root.join(page)).expect("a page");
            assert!(headings(&text).any(|heading| heading == anchor), "{link}");
        }
    }
}

/// As GitHub makes anchors of them, for headings without punctuation.
fn headings(text: &str) -> impl Iterator<Item = String> {
    let lines = text.lines().filter(|line| line.starts_with('#'));
    lines.map(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-"))
}
