//! What `/metrics` says.

use std::collections::BTreeSet;

/// A scrape.
#[derive(Debug)]
pub(crate) struct Metrics {
    text: String,
}

impl Metrics {
    pub(crate) fn new(text: String) -> Self {
        Self { text }
    }

    /// Sum of all series of this name that have all these labels; 0 when there is none.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.series()
            .filter(|(n, l, _)| *n == name && labels.iter().all(|(k, v)| l.contains(&format!("{k}=\"{v}\""))))
            .map(|(_, _, value)| value)
            .sum()
    }

    /// Every series: name, labels, value.
    pub(crate) fn series(&self) -> impl Iterator<Item = (&str, &str, f64)> {
        self.text.lines().filter(|l| !l.starts_with('#')).map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a series has a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            (name, labels, value.parse().expect("a value is a number"))
        })
    }

    /// Names of series with their labels, without values.
    pub(crate) fn identities(&self) -> BTreeSet<String> {
        self.series()
            .map(|(name, labels, _)| format!("{name}{{{labels}"))
            .collect()
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}
