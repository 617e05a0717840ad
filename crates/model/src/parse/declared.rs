//! A text that holds load balancers only, for the store: what it means, and what stands there, as JSON.
//!
//! The store keeps load balancers as their author wrote them, in the shape of the config and without its defaults:
//! so that a later version's defaults hold for them too, and `get` shows what was applied. What belongs to a node
//! itself is refused here, because no other node would ever hear of it.
//!
//! Secrets are in the store and in no answer: [`redact`] puts [`REDACTED`] in their places. Where a text has that mark
//! and the load balancer it is meant for has a secret in the same place, the text means that one: what was printed
//! can be changed and applied again. Where there is none, the mark is an error and never taken for a secret.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde_json::Value as Json;

use super::section::{self, Findings, Section};
use super::tree::{self, Node, Value};
use super::{DOCUMENT_KEYS, load_balancer, refuse_too_long};
use crate::config::{LoadBalancer, Name};
use crate::diagnostic::{Diagnostic, Fault, Source};
use crate::plan::Format;
use crate::schema;

/// What stands in the place of a secret wherever something declared is shown.
pub const REDACTED: &str = "<secret>";

/// Keys whose texts are secrets, wherever they stand in a load balancer.
const SECRET_KEYS: [&str; 5] = ["secret", "key_pem", "token", "tokens", "password"];

/// A load balancer as a text declares it.
#[derive(Clone, Debug)]
pub struct Declared {
    /// What stands there: the table of the load balancer as JSON, secrets and all.
    pub json: Json,
    /// What it means.
    pub balancer: Arc<LoadBalancer>,
}

/// The load balancers of a text.
#[derive(Clone, Debug)]
pub struct DeclaredText {
    /// By name.
    pub load_balancers: BTreeMap<Name, Declared>,
    /// What is probably not meant, in the order of the text.
    pub warnings: Vec<Diagnostic>,
}

/// Reads load balancers: a document with `load_balancers` and nothing else, or in JSON just their map. `known` has the
/// JSON of a load balancer that is declared already, for the secrets that [`REDACTED`] stands for.
///
/// That listeners do not clash with those of others, and that a node has what routes by country need, is not looked
/// at here: it depends on where the load balancers go.
///
/// # Errors
/// Everything that is wrong, in the order of the text, as [`check_toml`](super::check_toml) tells it.
pub fn check_declared(
    text: &str,
    format: Format,
    file: &str,
    known: impl Fn(&str) -> Option<Json>,
) -> Result<DeclaredText, Vec<Diagnostic>> {
    let source = Source::new(file, text);
    refuse_too_long(&source, text)?;
    let (mut root, errors) = match format {
        Format::Toml => tree::read_toml(&source, text),
        Format::Json => tree::read_json(&source, text),
    };
    let mut lost = Vec::new();
    if let Some(balancers) = root.as_mut().and_then(|root| balancers_of(root, format)) {
        restore_all(balancers, known, &mut lost);
    }
    let mut findings = Findings::new(&source, errors);
    let built = match lost.is_empty() {
        true => root.and_then(|root| read(&mut findings, &root, format)),
        false => {
            lost.into_iter()
                .for_each(|(span, path)| findings.report(span, &path, lost_secret()));
            None
        }
    };
    let (load_balancers, warnings) = findings.finish(built)?;
    Ok(DeclaredText {
        load_balancers,
        warnings,
    })
}

/// Puts [`REDACTED`] in the place of each secret.
pub fn redact(json: &mut Json) {
    match json {
        Json::Array(items) => items.iter_mut().for_each(redact),
        Json::Object(entries) => {
            for (key, value) in entries {
                match SECRET_KEYS.contains(&key.as_str()) {
                    true => hide(value),
                    false => redact(value),
                }
            }
        }
        _ => {}
    }
}

/// A text, or each text of a list; a table under the name of a secret is somebody's pool or field.
fn hide(json: &mut Json) {
    match json {
        Json::String(text) => REDACTED.clone_into(text),
        Json::Array(items) => items.iter_mut().for_each(hide),
        other => redact(other),
    }
}

