//! A table of the tree read by its declaration: every key is known, of its type and within its range, or there
//! is a diagnostic. What has one reads as absent, so that reading goes on and finds the rest.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use super::tree::{Entry, Node, Value};
use super::{First, MAX_DIAGNOSTICS};
use crate::config::Name;
use crate::diagnostic::{Diagnostic, Fault, Source};
use crate::schema::{self, Default, Key, Kind, Rule, Table};
use crate::units;

/// What was found so far.
pub(super) struct Findings<'a> {
    source: &'a Source<'a>,
    diagnostics: Vec<Diagnostic>,
    /// What is valid and probably not meant.
    warnings: Vec<Diagnostic>,
    /// More was found than is kept.
    overflown: bool,
    /// Lines with errors of syntax: what could be read there is a guess.
    unreadable: BTreeSet<u32>,
    /// Listening addresses taken.
    pub(super) addresses: BTreeMap<SocketAddr, First>,
    /// Listeners seen.
    pub(super) listeners: usize,
    /// Patterns compiled.
    pub(super) patterns: usize,
    /// The first place that needs a database of countries.
    pub(super) geography: Option<(Range<usize>, String)>,
    /// Where the load balancer being read has `SameSite=None` that is `Secure` over TLS only.
    pub(super) secure_over_tls: Vec<(Range<usize>, String)>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(source: &'a Source<'a>, mut syntax: Vec<Diagnostic>) -> Self {
        let unreadable = syntax.iter().map(|d| d.line).collect();
        let overflown = syntax.len() > MAX_DIAGNOSTICS;
        syntax.truncate(MAX_DIAGNOSTICS);
        Self {
            source,
            diagnostics: syntax,
            warnings: Vec::new(),
            overflown,
            unreadable,
            addresses: BTreeMap::new(),
            listeners: 0,
            patterns: 0,
            geography: None,
            secure_over_tls: Vec::new(),
        }
    }

    /// Notes an error at `span` of the key `path`. Where the text could not be read, that is said already.
    pub(super) fn report(&mut self, span: Range<usize>, path: &str, fault: Fault) {
        let line = u32::try_from(self.line(span.start)).unwrap_or(u32::MAX);
        if self.unreadable.contains(&line) {
            return;
        }
        if self.is_full() {
            self.overflown = true;
            return;
        }
        self.diagnostics.push(self.source.diagnose(span, path, fault));
    }

    /// Notes at `span` of the key `path` what is valid and probably not meant; at most [`MAX_DIAGNOSTICS`] are kept.
    pub(super) fn warn(&mut self, span: Range<usize>, path: &str, fault: Fault) {
        if self.warnings.len() < MAX_DIAGNOSTICS {
            self.warnings.push(self.source.diagnose(span, path, fault));
        }
    }

    /// Notes that something is missing, here or by being the same as elsewhere; said only of a text that could be
    /// read as a whole.
    pub(super) fn report_missing(&mut self, span: Range<usize>, path: &str, fault: Fault) {
        if self.unreadable.is_empty() {
            self.report(span, path, fault);
        }
    }

    /// Whether nothing more is kept.
    pub(super) fn is_full(&self) -> bool {
        self.diagnostics.len() >= MAX_DIAGNOSTICS
    }

    pub(super) fn line(&self, at: usize) -> usize {
        self.source.line(at)
    }

    /// The config with its warnings, when no error was found.
    pub(super) fn finish<T>(mut self, built: Option<T>) -> Result<(T, Vec<Diagnostic>), Vec<Diagnostic>> {
        match built {
            Some(built) if self.diagnostics.is_empty() => {
                self.warnings.sort_by_key(|d| (d.line, d.column));
                return Ok((built, self.warnings));
            }
            None if self.diagnostics.is_empty() => {
                let nothing = Fault::new("the document describes no load balancer");
                self.diagnostics.push(self.source.about_all(nothing));
            }
            _ => {}
        }
        self.diagnostics.sort_by_key(|d| (d.line, d.column));
        if self.overflown {
            let more = Fault::new(format!("there are more errors than the {MAX_DIAGNOSTICS} shown"));
            self.diagnostics.push(self.source.about_all(more));
        }
        Err(self.diagnostics)
    }
}

