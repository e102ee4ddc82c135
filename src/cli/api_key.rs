//! `conclave api-key new`: a key for the server API, shown once, and the entry that lets it in.

use std::fmt::Write as _;

use super::Failure;
use super::args::{ApiKeyNew, Loudness};
use crate::api::keys;
use crate::config;

/// The key goes to stdout, and nowhere else; its entry goes to stderr, as TOML that can be appended to the file.
pub fn new(args: &ApiKeyNew, loudness: Loudness) -> Result<(), Failure> {
    let key = keys::generate().map_err(|_| Failure::other("the system gave no random bytes"))?;
    let entry = entry(args, &keys::hash_text(&keys::digest_of(&key)));
    let problems = config::api_key_problems(&entry);
    if !problems.is_empty() {
        let lines: Vec<String> = problems
            .iter()
            .map(|problem| format!("{}: {}\n  help: {}", problem.key, problem.what, problem.remedy))
            .collect();
        return Err(Failure::usage(lines.join("\n")));
    }
    println!("{key}");
    if !loudness.quiet {
        eprintln!(
            "# The key above is kept nowhere: put it where your application finds it. This goes into conclave.toml:"
        );
    }
    eprint!("{entry}");
    Ok(())
}

fn entry(args: &ApiKeyNew, hash: &str) -> String {
    let list = |items: &[String]| items.iter().map(|item| text(item)).collect::<Vec<_>>().join(", ");
    let mut entry = format!(
        "\n[[api.keys]]\nname = {}\nhash = {}\nscopes = [{}]\n",
        text(&args.name),
        text(hash),
        list(&args.scope)
    );
    // Writing to a string cannot fail.
    if !args.room.is_empty() {
        let _ = writeln!(entry, "rooms = [{}]", list(&args.room));
    }
    if let Some(requests) = args.requests_per_second {
        let _ = writeln!(entry, "requests_per_second = {requests}");
    }
    if let Some(expires) = &args.expires {
        let _ = writeln!(entry, "expires = {}", text(expires));
    }
    entry
}

/// A TOML string: the escapes of JSON are all ones of TOML, too.
fn text(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_is_toml_whatever_is_in_it() {
        let args = ApiKeyNew {
            name: "b\"a\\ck".to_owned(),
            scope: vec!["publish".to_owned(), "read".to_owned()],
            room: vec!["team \"7\"/*".to_owned()],
            requests_per_second: Some(5),
            expires: Some("2030-01-31".to_owned()),
        };
        let entry = entry(&args, &keys::hash_text(&[7; 32]));
        assert!(config::api_key_problems(&entry).is_empty(), "{entry}");
        assert!(entry.contains("scopes = [\"publish\", \"read\"]\n"), "{entry}");
        let bad = entry.replace("\"read\"", "\"fly\"").replace("sha256:", "ck_");
        assert_eq!(config::api_key_problems(&bad).len(), 2);
    }
}
