//! Typical schemas of requests, and texts of a random model under each.

use serde_json::{Value, json};

use super::validate::is_valid;
use super::*;

/// Number of texts under each schema.
const N_TEXTS: usize = 12;

/// A person with all members required, like OpenAI's strict schemas.
fn person() -> Value {
    json!({
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "kind": {"enum": ["a", "b"]}},
        "required": ["name", "age", "kind"],
        "additionalProperties": false
    })
}

fn numbers_and_texts() -> Vec<Value> {
    vec![
        json!({"type": "integer"}),
        json!({"type": "integer", "minimum": 0, "maximum": 120}),
        json!({"type": "integer", "exclusiveMinimum": -5, "exclusiveMaximum": 17}),
        json!({"type": "integer", "minimum": 1, "multipleOf": 5}),
        json!({"type": "number"}),
        json!({"type": "number", "minimum": -1.5, "maximum": 2.5}),
        json!({"type": "number", "exclusiveMinimum": 0}),
        json!({"type": "number", "multipleOf": 0.5}),
        json!({"type": "string"}),
        json!({"type": "string", "minLength": 3, "maxLength": 6}),
        json!({"type": "string", "maxLength": 0}),
        json!({"type": "string", "pattern": r"^[A-Z]{3}-\d{4}$"}),
        json!({"type": "string", "pattern": r"^\+?[0-9]{2,5}$"}),
        json!({"type": "string", "pattern": "^(red|green)(ish)?$"}),
        json!({"type": "string", "pattern": "b+"}),
        json!({"type": "string", "format": "date"}),
        json!({"type": "string", "format": "date-time"}),
        json!({"type": "string", "format": "uuid"}),
        json!({"type": "string", "format": "ipv4"}),
        json!({"type": "string", "format": "email"}),
        json!({"type": ["string", "null"]}),
        json!({"type": "boolean"}),
        json!({"enum": ["red", "green \"and\" blue", 3, null, {"a": [1, true]}]}),
        json!({"const": "fixed ✓"}),
    ]
}