/// Reads a number with its unit.
type ReadUnit = fn(&str) -> Result<u64, units::UnitError>;

/// A table being read.
pub(super) struct Section<'t> {
    /// Path of its key, empty for the whole document.
    pub(super) path: String,
    /// Where its heading or its text stands.
    pub(super) span: Range<usize>,
    table: &'static Table,
    entries: &'t [Entry],
}

impl<'t> Section<'t> {
    /// Opens a table: reports keys that it does not have, keys that are missing, and keys that do not go together.
    pub(super) fn open(
        f: &mut Findings<'_>,
        node: &'t Node,
        path: String,
        table: &'static Table,
    ) -> Option<Self> {
        let Value::Table(entries) = &node.value else {
            let name = path.rsplit('.').next().unwrap_or(&path);
            let fault = Fault::new(format!("`{name}` must be a table, not {}", node.value.kind()));
            f.report(node.span.clone(), &path, fault);
            return None;
        };
        let section = Self {
            path,
            span: node.span.clone(),
            table,
            entries,
        };
        section.report_unknown(f);
        section.report_required(f);
        for rule in table.all_rules() {
            section.check_rule(f, rule);
        }
        Some(section)
    }

    /// Path of one of its keys.
    pub(super) fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Its name in a message.
    fn title(&self) -> &str {
        if self.path.is_empty() {
            "the document"
        } else {
            &self.path
        }
    }

