//! A list of calls requires the same arguments of a tool as its schema alone.

use serde_json::{Value, json};

use super::*;

/// Number of generated schemas.
const N_SCHEMAS: u64 = 60;
/// Texts of each.
const N_TEXTS: u64 = 4;

/// Whether an answer may be this text.
fn accepts(vocabulary: &Vocabulary, grammar: &Grammar, text: &str) -> bool {
    let mut follower = grammar.follow();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if !allowed(&mut follower, vocabulary).contains(&u32::from(byte)) {
            return false;
        }
        if follower.advance(u32::from(byte)).unwrap() == Followed::Complete {
            return bytes.next().is_none();
        }
    }
    allowed(&mut follower, vocabulary).contains(&vocabulary.eos)
}

/// References to places of the schema that [`object`] makes, in all forms.
const REFERENCES: [&str; 7] = [
    "#/$defs/leaf",
    "#/properties/a",
    "#leaf",
    "#/$defs/of~1tree",
    "#",
    "https://example.com/tool#/properties/a",
    "tool#leaf",
];

fn schema(random: &mut Random, depth: usize) -> Value {
    let n_kinds = if depth == 0 { 2 } else { 6 };
    match random.below(n_kinds) {
        0 => json!({"type": "integer", "minimum": 0, "maximum": 9}),
        1 => json!({"enum": ["x", "yz", null]}),
        2 => json!({"type": "array", "items": schema(random, depth - 1), "maxItems": 2}),
        3 => json!({"anyOf": [schema(random, depth - 1), {"type": "null"}]}),
        4 => json!({"type": "object", "properties": {"c": schema(random, depth - 1)}, "required": ["c"]}),
        _ => json!({"anyOf": [{"type": "null"}, {"$ref": REFERENCES[random.below(REFERENCES.len())]}]}),
    }
}

fn object(random: &mut Random) -> Value {
    json!({
        "$id": "https://example.com/tool",
        "type": "object",
        "properties": {"a": schema(random, 2), "b": schema(random, 2)},
        "required": ["a"],
        "$defs": {
            "leaf": {"$anchor": "leaf", "type": "boolean"},
            "of/tree": {"type": "object", "properties": {"next": schema(random, 1)}, "additionalProperties": false},
        },
    })
}

fn required(tools: &[(&str, &Value)]) -> Constraint {
    let tools = tools.iter().map(|(name, parameters)| CallableTool {
        name: (*name).to_owned(),
        parameters: (*parameters).clone(),
    });
    Constraint::Calls(CallList {
        tools: tools.collect(),
        length: CallListLength::Any,
    })
}