/// The table with the load balancers: the document's, or in JSON the whole text.
fn balancers_of(root: &mut Node, format: Format) -> Option<&mut Node> {
    if is_bare(root, format) {
        return Some(root);
    }
    let Value::Table(entries) = &mut root.value else {
        return None;
    };
    let entry = entries.iter_mut().find(|entry| entry.key == "load_balancers")?;
    Some(&mut entry.node)
}

fn is_bare(root: &Node, format: Format) -> bool {
    match (&root.value, format) {
        (Value::Table(entries), Format::Json) => {
            !entries.iter().any(|e| DOCUMENT_KEYS.contains(&e.key.as_str()))
        }
        _ => false,
    }
}

fn read(f: &mut Findings<'_>, root: &Node, format: Format) -> Option<BTreeMap<Name, Declared>> {
    let (path, balancers) = match is_bare(root, format) {
        true => ("", root),
        false => ("load_balancers", document(f, root)?),
    };
    let mut built = BTreeMap::new();
    for (name, section) in section::named(f, balancers, path, &schema::LOAD_BALANCER)? {
        let json = entry(balancers, name.as_str()).map(to_json);
        let balancer = load_balancer::load_balancer(f, &name, &section);
        if let Some((json, balancer)) = json.zip(balancer) {
            let balancer = Arc::new(balancer);
            built.insert(name, Declared { json, balancer });
        }
    }
    Some(built)
}

/// The load balancers of a document that holds nothing else.
fn document<'t>(f: &mut Findings<'_>, root: &'t Node) -> Option<&'t Node> {
    let section = Section::open(f, root, String::new(), &schema::ROOT)?;
    for key in schema::ROOT.all_keys().filter(|key| key.name != "load_balancers") {
        if let Some(entry) = section.entry(key.name) {
            let fault = Fault::new(format!(
                "`{}` belongs to a node's own file: the store holds load balancers only",
                key.name
            ))
            .suggest("remove it here, and change it in the file that the node was started with");
            f.report(entry.key_span.clone(), key.name, fault);
        }
    }
    section.entry("load_balancers").map(|entry| &entry.node)
}

fn entry<'t>(table: &'t Node, key: &str) -> Option<&'t Node> {
    let Value::Table(entries) = &table.value else {
        return None;
    };
    entries
        .iter()
        .find(|entry| entry.key == key)
        .map(|entry| &entry.node)
}

/// What stands there. What JSON cannot say, or no key takes, is null: the checks have refused it.
fn to_json(node: &Node) -> Json {
    match &node.value {
        Value::Text(text) => Json::from(text.as_str()),
        Value::Integer(number) => match u64::try_from(*number) {
            Ok(number) => Json::from(number),
            Err(_) => i64::try_from(*number).map_or(Json::Null, Json::from),
        },
        Value::Bool(flag) => Json::from(*flag),
        Value::Decimal | Value::Date | Value::Null => Json::Null,
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Table(entries) => {
            let entries = entries
                .iter()
                .map(|entry| (entry.key.clone(), to_json(&entry.node)));
            Json::Object(entries.collect())
        }
    }
}

/// Marks for which there is no secret, with their places and paths.
type Lost = Vec<(Range<usize>, String)>;

/// Puts the secrets that the marks stand for in their places.
fn restore_all(balancers: &mut Node, known: impl Fn(&str) -> Option<Json>, lost: &mut Lost) {
    let Value::Table(entries) = &mut balancers.value else {
        return;
    };
    for entry in entries.iter_mut().filter(|entry| has_mark(&entry.node, false)) {
        let path = format!("load_balancers.{}", entry.key);
        restore(&mut entry.node, known(&entry.key).as_ref(), (path, false), lost);
    }
}

