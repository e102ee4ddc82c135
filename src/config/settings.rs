//! Values and where they came from: layers (file, environment, flags) laid over the defaults.

use std::collections::{BTreeMap, BTreeSet};

use super::kind::Mismatch;
use super::problem::{At, Problem};
use super::schema::{Entry, SCHEMA};
use super::value::Value;

/// Where the entries of arrays stand: `("auth.keys", 0)`.
type ArrayEntries = BTreeMap<(String, usize), At>;

/// What one source gave, and what was wrong with it.
#[derive(Debug, Default)]
pub struct Layer {
    /// Dotted keys, repeated ones with the number of their entry.
    given: Vec<(String, Value, At)>,
    /// Entries of arrays that the source has or adds to.
    array_entries: ArrayEntries,
    /// Keys about which enough has been said: a check of their value would only repeat it.
    tainted: BTreeSet<String>,
    problems: Vec<Problem>,
}

impl Layer {
    /// Notes a value, or why it is none; `index` is the entry of the array that it belongs to.
    pub fn take(&mut self, entry: &Entry, index: Option<usize>, value: Result<Value, Mismatch>, at: At) {
        let key = index.map_or_else(|| entry.dotted(), |index| entry.dotted_in(index));
        match value {
            Ok(value) => self.given.push((key, value, at)),
            Err(mismatch) => {
                let remedy = if mismatch.remedy.is_empty() {
                    entry.takes()
                } else {
                    mismatch.remedy
                };
                self.taint(key.clone());
                self.refuse(Problem::error(key, mismatch.what, remedy).at(at));
            }
        }
    }

    /// Notes that entry `index` of the array `section` exists.
    pub fn has_entry(&mut self, section: &str, index: usize, at: At) {
        self.array_entries.entry((section.to_owned(), index)).or_insert(at);
    }

    /// Notes a problem that is about no value.
    pub fn refuse(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Keeps later checks from speaking about `key`.
    pub fn taint(&mut self, key: String) {
        self.tainted.insert(key);
    }

    /// What was wrong so far.
    #[cfg(test)]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

#[derive(Debug, Clone)]
struct Setting {
    value: Value,
    /// None: the default.
    at: Option<At>,
    /// 0: the default; the higher goes before the lower.
    layer: usize,
}

impl Setting {
    fn default_of(entry: &Entry) -> Self {
        Self {
            value: entry.default.clone(),
            at: None,
            layer: 0,
        }
    }
}

/// All keys with their values.
#[derive(Debug)]
pub struct Settings {
    settings: BTreeMap<String, Setting>,
    array_entries: ArrayEntries,
    tainted: BTreeSet<String>,
    layers: usize,
}

impl Settings {
    /// What holds when nobody says anything.
    pub fn defaults() -> Self {
        let single = SCHEMA.entries.iter().filter(|entry| !entry.is_repeated);
        let settings = single
            .map(|entry| (entry.dotted(), Setting::default_of(entry)))
            .collect();
        Self {
            settings,
            array_entries: BTreeMap::new(),
            tainted: BTreeSet::new(),
            layers: 0,
        }
    }

    /// Lays `layer` over what is there, and returns what was wrong with it.
    pub fn lay(&mut self, layer: Layer) -> Vec<Problem> {
        self.layers += 1;
        let number = self.layers;
        for (key, value, at) in layer.given {
            self.settings.insert(
                key,
                Setting {
                    value,
                    at: Some(at),
                    layer: number,
                },
            );
        }
        for ((section, index), at) in layer.array_entries {
            for entry in SCHEMA.entries.iter().filter(|entry| entry.section == section) {
                let setting = self.settings.entry(entry.dotted_in(index));
                setting.or_insert_with(|| Setting::default_of(entry));
            }
            self.array_entries.entry((section, index)).or_insert(at);
        }
        self.tainted.extend(layer.tainted);
        layer.problems
    }

    /// The value of `key`, unless nobody set it and it has no default.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.settings
            .get(key)
            .map(|setting| &setting.value)
            .filter(|value| !value.is_unset())
    }

    /// Where `key` was set, or the entry of an array that it belongs to.
    pub fn at(&self, key: &str) -> Option<At> {
        let own = self.settings.get(key).and_then(|setting| setting.at.clone());
        own.or_else(|| self.array_entries.get(&array_entry(key)?).cloned())
    }

    /// Whether enough has been said about `key`, or about an entry of the list it names.
    pub fn is_tainted(&self, key: &str) -> bool {
        let list = format!("{key}[");
        self.tainted
            .iter()
            .any(|known| known == key || known.starts_with(&list))
    }

    /// The numbers of the entries of the array `section`, ascending.
    pub fn entries_of(&self, section: &str) -> Vec<usize> {
        let all = self.array_entries.keys();
        all.filter(|(array, _)| array == section)
            .map(|(_, index)| *index)
            .collect()
    }

    /// Of keys that exclude each other, keeps those that the highest layer set and forgets the rest: a
    /// variable with a secret goes before a file that names a `secret_file`.
    pub fn keep_highest(&mut self, keys: &[String]) -> Vec<String> {
        let is_set = |setting: &&Setting| setting.layer > 0 && !setting.value.is_unset();
        let layer_of = |key: &String| self.settings.get(key).filter(is_set).map(|setting| setting.layer);
        let Some(highest) = keys.iter().filter_map(layer_of).max() else {
            return Vec::new();
        };
        let (kept, passed): (Vec<String>, Vec<String>) = keys
            .iter()
            .filter(|key| layer_of(key).is_some())
            .cloned()
            .partition(|key| layer_of(key) == Some(highest));
        for key in passed {
            if let Some(setting) = self.settings.get_mut(&key) {
                *setting = Setting {
                    value: Value::Text(String::new()),
                    at: None,
                    layer: 0,
                };
            }
        }
        kept
    }

    /// Every key that holds something, in the order of `default.toml`: key, value as shown, source.
    pub fn effective(&self) -> Vec<(String, String, String)> {
        let mut rows = Vec::new();
        for entry in &SCHEMA.entries {
            let keys = if entry.is_repeated {
                let entries = self.entries_of(&entry.section).into_iter();
                entries.map(|index| entry.dotted_in(index)).collect()
            } else {
                vec![entry.dotted()]
            };
            rows.extend(keys.into_iter().filter_map(|key| self.row(key)));
        }
        rows
    }

    fn row(&self, key: String) -> Option<(String, String, String)> {
        let setting = self.settings.get(&key)?;
        let source = setting.at.as_ref().map_or_else(|| "default".to_owned(), At::short);
        Some((key, setting.value.show(), source))
    }
}

/// `("auth.keys", 3)` for `auth.keys[3].kid`.
fn array_entry(key: &str) -> Option<(String, usize)> {
    let (section, rest) = key.split_once('[')?;
    let (number, _) = rest.split_once(']')?;
    Some((section.to_owned(), number.parse().ok()?))
}
