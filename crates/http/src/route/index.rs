//! Finds the routes whose host and path fit without looking at the others.
//!
//! Names and paths are kept sorted; a search costs the logarithm of their number. What is looked for as a prefix
//! (paths, and hosts read backwards) forms a forest: each entry knows the longest other entry that it starts with,
//! so that from the longest fitting one all shorter ones are reached without another search.

use std::collections::BTreeMap;

use model::config::{HostMatch, PathMatch, RouteMatch};

use super::conditions::{is_everything, is_under};

/// Longest host that a route can name, with its dot.
const MAX_HOST: usize = 256;

/// Places of routes by host and path.
#[derive(Clone, Debug)]
pub(super) struct Index {
    exact: BTreeMap<Box<[u8]>, Paths>,
    /// By what comes behind `*`, read backwards.
    under: Forest<Paths>,
    any: Paths,
}

/// Places of routes of one host, each list in falling order of precedence.
#[derive(Clone, Debug)]
struct Paths {
    exact: BTreeMap<Box<[u8]>, Vec<u32>>,
    prefixes: Forest<Vec<u32>>,
    /// Routes by pattern or for any path.
    rest: Vec<u32>,
}

/// Routes of one host, gathered.
#[derive(Default)]
struct Gathered {
    exact: BTreeMap<Box<[u8]>, Vec<u32>>,
    prefixes: BTreeMap<Box<[u8]>, Vec<u32>>,
    rest: Vec<u32>,
}

/// Entries by key, sorted.
#[derive(Clone, Debug)]
struct Forest<T> {
    entries: Vec<Entry<T>>,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    key: Box<[u8]>,
    /// The entry with the longest key that this key starts with.
    shorter: Option<u32>,
    value: T,
}

impl Index {
    /// Indexes routes, given in the order in which they are tried.
    pub(super) fn new<'r>(routes: impl Iterator<Item = &'r RouteMatch>) -> Self {
        let mut exact: BTreeMap<Box<[u8]>, Gathered> = BTreeMap::new();
        let mut under: BTreeMap<Box<[u8]>, Gathered> = BTreeMap::new();
        let mut any = Gathered::default();
        for (place, route) in (0..).zip(routes) {
            let host = match &route.host {
                None => &mut any,
                Some(HostMatch::Exact(name)) => exact.entry(name.as_bytes().into()).or_default(),
                Some(HostMatch::Under(suffix)) => under.entry(suffix.bytes().rev().collect()).or_default(),
            };
            let places = match &route.path {
                Some(PathMatch::Exact(path)) => host.exact.entry(path.as_bytes().into()).or_default(),
                Some(PathMatch::Prefix(prefix)) if !is_everything(prefix) => {
                    host.prefixes.entry(prefix.as_bytes().into()).or_default()
                }
                _ => &mut host.rest,
            };
            places.push(place);
        }
        let by_host = |hosts: BTreeMap<Box<[u8]>, Gathered>| {
            hosts
                .into_iter()
                .map(|(host, gathered)| (host, Paths::new(gathered)))
        };
        Self {
            exact: by_host(exact).collect(),
            under: Forest::new(by_host(under)),
            any: Paths::new(any),
        }
    }

    /// The first place, in order, whose host and path fit and of which `takes` is true. A pattern of the path is
    /// not compared here.
    pub(super) fn first(&self, host: &[u8], path: &[u8], mut takes: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut best = None;
        let mut lower = [0; MAX_HOST];
        let named = lower.get_mut(..host.len()).filter(|_| !host.is_empty());
        if let Some(name) = named.filter(|_| !(self.exact.is_empty() && self.under.entries.is_empty())) {
            name.copy_from_slice(host);
            name.make_ascii_lowercase();
            if let Some(paths) = self.exact.get(&*name) {
                paths.first(path, &mut best, &mut takes);
            }
            name.reverse();
            for entry in self.under.fitting(name) {
                // A wildcard stands for one label at least.
                if entry.key.len() < name.len() {
                    entry.value.first(path, &mut best, &mut takes);
                }
            }
        }
        self.any.first(path, &mut best, &mut takes);
        best
    }
}

impl Paths {
    fn new(gathered: Gathered) -> Self {
        Self {
            exact: gathered.exact,
            prefixes: Forest::new(gathered.prefixes.into_iter()),
            rest: gathered.rest,
        }
    }

    fn first(&self, path: &[u8], best: &mut Option<u32>, takes: &mut impl FnMut(u32) -> bool) {
        let mut look_at = |places: &[u32]| {
            for &place in places {
                if best.is_some_and(|best| best < place) {
                    break;
                }
                if takes(place) {
                    *best = Some(place);
                    break;
                }
            }
        };
        if let Some(places) = self.exact.get(path) {
            look_at(places);
        }
        for entry in self.prefixes.fitting(path) {
            if is_under(path, &entry.key) {
                look_at(&entry.value);
            }
        }
        look_at(&self.rest);
    }
}

impl<T> Forest<T> {
    /// Takes entries by key, in their order.
    fn new(sorted: impl Iterator<Item = (Box<[u8]>, T)>) -> Self {
        let mut entries: Vec<Entry<T>> = Vec::new();
        // Those that the next one may start with, the longest last.
        let mut open: Vec<(u32, Box<[u8]>)> = Vec::new();
        for (at, (key, value)) in (0..).zip(sorted) {
            while open.last().is_some_and(|(_, shorter)| !key.starts_with(shorter)) {
                open.pop();
            }
            let shorter = open.last().map(|(at, _)| *at);
            open.push((at, key.clone()));
            entries.push(Entry { key, shorter, value });
        }
        Self { entries }
    }

    /// The entries that `text` starts with, longest first.
    fn fitting<'f>(&'f self, text: &[u8]) -> impl Iterator<Item = &'f Entry<T>> {
        let entry = |at: u32| self.entries.get(at as usize);
        let shorter = move |of: &&'f Entry<T>| of.shorter.and_then(entry);
        // Whatever `text` starts with sorts before it, and the last entry before it starts with all of those.
        let after = self.entries.partition_point(|entry| entry.key.as_ref() <= text);
        let mut longest = after.checked_sub(1).and_then(|at| self.entries.get(at));
        while let Some(entry) = longest.filter(|entry| !text.starts_with(&entry.key)) {
            longest = shorter(&entry);
        }
        std::iter::successors(longest, shorter)
    }
}
