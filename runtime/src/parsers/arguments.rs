//! Arguments that a model writes as plain text, outside of JSON: their values follow from the tool's schema.

use openai_protocol::common::Tool;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::pythonic;

/// The arguments of one call, as the members of a JSON object.
#[derive(Debug)]
pub(super) struct Arguments<'a> {
    /// The properties of the tool's schema.
    properties: &'a Value,
    /// Names and values, both as JSON.
    members: Vec<(String, String)>,
}

impl<'a> Arguments<'a> {
    /// Those of a call of the tool `name`.
    pub(super) fn of(name: &str, tools: &'a [Tool]) -> Self {
        let tool = tools.iter().find(|tool| tool.function.name == name);
        Self {
            properties: tool.map_or(&Value::Null, |tool| &tool.function.parameters["properties"]),
            members: Vec::new(),
        }
    }

    /// Adds an argument. Its last value counts.
    pub(super) fn add(&mut self, name: &str, text: &str) {
        let value = json(text, &self.properties[name]);
        let name = Value::from(name).to_string();
        self.members.retain(|(other, _)| *other != name);
        self.members.push((name, value));
    }

    /// The object.
    pub(super) fn object(self) -> String {
        let members = self.members.iter().map(|(name, value)| format!("{name}:{value}"));
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    }
}

/// A value of this schema as JSON. A text stays as it is where the schema allows texts; elsewhere it is JSON or a literal
/// of Python, whose form the model's digits keep.
fn json(text: &str, schema: &Value) -> String {
    let trimmed = text.trim();
    let is_null = trimmed == "null" && schema["type"] != "string";
    if allows_texts(schema) && !is_null {
        return Value::from(text).to_string();
    }
    if serde_json::from_str::<IgnoredAny>(trimmed).is_ok() {
        return trimmed.to_owned();
    }
    let literal = pythonic::literal(trimmed);
    literal.unwrap_or_else(|| Value::from(text)).to_string()
}

/// Replaces lists and objects in Python's notation, which another parser took for texts.
pub(super) fn with_literals(arguments: &mut Value, name: &str, tools: &[Tool]) {
    let Some(tool) = tools.iter().find(|tool| tool.function.name == name) else {
        return;
    };
    let properties = &tool.function.parameters["properties"];
    for (name, value) in arguments.as_object_mut().into_iter().flatten() {
        let text = value
            .as_str()
            .filter(|_| !allows_texts(&properties[name.as_str()]));
        if let Some(literal) = text.and_then(pythonic::literal) {
            *value = literal;
        }
    }
}

/// Whether a schema names texts among its values. One without a type names none.
fn allows_texts(schema: &Value) -> bool {
    let is_among = |types: &Value| {
        types
            .as_array()
            .is_some_and(|types| types.iter().any(|of| of == "string"))
    };
    let any = |key: &str, allows: fn(&Value) -> bool| {
        let items = schema[key].as_array();
        items.is_some_and(|items| items.iter().any(allows))
    };
    schema["type"] == "string"
        || is_among(&schema["type"])
        || schema["const"].is_string()
        || any("enum", Value::is_string)
        || any("anyOf", allows_texts)
        || any("oneOf", allows_texts)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_schema_decides_what_a_text_means() {
        let text = json!({"type": "string"});
        let perhaps = json!({"type": ["string", "null"]});
        let either = json!({"anyOf": [{"type": "integer"}, {"enum": ["a"]}]});
        let list = json!({"type": "array"});
        let number = json!({"type": "number"});
        for (schema, written, expected) in [
            (&text, "[1, 2]", r#""[1, 2]""#),
            (&text, "\"a\"", r#""\"a\"""#),
            (&text, "null", r#""null""#),
            (&text, "  a\n", r#""  a\n""#),
            (&perhaps, "null", "null"),
            (&perhaps, "None", r#""None""#),
            (&either, "5", r#""5""#),
            (&list, "[1, 2,]", "[1,2]"),
            (&list, " ['a', True, None] ", r#"["a",true,null]"#),
            (&list, "{'a': (1, 2)}", r#"{"a":[1,2]}"#),
            (&list, "[1, 2", r#""[1, 2""#),
            (&number, "1.0", "1.0"),
            (
                &number,
                "123456789012345678901234567890",
                "123456789012345678901234567890",
            ),
            (&number, "True", "true"),
            (&number, "a [b", r#""a [b""#),
            (&Value::Null, "hello", r#""hello""#),
        ] {
            assert_eq!(json(written, schema), expected, "{schema}");
        }
    }
}
