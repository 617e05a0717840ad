//! `openapi.json` is what the API does: real responses and the document's own examples fit its schemas.
//!
//! That every route is in the document and the reverse is tested beside the routes, which no client can list.

use serde_json::{Value, json};

use crate::support::Response;

fn document() -> Value {
    serde_json::from_str(include_str!("../../openapi.json")).unwrap()
}

/// Asserts that `instance` fits a schema of the document.
fn assert_fits(document: &Value, schema: &Value, instance: &Value, what: &str) {
    let mut whole = schema.clone();
    whole["components"] = document["components"].clone();
    let validator = jsonschema::validator_for(&whole).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(instance)
        .map(|e| format!("{}: {e}", e.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{what}: {errors:?} in {instance}");
}

/// Every operation: method, a path that it serves, and the least role that it needs, or `none`.
pub(crate) fn operations() -> Vec<(String, String, String)> {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let each = paths.iter().flat_map(|(template, operations)| {
        let path: Vec<&str> = template
            .split('/')
            .map(|part| match part {
                "{lb}" => "shop",
                "{address}" => "10.0.0.1:9001",
                part if part.starts_with('{') => "full",
                part => part,
            })
            .collect();
        let path = path.join("/");
        operations
            .as_object()
            .unwrap()
            .iter()
            .map(move |(method, operation)| {
                let role = operation["x-role"].as_str().unwrap().to_owned();
                (method.to_uppercase(), path.clone(), role)
            })
    });
    each.collect()
}

/// The operation that serves `path`, if the document has one.
fn operation<'a>(document: &'a Value, method: &str, path: &str) -> Option<&'a Value> {
    let fits = |template: &str| {
        let (t, p): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
        t.len() == p.len() && t.iter().zip(p).all(|(t, p)| t.starts_with('{') || *t == p)
    };
    let paths = document["paths"].as_object().unwrap();
    let (_, operations) = paths.iter().find(|(template, _)| fits(template))?;
    operations.get(method.to_lowercase())
}

/// What the document says of a response: by status, following one reference.
fn described<'a>(document: &'a Value, operation: &'a Value, status: u16) -> &'a Value {
    let response = &operation["responses"][status.to_string()];
    match response["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => response,
    }
}

/// Holds a real response to the document: its status and media type are declared, its body fits the schema. What
/// the document does not know (unknown paths, wrong methods) must be a problem document.
pub(crate) fn hold(method: &str, path: &str, response: &Response) {
    let what = format!("{method} {path}: {}", response.status);
    let path = path.split('?').next().unwrap_or(path);
    let document = document();
    if response.status == 204 {
        assert!(response.body.is_empty(), "{what}");
        let operation = operation(&document, method, path).unwrap();
        return assert!(
            described(&document, operation, 204).is_object(),
            "{what} is not in the document"
        );
    }
    let media_type = response.field("content-type").unwrap().split(';').next().unwrap();
    let Some(operation) = operation(&document, method, path) else {
        let problem = json!({"$ref": "#/components/schemas/Problem"});
        assert_eq!(media_type, "application/problem+json", "{what}");
        return assert_fits(&document, &problem, &response.json(), &what);
    };
    let described = described(&document, operation, response.status);
    assert!(described.is_object(), "{what} is not in the document");
    let content = &described["content"][media_type];
    assert!(content.is_object(), "{what}: {media_type} is not in the document");
    let body = if media_type.ends_with("json") {
        response.json()
    } else {
        Value::String(response.body.clone())
    };
    assert_fits(&document, &content["schema"], &body, &what);
}

/// Examples are what people copy: each fits the schema beside it.
#[test]
fn every_example_fits_its_schema() {
    let document = document();
    let mut examples = 0;
    let mut places = vec![&document];
    while let Some(place) = places.pop() {
        if let (Some(schema), Some(example)) = (place.get("schema"), place.get("example")) {
            assert_fits(&document, schema, example, "example");
            examples += 1;
        }
        match place {
            Value::Object(map) => places.extend(map.values()),
            Value::Array(items) => places.extend(items),
            _ => {}
        }
    }
    assert!(examples >= 10, "only {examples} examples were found");
}

/// A schema nobody refers to describes nothing.
#[test]
fn every_schema_is_used() {
    let text = include_str!("../../openapi.json");
    for name in document()["components"]["schemas"].as_object().unwrap().keys() {
        let reference = format!("\"#/components/schemas/{name}\"");
        assert!(text.contains(&reference), "{name} is not used");
    }
}
