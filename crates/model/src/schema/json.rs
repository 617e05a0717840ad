//! The JSON Schema of the document.

use serde_json::{Map, Value, json};

use super::{ALL, Default, Form, Key, Kind, PATTERN, ROOT, Rule, Table};
use crate::units::{DURATION_PATTERN, PERCENT_PATTERN, SIZE_PATTERN};

/// The JSON Schema (draft 2020-12) of a config document, in TOML or JSON.
///
/// It holds keys, types, numeric ranges, forms of text and which keys go together. What it cannot say stays with
/// the parser: ranges of what is written with units, names and addresses that may stand only once, and that a
/// route's pool exists.
pub fn json_schema() -> Value {
    let mut root = table(&ROOT);
    let mut definitions = Map::new();
    for each in ALL.iter().filter(|each| each.id != ROOT.id) {
        definitions.insert(each.id.to_owned(), Value::Object(table(each)));
    }
    root.insert(
        "$schema".to_owned(),
        json!("https://json-schema.org/draft/2020-12/schema"),
    );
    root.insert("title".to_owned(), json!("Evenkeel config"));
    root.insert("$defs".to_owned(), Value::Object(definitions));
    Value::Object(root)
}

fn table(table: &Table) -> Map<String, Value> {
    let mut properties = Map::new();
    for key in table.all_keys() {
        properties.insert(key.name.to_owned(), property(key));
    }
    let alternative = |name: &str| table.all_rules().any(|rule| rule.is_alternative(name));
    let required: Vec<&str> = table
        .all_keys()
        .filter(|key| matches!(key.default, Default::Required) && !alternative(key.name))
        .map(|key| key.name)
        .collect();
    let mut schema = Map::new();
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("description".to_owned(), json!(table.about));
    schema.insert("properties".to_owned(), Value::Object(properties));
    schema.insert("additionalProperties".to_owned(), json!(false));
    if !required.is_empty() {
        schema.insert("required".to_owned(), json!(required));
    }
    let rules: Vec<Value> = table.all_rules().map(rule).collect();
    if !rules.is_empty() {
        schema.insert("allOf".to_owned(), Value::Array(rules));
    }
    schema
}

fn property(key: &Key) -> Value {
    let mut schema = kind(&key.kind);
    if let Value::Object(fields) = &mut schema {
        fields.insert("description".to_owned(), json!(key.about));
        if let Default::Is(text) = key.default
            && let Some(value) = toml_value(text)
        {
            fields.insert("default".to_owned(), value);
        }
    }
    schema
}

/// A TOML value as JSON.
fn toml_value(text: &str) -> Option<Value> {
    let table: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
    serde_json::to_value(table.get("value")?).ok()
}

fn rule(rule: &Rule) -> Value {
    let has_value =
        |key: &str, value: &str| json!({ "properties": { key: { "const": value } }, "required": [key] });
    match rule {
        Rule::NotTogether { key, other, .. } => json!({ "not": { "required": [key, other] } }),
        Rule::OneOf(key, other) => json!({ "anyOf": [{ "required": [key] }, { "required": [other] }] }),
        Rule::AnyOf(keys) => {
            let each: Vec<Value> = keys.iter().map(|key| json!({ "required": [key] })).collect();
            json!({ "anyOf": each })
        }
        Rule::ExactlyOne(keys) => {
            let each: Vec<Value> = keys.iter().map(|key| json!({ "required": [key] })).collect();
            json!({ "oneOf": each })
        }
        Rule::OnlyWith { key, other, value } => {
            json!({ "if": { "required": [key] }, "then": has_value(other, value) })
        }
        Rule::NeededWith { key, other, value } => {
            json!({ "if": has_value(other, value), "then": { "required": [key] } })
        }
        Rule::Requires { key, other } => json!({ "dependentRequired": { *key: [other] } }),
        Rule::NoneWith { keys, other, value } => {
            let any: Vec<Value> = keys.iter().map(|key| json!({ "required": [key] })).collect();
            json!({ "if": has_value(other, value), "then": { "not": { "anyOf": any } } })
        }
    }
}

fn kind(kind_of: &Kind) -> Value {
    match kind_of {
        Kind::Text(form) => text(*form),
        Kind::Duration { min, max, or_zero } => {
            let zero = (*or_zero && *min > 0).then(|| json!({ "const": 0 }));
            with_unit(DURATION_PATTERN, *min, *max, zero)
        }
        Kind::Size { min, max } => with_unit(SIZE_PATTERN, *min, *max, None),
        Kind::Percent { .. } => json!({ "type": "string", "pattern": PERCENT_PATTERN }),
        Kind::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::OneOf(values) => json!({ "enum": values }),
        Kind::Table(table) => reference(table),
        Kind::TableOrFalse(table) => json!({ "anyOf": [reference(table), { "const": false }] }),
        Kind::List { of, min } => json!({ "type": "array", "items": kind(of), "minItems": min }),
        Kind::OneOrList(of) => {
            json!({ "anyOf": [kind(of), { "type": "array", "items": kind(of), "minItems": 1 }] })
        }
        Kind::Either(kinds) => json!({ "anyOf": kinds.iter().map(kind).collect::<Vec<_>>() }),
        Kind::Named(table) => json!({
            "type": "object",
            "propertyNames": text(Form::Name),
            "additionalProperties": reference(table),
            "minProperties": 1,
        }),
        Kind::Fields => json!({
            "type": "object",
            "propertyNames": text(Form::FieldName),
            "additionalProperties": text(Form::FieldValue),
        }),
        Kind::Labels => json!({
            "type": "object",
            "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_]{0,62}$" },
            "additionalProperties": text(Form::Words),
        }),
        Kind::Pages => json!({
            "type": "object",
            "propertyNames": { "pattern": "^([45]xx|[45][0-9]{2})$" },
            "additionalProperties": text(Form::File),
        }),
        Kind::Conditions { names, values } => json!({
            "type": "object",
            "propertyNames": text(*names),
            "additionalProperties": { "anyOf": [text(*values), { "type": "boolean" }, reference(&PATTERN)] },
            "minProperties": 1,
        }),
    }
}

fn reference(table: &Table) -> Value {
    json!({ "$ref": format!("#/$defs/{}", table.id) })
}

fn text(form: Form) -> Value {
    json!({ "type": "string", "pattern": form.pattern() })
}

fn with_unit(pattern: &str, min: u64, max: u64, or: Option<Value>) -> Value {
    let text = json!({ "type": "string", "pattern": pattern, "minLength": 1 });
    let number = json!({ "type": "integer", "minimum": min, "maximum": max });
    let forms: Vec<Value> = [text, number].into_iter().chain(or).collect();
    json!({ "anyOf": forms })
}
