//! Chat messages: checked; a content is a text or a list of text parts.

use serde_json::{Map, Value, json};

use crate::error::ApiError;

/// Longest name of a role, in bytes. Which roles there are is the template's business.
const ROLE_BYTES_MAX: usize = 64;

/// Fields of a message that a template would have to understand for the answer to be right.
const UNSUPPORTED: [&str; 3] = ["audio", "function_call", "tool_calls"];

/// The messages, checked: every `content` is a text or a list of text parts.
pub(super) fn checked(value: Value) -> Result<Vec<Value>, ApiError> {
    let wrong =
        |value: &Value| ApiError::invalid("messages", "a text or a non-empty list of messages", value);
    match value {
        // One message of the user.
        Value::String(text) => Ok(vec![json!({"role": "user", "content": text})]),
        Value::Array(items) if !items.is_empty() => items
            .into_iter()
            .enumerate()
            .map(|(idx, item)| message(&format!("messages[{idx}]"), item))
            .collect(),
        other => Err(wrong(&other)),
    }
}

fn message(path: &str, value: Value) -> Result<Value, ApiError> {
    let Value::Object(mut fields) = value else {
        return Err(ApiError::invalid(path, "an object with role and content", &value));
    };
    check_role(path, &fields)?;
    for name in UNSUPPORTED {
        let given = fields.shift_remove(name).unwrap_or_default();
        if !(given.is_null() || given.as_array().is_some_and(Vec::is_empty)) {
            return Err(ApiError::Unsupported {
                param: format!("{path}.{name}"),
                advice: "Send its text as content.".into(),
            });
        }
    }
    let path = format!("{path}.content");
    let content = match fields.get_mut("content").map(Value::take) {
        Some(Value::String(text)) => Value::String(text),
        Some(Value::Array(parts)) => text_parts(&path, parts)?,
        None | Some(Value::Null) => return Err(ApiError::Missing { param: path }),
        Some(other) => return Err(ApiError::invalid(path, "a text or a list of parts", &other)),
    };
    fields.insert("content".into(), content);
    Ok(Value::Object(fields))
}

fn check_role(path: &str, fields: &Map<String, Value>) -> Result<(), ApiError> {
    let path = format!("{path}.role");
    match fields.get("role") {
        Some(Value::String(role)) if (1..=ROLE_BYTES_MAX).contains(&role.len()) => Ok(()),
        None | Some(Value::Null) => Err(ApiError::Missing { param: path }),
        Some(other) => Err(ApiError::invalid(path, "a text of 1 to 64 bytes", other)),
    }
}

/// Parts of type text; a bare text is one.
fn text_parts(path: &str, parts: Vec<Value>) -> Result<Value, ApiError> {
    let text = |(idx, part): (usize, Value)| {
        let path = format!("{path}[{idx}]");
        let kind = part["type"].as_str().map(str::to_string);
        match (kind.as_deref(), &part["text"], &part) {
            (_, _, Value::String(text)) | (Some("text"), Value::String(text), _) => {
                Ok(json!({"type": "text", "text": text}))
            }
            (Some("text"), Value::Null, _) => Err(ApiError::Missing {
                param: format!("{path}.text"),
            }),
            (Some("text"), other, _) => Err(ApiError::invalid(format!("{path}.text"), "a text", other)),
            (Some(_), _, _) => Err(ApiError::Unsupported {
                param: path,
                advice: "Models here read text: send parts of type text.".into(),
            }),
            (None, _, other) => Err(ApiError::invalid(path, "a part with a type", other)),
        }
    };
    parts.into_iter().enumerate().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(messages: Value) -> (String, &'static str) {
        let error = checked(messages).unwrap_err();
        (error.param().unwrap().to_string(), error.facts().label)
    }

    #[test]
    fn contents_are_texts_or_parts_and_other_fields_stay() {
        let parts = json!([{"type": "text", "text": "a"}, "b"]);
        let messages = json!([{"role": "user", "name": "x", "content": parts, "tool_calls": []}]);
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
        let expected = json!([{"role": "user", "name": "x", "content": parts}]);
        assert_eq!(Value::Array(checked(messages).unwrap()), expected);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        let with =
            |content: Value| json!([{"role": "user", "content": "a"}, {"role": "user", "content": content}]);
        assert_eq!(refused(json!([])), ("messages".into(), "invalid_value"));
        assert_eq!(refused(json!(7)), ("messages".into(), "invalid_value"));
        assert_eq!(refused(json!(["hi"])), ("messages[0]".into(), "invalid_value"));
        assert_eq!(
            refused(json!([{"content": "a"}])),
            ("messages[0].role".into(), "missing")
        );
        assert_eq!(
            refused(json!([{"role": 1, "content": "a"}])),
            ("messages[0].role".into(), "invalid_value")
        );
        assert_eq!(
            refused(with(json!(null))),
            ("messages[1].content".into(), "missing")
        );
        assert_eq!(
            refused(with(json!(7))),
            ("messages[1].content".into(), "invalid_value")
        );
        let image = json!([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}]);
        assert_eq!(
            refused(with(image)),
            ("messages[1].content[1]".into(), "unsupported")
        );
        let calls = json!([{"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}]);
        assert_eq!(refused(calls), ("messages[0].tool_calls".into(), "unsupported"));
    }
}
