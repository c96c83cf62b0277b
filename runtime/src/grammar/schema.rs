//! Closes the objects of JSON schemas: they have no members but those that the schema names.
//!
//! JSON Schema allows any further member by default, and a weak model then never ends an object. Closing an object only
//! removes answers, so each answer is still valid under the given schema. Where several schemas apply to one value,
//! closing one could forbid what another requires, so those schemas do not change.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// Keywords that combine a schema with others, or negate it.
const COMBINING: [&str; 11] = [
    "allOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "patternProperties",
    "dependentSchemas",
    "contains",
    "$dynamicRef",
    "$recursiveRef",
];

/// Keywords that refer to other schemas. They combine schemas only where other keywords are beside them.
const REFERRING: [&str; 2] = ["$ref", "anyOf"];

/// Keywords that do not constrain a value.
const ANNOTATIONS: [&str; 12] = [
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
];

/// Adds `additionalProperties: false` to each object that names its properties and does not mention others.
pub(super) fn close_objects(mut schema: Value) -> Value {
    let open: BTreeSet<String> = open_places(&schema).into_iter().map(str::to_owned).collect();
    close(&mut schema, "", &open);
    schema
}

/// The places of schemas that stay open: the targets of references inside combined schemas, and the targets of
/// references inside those. A reference that cannot be resolved counts as a reference to the root.
///
/// References may form a chain of any length, so a list of them replaces recursion. The JSON reader bounds how deep a
/// value is.
fn open_places(root: &Value) -> BTreeSet<&str> {
    let mut open = BTreeSet::new();
    let mut targets = Vec::new();
    references_in_combined(root, &mut targets);
    while let Some(reference) = targets.pop() {
        let place = reference.strip_prefix('#').unwrap_or_default();
        let found = root.pointer(place).map(|target| (place, target));
        let (place, target) = found.unwrap_or(("", root));
        if open.insert(place) {
            references(target, &mut targets);
        }
    }
    open
}

/// Collects the references inside combined schemas.
fn references_in_combined<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) if is_combined(fields) => references(value, found),
        Value::Object(fields) => fields
            .values()
            .for_each(|field| references_in_combined(field, found)),
        Value::Array(items) => items.iter().for_each(|item| references_in_combined(item, found)),
        _ => {}
    }
}