#[test]
fn a_tools_schema_means_the_same_in_a_list_of_calls() {
    let vocabulary = Vocabulary::byte_level();
    let grammars = vocabulary.grammars();
    let mut n_texts = 0;
    for seed in 0..N_SCHEMAS {
        let mut random = Random(seed * 31 + 7);
        let schema = object(&mut random);
        // Its definitions have the names of the other's.
        let other = json!({"type": "object", "$defs": {"leaf": {"type": "string"}}});
        let alone = grammars.compile(&Constraint::JsonSchema(schema.clone()));
        let listed = grammars.compile(&required(&[("f", &schema), ("g.h-i", &other)]));
        let (Ok(alone), Ok(listed)) = (&alone, &listed) else {
            assert_eq!(alone.is_ok(), listed.is_ok(), "{schema}: {alone:?} {listed:?}");
            continue;
        };
        for seed in 0..N_TEXTS {
            let Some(text) = random_text(&vocabulary, alone, &mut Random(seed)) else {
                continue;
            };
            n_texts += 1;
            let wrong = text.replacen(['0', 't', 'n', 'c', '['], "x", 1);
            for text in [&text, &wrong] {
                let call = format!(r#"[{{"name": "f", "parameters": {text}}}]"#);
                assert_eq!(
                    accepts(&vocabulary, alone, text),
                    accepts(&vocabulary, listed, &call),
                    "{text} under {schema}"
                );
            }
        }
    }
    assert!(n_texts > N_SCHEMAS, "{n_texts}");
}

#[test]
fn a_list_has_one_call_or_more_of_known_tools() {
    let vocabulary = Vocabulary::byte_level();
    let empty = json!({"type": "object", "properties": {}, "additionalProperties": false});
    let grammar = vocabulary
        .grammars()
        .compile(&required(&[("f", &empty), ("g", &empty)]))
        .unwrap();
    let one = CallList {
        tools: vec![CallableTool {
            name: "f".to_owned(),
            parameters: empty.clone(),
        }],
        length: CallListLength::One,
    };
    let one = vocabulary.grammars().compile(&Constraint::Calls(one)).unwrap();
    let call = |name: &str| format!(r#"{{"name": "{name}", "parameters": {{}}}}"#);
    for (text, is_list, is_one) in [
        (format!("[{}]", call("f")), true, true),
        (format!("[{},{}]", call("g"), call("f")), true, false),
        (format!("[ {}, {} ]", call("g"), call("f")), true, false),
        ("[]".to_owned(), false, false),
        (call("f"), false, false),
        (format!("[{}]", call("h")), false, false),
        (format!("[{},]", call("f")), false, false),
    ] {
        assert_eq!(accepts(&vocabulary, &grammar, &text), is_list, "{text}");
        assert_eq!(accepts(&vocabulary, &one, &text), is_one, "{text}");
    }
}

#[test]
fn bounds_of_any_size_are_followed() {
    let vocabulary = Vocabulary::byte_level();
    for (schema, valid, invalid) in [
        (
            json!({"type": "integer", "minimum": i64::MIN, "maximum": i64::MAX}),
            "-9000000000000000000",
            "-9300000000000000000",
        ),
        (
            json!({"type": "integer", "minimum": 0, "maximum": u64::MAX}),
            "9000000000000000000",
            "-1",
        ),
        (
            json!({"type": "number", "minimum": -3.402_823_5e38, "maximum": 3.402_823_5e38}),
            "-1.5",
            "x",
        ),
        (json!({"type": "number", "exclusiveMinimum": -1e308}), "2000", "x"),
        (
            json!({"type": "integer", "minimum": 2_000_000_000_000_000_000_i64}),
            "2000000000000000001",
            "1999999999999999999",
        ),
        (
            json!({"type": "integer", "maximum": -2e18}),
            "-2000000000000000001",
            "-1999999999999999999",
        ),
        (json!({"type": "string", "format": "password"}), "\"x\"", "1"),
        (json!({"type": "number", "format": "int64"}), "1.5", "\"x\""),
    ] {
        let grammar = vocabulary
            .grammars()
            .compile(&Constraint::JsonSchema(schema.clone()));
        let grammar = grammar.unwrap_or_else(|error| panic!("{schema}: {error}"));
        assert!(accepts(&vocabulary, &grammar, valid), "{valid} under {schema}");
        assert!(
            !accepts(&vocabulary, &grammar, invalid),
            "{invalid} under {schema}"
        );
    }
}

#[test]
fn an_error_never_has_the_text_of_a_panic() {
    for schema in [
        json!({"allOf": [{"multipleOf": 100_000}, {"multipleOf": 99_999}]}),
        json!({"type": "number", "multipleOf": 1e-300}),
        json!({"type": "integer", "minimum": 1e300}),
        json!({"const": i64::MIN}),
        json!({"type": "string", "pattern": "(((a{1,50}){1,50}){1,50}){1,50}"}),
        json!({"patternProperties": {"(a{1000}){1000}": {}}}),
    ] {
        if let Err(error) = Vocabulary::byte_level()
            .grammars()
            .compile(&Constraint::JsonSchema(schema.clone()))
        {
            let text = error.to_string();
            assert!(
                !text.contains("panic") && !text.contains("overflow"),
                "{schema}: {text}"
            );
        }
    }
}
