//! Chat messages: checked, and rewritten in the form that chat templates expect.
//!
//! A content is a string or a list of text parts, arguments of calls are objects, and OpenAI's older `function_call` is one
//! of the calls.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::params::{drop_nulls, set_default};
use crate::api::error::ApiError;

/// Longest name of a role, in bytes. The template decides which roles exist.
const ROLE_BYTES_MAX: usize = 64;
/// Types of parts that contain something else than text.
const MEDIA: [&str; 9] = [
    "audio_url",
    "file",
    "image",
    "image_url",
    "input_audio",
    "input_file",
    "input_image",
    "video",
    "video_url",
];

/// The names of a message's thoughts: the one that templates read, and the newer one.
const THOUGHTS: [&str; 2] = ["reasoning_content", "reasoning"];

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
    fields.retain(|_, value| !value.is_null());
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
    // An answer may have calls or thoughts alone, and a template may give answers another role.
    let may_be_empty = fields["role"] == "assistant"
        || !calls.is_empty()
        || THOUGHTS.iter().any(|name| fields.contains_key(*name));
    let content = match fields.get_mut("content").map(Value::take) {
        Some(Value::String(text)) => Value::String(text),
        Some(Value::Array(parts)) => text_parts(&content_path, parts)?,
        None => match refusal {
            Some(refusal) => refusal,
            None if may_be_empty => json!(""),
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
    let [older, newer] = THOUGHTS;
    if let Some(thoughts) = fields.get(newer).cloned() {
        set_default(&mut fields, older, thoughts);
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
        drop_nulls(call);
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

/// Checks a function and makes its arguments an object if they are one.
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
    let given = function["arguments"].take();
    let refused = |given: &Value| {
        let expected = "a string that contains a JSON object";
        ApiError::invalid(format!("{path}.arguments"), expected, given)
    };
    function["arguments"] = match given {
        Value::Null => json!({}),
        Value::Object(_) => given,
        Value::String(text) => arguments(&text).ok_or_else(|| refused(&text.into()))?,
        other => return Err(refused(&other)),
    };
    drop_nulls(function);
    Ok(())
}

/// The arguments in a text, as an object. An answer may have other arguments, because a model may write anything; they
/// stay a text. `None` for an escape that is no character.
fn arguments(text: &str) -> Option<Value> {
    if text.trim().is_empty() {
        return Some(json!({}));
    }
    match serde_json::from_str(text) {
        Ok(Value::Null) => Some(json!({})),
        Ok(object @ Value::Object(_)) => Some(object),
        Err(error) if error.is_eof() => begun_object(text).or_else(|| Some(text.into())),
        Err(error) if error.to_string().contains("hex escape") => None,
        Ok(_) | Err(_) => Some(text.into()),
    }
}

/// The object that a text begins, without a member that is not complete. An answer that reached its largest number of
/// tokens inside a call has such arguments.
fn begun_object(text: &str) -> Option<Value> {
    let mut brackets = Vec::new();
    let (mut in_string, mut escaped) = (false, false);
    // Where the last complete member ends, and the number of brackets that are open there.
    let mut complete = (0, 0);
    for (at, char) in text.char_indices() {
        match char {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            _ if in_string => {}
            '{' | '[' => {
                brackets.push(if char == '{' { '}' } else { ']' });
                complete = (at + 1, brackets.len());
            }
            '}' | ']' => drop(brackets.pop()),
            ',' => complete = (at, brackets.len()),
            _ => {}
        }
    }
    let closed = |text: &str, n: usize| {
        text.chars()
            .chain(brackets.iter().take(n).rev().copied())
            .collect()
    };
    let all = brackets.len();
    let attempts: [String; 3] = [
        closed(text, all),
        closed(&format!("{text}\""), all),
        closed(&text[..complete.0], complete.1),
    ];
    let mut objects = attempts.iter().filter_map(|text| serde_json::from_str(text).ok());
    objects.find(Value::is_object)
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

/// Rewrites parts as parts of type text. A plain text, a refusal and an unknown part with a text are accepted too.
fn text_parts(path: &str, parts: Vec<Value>) -> Result<Value, ApiError> {
    let text = |(idx, part): (usize, Value)| {
        let path = format!("{path}[{idx}]");
        let kind = part["type"].as_str().map(str::to_string);
        let name = match kind.as_deref() {
            Some("refusal") => "refusal",
            _ => "text",
        };
        match (kind.as_deref(), &part[name], &part) {
            (_, _, Value::String(text)) => Ok(json!({"type": "text", "text": text})),
            (Some(kind), Value::String(text), _) if !MEDIA.contains(&kind) => {
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
        let number = json!({"name": "f", "arguments": 7});
        assert_eq!(refused(call(number)), of(".arguments", "invalid_value"));
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
    fn null_counts_as_absent_at_every_place() {
        let messages = json!([
            {"role": "assistant", "content": "a", "reasoning": "hm", "reasoning_content": null, "tool_calls": null,
             "function_call": null, "audio": null, "refusal": null, "name": null},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "1", "type": null, "index": null, "function": {"name": "f", "arguments": null, "description": null}}
            ]},
            {"role": "tool", "tool_call_id": "1", "name": null, "content": "x"},
        ]);
        let expected = json!([
            {"role": "assistant", "content": "a", "reasoning": "hm", "reasoning_content": "hm"},
            {"role": "assistant", "content": "", "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": {}}}
            ]},
            {"role": "tool", "tool_call_id": "1", "name": "f", "content": "x"},
        ]);
        assert_eq!(Value::Array(checked(messages).unwrap()), expected);
    }

    #[test]
    fn arguments_of_any_answer_are_accepted() {
        let read = |text: &str| {
            let function = json!({"name": "f", "arguments": text});
            let messages = json!([{"role": "assistant", "tool_calls": [{"id": "1", "function": function}]}]);
            checked(messages).unwrap()[0]["tool_calls"][0]["function"]["arguments"].clone()
        };
        let whole = r#"{"a": [1, {"b": "x\"}y"}], "c": true, "d": "e"}"#;
        let object = serde_json::from_str::<Value>(whole).unwrap();
        assert_eq!(read(whole), object);
        // Each beginning is an object whose complete members are those of the whole.
        for end in 1..whole.len() {
            let begun = read(&whole[..end]);
            let begun = begun.as_object().unwrap_or_else(|| panic!("{}", &whole[..end]));
            for (name, value) in begun.iter().rev().skip(1) {
                assert_eq!(*value, object[name], "{}", &whole[..end]);
            }
        }
        assert_eq!(
            (read("null"), read(" "), read("{")),
            (json!({}), json!({}), json!({}))
        );
        for text in ["hello", "[1]", "7", "{\"text\": }", "}{", "\\\"", "[1, {\"a\""] {
            assert_eq!(read(text), text);
        }
        let surrogate = json!({"name": "f", "arguments": r#"{"a": "\ud800"}"#});
        let messages = json!([{"role": "assistant", "tool_calls": [{"id": "1", "function": surrogate}]}]);
        let path = "messages[0].tool_calls[0].function.arguments".to_string();
        assert_eq!(refused(messages), (path, "invalid_value"));
    }

    #[test]
    fn a_part_with_a_text_is_a_text() {
        let content =
            json!([{"type": "output_text", "text": "a", "annotations": []}, {"type": "new", "text": "b"}]);
        let messages = json!([{"role": "user", "content": content}]);
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
        assert_eq!(checked(messages).unwrap()[0]["content"], parts);
        let image = json!([{"role": "user", "content": [{"type": "image_url", "text": "b"}]}]);
        assert_eq!(refused(image), ("messages[0].content[0]".into(), "unsupported"));
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
