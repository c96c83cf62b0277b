//! Chat messages: checked, and rewritten in the form that chat templates expect.
//!
//! A content is a string or a list of text parts, arguments of calls are objects, and OpenAI's older `function_call` is one
//! of the calls.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::api::error::ApiError;

/// Longest name of a role, in bytes. The template decides which roles exist.
const ROLE_BYTES_MAX: usize = 64;

/// The client's messages.
pub(super) fn listed(value: Value) -> Result<Vec<Value>, ApiError> {
    match value {
        Value::Array(items) if !items.is_empty() => Ok(items),
        other => {
            let expected = "a non-empty list of messages";
            Err(ApiError::invalid("messages", expected, &other))
        }
    }
}

/// The messages for the template: every `content` is a string or a list of text parts.
pub(super) fn checked(value: Value) -> Result<Vec<Value>, ApiError> {
    let items = listed(value)?;
    let mut messages = Vec::with_capacity(items.len());
    let mut called = CalledTools::default();
    for (idx, item) in items.into_iter().enumerate() {
        let message = message(&format!("messages[{idx}]"), item, &called)?;
        called.add(&message);
        messages.push(message);
    }
    Ok(messages)
}

/// The tools that the messages so far call, by the id of the call. The latest message counts where an id is repeated,
/// and in a message the first call.
#[derive(Default)]
struct CalledTools(HashMap<String, Value>);

impl CalledTools {
    fn add(&mut self, message: &Value) {
        let calls = message["tool_calls"].as_array().into_iter().flatten();
        for call in calls.rev() {
            if let Some(id) = call["id"].as_str() {
                self.0.insert(id.to_owned(), call["function"]["name"].clone());
            }
        }
    }
}

fn message(path: &str, value: Value, called: &CalledTools) -> Result<Value, ApiError> {
    let Value::Object(mut fields) = value else {
        return Err(ApiError::invalid(path, "an object with role and content", &value));
    };
    check_role(path, &fields)?;
    if !fields.shift_remove("audio").unwrap_or_default().is_null() {
        return Err(ApiError::Unsupported {
            param: format!("{path}.audio"),
            advice: "Send the text of the audio as content.".into(),
        });
    }
    let calls = calls(path, &mut fields)?;
    let content_path = format!("{path}.content");
    let refusal = fields.shift_remove("refusal").filter(Value::is_string);
    let content = match fields.get_mut("content").map(Value::take) {
        Some(Value::String(text)) => Value::String(text),
        Some(Value::Array(parts)) => text_parts(&content_path, parts)?,
        None | Some(Value::Null) => match refusal {
            Some(refusal) => refusal,
            None if !calls.is_empty() => json!(""),
            None => return Err(ApiError::missing(content_path)),
        },
        Some(other) => {
            return Err(ApiError::invalid(
                content_path,
                "a string or a list of parts",
                &other,
            ));
        }
    };
    fields.insert("content".into(), content);
    if !calls.is_empty() {
        fields.insert("tool_calls".into(), Value::Array(calls));
    }
    if let (None, Some(thoughts)) = (fields.get("reasoning_content"), fields.get("reasoning")) {
        let thoughts = thoughts.clone();
        fields.insert("reasoning_content".into(), thoughts);
    }
    name_result(&mut fields, called);
    Ok(Value::Object(fields))
}

/// The calls of a message, by the older name or the newer.
fn calls(path: &str, fields: &mut Map<String, Value>) -> Result<Vec<Value>, ApiError> {
    let older = fields.shift_remove("function_call").unwrap_or_default();
    let newer = fields.shift_remove("tool_calls").unwrap_or_default();
    let newer_path = format!("{path}.tool_calls");
    let mut calls = match newer {
        Value::Null => Vec::new(),
        Value::Array(calls) => calls,
        other => return Err(ApiError::invalid(newer_path, "a list of calls", &other)),
    };
    for (idx, call) in calls.iter_mut().enumerate() {
        let path = format!("{newer_path}[{idx}].function");
        match call.get_mut("function") {
            Some(function) => check_function(&path, function)?,
            None => return Err(ApiError::missing(path)),
        }
        call["type"] = json!("function");
    }
    if !older.is_null() {
        let mut function = older;
        check_function(&format!("{path}.function_call"), &mut function)?;
        calls.push(json!({"type": "function", "function": function}));
    }
    Ok(calls)
}

/// Checks a function and makes its arguments an object.
fn check_function(path: &str, function: &mut Value) -> Result<(), ApiError> {
    if !function.is_object() {
        return Err(ApiError::invalid(
            path,
            "an object with name and arguments",
            function,
        ));
    }
    if !function["name"].is_string() {
        return Err(ApiError::missing(format!("{path}.name")));
    }
    let arguments = match &function["arguments"] {
        Value::Null => json!({}),
        Value::String(text) if text.trim().is_empty() => json!({}),
        Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
        other => other.clone(),
    };
    if !arguments.is_object() {
        let expected = "a string that contains a JSON object";
        return Err(ApiError::invalid(
            format!("{path}.arguments"),
            expected,
            &function["arguments"],
        ));
    }
    function["arguments"] = arguments;
    Ok(())
}

/// Adds the tool's name to the result of a call. Some templates need it there, and clients send it with the call only.
fn name_result(fields: &mut Map<String, Value>, called: &CalledTools) {
    if fields["role"] == "function" {
        fields.insert("role".into(), json!("tool"));
    }
    if fields["role"] != "tool" || fields.contains_key("name") {
        return;
    }
    let id = fields.get("tool_call_id").and_then(Value::as_str);
    if let Some(name) = id.and_then(|id| called.0.get(id)) {
        fields.insert("name".into(), name.clone());
    }
}