fn arrays_and_choices() -> Vec<Value> {
    vec![
        json!({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 4}),
        json!({"type": "array", "items": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2}, "maxItems": 3}),
        json!({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": false, "minItems": 2}),
        json!({"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 1}),
        json!({"anyOf": [{"type": "string", "maxLength": 3}, {"type": "integer"}, person()]}),
        json!({"oneOf": [{"type": "string"}, {"type": "integer"}]}),
        json!({"oneOf": [
            {"type": "object", "properties": {"t": {"const": "a"}, "x": {"type": "integer"}}, "required": ["t", "x"]},
            {"type": "object", "properties": {"t": {"const": "b"}, "y": {"type": "string"}}, "required": ["t", "y"]}
        ]}),
        json!({"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 40}]}),
    ]
}

fn objects() -> Vec<Value> {
    vec![
        json!({"type": "object"}),
        person(),
        json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["b"]}),
        json!({"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties": {"type": "boolean"}}),
        json!({"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1}),
        json!({"type": "object", "patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": false}),
        json!({"type": "object", "properties": {"score": {"type": "integer", "multipleOf": 5}}, "required": ["score"],
            "patternProperties": {"^score$": {"type": "integer"}}, "additionalProperties": false}),
        json!({"type": "object", "properties": {"weird \"key\"\n": {"type": "integer"}, "": {"type": "null"}},
            "required": ["weird \"key\"\n", ""], "additionalProperties": false}),
        json!({"type": "object", "properties": {
            "address": {"type": "object", "properties": {
                "city": {"type": "string", "minLength": 1},
                "geo": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
            }, "required": ["city", "geo"], "additionalProperties": false},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 3}
        }, "required": ["address", "tags"], "additionalProperties": false}),
        json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Order", "description": "What was ordered",
            "type": "object", "properties": {
            "id": {"type": "string", "format": "uuid"},
            "lines": {"type": "array", "minItems": 1, "maxItems": 3, "items": {"$ref": "#/$defs/line"}},
            "paid": {"type": "boolean", "default": false}
        }, "required": ["id", "lines", "paid"], "additionalProperties": false,
        "$defs": {"line": {"type": "object", "properties": {
            "sku": {"type": "string", "pattern": r"^[A-Z]{3}-\d{4}$"}, "n": {"type": "integer", "minimum": 1, "maximum": 99}
        }, "required": ["sku", "n"], "additionalProperties": false}}}),
        json!({"$ref": "#/definitions/tree", "definitions": {"tree": {"type": "object", "properties": {
            "value": {"type": "integer"},
            "children": {"type": "array", "items": {"$ref": "#/definitions/tree"}, "maxItems": 2}
        }, "required": ["value", "children"], "additionalProperties": false}}}),
        json!({"type": "object", "properties": {"next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}}, "required": ["next"],
            "additionalProperties": false}),
    ]
}

#[test]
fn every_text_under_a_schema_is_valid_for_any_vocabulary() {
    let schemas = [numbers_and_texts(), arrays_and_choices(), objects()].concat();
    assert!(schemas.len() >= 40);
    for vocabulary in [Vocabulary::byte_level(), Vocabulary::sentence_piece()] {
        for schema in &schemas {
            let texts = random_texts(&vocabulary, &Constraint::JsonSchema(schema.clone()), N_TEXTS);
            for text in texts {
                match serde_json::from_str::<Value>(&text) {
                    Ok(value) => assert!(is_valid(schema, schema, &value), "{text} under {schema}"),
                    // JSON does not bound exponents; this reader does.
                    Err(error) => assert!(error.to_string().contains("out of range"), "{text}: {error}"),
                }
            }
        }
    }
}

#[test]
fn an_object_has_only_the_members_that_its_schema_names() {
    let point = json!({"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]});
    let schema = json!({"type": "object", "properties": {"p": {"$ref": "#/$defs/P"}}, "required": ["p"], "$defs": {"P": point}});
    for text in random_texts(
        &Vocabulary::byte_level(),
        &Constraint::JsonSchema(schema),
        N_TEXTS,
    ) {
        let value: Value = serde_json::from_str(&text).unwrap();
        let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(
            (names(&value), names(&value["p"])),
            (vec!["p".to_owned()], vec!["x".to_owned()])
        );
    }
}

#[test]
fn the_validator_finds_invalid_values() {
    let cases = [
        (json!({"type": "integer", "maximum": 3}), json!(4)),
        (json!({"type": "integer"}), json!(1.5)),
        (person(), json!({"name": "x", "age": 1, "kind": "c"})),
        (person(), json!({"name": "x", "age": 1})),
        (person(), json!({"name": "x", "age": 1, "kind": "a", "more": 1})),
        (json!({"type": "string", "format": "date"}), json!("2024-13-01")),
        (
            json!({"type": "string", "pattern": r"^[A-Z]{3}-\d{4}$"}),
            json!("ABC-123"),
        ),
        (
            json!({"oneOf": [{"type": "number"}, {"type": "integer"}]}),
            json!(1),
        ),
        (
            json!({"type": "array", "items": {"$ref": "#/$defs/a"}, "$defs": {"a": {"const": 1}}}),
            json!([1, 2]),
        ),
    ];
    for (schema, value) in cases {
        assert!(!is_valid(&schema, &schema, &value), "{value} under {schema}");
    }
}

#[test]
fn the_constraint_json_object_gives_objects() {
    for text in random_texts(&Vocabulary::byte_level(), &Constraint::JsonObject, 20) {
        assert!(text.starts_with('{'));
        let parsed = serde_json::from_str::<Value>(&text);
        assert!(
            parsed.is_ok_and(|value| value.is_object()) || text.contains(['e', 'E']),
            "{text}"
        );
    }
}

#[test]
fn the_number_of_consecutive_blanks_is_bounded() {
    let vocabulary = Vocabulary::byte_level();
    let blank = |id: &u32| vocabulary.tokens.get(*id).iter().all(u8::is_ascii_whitespace);
    let grammar = vocabulary.grammars().compile(&Constraint::JsonObject).unwrap();
    let mut follower = grammar.follow();
    follower.mask().unwrap();
    follower.advance(u32::from(b'{')).unwrap();
    let mut n_blanks = 0;
    while let Some(token) = allowed(&mut follower, &vocabulary).into_iter().find(blank) {
        follower.advance(token).unwrap();
        n_blanks += vocabulary.tokens.get(token).len();
        assert!(n_blanks <= 33, "blanks without end");
    }
    assert!(n_blanks > 0);
}

#[test]
fn an_error_names_what_is_not_supported() {
    let cases = [
        (json!({"type": "array", "uniqueItems": true}), "uniqueItems"),
        (json!({"not": {"type": "string"}}), "not"),
        (json!({"if": {"type": "string"}, "then": {"minLength": 2}}), "if"),
        (
            json!({"type": "object", "propertyNames": {"maxLength": 2}}),
            "propertyNames",
        ),
        (
            json!({"type": "object", "dependentRequired": {"a": ["b"]}}),
            "dependentRequired",
        ),
        (json!({"type": "array", "contains": {"type": "null"}}), "contains"),
        (
            json!({"oneOf": [{"type": "number"}, {"type": "integer"}]}),
            "oneOf",
        ),
        (json!({"type": "string", "pattern": "(?=a)b"}), "look-around"),
        (json!({"$ref": "#/$defs/missing"}), "missing"),
        (json!({"$ref": "https://example.com/schema"}), "example.com"),
        (json!({"type": "integer", "minimum": 5, "maximum": 3}), "minimum"),
        (json!({"type": 123}), "type"),
        (json!({"type": "hiccup"}), "hiccup"),
        (json!({"properties": {"foo": "bar"}}), "object or boolean"),
        (json!(123), "object"),
        (json!(false), "object"),
        (
            json!({"type": "object", "x-guidance": {"lenient": true}}),
            "x-guidance",
        ),
    ];
    for (schema, named) in cases {
        let error = refusal(&Constraint::JsonSchema(schema.clone()));
        let GrammarError::Unsupported { reason, .. } = &error else {
            panic!("{schema}: {error:?}")
        };
        assert!(reason.contains(named), "{schema}: {reason}");
        assert!(
            !reason.contains(" | ") && !reason.contains("x-guidance\":"),
            "{reason}"
        );
    }
}
