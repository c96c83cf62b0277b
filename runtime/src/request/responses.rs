//! `/v1/responses` in terms of `/v1/chat/completions`: items become messages, and parameters get their other names.
//!
//! Nothing is stored, so a request carries its whole conversation. Source: OpenAI's API reference.

use serde_json::{Map, Value, json};

use super::missing;
use super::params::take;
use crate::error::ApiError;

/// Items of one input.
const ITEMS_MAX: usize = 8192;

/// Parameters by their names in a chat.
const RENAMED: [(&str, &str); 1] = [("max_output_tokens", "max_completion_tokens")];

/// Rewrites a body's fields to those of a chat.
///
/// # Errors
/// [`ApiError`] that names the path in the body as the client wrote it.
pub(super) fn to_chat(fields: &mut Map<String, Value>) -> Result<(), ApiError> {
    let messages = messages(
        take(fields, "instructions"),
        take(fields, "input").ok_or_else(|| missing("input"))?,
    )?;
    fields.insert("messages".into(), Value::Array(messages));
    for (name, chat) in RENAMED {
        if let Some(value) = take(fields, name) {
            fields.insert(chat.into(), value);
        }
    }
    if let Some(tools) = take(fields, "tools") {
        fields.insert("tools".into(), nested_tools(tools)?);
    }
    if let Some(choice) = take(fields, "tool_choice") {
        fields.insert("tool_choice".into(), nested_choice(choice));
    }
    if fields.get("tools").is_none_or(|tools| tools == &json!([]))
        && fields.get("tool_choice") == Some(&json!("auto"))
    {
        fields.shift_remove("tool_choice");
    }
    if let Some(text) = take(fields, "text") {
        format(&text, fields)?;
    }
    if let Some(effort) =
        take(fields, "reasoning").and_then(|mut reasoning| reasoning.get_mut("effort").map(Value::take))
    {
        fields.insert("reasoning_effort".into(), effort);
    }
    if fields
        .get("top_logprobs")
        .and_then(Value::as_u64)
        .is_some_and(|n| n > 0)
    {
        fields.insert("logprobs".into(), json!(true));
    }
    Ok(())
}

fn messages(instructions: Option<Value>, input: Value) -> Result<Vec<Value>, ApiError> {
    let mut messages = Vec::new();
    match instructions {
        None => {}
        Some(Value::String(text)) => messages.push(json!({"role": "system", "content": text})),
        Some(other) => return Err(ApiError::invalid("instructions", "a text", &other)),
    }
    let items = match input {
        Value::String(text) => vec![json!({"role": "user", "content": text})],
        Value::Array(items) if (1..=ITEMS_MAX).contains(&items.len()) => items,
        other => {
            let expected = format!("a text or a list of 1 to {ITEMS_MAX} items");
            return Err(ApiError::invalid("input", expected, &other));
        }
    };
    // Thoughts belong to what the model says or does after them.
    let mut thoughts = None;
    for (idx, item) in items.into_iter().enumerate() {
        let path = format!("input[{idx}]");
        match item["type"].as_str().or(item["role"].as_str().map(|_| "message")) {
            Some("message") => {
                let mut message = message(item);
                if message["role"] == "assistant" {
                    add_thoughts(&mut message, thoughts.take());
                }
                messages.push(message);
            }
            Some("reasoning") => {
                thoughts = Some(
                    texts(&item["content"]).unwrap_or_else(|| texts(&item["summary"]).unwrap_or_default()),
                )
            }
            Some("function_call") => call(&path, &item, thoughts.take(), &mut messages)?,
            Some("function_call_output") => messages.push(output(&path, item)?),
            Some(_) => {
                return Err(ApiError::Contradiction {
                    param: format!("{path}.type"),
                    reason: "items here are message, reasoning, function_call and function_call_output"
                        .into(),
                });
            }
            None => return Err(missing(&format!("{path}.type"))),
        }
    }
    Ok(messages)
}

fn message(mut item: Value) -> Value {
    if let Some(fields) = item.as_object_mut() {
        for name in ["type", "id", "status"] {
            fields.shift_remove(name);
        }
    }
    item
}

/// Texts of parts, joined; `None` if there are none.
fn texts(parts: &Value) -> Option<String> {
    let texts = parts.as_array()?.iter().filter_map(|part| part["text"].as_str());
    let texts: Vec<&str> = texts.collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}

fn add_thoughts(message: &mut Value, thoughts: Option<String>) {
    if let Some(thoughts) = thoughts.filter(|thoughts| !thoughts.is_empty()) {
        message["reasoning_content"] = json!(thoughts);
    }
}

/// A call joins the assistant's message before it.
fn call(
    path: &str,
    item: &Value,
    thoughts: Option<String>,
    messages: &mut Vec<Value>,
) -> Result<(), ApiError> {
    for name in ["call_id", "name"] {
        if !item[name].is_string() {
            return Err(missing(&format!("{path}.{name}")));
        }
    }
    let call = json!({
        "id": item["call_id"],
        "type": "function",
        "function": {"name": item["name"], "arguments": item["arguments"]},
    });
    if let Some(last) = messages
        .last_mut()
        .filter(|last| last["role"] == "assistant" && thoughts.is_none())
    {
        match last["tool_calls"].as_array_mut() {
            Some(calls) => calls.push(call),
            None => last["tool_calls"] = json!([call]),
        }
        return Ok(());
    }
    let mut message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
    add_thoughts(&mut message, thoughts);
    messages.push(message);
    Ok(())
}