fn has_mark(node: &Node, of_secret: bool) -> bool {
    match &node.value {
        Value::Text(text) => of_secret && text == REDACTED,
        Value::List(items) => items.iter().any(|item| has_mark(item, of_secret)),
        Value::Table(entries) => entries
            .iter()
            .any(|entry| has_mark(&entry.node, SECRET_KEYS.contains(&entry.key.as_str()))),
        _ => false,
    }
}

/// Things of tables go by their keys. Things of lists go by their places, and only while all that is shown of them is
/// the same: another one may have come before them.
fn restore(node: &mut Node, old: Option<&Json>, (path, of_secret): (String, bool), lost: &mut Lost) {
    match &mut node.value {
        Value::Text(text) if of_secret && text == REDACTED => match old {
            Some(Json::String(secret)) => text.clone_from(secret),
            _ => lost.push((node.span.clone(), path)),
        },
        Value::List(items) => {
            let all_marks = items
                .iter()
                .all(|item| matches!(&item.value, Value::Text(text) if text == REDACTED));
            let old = old.and_then(Json::as_array);
            let old = old.filter(|old| !of_secret || (all_marks && old.len() == items.len()));
            for (at, item) in items.iter_mut().enumerate() {
                let same = old
                    .and_then(|old| old.get(at))
                    .filter(|old| of_secret || looks_like(item, old));
                restore(item, same, (format!("{path}[{at}]"), of_secret), lost);
            }
        }
        Value::Table(entries) => {
            for entry in entries {
                let below = (
                    format!("{path}.{}", entry.key),
                    SECRET_KEYS.contains(&entry.key.as_str()),
                );
                restore(
                    &mut entry.node,
                    old.and_then(|old| old.get(&entry.key)),
                    below,
                    lost,
                );
            }
        }
        _ => {}
    }
}

fn looks_like(item: &Node, old: &Json) -> bool {
    let (mut shown, mut before) = (to_json(item), old.clone());
    redact(&mut shown);
    redact(&mut before);
    shown == before
}

