//! One tree with places for both notations, so that everything after it is written once.

use std::ops::Range;

use jsonc_parser::common::Ranged;
use toml::de::{DeTable, DeValue};

use super::MAX_DIAGNOSTICS;
use super::depth::{MAX_DEPTH, too_deep};
use crate::diagnostic::{Diagnostic, Fault, Source};

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) span: Range<usize>,
    pub(super) value: Value,
}

/// What a value is.
#[derive(Debug)]
pub(super) enum Value {
    Text(String),
    /// Saturated when it has more than 128 bits: every range check refuses it.
    Integer(i128),
    Decimal,
    Bool(bool),
    Date,
    Null,
    List(Vec<Node>),
    /// In the order written.
    Table(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Range<usize>,
    pub(super) node: Node,
}

impl Value {
    /// What it is called in a message.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Integer(_) => "a whole number",
            Self::Decimal => "a decimal number",
            Self::Bool(true) => "`true`",
            Self::Bool(false) => "`false`",
            Self::Date => "a date",
            Self::Null => "null",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// Reads TOML; what can be read in spite of errors is returned beside them. `None` when one of them tears the text:
/// that one is then the last, for what follows it would be told in places where it does not stand.
pub(super) fn read_toml(source: &Source<'_>, text: &str) -> (Option<Node>, Vec<Diagnostic>) {
    if let Some(at) = too_deep(text) {
        let fault = Fault::new(format!("nested deeper than {MAX_DEPTH} tables and lists"));
        return (None, vec![source.diagnose(at..at + 1, "", fault)]);
    }
    let (root, errors) = DeTable::parse_recoverable(text);
    let tree = Node {
        span: 0..0,
        value: from_toml_table(root.get_ref()),
    };
    let mut errors: Vec<(Range<usize>, &str)> = errors
        .iter()
        .map(|error| (error.span().unwrap_or(0..0), error.message()))
        .collect();
    errors.sort_by_key(|(span, _)| span.start);
    let tear = errors
        .iter()
        .position(|(span, message)| tears(source, span.start, message));
    errors.truncate(tear.map_or(errors.len(), |at| at + 1));
    // The second error of a line is what the first left of it.
    errors.dedup_by_key(|(span, _)| source.line(span.start));
    errors.truncate(MAX_DIAGNOSTICS + 1);
    let told = errors
        .into_iter()
        .map(|(span, message)| toml_error(source, &tree, message, span))
        .collect();
    (tear.is_none().then_some(tree), told)
}

/// Whether an error leaves unknown where what follows belongs: in a heading, or in something over several lines
/// that is not closed. Others spoil their own line only.
fn tears(source: &Source<'_>, at: usize, message: &str) -> bool {
    let line = source.line_text(source.line(at)).trim();
    let is_heading = line.starts_with('[') || (line.ends_with(']') && !line.contains('='));
    let is_open = ["array", "inline table", "key-value pairs", "multi-line"];
    (is_heading && !message.starts_with("duplicate key"))
        || is_open.iter().any(|words| message.contains(words))
}

/// Reads strict JSON (RFC 8259). `None` beside an error: what follows one cannot be read.
pub(super) fn read_json(source: &Source<'_>, text: &str) -> (Option<Node>, Vec<Diagnostic>) {
    let strict = jsonc_parser::ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    match jsonc_parser::parse_to_ast(text, &jsonc_parser::CollectOptions::default(), &strict) {
        Ok(parsed) => {
            let mut repeated = Vec::new();
            let tree = parsed.value.map(|v| from_json(source, v, &mut repeated));
            if tree.is_none() {
                repeated.push(source.diagnose(0..0, "", Fault::new("the document is empty")));
            }
            (tree, repeated)
        }
        Err(error) => {
            let span = error.range().start..error.range().end;
            let cause = format!("not JSON: {}", lower_first(&error.kind().to_string()));
            (None, vec![source.diagnose(span, "", Fault::new(cause))])
        }
    }
}

fn from_toml(value: &DeValue<'_>, span: Range<usize>) -> Node {
    let value = match value {
        DeValue::String(text) => Value::Text(text.clone().into_owned()),
        DeValue::Integer(number) => {
            let sign = if number.as_str().starts_with('-') {
                i128::MIN
            } else {
                i128::MAX
            };
            Value::Integer(i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(sign))
        }
        DeValue::Float(_) => Value::Decimal,
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(_) => Value::Date,
        DeValue::Array(items) => {
            let nodes = items.iter().map(|item| from_toml(item.get_ref(), item.span()));
            Value::List(nodes.collect())
        }
        DeValue::Table(table) => from_toml_table(table),
    };
    Node { span, value }
}

fn from_toml_table(table: &DeTable<'_>) -> Value {
    let entries = table.iter().map(|(key, value)| Entry {
        key: key.get_ref().clone().into_owned(),
        key_span: key.span(),
        node: from_toml(value.get_ref(), value.span()),
    });
    let mut entries: Vec<Entry> = entries.collect();
    entries.sort_by_key(|entry| entry.key_span.start);
    Value::Table(entries)
}

fn toml_error(source: &Source<'_>, tree: &Node, message: &str, span: Range<usize>) -> Diagnostic {
    let found = source.slice(span.clone());
    let fault = if message.starts_with("duplicate key") {
        let cause = format!("`{found}` is given twice");
        let first = first_use(source, tree, span.start, found);
        Fault::new(first.map_or_else(
            || cause.clone(),
            |line| format!("{cause}; it is first given in line {line}"),
        ))
    } else {
        Fault::new(format!("not TOML: {message}"))
    };
    let bare = !found.is_empty() && found.chars().all(|c| !c.is_control() && c != '"');
    let is_json = source.line(span.start) == 1 && source.line_text(1).trim_start().starts_with('{');
    let fault = match is_json {
        true => fault.suggest("this looks like JSON: give the file a name that ends in `.json`"),
        false => fault,
    };
    let fault = match message {
        _ if message.contains("array table") => fault,
        _ if message.contains("array") => {
            fault.suggest("put commas between the entries of a list, and close it with `]`")
        }
        _ if message.contains("inline table") || message.contains("key-value pairs") => {
            fault.suggest("put commas between the keys of a table in braces, and close it with `}`")
        }
        _ => fault,
    };
    let fault = match message.starts_with("string values must be quoted") && bare {
        true => fault.suggest("put text in double quotes"),
        false => fault,
    };
    source.diagnose(span, "", fault)
}

/// Line where a repeated key first stands, where that is certain: the same table header, or the only other key
/// of that name before it.
fn first_use(source: &Source<'_>, tree: &Node, at: usize, key: &str) -> Option<usize> {
    let line = source.line(at);
    let header = source.line_text(line).trim();
    if header.starts_with('[') {
        return (1..line).find(|l| source.line_text(*l).trim() == header);
    }
    let mut found = Vec::new();
    keys_named(tree, key, &mut found);
    match found.as_slice() {
        [only] if *only < at => Some(source.line(*only)),
        _ => None,
    }
}

fn keys_named(node: &Node, key: &str, found: &mut Vec<usize>) {
    match &node.value {
        Value::List(items) => items.iter().for_each(|item| keys_named(item, key, found)),
        Value::Table(entries) => {
            for entry in entries {
                if entry.key == key {
                    found.push(entry.key_span.start);
                }
                keys_named(&entry.node, key, found);
            }
        }
        _ => {}
    }
}

fn from_json(
    source: &Source<'_>,
    value: jsonc_parser::ast::Value<'_>,
    repeated: &mut Vec<Diagnostic>,
) -> Node {
    use jsonc_parser::ast::Value as Json;
    let range = value.range();
    let value = match value {
        Json::StringLit(text) => Value::Text(text.value.into_owned()),
        Json::NumberLit(number) => from_json_number(number.value),
        Json::BooleanLit(flag) => Value::Bool(flag.value),
        Json::NullKeyword(_) => Value::Null,
        Json::Array(array) => {
            let items = array.elements.into_iter();
            Value::List(items.map(|v| from_json(source, v, repeated)).collect())
        }
        Json::Object(object) => Value::Table(from_json_object(source, object, repeated)),
    };
    Node {
        span: range.start..range.end,
        value,
    }
}

fn from_json_object(
    source: &Source<'_>,
    object: jsonc_parser::ast::Object<'_>,
    repeated: &mut Vec<Diagnostic>,
) -> Vec<Entry> {
    let mut lines = std::collections::BTreeMap::new();
    let mut entries = Vec::new();
    for property in object.properties {
        let name = property.name.range();
        let key_span = name.start..name.end;
        let key = property.name.into_string();
        let node = from_json(source, property.value, repeated);
        if let Some(first) = lines.get(&key) {
            if repeated.len() > MAX_DIAGNOSTICS {
                continue;
            }
            let cause = format!("`{key}` is given twice; it is first given in line {first}");
            repeated.push(source.diagnose(key_span, "", Fault::new(cause)));
            continue;
        }
        lines.insert(key.clone(), source.line(key_span.start));
        entries.push(Entry { key, key_span, node });
    }
    entries
}

fn from_json_number(text: &str) -> Value {
    if text.contains(['.', 'e', 'E']) {
        return Value::Decimal;
    }
    let sign = if text.starts_with('-') {
        i128::MIN
    } else {
        i128::MAX
    };
    Value::Integer(text.parse().unwrap_or(sign))
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_lowercase().chain(chars).collect())
        .unwrap_or_default()
}