/// Collects the references inside a value.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                found.push(reference);
            }
            fields.values().for_each(|field| references(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// Closes a schema and those inside it; `place` is its JSON pointer.
fn close(schema: &mut Value, place: &str, open: &BTreeSet<String>) {
    let Value::Object(fields) = schema else { return };
    if open.contains(place) {
        return;
    }
    let inside: &[&str] = if is_combined(fields) {
        &["$defs", "definitions"]
    } else {
        if can_be_closed(fields) {
            fields.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
        &[
            "$defs",
            "definitions",
            "properties",
            "prefixItems",
            "items",
            "additionalProperties",
            "anyOf",
        ]
    };
    for keyword in inside {
        let Some(value) = fields.get_mut(*keyword) else {
            continue;
        };
        let place = format!("{place}/{keyword}");
        match value {
            Value::Object(schemas) if matches!(*keyword, "$defs" | "definitions" | "properties") => {
                for (name, schema) in schemas {
                    let name = name.replace('~', "~0").replace('/', "~1");
                    close(schema, &format!("{place}/{name}"), open);
                }
            }
            Value::Array(schemas) => {
                for (idx, schema) in schemas.iter_mut().enumerate() {
                    close(schema, &format!("{place}/{idx}"), open);
                }
            }
            schema => close(schema, &place, open),
        }
    }
}

/// Whether further schemas apply to the values of this schema.
fn is_combined(fields: &Map<String, Value>) -> bool {
    let has_others_beside = |name: &str| {
        let mut others = fields.keys().filter(|other| *other != name);
        fields.contains_key(name) && others.any(|other| !ANNOTATIONS.contains(&other.as_str()))
    };
    COMBINING.iter().any(|name| fields.contains_key(*name))
        || REFERRING.iter().any(|name| has_others_beside(name))
}

/// Whether an object stays satisfiable when closed: it requires no more members than it names.
fn can_be_closed(fields: &Map<String, Value>) -> bool {
    let Some(Value::Object(properties)) = fields.get("properties") else {
        return false;
    };
    let mentions_others = ["additionalProperties", "unevaluatedProperties"]
        .iter()
        .any(|name| fields.contains_key(*name));
    let names_all = fields
        .get("required")
        .and_then(Value::as_array)
        .is_none_or(|names| {
            let mut names = names.iter().filter_map(Value::as_str);
            names.all(|name| properties.contains_key(name))
        });
    let n_min = fields.get("minProperties").and_then(Value::as_u64).unwrap_or(0);
    !mentions_others && names_all && n_min <= properties.len() as u64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(properties: Value) -> Value {
        json!({"type": "object", "properties": properties})
    }

    fn closed_object(properties: Value) -> Value {
        let mut object = object(properties);
        object["additionalProperties"] = json!(false);
        object
    }

    #[test]
    fn objects_are_closed_at_every_place() {
        let point = || object(json!({"x": {"type": "integer"}}));
        let closed_point = || closed_object(json!({"x": {"type": "integer"}}));
        let around = |point: fn(Value) -> Value, inner: fn() -> Value| {
            let mut schema = point(json!({
                "one": inner(),
                "many": {"type": "array", "items": inner(), "prefixItems": [inner()]},
                "perhaps": {"title": "T", "anyOf": [inner(), {"type": "null"}]},
                "by_name": {"$ref": "#/$defs/P", "description": "D"},
                "map": {"type": "object", "additionalProperties": inner()},
            }));
            schema["$defs"] = json!({"P": inner()});
            schema
        };
        let expected = around(closed_object, closed_point as fn() -> Value);
        assert_eq!(close_objects(around(object, point)), expected);
    }

    #[test]
    fn an_object_that_mentions_or_requires_more_does_not_change() {
        for schema in [
            json!({"type": "object"}),
            json!({"properties": {"a": {}}, "additionalProperties": true}),
            json!({"properties": {"a": {}}, "additionalProperties": {"type": "integer"}}),
            json!({"properties": {"a": {}}, "unevaluatedProperties": true}),
            json!({"properties": {"a": {}}, "patternProperties": {"^b": object(json!({}))}}),
            json!({"properties": {"a": {}}, "required": ["a", "b"]}),
            json!({"properties": {"a": {}}, "minProperties": 2}),
            json!({"const": object(json!({})), "enum": [object(json!({}))], "default": object(json!({}))}),
        ] {
            assert_eq!(close_objects(schema.clone()), schema);
        }
    }

    #[test]
    fn combined_schemas_do_not_change() {
        let point = || object(json!({"x": {}}));
        for schema in [
            json!({"allOf": [point(), object(json!({"y": {}}))]}),
            json!({"oneOf": [point()]}),
            json!({"not": point()}),
            json!({"properties": {"a": point()}, "anyOf": [{"required": ["a"]}, point()]}),
            json!({"$ref": "#/definitions/P", "properties": {"a": point()}, "definitions": {"P": point()}}),
        ] {
            assert_eq!(close_objects(schema.clone()), schema);
        }
    }

    #[test]
    fn a_chain_of_references_may_have_any_length() {
        let n = 100_000;
        let mut schema = json!({"allOf": [{"$ref": "#/$defs/0"}], "$defs": {}});
        for idx in 0..n {
            let next = format!("#/$defs/{}", idx + 1);
            schema["$defs"][idx.to_string()] = json!({"$ref": next});
        }
        schema["$defs"][n.to_string()] = object(json!({}));
        assert_eq!(close_objects(schema.clone()), schema);
        schema["allOf"][0]["$ref"] = json!("#/$defs/1");
        schema["$defs"]["0"] = object(json!({}));
        assert_eq!(close_objects(schema)["$defs"]["0"], closed_object(json!({})));
    }

    #[test]
    fn a_definition_stays_open_only_if_it_is_combined() {
        let with = |of_allof: &str| {
            let mut schema = object(json!({
                "both": {"allOf": [{"$ref": of_allof}, {"required": ["y"]}]},
                "one": {"$ref": "#/$defs/A"},
            }));
            let link = object(json!({"next": {"$ref": "#/$defs/C~1D"}}));
            schema["$defs"] = json!({"A": object(json!({})), "B": link, "C/D": object(json!({}))});
            close_objects(schema)
        };
        let is_closed = |schema: &Value| schema["additionalProperties"] == false;
        let which = |schema: &Value| ["A", "B", "C/D"].map(|name| is_closed(&schema["$defs"][name]));
        assert_eq!(which(&with("#/$defs/A")), [false, true, true]);
        // Schemas that it refers to are combined too.
        assert_eq!(which(&with("#/$defs/B")), [true, false, false]);
        assert!(is_closed(&with("#/$defs/A")));
        // These references cannot be resolved.
        for unknown in ["#anchor", "https://example.com/schema", "#"] {
            let schema = with(unknown);
            assert!(which(&schema) == [false; 3] && !is_closed(&schema), "{unknown}");
        }
    }
}