fn check_role(path: &str, fields: &Map<String, Value>) -> Result<(), ApiError> {
    let path = format!("{path}.role");
    match fields.get("role") {
        Some(Value::String(role)) if (1..=ROLE_BYTES_MAX).contains(&role.len()) => Ok(()),
        None | Some(Value::Null) => Err(ApiError::missing(path)),
        Some(other) => Err(ApiError::invalid(path, "a string of 1 to 64 bytes", other)),
    }
}

/// Rewrites parts as parts of type text; a plain text and a refusal are accepted too.
fn text_parts(path: &str, parts: Vec<Value>) -> Result<Value, ApiError> {
    let text = |(idx, part): (usize, Value)| {
        let path = format!("{path}[{idx}]");
        let kind = part["type"].as_str().map(str::to_string);
        let name = match kind.as_deref() {
            Some("refusal") => "refusal",
            _ => "text",
        };
        match (kind.as_deref(), &part[name], &part) {
            (_, _, Value::String(text))
            | (Some("text" | "input_text" | "output_text" | "refusal"), Value::String(text), _) => {
                Ok(json!({"type": "text", "text": text}))
            }
            (Some("text" | "refusal"), Value::Null, _) => Err(ApiError::missing(format!("{path}.{name}"))),
            (Some("text" | "refusal"), other, _) => {
                Err(ApiError::invalid(format!("{path}.{name}"), "a string", other))
            }
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
    fn contents_are_texts_or_parts_and_other_fields_remain() {
        let parts = json!([{"type": "text", "text": "a"}, "b"]);
        let messages = json!([{"role": "user", "name": "x", "content": parts, "tool_calls": []}]);
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
        let expected = json!([{"role": "user", "name": "x", "content": parts}]);
        assert_eq!(Value::Array(checked(messages).unwrap()), expected);
    }

    #[test]
    fn an_error_has_the_path_of_the_wrong_value() {
        let with =
            |content: Value| json!([{"role": "user", "content": "a"}, {"role": "user", "content": content}]);
        assert_eq!(refused(json!([])), ("messages".into(), "invalid_value"));
        assert_eq!(refused(json!("Hi")), ("messages".into(), "invalid_value"));
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
        let call = |function: Value| json!([{"role": "assistant", "tool_calls": [{"id": "1", "function": function}]}]);
        let of = |path: &str, label| (format!("messages[0].tool_calls[0].function{path}"), label);
        assert_eq!(refused(call(json!(1))), of("", "invalid_value"));
        assert_eq!(refused(call(json!({}))), of(".name", "missing"));
        let broken = json!({"name": "f", "arguments": "{\"a\": "});
        assert_eq!(refused(call(broken)), of(".arguments", "invalid_value"));
        let without = json!([{"role": "assistant", "tool_calls": [{"id": "1"}]}]);
        assert_eq!(refused(without), of("", "missing"));
    }

    #[test]
    fn a_refusal_is_a_text() {
        let part = json!([{"type": "refusal", "refusal": "No."}]);
        let messages = json!([
            {"role": "assistant", "content": part},
            {"role": "assistant", "content": null, "refusal": "No."},
            {"role": "assistant", "content": "Yes.", "refusal": null},
        ]);
        let expected = json!([
            {"role": "assistant", "content": [{"type": "text", "text": "No."}]},
            {"role": "assistant", "content": "No."},
            {"role": "assistant", "content": "Yes."},
        ]);
        assert_eq!(Value::Array(checked(messages).unwrap()), expected);
        let empty = json!([{"role": "assistant", "content": [{"type": "refusal"}]}]);
        assert_eq!(
            refused(empty),
            ("messages[0].content[0].refusal".into(), "missing")
        );
    }

    #[test]
    fn calls_and_results_are_as_templates_expect_them() {
        let messages = json!([
            {"role": "assistant", "content": null, "reasoning": "hm", "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": [1]}"}},
                {"id": "2", "function": {"name": "g", "arguments": ""}}
            ]},
            {"role": "tool", "tool_call_id": "2", "content": "x"},
            {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "y"},
        ]);
        let expected = json!([
            {"role": "assistant", "content": "", "reasoning": "hm", "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": [1]}}},
                {"id": "2", "type": "function", "function": {"name": "g", "arguments": {}}}
            ], "reasoning_content": "hm"},
            {"role": "tool", "tool_call_id": "2", "content": "x", "name": "g"},
            {"role": "assistant", "content": "", "tool_calls": [
                {"type": "function", "function": {"name": "f", "arguments": {}}}
            ]},
            {"role": "tool", "name": "f", "content": "y"},
        ]);
        assert_eq!(Value::Array(checked(messages).unwrap()), expected);
    }
    #[test]
    fn a_result_has_the_name_of_the_latest_call_with_its_id() {
        let call = |id: &str, name: &str| json!({"id": id, "function": {"name": name}});
        let calls = |calls: Value| json!({"role": "assistant", "tool_calls": calls});
        let result = |id: &str| json!({"role": "tool", "tool_call_id": id, "content": ""});
        let messages = json!([
            calls(json!([call("1", "a"), call("1", "b"), call("2", "c")])),
            result("1"),
            calls(json!([call("1", "d")])),
            result("1"),
            result("2"),
            result("3"),
        ]);
        let checked = checked(messages).unwrap();
        let names: Vec<Option<&str>> = [1, 3, 4, 5]
            .map(|idx: usize| checked[idx]["name"].as_str())
            .to_vec();
        assert_eq!(names, [Some("a"), Some("d"), Some("c"), None]);
    }
}
