use std::collections::BTreeSet;

use super::*;
use crate::api::enter;
use crate::telemetry::metrics::{ApiOperation, Label};

fn document() -> Value {
    let (_, described) = crate::api::operations().split_for_parts();
    serde_json::from_slice(&Document::new(&described).0).unwrap()
}

fn each(document: &Value) -> Vec<(http::Method, String, Value)> {
    let mut each = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let method = method.to_uppercase().parse().unwrap();
            each.push((method, path.clone(), operation.clone()));
        }
    }
    each
}

/// The metric and the audit log know an operation by its route.
#[test]
fn every_operation_has_a_name_and_every_name_an_operation() {
    let mut names = BTreeSet::new();
    for (method, path, operation) in each(&document()) {
        let name = enter::operation(&method, &format!("{}{path}", crate::api::PATH));
        assert_eq!(operation["operationId"], name.word(), "{method} {path}");
        assert!(names.insert(name.word()), "{method} {path}");
    }
    let known = ApiOperation::ALL.iter().filter(|name| **name != ApiOperation::Other);
    assert_eq!(names, known.map(|name| name.word()).collect());
}

#[test]
fn every_status_is_said_and_every_reference_leads_somewhere() {
    let document = document();
    for (method, path, operation) in each(&document) {
        let responses = operation["responses"].as_object().unwrap();
        let has = |status: &str| responses.contains_key(status);
        let is_open = operation["operationId"] == "openapi";
        assert!(has("200") && has("403"), "{method} {path}");
        assert_eq!(
            has("401") && has("429") && has("503") && has("500"),
            !is_open,
            "{method} {path}"
        );
        assert_eq!(
            has("413") && has("415") && has("422"),
            operation["requestBody"].is_object()
        );
        assert_eq!(has("409"), method == http::Method::POST);
        assert!(
            responses.keys().all(|status| !status.ends_with("XX")),
            "{method} {path}"
        );
        let scopes = operation["security"].as_array().unwrap();
        assert_eq!(
            scopes.iter().any(|scope| scope["key"].is_array()),
            !is_open,
            "{method} {path}"
        );
    }
    check_references(&document, &document);
}

fn check_references(part: &Value, whole: &Value) {
    match part {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(whole.pointer(pointer).is_some(), "{reference}");
            }
            fields.values().for_each(|field| check_references(field, whole));
        }
        Value::Array(items) => items.iter().for_each(|item| check_references(item, whole)),
        _ => {}
    }
}
