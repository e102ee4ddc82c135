//! What `/metrics` says, read back: the page shows the same numbers that Prometheus has, from the same source.

use std::collections::HashMap;

/// The samples of one scrape.
#[derive(Debug, Default)]
pub struct Exposition<'a>(HashMap<&'a str, Vec<Sample<'a>>>);

/// One line.
#[derive(Debug, PartialEq)]
pub struct Sample<'a> {
    pub labels: Vec<(&'a str, &'a str)>,
    pub value: f64,
}

impl Sample<'_> {
    /// The value of a label, empty if there is no such label.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        let found = self.labels.iter().find(|(known, _)| *known == name);
        found.map_or("", |(_, value)| value)
    }
}

impl<'a> Exposition<'a> {
    /// Reads the text format as this server writes it: every label value is a word without quotes or backslashes.
    #[must_use]
    pub fn read(text: &'a str) -> Self {
        let mut samples: HashMap<&str, Vec<Sample<'_>>> = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some((name, sample)) = sample(line) {
                samples.entry(name).or_default().push(sample);
            }
        }
        Self(samples)
    }

    /// All samples of a name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &Sample<'a>> {
        self.0.get(name).into_iter().flatten()
    }

    /// Their sum.
    #[must_use]
    pub fn sum(&self, name: &str) -> f64 {
        self.all(name).map(|sample| sample.value).sum()
    }

    /// The sum of those with this label.
    #[must_use]
    pub fn sum_of(&self, name: &str, label: &str, value: &str) -> f64 {
        let of = |sample: &&Sample<'_>| sample.label(label) == value;
        self.all(name).filter(of).map(|sample| sample.value).sum()
    }
}

fn sample(line: &str) -> Option<(&str, Sample<'_>)> {
    let (head, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, labels)) = head.split_once('{') else {
        return Some((
            head,
            Sample {
                labels: Vec::new(),
                value,
            },
        ));
    };
    let labels = labels.strip_suffix('}')?;
    let pairs = labels.split("\",").filter_map(|pair| pair.split_once("=\""));
    let labels = pairs.map(|(name, value)| (name, value.trim_end_matches('"'))).collect();
    Some((name, Sample { labels, value }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_name_and_label() {
        let text =
            "# HELP a A.\n# TYPE a counter\na{x=\"1\",y=\"two words\"} 3\na{x=\"2\",y=\"\"} 4.5\nb 7\n\nrubbish\n";
        let read = Exposition::read(text);
        assert_eq!(read.sum("a"), 7.5);
        assert_eq!(read.sum_of("a", "x", "2"), 4.5);
        assert_eq!(read.sum("b"), 7.0);
        assert_eq!(read.sum("c"), 0.0);
        let labels: Vec<_> = read.all("a").map(|sample| sample.label("y").to_owned()).collect();
        assert_eq!(labels, ["two words", ""]);
    }
}
