//! "Did you mean": the known word that is nearest to one that nobody knows.

use super::schema::{Entry, SCHEMA};

/// Below it two words have little in common, and a guess would mislead.
const LIKENESS_MIN: f64 = 0.78;

/// The nearest of `known`, if any is near. Letter case does not count.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (likeness(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, candidate)| candidate)
}

/// The key that was probably meant by `name` in `section`: a like name there, else the same or a like one
/// in another section.
pub fn nearest_key(section: &str, name: &str) -> Option<&'static Entry> {
    let here = SCHEMA.entries.iter().filter(|entry| entry.section == section);
    let elsewhere = || SCHEMA.entries.iter().filter(|entry| entry.section != section);
    best(name, here)
        .or_else(|| elsewhere().find(|entry| entry.name == name))
        .or_else(|| best(name, elsewhere()))
}

fn best(name: &str, entries: impl Iterator<Item = &'static Entry>) -> Option<&'static Entry> {
    let entries: Vec<&Entry> = entries.collect();
    let nearest = nearest(name, entries.iter().map(|entry| entry.name.as_str()))?;
    entries.into_iter().find(|entry| entry.name == nearest)
}

fn likeness(one: &str, other: &str) -> f64 {
    strsim::jaro_winkler(&one.to_lowercase(), &other.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        for (section, name, meant) in [
            ("tls", "cert", Some("tls.certificate")),
            ("tls", "private_key", None),
            ("server", "lisen", Some("server.listen")),
            ("server", "Listen", Some("server.listen")),
            ("server", "certificate", Some("tls.certificate")),
            ("heartbeat", "intervall", Some("heartbeat.interval")),
            ("limits", "message_byte", Some("limits.message_bytes")),
            ("auth.keys", "secretfile", Some("auth.keys.secret_file")),
            ("server", "zzz", None),
        ] {
            let answer = nearest_key(section, name).map(Entry::dotted);
            assert_eq!(answer.as_deref(), meant, "{section}.{name}");
        }
    }
}