    pub(super) fn entry(&self, key: &str) -> Option<&'t Entry> {
        debug_assert!(
            self.table.key(key).is_some(),
            "`{key}` is not declared in {}",
            self.table.id
        );
        self.entries.iter().find(|entry| entry.key == key)
    }

    pub(super) fn duration(&self, f: &mut Findings<'_>, key: &str) -> Option<Duration> {
        let in_ms = |text: &str| {
            let ms = units::parse_duration(text)?.as_millis();
            Ok(u64::try_from(ms).unwrap_or(u64::MAX))
        };
        self.number(f, key, Some(in_ms)).map(Duration::from_millis)
    }

    pub(super) fn size(&self, f: &mut Findings<'_>, key: &str) -> Option<u64> {
        self.number(f, key, Some(units::parse_size))
    }

    pub(super) fn percent(&self, f: &mut Findings<'_>, key: &str) -> Option<u64> {
        self.number(f, key, Some(|text| units::parse_percent(text).map(u64::from)))
    }

    pub(super) fn integer(&self, f: &mut Findings<'_>, key: &str) -> Option<u64> {
        self.number(f, key, None)
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, f: &mut Findings<'_>, key: &str) -> Option<bool> {
        let (entry, declared) = self.declared(key)?;
        let Value::Bool(value) = entry.node.value else {
            self.wrong_type(f, entry, declared);
            return None;
        };
        Some(value)
    }

    /// One of the words that the key takes.
    pub(super) fn choice(&self, f: &mut Findings<'_>, key: &str) -> Option<&'static str> {
        let (entry, declared) = self.declared(key)?;
        let Kind::OneOf(values) = declared.kind else {
            return None;
        };
        let Value::Text(text) = &entry.node.value else {
            self.wrong_type(f, entry, declared);
            return None;
        };
        let found = values.iter().find(|value| *value == text);
        if found.is_none() {
            let fault = Fault::new(format!(
                "`{key}` must be {}, not `{}`",
                declared.kind.expected(),
                cut(text)
            ));
            let fault = match closest(text, values.iter().copied()) {
                Some(close) => fault.suggest(format!("did you mean `\"{close}\"`?")),
                None => fault,
            };
            f.report(entry.node.span.clone(), &self.path_of(key), fault);
        }
        found.copied()
    }

    /// A text, parsed.
    pub(super) fn text<T>(
        &self,
        f: &mut Findings<'_>,
        key: &str,
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        let (entry, declared) = self.declared(key)?;
        let Value::Text(text) = &entry.node.value else {
            self.wrong_type(f, entry, declared);
            return None;
        };
        let example = || Some(format!("write for example `{}`", declared.example()?));
        let read = parse(text).map_err(|fault| fault.or_suggest(example));
        parsed(f, &entry.node, &self.path_of(key), read)
    }

    pub(super) fn section(&self, f: &mut Findings<'_>, key: &str) -> Option<Self> {
        let (entry, declared) = self.declared(key)?;
        let (Kind::Table(table) | Kind::TableOrFalse(table)) = declared.kind else {
            return None;
        };
        Section::open(f, &entry.node, self.path_of(key), table)
    }

    /// A table, or `Some(None)` for `false`.
    pub(super) fn section_or_false(&self, f: &mut Findings<'_>, key: &str) -> Option<Option<Self>> {
        let (entry, declared) = self.declared(key)?;
        match entry.node.value {
            Value::Bool(false) => Some(None),
            Value::Table(_) => self.section(f, key).map(Some),
            _ => {
                self.wrong_type(f, entry, declared);
                None
            }
        }
    }

    /// The items of a list, or the one item where the key takes that too, each with its path.
    pub(super) fn items(&self, f: &mut Findings<'_>, key: &str) -> Option<Vec<(String, &'t Node)>> {
        let (entry, declared) = self.declared(key)?;
        let path = self.path_of(key);
        let least = match declared.kind {
            Kind::List { min, .. } => min,
            _ => 1,
        };
        match (&entry.node.value, &declared.kind) {
            (Value::List(items), _) if items.len() < least => {
                let fault = Fault::new(format!("`{key}` needs at least one entry"))
                    .suggest(format!("add one, or leave out `{key}`"));
                f.report(entry.node.span.clone(), &path, fault);
                None
            }
            (Value::List(items), _) => {
                let numbered = items.iter().enumerate();
                Some(numbered.map(|(i, item)| (format!("{path}[{i}]"), item)).collect())
            }
            (Value::Text(_), Kind::OneOrList(_))
            | (Value::Integer(_), Kind::OneOrList(Kind::Either(_)))
            | (Value::Table(_), Kind::OneOrList(Kind::Table(_))) => Some(vec![(path, &entry.node)]),
            _ => {
                self.wrong_type(f, entry, declared);
                None
            }
        }
    }

    /// The entries of a table of free names.
    pub(super) fn fields(&self, f: &mut Findings<'_>, key: &str) -> Option<&'t [Entry]> {
        let (entry, declared) = self.declared(key)?;
        let Value::Table(entries) = &entry.node.value else {
            self.wrong_type(f, entry, declared);
            return None;
        };
        Some(entries)
    }

    /// Tables by name.
    pub(super) fn named(&self, f: &mut Findings<'_>, key: &str) -> Option<Vec<(Name, Self)>> {
        let (entry, declared) = self.declared(key)?;
        let Kind::Named(table) = declared.kind else {
            return None;
        };
        named(f, &entry.node, &self.path_of(key), table)
    }

    fn declared(&self, key: &str) -> Option<(&'t Entry, &'static Key)> {
        self.entry(key).zip(self.table.key(key))
    }

    /// A number, bare or as text with its unit, within its range.
    fn number(&self, f: &mut Findings<'_>, key: &str, with_unit: Option<ReadUnit>) -> Option<u64> {
        let (entry, declared) = self.declared(key)?;
        let bare = !matches!(declared.kind, Kind::Percent { .. });
        let number = match (&entry.node.value, with_unit) {
            (Value::Integer(number), _) if bare => *number,
            (Value::Text(text), Some(parse)) => {
                let number = parse(text).map_err(|error| unit_fault(declared, text, error));
                i128::from(parsed(f, &entry.node, &self.path_of(key), number)?)
            }
            _ => {
                self.wrong_type(f, entry, declared);
                return None;
            }
        };
        let kept = within(&declared.kind, number);
        if kept.is_none() {
            let range = declared.kind.range().unwrap_or_default();
            let shown = cut(f.source.slice(entry.node.span.clone()).trim_matches('"'));
            let fault = Fault::new(format!("`{key}` is {shown}, out of its range: {range}"));
            f.report(entry.node.span.clone(), &self.path_of(key), fault);
        }
        kept
    }

    /// Says that a key's value is of another type than it takes.
    pub(super) fn report_wrong_type(&self, f: &mut Findings<'_>, key: &str) {
        if let Some((entry, declared)) = self.declared(key) {
            self.wrong_type(f, entry, declared);
        }
    }

    fn wrong_type(&self, f: &mut Findings<'_>, entry: &Entry, declared: &Key) {
        let key = declared.name;
        let found = entry.node.value.kind();
        let fault = Fault::new(format!(
            "`{key}` must be {}, not {found}",
            declared.kind.expected()
        ));
        let percent = match (&declared.kind, &entry.node.value) {
            (Kind::Percent { .. }, Value::Integer(number)) => Some(format!("{key} = \"{number}%\"")),
            _ => None,
        };
        let fault = match percent.or_else(|| declared.example()) {
            Some(example) => fault.suggest(format!("write for example `{example}`")),
            None => fault,
        };
        f.report(entry.node.span.clone(), &self.path_of(key), fault);
    }

    fn report_unknown(&self, f: &mut Findings<'_>) {
        for entry in self.entries.iter().filter(|e| self.table.key(&e.key).is_none()) {
            if f.is_full() {
                f.overflown = true;
                return;
            }
            let fault = Fault::new(format!("unknown key `{}` in {}", cut(&entry.key), self.title()));
            let known = || self.table.all_keys().map(|key| key.name);
            let suggestion = match closest(&entry.key, known()) {
                Some(close) => format!("did you mean `{close}`?"),
                None if self.path.is_empty() && is_load_balancer(&entry.node) => {
                    format!(
                        "load balancers stand under their heading: `[load_balancers.{}]`",
                        cut(&entry.key)
                    )
                }
                None => match schema::tables_with_key(&entry.key).as_slice() {
                    [] => format!("the keys here are: {}", known().collect::<Vec<_>>().join(", ")),
                    homes => format!("that key belongs to {}", homes.join(", or to ")),
                },
            };
            f.report(
                entry.key_span.clone(),
                &self.path_of(&entry.key),
                fault.suggest(suggestion),
            );
        }
    }

    fn report_required(&self, f: &mut Findings<'_>) {
        // Where a rule offers another key instead, the rule speaks.
        let optional = |name: &str| self.table.all_rules().any(|rule| rule.is_alternative(name));
        for key in self.table.all_keys() {
            let needed = matches!(key.default, Default::Required) && !optional(key.name);
            if needed && self.entry(key.name).is_none() && !self.misspells(key.name) {
                let fault = Fault::new(format!("{} needs the key `{}`", self.title(), key.name));
                let fault = match key.example() {
                    Some(example) => fault.suggest(format!("add for example `{example}`")),
                    None => fault,
                };
                f.report_missing(self.span.clone(), &self.path_of(key.name), fault);
            }
        }
    }

    /// Whether a key that is not known here was probably meant to be this one; that is said already.
    fn misspells(&self, key: &'static str) -> bool {
        let unknown = self.entries.iter().filter(|e| self.table.key(&e.key).is_none());
        unknown
            .take(MAX_DIAGNOSTICS)
            .any(|e| closest(&e.key, std::iter::once(key)).is_some())
    }

    fn check_rule(&self, f: &mut Findings<'_>, rule: &Rule) {
        let has_value = |key: &str, value: &str| {
            self.entry(key)
                .is_some_and(|e| matches!(&e.node.value, Value::Text(t) if t == value))
        };
        match rule {
            Rule::NotTogether { key, other, instead } => {
                if let Some((entry, _)) = self.entry(key).zip(self.entry(other)) {
                    let fault = Fault::new(format!("`{key}` and `{other}` may not both be given"));
                    f.report(
                        entry.key_span.clone(),
                        &self.path_of(key),
                        fault.suggest(*instead),
                    );
                }
            }
            Rule::OneOf(key, other) => {
                let given = [key, other].iter().any(|k| self.is_given(k));
                if !given {
                    self.report_neither(f, key, other);
                }
            }
            Rule::AnyOf(keys) => {
                if let (false, [key, other, ..]) = (keys.iter().any(|key| self.is_given(key)), keys) {
                    self.report_neither(f, key, other);
                }
            }
            Rule::ExactlyOne(keys) => self.check_exactly_one(f, keys),
            Rule::OnlyWith { key, other, value } => {
                if let Some(entry) = self.entry(key).filter(|_| !has_value(other, value)) {
                    let fault =
                        Fault::new(format!("`{key}` has a meaning only with `{other} = \"{value}\"`"));
                    let fault = fault.suggest(format!("add `{other} = \"{value}\"`, or remove `{key}`"));
                    f.report(entry.key_span.clone(), &self.path_of(key), fault);
                }
            }
            Rule::NeededWith { key, other, value } => {
                if has_value(other, value) && !self.is_given(key) {
                    let fault = Fault::new(format!("`{other} = \"{value}\"` needs `{key}`"));
                    let example = self.table.key(key).and_then(Key::example);
                    let fault = match example {
                        Some(example) => fault.suggest(format!("add for example `{example}`")),
                        None => fault,
                    };
                    f.report_missing(self.span.clone(), &self.path_of(key), fault);
                }
            }
            Rule::Requires { key, other } => {
                if let Some(entry) = self.entry(key).filter(|_| self.entry(other).is_none()) {
                    let fault = Fault::new(format!("`{key}` needs `{other}`"));
                    let example = self.table.key(other).and_then(Key::example);
                    let example = example.map_or_else(String::new, |e| format!(", for example `{e}`"));
                    let fault = fault.suggest(format!("add `{other}`{example}, or remove `{key}`"));
                    f.report(entry.key_span.clone(), &self.path_of(key), fault);
                }
            }
            Rule::NoneWith { keys, other, value } if has_value(other, value) => {
                for (key, entry) in keys.iter().filter_map(|key| self.entry(key).map(|e| (key, e))) {
                    let fault = Fault::new(format!("`{key}` has no meaning with `{other} = \"{value}\"`"));
                    let fault = fault.suggest(format!("remove `{key}`, or choose another `{other}`"));
                    f.report(entry.key_span.clone(), &self.path_of(key), fault);
                }
            }
            Rule::NoneWith { .. } => {}
        }
    }
}

impl Section<'_> {
    /// Whether a key is there, if misspelt.
    pub(super) fn is_given(&self, key: &'static str) -> bool {
        self.entry(key).is_some() || self.misspells(key)
    }

    /// Whether a key is there that another table has too.
    pub(super) fn has_any_of(&self, other: &Table) -> bool {
        self.entries.iter().any(|entry| other.key(&entry.key).is_some())
    }

    /// Says that one of two keys is needed.
    pub(super) fn report_neither(&self, f: &mut Findings<'_>, key: &'static str, other: &'static str) {
        let fault = Fault::new(format!("{} needs `{key}` or `{other}`", self.title()));
        let example = self.table.key(key).and_then(Key::example);
        let fault = fault.suggest(match example {
            Some(example) => format!("add for example `{example}`"),
            None => format!("add one of them: docs/config.md shows what is in `{key}` and in `{other}`"),
        });
        f.report_missing(self.span.clone(), &self.path_of(key), fault);
    }

    fn check_exactly_one(&self, f: &mut Findings<'_>, keys: &[&'static str]) {
        let mut given = keys.iter().filter_map(|key| self.entry(key));
        let quoted = || {
            keys.iter()
                .map(|key| format!("`{key}`"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        match (given.next(), given.next()) {
            (Some(one), Some(other)) => {
                let fault = Fault::new(format!("`{}` and `{}` may not both be given", one.key, other.key));
                let fault = fault.suggest(format!("keep one of {}", quoted()));
                f.report(other.key_span.clone(), &self.path_of(&other.key), fault);
            }
            (None, _) if !keys.iter().any(|key| self.misspells(key)) => {
                let fault = Fault::new(format!("{} needs one of {}", self.title(), quoted()));
                let example = keys
                    .first()
                    .and_then(|key| self.table.key(key))
                    .and_then(Key::example);
                let fault = fault.suggest(format!("add for example `{}`", example.unwrap_or_default()));
                f.report_missing(self.span.clone(), &self.path, fault);
            }
            _ => {}
        }
    }
}

/// Whether a table looks like a load balancer: it says what is balanced against.
fn is_load_balancer(node: &Node) -> bool {
    let telling = ["backend_servers", "listen", "listeners", "pools"];
    matches!(&node.value, Value::Table(entries) if entries.iter().any(|e| telling.contains(&e.key.as_str())))
}

/// Opens tables by name: the names must be [`Name`]s, and there must be one at least.
pub(super) fn named<'t>(
    f: &mut Findings<'_>,
    node: &'t Node,
    path: &str,
    table: &'static Table,
) -> Option<Vec<(Name, Section<'t>)>> {
    let title = if path.is_empty() { "the document" } else { path };
    let Value::Table(entries) = &node.value else {
        let found = node.value.kind();
        let fault = Fault::new(format!("{title} must be a table of tables by name, not {found}"));
        let fault = match path {
            "" => fault,
            _ => fault.suggest(format!("give each a table with its name, as in `[{path}.NAME]`")),
        };
        f.report(node.span.clone(), path, fault);
        return None;
    };
    if entries.is_empty() {
        let fault = Fault::new(format!("{title} needs at least one entry"));
        f.report_missing(node.span.clone(), path, fault);
        return None;
    }
    let mut opened = Vec::new();
    for entry in entries {
        let inner = join(path, &entry.key);
        let name = Name::parse(&entry.key).map_err(|_| super::text::name_fault(&entry.key));
        let name = match name {
            Ok(name) => Some(name),
            Err(fault) => {
                f.report(entry.key_span.clone(), &inner, fault);
                None
            }
        };
        let section = Section::open(f, &entry.node, inner, table);
        opened.extend(name.zip(section));
    }
    Some(opened)
}

/// A parsed text, or its fault reported.
pub(super) fn parsed<T>(
    f: &mut Findings<'_>,
    node: &Node,
    path: &str,
    result: Result<T, Fault>,
) -> Option<T> {
    result
        .map_err(|fault| f.report(node.span.clone(), path, fault))
        .ok()
}

/// An item of a list that must be text, parsed.
pub(super) fn item_text<T>(
    f: &mut Findings<'_>,
    (path, node): (&str, &Node),
    expected: &str,
    parse: impl Fn(&str) -> Result<T, Fault>,
) -> Option<T> {
    let Value::Text(text) = &node.value else {
        let fault = Fault::new(format!("an entry must be {expected}, not {}", node.value.kind()));
        f.report(node.span.clone(), path, fault);
        return None;
    };
    parsed(f, node, path, parse(text))
}

/// The number, when it lies in the range of its kind.
pub(super) fn within(kind: &Kind, number: i128) -> Option<u64> {
    let number = u64::try_from(number).ok()?;
    let fits = match kind {
        Kind::Duration { min, max, or_zero } => (*min..=*max).contains(&number) || (*or_zero && number == 0),
        Kind::Size { min, max } | Kind::Integer { min, max } => (*min..=*max).contains(&number),
        Kind::Percent { min, max } => (u64::from(*min)..=u64::from(*max)).contains(&number),
        _ => false,
    };
    fits.then_some(number)
}

/// A number in a smaller type. The declared range lies within every type that is asked for (a test holds it
/// there), so nothing is ever saturated.
pub(super) fn narrow<T: TryFrom<u64> + Bounded>(number: u64) -> T {
    T::try_from(number).unwrap_or(T::GREATEST)
}

/// Types that [`narrow`] makes.
pub(super) trait Bounded {
    const GREATEST: Self;
}

impl Bounded for u8 {
    const GREATEST: Self = Self::MAX;
}

impl Bounded for u16 {
    const GREATEST: Self = Self::MAX;
}

impl Bounded for u32 {
    const GREATEST: Self = Self::MAX;
}

/// The path of a key. It is shown, so nothing in it may command a terminal.
fn join(path: &str, key: &str) -> String {
    let key = match key.contains(char::is_control) {
        true => cut(key),
        false => key.to_owned(),
    };
    match path {
        "" => key,
        _ => format!("{path}.{key}"),
    }
}

fn unit_fault(declared: &Key, text: &str, error: units::UnitError) -> Fault {
    let key = declared.name;
    let digits = (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let short = match error {
        units::UnitError::Duration(text) => units::UnitError::Duration(cut(&text)),
        units::UnitError::Size(text) => units::UnitError::Size(cut(&text)),
        units::UnitError::Percent(text) => units::UnitError::Percent(cut(&text)),
    };
    let fault = Fault::new(format!("`{key}`: {short}"));
    if let Some(meant) = unit_meant(&declared.kind, text) {
        return fault.suggest(format!("write `{key} = \"{meant}\"`"));
    }
    match &declared.kind {
        Kind::Duration { .. } if digits => fault.suggest(format!(
            "add a unit, as in `{key} = \"{text}s\"`, or leave out the quotes: a bare number is milliseconds"
        )),
        Kind::Size { .. } if digits => fault.suggest(format!("add a unit, as in `{key} = \"{text}KiB\"`")),
        Kind::Percent { .. } if digits => fault.suggest(format!("add a percent sign: `{key} = \"{text}%\"`")),
        kind => fault.or_suggest(|| Some(format!("it takes {}", kind.range()?))),
    }
}

/// The value with the unit that another way of writing it means: `5 sec`, `64 kb`, `1 MB`.
fn unit_meant(kind: &Kind, text: &str) -> Option<String> {
    let compact: String = text.chars().take(20).filter(|c| !c.is_whitespace()).collect();
    let at = compact.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = compact.split_at_checked(at)?;
    let unit = unit.to_ascii_lowercase();
    let meant = match (kind, unit.as_str()) {
        (Kind::Duration { .. }, "ms" | "msec" | "msecs" | "millis" | "milliseconds") => "ms",
        (Kind::Duration { .. }, "s" | "sec" | "secs" | "second" | "seconds") => "s",
        (Kind::Duration { .. }, "m" | "min" | "mins" | "minute" | "minutes") => "m",
        (Kind::Duration { .. }, "h" | "hr" | "hrs" | "hour" | "hours") => "h",
        (Kind::Duration { .. }, "d" | "day" | "days") => {
            return Some(format!("{}h", number.parse::<u32>().ok()?.checked_mul(24)?));
        }
        (Kind::Size { .. }, "b" | "byte" | "bytes") => "B",
        (Kind::Size { .. }, "k" | "kib") => "KiB",
        (Kind::Size { .. }, "m" | "mib") => "MiB",
        (Kind::Size { .. }, "g" | "gib") => "GiB",
        (Kind::Size { .. }, "kb") => "KB",
        (Kind::Size { .. }, "mb") => "MB",
        (Kind::Size { .. }, "gb") => "GB",
        (Kind::Percent { .. }, "%" | "percent") => "%",
        _ => return None,
    };
    (!number.is_empty()).then(|| format!("{number}{meant}"))
}

/// The known word nearest to a wrong one, when it is near enough to be meant.
pub(super) fn closest<'k>(wrong: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    // Nobody types a word of this length by mistake, and comparing costs the product of the lengths.
    if wrong.len() > 64 {
        return None;
    }
    let wrong = wrong.to_ascii_lowercase().replace('-', "_");
    known
        .map(|word| {
            (
                strsim::damerau_levenshtein(&wrong, &word.to_ascii_lowercase()),
                word,
            )
        })
        .filter(|(distance, word)| *distance <= (word.len() / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// A text short enough for a message.
pub(super) fn cut(text: &str) -> String {
    const SHOWN: usize = 80;
    let text = without_credentials(text);
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// A URL without its user and password, which are nobody's business.
fn without_credentials(text: &str) -> Cow<'_, str> {
    let parts = text.split_once("://").and_then(|(scheme, rest)| {
        let (_, host) = rest.rsplit_once('@')?;
        Some(format!("{scheme}://<secret>@{host}"))
    });
    parts.map_or(Cow::Borrowed(text), Cow::Owned)
}
