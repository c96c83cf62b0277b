//! Reading and checking the JSON schemas that the types generate.
//!
//! Knows the keywords of Kubernetes' structural schemas. Must not know what the schemas describe.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

/// Deepest nesting of a value; a deeper one is refused.
const DEPTH_MAX: usize = 32;
/// Longest string in a value of one of Kubernetes' types.
const TEXT_CHARS_MAX: usize = 316;
/// Longest list or map in a value of one of Kubernetes' types.
const ITEMS_MAX: usize = 16;
/// Longest part of an input that an error repeats, characters.
const REPEATED_CHARS_MAX: usize = 60;

/// One way in which a value does not fit its schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Not the expected type.
    #[error("{path}expected {expected}, got {got}")]
    Type {
        /// Path inside the value, followed by `: `; empty for the value itself.
        path: String,
        /// Expected type or choice.
        expected: String,
        /// The value, shortened.
        got: String,
    },
    /// Outside the bounds.
    #[error("{path}{got} is not {expected}")]
    Bound {
        /// Path inside the value.
        path: String,
        /// The bound.
        expected: String,
        /// The value, shortened.
        got: String,
    },
    /// A field that the schema does not have.
    #[error("{path}there is no field '{field}'")]
    UnknownField {
        /// Path inside the value.
        path: String,
        /// The field.
        field: String,
    },
    /// A required field is absent.
    #[error("{path}field '{field}' is missing")]
    MissingField {
        /// Path inside the value.
        path: String,
        /// The field.
        field: String,
    },
    /// Nested deeper than the bound.
    #[error("{path}nested too deeply")]
    Depth {
        /// Path inside the value.
        path: String,
    },
}

impl Violation {
    /// The same violation without the value, for a secret.
    pub fn redacted(mut self) -> Self {
        match &mut self {
            Violation::Type { got, .. } | Violation::Bound { got, .. } => *got = "a secret value".into(),
            Violation::UnknownField { field, .. } => *field = "secret".into(),
            Violation::MissingField { .. } | Violation::Depth { .. } => {}
        }
        self
    }
}

/// The schema of a type in the form of a CRD: no references, choices as `enum`.
pub fn of<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::openapi3()
        .with(|settings| settings.inline_subschemas = true)
        .with_transform(kube::core::schema::StructuralSchemaRewriter)
        .with_transform(kube::core::schema::OptionalEnum)
        .into_generator();
    serde_json::to_value(generator.into_root_schema_for::<T>()).expect("a schema serializes")
}

/// The schema of one of Kubernetes' own types for a CRD: without descriptions, which users find in Kubernetes'
/// documents, and with a bound on every string, list and map.
pub fn bounded<T: JsonSchema>() -> Value {
    let mut schema = of::<T>();
    bound(&mut schema);
    schema
}

fn bound(schema: &mut Value) {
    let Value::Object(keywords) = schema else { return };
    for keyword in ["$schema", "title", "description"] {
        keywords.remove(keyword);
    }
    let limit = match keywords.get("type").and_then(Value::as_str) {
        Some("string") => Some(("maxLength", TEXT_CHARS_MAX)),
        Some("array") => Some(("maxItems", ITEMS_MAX)),
        Some("object") if keywords.contains_key("additionalProperties") => Some(("maxProperties", ITEMS_MAX)),
        _ => None,
    };
    if let Some((keyword, most)) = limit {
        keywords.insert(keyword.into(), most.into());
    }
    for keyword in ["items", "additionalProperties"] {
        keywords.get_mut(keyword).into_iter().for_each(bound);
    }
    let properties = keywords.get_mut("properties").and_then(Value::as_object_mut);
    properties
        .into_iter()
        .flat_map(serde_json::Map::values_mut)
        .for_each(bound);
}

/// Every way in which `value` does not fit `schema`; empty if it fits.
pub fn check(schema: &Value, value: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    check_at(
        schema,
        value,
        &mut Cursor {
            path: Vec::new(),
            found: &mut found,
        },
    );
    found
}

struct Cursor<'a> {
    path: Vec<String>,
    found: &'a mut Vec<Violation>,
}

impl Cursor<'_> {
    fn path(&self) -> String {
        if self.path.is_empty() {
            String::new()
        } else {
            format!("{}: ", self.path.join("."))
        }
    }
}

fn check_at(schema: &Value, value: &Value, cursor: &mut Cursor<'_>) {
    if cursor.path.len() > DEPTH_MAX {
        cursor.found.push(Violation::Depth { path: cursor.path() });
        return;
    }
    if value.is_null() && schema["nullable"] == Value::Bool(true) {
        return;
    }
    if !has_type(schema, value) {
        cursor.found.push(Violation::Type {
            path: cursor.path(),
            expected: expectation(schema),
            got: shortened(&value.to_string()),
        });
        return;
    }
    check_bounds(schema, value, cursor);
    match value {
        Value::Object(_) => check_object(schema, value, cursor),
        Value::Array(items) => {
            for (idx, item) in items.iter().enumerate() {
                cursor.path.push(format!("[{idx}]"));
                check_at(&schema["items"], item, cursor);
                cursor.path.pop();
            }
        }
        _ => {}
    }
}