fn output(path: &str, mut item: Value) -> Result<Value, ApiError> {
    if !item["call_id"].is_string() {
        return Err(missing(&format!("{path}.call_id")));
    }
    let output = item["output"].take();
    Ok(json!({"role": "tool", "tool_call_id": item["call_id"], "content": output}))
}

/// Tools are flat here, and in chats inside `function`.
fn nested_tools(tools: Value) -> Result<Value, ApiError> {
    let Value::Array(tools) = tools else {
        return Err(ApiError::invalid("tools", "a list of tools", &tools));
    };
    let nested = |(idx, mut tool): (usize, Value)| {
        if tool["type"] != "function" || tool.get("function").is_some() {
            return match tool["type"].as_str() {
                Some("function") => Ok(tool),
                _ => Err(ApiError::Contradiction {
                    param: format!("tools[{idx}].type"),
                    reason: "this server runs no tools of its own; function is the only type".into(),
                }),
            };
        }
        if let Some(fields) = tool.as_object_mut() {
            fields.shift_remove("type");
        }
        Ok(json!({"type": "function", "function": tool}))
    };
    tools
        .into_iter()
        .enumerate()
        .map(nested)
        .collect::<Result<Vec<_>, _>>()
        .map(Value::Array)
}

fn nested_choice(choice: Value) -> Value {
    match (choice["type"].as_str(), choice["name"].as_str()) {
        (Some("function"), Some(name)) => json!({"type": "function", "function": {"name": name}}),
        _ => choice,
    }
}

/// `text.format` is a chat's `response_format`, with the schema one level higher.
fn format(text: &Value, fields: &mut Map<String, Value>) -> Result<(), ApiError> {
    if let verbosity @ (Value::String(_) | Value::Number(_)) = &text["verbosity"]
        && verbosity != "medium"
    {
        return Err(ApiError::Contradiction {
            param: "text.verbosity".into(),
            reason: "ask for it in the instructions; medium is the only value".into(),
        });
    }
    let format = &text["format"];
    let response_format = match format["type"].as_str() {
        None if format.is_null() => return Ok(()),
        Some("text") => return Ok(()),
        Some("json_schema") => {
            let mut schema = format.clone();
            if let Some(schema) = schema.as_object_mut() {
                schema.shift_remove("type");
            }
            json!({"type": "json_schema", "json_schema": schema})
        }
        Some("json_object") => json!({"type": "json_object"}),
        _ => {
            let expected = "an object of type text, json_object or json_schema";
            return Err(ApiError::invalid("text.format", expected, format));
        }
    };
    fields.insert("response_format".into(), response_format);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(body: Value) -> Result<Value, (String, String)> {
        let mut fields = body.as_object().unwrap().clone();
        let told = |error: ApiError| (error.param().unwrap_or_default().to_string(), error.to_string());
        to_chat(&mut fields).map(|()| Value::Object(fields)).map_err(told)
    }

    #[test]
    fn items_become_messages() {
        let body = json!({
            "model": "m", "instructions": "Be brief.", "max_output_tokens": 5, "reasoning": {"effort": "low"},
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
                {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
                {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"},
                {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "4"},
                {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": "Cold."}
            ],
            "tools": [{"type": "function", "name": "f", "parameters": {}}],
            "tool_choice": {"type": "function", "name": "f"},
            "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": true}},
        });
        let call = |id: &str, name: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}});
        let expected = json!({
            "model": "m", "max_completion_tokens": 5, "reasoning_effort": "low",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
                {"role": "assistant", "content": null, "tool_calls": [call("c1", "f"), call("c2", "g")], "reasoning_content": "hm"},
                {"role": "tool", "tool_call_id": "c1", "content": "4"},
                {"role": "assistant", "content": "Cold."}
            ],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": true}},
        });
        assert_eq!(chat(body).unwrap(), expected);
        let text = chat(json!({"input": "Hi"})).unwrap();
        assert_eq!(text, json!({"messages": [{"role": "user", "content": "Hi"}]}));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        let refused = |name: &str, value: Value| {
            let mut body = json!({"input": "Hi"});
            body[name] = value;
            chat(body).unwrap_err().0
        };
        assert_eq!(chat(json!({})).unwrap_err().0, "input");
        assert_eq!(refused("tools", json!([{"type": "web_search"}])), "tools[0].type");
        assert_eq!(
            refused("input", json!([{"type": "item_reference", "id": "x"}])),
            "input[0].type"
        );
        assert_eq!(
            refused("input", json!([{"type": "function_call", "name": "f"}])),
            "input[0].call_id"
        );
        assert_eq!(refused("input", json!([7])), "input[0].type");
        assert_eq!(
            refused("text", json!({"format": {"type": "grammar"}})),
            "text.format"
        );
    }
}
