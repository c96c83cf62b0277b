//! Schemas whose objects have no members but those that they name.
//!
//! JSON Schema allows any further member unless a schema says otherwise, and a weak model then never closes an object.
//! Closing one only takes answers away, so every answer stays valid under the given schema. Where schemas meet, closing
//! one could forbid what another demands, so that those are left as they are.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// With one of these a schema meets others, or is asked whether it does not hold.
const MEETING: [&str; 11] = [
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

/// These stand for other schemas; alone they meet none.
const STANDING_FOR_OTHERS: [&str; 2] = ["$ref", "anyOf"];

/// What says nothing about a value.
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

/// The schema with `additionalProperties: false` in each object that names its properties and says nothing of others.
pub(super) fn closed(mut schema: Value) -> Value {
    let open: BTreeSet<String> = open_places(&schema).into_iter().map(str::to_owned).collect();
    close(&mut schema, "", &open);
    schema
}

/// The places that references lead to from schemas that meet others, and from what these lead to. A reference that
/// cannot be followed counts as leading to the root.
///
/// References may form a chain of any length, so they are followed from a list and not by recursion; JSON itself
/// bounds how deep a value is.
fn open_places(root: &Value) -> BTreeSet<&str> {
    let mut open = BTreeSet::new();
    let mut targets = Vec::new();
    references_of_meeting(root, &mut targets);
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

/// Collects the references inside of schemas that meet others.
fn references_of_meeting<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) if meets_others(fields) => references(value, found),
        Value::Object(fields) => fields
            .values()
            .for_each(|field| references_of_meeting(field, found)),
        Value::Array(items) => items.iter().for_each(|item| references_of_meeting(item, found)),
        _ => {}
    }
}

/// Collects the references inside of a value.
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
    let inside: &[&str] = if meets_others(fields) {
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

fn meets_others(fields: &Map<String, Value>) -> bool {
    let is_with = |name: &str| {
        let mut others = fields.keys().filter(|other| *other != name);
        fields.contains_key(name) && others.any(|other| !ANNOTATIONS.contains(&other.as_str()))
    };
    MEETING.iter().any(|name| fields.contains_key(*name))
        || STANDING_FOR_OTHERS.iter().any(|name| is_with(name))
}

/// An object that must have more than it names stays open: nothing would be left of it.
fn can_be_closed(fields: &Map<String, Value>) -> bool {
    let Some(Value::Object(properties)) = fields.get("properties") else {
        return false;
    };
    let says_more = ["additionalProperties", "unevaluatedProperties"]
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
    !says_more && names_all && n_min <= properties.len() as u64
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
    fn objects_are_closed_wherever_they_stand() {
        let point = || object(json!({"x": {"type": "integer"}}));
        let closed_point = || closed_object(json!({"x": {"type": "integer"}}));
        let around = |point: fn(Value) -> Value, inner: fn() -> Value| {
            let mut whole = point(json!({
                "one": inner(),
                "many": {"type": "array", "items": inner(), "prefixItems": [inner()]},
                "perhaps": {"title": "T", "anyOf": [inner(), {"type": "null"}]},
                "by_name": {"$ref": "#/$defs/P", "description": "D"},
                "map": {"type": "object", "additionalProperties": inner()},
            }));
            whole["$defs"] = json!({"P": inner()});
            whole
        };
        let expected = around(closed_object, closed_point as fn() -> Value);
        // What says nothing about values may stand in any order.
        assert_eq!(closed(around(object, point)), expected);
    }

    #[test]
    fn what_says_more_or_needs_more_stays_as_it_is() {
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
            assert_eq!(closed(schema.clone()), schema);
        }
    }

    #[test]
    fn schemas_that_meet_stay_as_they_are() {
        let point = || object(json!({"x": {}}));
        for schema in [
            json!({"allOf": [point(), object(json!({"y": {}}))]}),
            json!({"oneOf": [point()]}),
            json!({"not": point()}),
            json!({"properties": {"a": point()}, "anyOf": [{"required": ["a"]}, point()]}),
            json!({"$ref": "#/definitions/P", "properties": {"a": point()}, "definitions": {"P": point()}}),
        ] {
            assert_eq!(closed(schema.clone()), schema);
        }
    }

    #[test]
    fn a_chain_of_references_has_any_length() {
        let n = 100_000;
        let mut schema = json!({"allOf": [{"$ref": "#/$defs/0"}], "$defs": {}});
        for idx in 0..n {
            let next = format!("#/$defs/{}", idx + 1);
            schema["$defs"][idx.to_string()] = json!({"$ref": next});
        }
        schema["$defs"][n.to_string()] = object(json!({}));
        assert_eq!(closed(schema.clone()), schema);
        schema["allOf"][0]["$ref"] = json!("#/$defs/1");
        schema["$defs"]["0"] = object(json!({}));
        assert_eq!(closed(schema)["$defs"]["0"], closed_object(json!({})));
    }

    #[test]
    fn a_definition_stays_open_only_if_it_meets_others() {
        let with = |of_allof: &str| {
            let mut schema = object(json!({
                "both": {"allOf": [{"$ref": of_allof}, {"required": ["y"]}]},
                "one": {"$ref": "#/$defs/A"},
            }));
            let link = object(json!({"next": {"$ref": "#/$defs/C~1D"}}));
            schema["$defs"] = json!({"A": object(json!({})), "B": link, "C/D": object(json!({}))});
            closed(schema)
        };
        let is_closed = |schema: &Value| schema["additionalProperties"] == false;
        let which = |schema: &Value| ["A", "B", "C/D"].map(|name| is_closed(&schema["$defs"][name]));
        assert_eq!(which(&with("#/$defs/A")), [false, true, true]);
        // What it leads to meets others too.
        assert_eq!(which(&with("#/$defs/B")), [true, false, false]);
        assert!(is_closed(&with("#/$defs/A")));
        // Nobody knows where it leads.
        for unknown in ["#anchor", "https://example.com/schema", "#"] {
            let schema = with(unknown);
            assert!(which(&schema) == [false; 3] && !is_closed(&schema), "{unknown}");
        }
    }
}