fn lost_secret() -> Fault {
    Fault::new(format!(
        "`{REDACTED}` stands for a secret that is not shown, and there is none in this place that could be kept"
    ))
    .suggest("write the secret itself")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::parse::parse_balancer;
    use serde_json::json;

    fn nothing(_: &str) -> Option<Json> {
        None
    }

    fn toml(text: &str) -> Result<DeclaredText, Vec<Diagnostic>> {
        check_declared(text, Format::Toml, "lbs.toml", nothing)
    }

    fn told(errors: &[Diagnostic]) -> Vec<(u32, String)> {
        let told = errors.iter().map(|d| (d.line, d.cause.clone()));
        told.collect()
    }

    const SHOP: &str = r#"
[load_balancers.shop]
listen = "127.0.0.1:7700"
backend_servers = ["10.0.0.1:80", { address = "10.0.0.2:80", weight = 3 }]
sticky = { cookie = "evk", secret = ["0123456789abcdef", "fedcba9876543210"] }
"#;

    /// Not the full form: the defaults of a later version hold for it too. The address of an admin API by default is
    /// free for whoever wants it: it is not known which node this is for.
    #[test]
    fn what_stands_there_is_kept_as_it_is_and_reads_back_as_the_same() {
        let read = toml(SHOP).unwrap();
        let (name, shop) = read.load_balancers.first_key_value().unwrap();
        assert_eq!(
            shop.json,
            json!({
                "listen": "127.0.0.1:7700",
                "backend_servers": ["10.0.0.1:80", {"address": "10.0.0.2:80", "weight": 3}],
                "sticky": {"cookie": "evk", "secret": ["0123456789abcdef", "fedcba9876543210"]},
            })
        );
        assert_eq!(
            parse_balancer(name, &shop.json.to_string(), "x").unwrap(),
            *shop.balancer
        );
        for text in [
            json!({"shop": shop.json}).to_string(),
            json!({"load_balancers": {"shop": shop.json}}).to_string(),
        ] {
            let again = check_declared(&text, Format::Json, "lbs.json", nothing).unwrap();
            assert_eq!(again.load_balancers[name].json, shop.json);
            assert_eq!(again.load_balancers[name].balancer, shop.balancer);
        }
    }

    #[test]
    fn what_belongs_to_a_node_is_refused_in_its_place_with_all_other_errors() {
        let text =
            format!("[node]\nname = \"x\"\n[admin]\nlisten = \"127.0.0.1:1\"\n{SHOP}algoritm = \"random\"\n");
        let errors = toml(&text).unwrap_err();
        let told = told(&errors);
        assert_eq!(
            told.iter().map(|(line, _)| *line).collect::<Vec<_>>(),
            [1, 3, 10],
            "{told:?}"
        );
        assert!(
            told[0].1.contains("`node` belongs to a node's own file"),
            "{told:?}"
        );
        assert!(told[2].1.contains("algoritm"), "{told:?}");
    }

    #[test]
    fn a_text_without_a_load_balancer_is_refused() {
        assert!(toml("").is_err());
        assert!(check_declared("{}", Format::Json, "x", nothing).is_err());
        assert!(check_declared("[1]", Format::Json, "x", nothing).is_err());
    }

    #[test]
    fn secrets_are_hidden_and_names_that_look_like_them_are_not() {
        let mut json = json!({
            "pools": {"secret": {"backend_servers": ["10.0.0.1:80"]}},
            "sticky": {"secret": "0123456789abcdef"},
            "tls": {"certificates": [{"cert": "a.pem", "key_pem": "-----BEGIN"}]},
        });
        redact(&mut json);
        assert_eq!(
            json,
            json!({
                "pools": {"secret": {"backend_servers": ["10.0.0.1:80"]}},
                "sticky": {"secret": "<secret>"},
                "tls": {"certificates": [{"cert": "a.pem", "key_pem": "<secret>"}]},
            })
        );
    }

    /// Scenario: what was shown is changed elsewhere and comes back.
    #[test]
    fn a_mark_keeps_the_secret_that_is_there() {
        let shop = toml(SHOP).unwrap().load_balancers.into_values().next().unwrap();
        let known = |name: &str| (name == "shop").then(|| shop.json.clone());
        let mut shown = shop.json.clone();
        redact(&mut shown);
        shown["listen"] = json!("127.0.0.1:8080");
        let text = json!({"shop": shown}).to_string();
        let read = check_declared(&text, Format::Json, "x", known).unwrap();
        let again = read.load_balancers.into_values().next().unwrap();
        assert_eq!(again.json["sticky"], shop.json["sticky"]);
        assert_eq!(again.json["listen"], "127.0.0.1:8080");
        let renamed = json!({"other": shown}).to_string();
        let errors = check_declared(&renamed, Format::Json, "x", known).unwrap_err();
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(
            errors[0].cause.contains("`<secret>` stands for a secret"),
            "{errors:?}"
        );
        assert_eq!(errors[0].key, "load_balancers.other.sticky.secret[0]");
    }

    /// Which of two is meant cannot be known: nothing is guessed.
    #[test]
    fn a_mark_in_a_list_that_changed_is_refused() {
        let old = json!({"sticky": {"secret": ["aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"]},
            "certificates": [{"cert": "a", "key_pem": "A"}, {"cert": "b", "key_pem": "B"}]});
        for (new, left) in [
            (json!({"sticky": {"secret": ["<secret>", "<secret>"]}}), 0),
            (json!({"sticky": {"secret": ["cccccccccccccccc", "<secret>"]}}), 1),
            (json!({"sticky": {"secret": ["<secret>"]}}), 1),
            (json!({"certificates": [{"cert": "a", "key_pem": "<secret>"}]}), 0),
            (json!({"certificates": [{"cert": "b", "key_pem": "<secret>"}]}), 1),
        ] {
            let text = json!({ "x": new }).to_string();
            let source = Source::new("x", &text);
            let mut root = tree::read_json(&source, &text).0.unwrap();
            let mut lost = Vec::new();
            restore_all(&mut root, |_| Some(old.clone()), &mut lost);
            assert_eq!(lost.len(), left, "{new}");
        }
    }
}