fn check_object(schema: &Value, value: &Value, cursor: &mut Cursor<'_>) {
    let Value::Object(fields) = value else { return };
    let required = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    for field in required.filter(|field| !fields.contains_key(*field)) {
        cursor.found.push(Violation::MissingField {
            path: cursor.path(),
            field: field.to_string(),
        });
    }
    let free = schema.get("properties").is_none()
        || schema["x-kubernetes-preserve-unknown-fields"] == Value::Bool(true);
    for (field, inner) in fields {
        let inner_schema = schema["properties"]
            .get(field)
            .or_else(|| schema.get("additionalProperties").filter(|s| s.is_object()));
        match inner_schema {
            Some(inner_schema) => {
                cursor.path.push(field.clone());
                check_at(inner_schema, inner, cursor);
                cursor.path.pop();
            }
            None if free => {}
            None => {
                cursor.found.push(Violation::UnknownField {
                    path: cursor.path(),
                    field: field.clone(),
                });
            }
        }
    }
}

fn has_type(schema: &Value, value: &Value) -> bool {
    if schema["x-kubernetes-int-or-string"] == Value::Bool(true) {
        return value.is_string() || value.is_i64() || value.is_u64();
    }
    if let Some(choices) = schema["enum"].as_array() {
        return choices.contains(value);
    }
    match schema["type"].as_str() {
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => true,
    }
}

fn expectation(schema: &Value) -> String {
    if let Some(choices) = schema["enum"].as_array() {
        let choices: Vec<String> = choices.iter().filter(|c| !c.is_null()).map(plain).collect();
        return format!("one of {}", choices.join(", "));
    }
    match schema["type"].as_str() {
        Some("integer") => "a whole number".into(),
        Some(other) => format!("a value of type {other}"),
        None => "a number or a string".into(),
    }
}

fn check_bounds(schema: &Value, value: &Value, cursor: &mut Cursor<'_>) {
    let length = match value {
        Value::String(text) => Some((text.chars().count(), "minLength", "maxLength", "character")),
        Value::Array(items) => Some((items.len(), "minItems", "maxItems", "item")),
        _ => None,
    };
    let mut out = |expected: String| {
        cursor.found.push(Violation::Bound {
            path: cursor.path(),
            expected,
            got: shortened(&value.to_string()),
        });
    };
    if let Some(number) = value.as_f64() {
        if let Some(min) = schema["minimum"].as_f64().filter(|min| number < *min) {
            out(format!("at least {min}"));
        }
        if let Some(max) = schema["maximum"].as_f64().filter(|max| number > *max) {
            out(format!("at most {max}"));
        }
    }
    if let Some((n, min_key, max_key, unit)) = length {
        if let Some(min) = schema[min_key].as_u64().filter(|min| (n as u64) < *min) {
            out(format!("at least {}", counted(min, unit)));
        }
        if let Some(max) = schema[max_key].as_u64().filter(|max| n as u64 > *max) {
            out(format!("at most {}", counted(max, unit)));
        }
    }
}

fn counted(n: u64, unit: &str) -> String {
    format!("{n} {unit}{}", if n == 1 { "" } else { "s" })
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

/// A text that is short enough for an error to repeat it.
pub fn shortened(text: &str) -> String {
    if text.chars().count() <= REPEATED_CHARS_MAX {
        return text.to_string();
    }
    text.chars().take(REPEATED_CHARS_MAX).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(schema: Value, value: Value) -> Vec<String> {
        check(&schema, &value).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_object_is_checked_field_by_field() {
        let schema = json!({
            "type": "object",
            "required": ["a"],
            "properties": {
                "a": {"type": "integer", "minimum": 1},
                "b": {"type": "array", "maxItems": 1, "items": {"type": "string", "maxLength": 2}},
                "c": {"type": "object", "properties": {"d": {"type": "boolean", "nullable": true}}},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "size": {"x-kubernetes-int-or-string": true}
            }
        });
        let fits = json!({"a": 1, "b": ["xy"], "c": {"d": null}, "labels": {"k": "v"}, "size": "1Gi"});
        assert_eq!(said(schema.clone(), fits), Vec::<String>::new());
        let wrong = json!({"b": ["xyz", 1], "c": {"e": 1}, "labels": {"k": 1}, "size": true, "a1": 0});
        assert_eq!(
            said(schema, wrong),
            [
                "field 'a' is missing",
                "b: [\"xyz\",1] is not at most 1 item",
                "b.[0]: \"xyz\" is not at most 2 characters",
                "b.[1]: expected a value of type string, got 1",
                "c: there is no field 'e'",
                "labels.k: expected a value of type string, got 1",
                "size: expected a number or a string, got true",
                "there is no field 'a1'",
            ]
        );
    }

    #[test]
    fn deep_values_are_refused_and_not_followed() {
        let mut value = json!(1);
        for _ in 0..100 {
            value = json!([value]);
        }
        let mut schema = json!({"type": "array"});
        for _ in 0..100 {
            schema = json!({"type": "array", "items": schema});
        }
        assert!(said(schema, value)[0].ends_with("nested too deeply"));
    }
}
