//! `/v1/messages` in terms of `/v1/chat/completions`: blocks become messages, and parameters get their other names.
//!
//! Source: Anthropic's API reference.

use serde_json::{Map, Value, json};

use super::messages::listed;
use super::missing;
use super::names::Names;
use super::params::take;
use crate::api::error::ApiError;

/// Parameters by their names in a chat.
const RENAMED: [(&str, &str); 2] = [
    ("max_tokens", "max_completion_tokens"),
    ("stop_sequences", "stop"),
];

/// Rewrites a body's fields to those of a chat.
///
/// # Errors
/// [`ApiError`] that names the path in the body as the client wrote it.
pub(super) fn to_chat(fields: &mut Map<String, Value>) -> Result<Names, ApiError> {
    let mut names = Names::default();
    let messages = messages(fields, &mut names)?;
    // What the client put into the model's mouth goes on.
    if messages
        .last()
        .is_some_and(|last| last["role"] == "assistant" && last["tool_calls"].is_null())
    {
        fields.insert("continue_final_message".into(), json!(true));
    }
    fields.insert("messages".into(), Value::Array(messages));
    for (name, chat) in RENAMED {
        if let Some(value) = take(fields, name) {
            fields.insert(chat.into(), value);
            names.add(chat, name);
        }
    }
    if let Some(tools) = take(fields, "tools") {
        fields.insert("tools".into(), functions(tools, &mut names)?);
    }
    if let Some(choice) = take(fields, "tool_choice") {
        tool_choice(choice, fields)?;
    }
    if let Some(thinking) = take(fields, "thinking") {
        let is_enabled = match thinking["type"].as_str() {
            Some("enabled" | "adaptive") => true,
            Some("disabled") => false,
            _ => {
                let expected = "an object of type enabled, adaptive or disabled";
                return Err(ApiError::invalid("thinking", expected, &thinking));
            }
        };
        // The name that templates of the Hub have for it.
        fields.insert(
            "chat_template_kwargs".into(),
            json!({"enable_thinking": is_enabled}),
        );
    }
    Ok(names)
}

/// The messages of a chat, of which what the system says is the first.
fn messages(fields: &mut Map<String, Value>, names: &mut Names) -> Result<Vec<Value>, ApiError> {
    let mut system: Vec<String> = Vec::new();
    if let Some(value) = take(fields, "system") {
        system.push(system_text("system", &value)?);
    }
    let turns = listed(take(fields, "messages").ok_or_else(|| missing("messages"))?)?;
    let mut said = Vec::with_capacity(turns.len());
    for (idx, turn) in turns.into_iter().enumerate() {
        let path = format!("messages[{idx}]");
        // Most templates know a system message at the beginning only.
        if turn["role"] == "system" {
            system.push(system_text(&format!("{path}.content"), &turn["content"])?);
        } else {
            said.push((path, turn));
        }
    }
    let mut messages = Vec::new();
    if !system.is_empty() {
        messages.push(json!({"role": "system", "content": system.join("\n")}));
    }
    for (path, turn) in said {
        let first_idx = messages.len();
        turn_to_messages(&path, turn, &mut messages)?;
        for message_idx in first_idx..messages.len() {
            names.add(format!("messages[{message_idx}]"), &path);
        }
    }
    Ok(messages)
}

fn system_text(path: &str, system: &Value) -> Result<String, ApiError> {
    match system {
        Value::String(text) => Ok(text.clone()),
        Value::Array(blocks) => {
            let texts = blocks
                .iter()
                .enumerate()
                .map(|(idx, block)| match block["text"].as_str() {
                    Some(text) if block["type"] == "text" => Ok(text),
                    _ => Err(ApiError::invalid(
                        format!("{path}[{idx}]"),
                        "a block of type text",
                        block,
                    )),
                });
            let texts: Vec<&str> = texts.collect::<Result<_, _>>()?;
            Ok(texts.join("\n"))
        }
        Value::Null => Err(missing(path)),
        other => Err(ApiError::invalid(path, "a text or a list of blocks", other)),
    }
}

/// What one message of the client says.
#[derive(Default)]
struct Turn {
    texts: Vec<String>,
    thoughts: Vec<String>,
    calls: Vec<Value>,
    results: Vec<Value>,
}

fn turn_to_messages(path: &str, mut turn: Value, messages: &mut Vec<Value>) -> Result<(), ApiError> {
    let role = match turn["role"].as_str() {
        Some(role @ ("user" | "assistant")) => role.to_string(),
        Some(_) => {
            let role_path = format!("{path}.role");
            return Err(ApiError::invalid(
                role_path,
                "user, assistant or system",
                &turn["role"],
            ));
        }
        None => return Err(missing(&format!("{path}.role"))),
    };
    let path = format!("{path}.content");
    let content = turn.get_mut("content").map(Value::take).unwrap_or_default();
    let mut turn = Turn::default();
    match content {
        Value::Null => return Err(missing(&path)),
        Value::String(text) => turn.texts.push(text),
        Value::Array(blocks) => {
            for (idx, block) in blocks.into_iter().enumerate() {
                read_block(&format!("{path}[{idx}]"), block, &mut turn)?;
            }
        }
        other => return Err(ApiError::invalid(path, "a text or a list of blocks", &other)),
    }
    // Results answer the calls before, and come before what the user says.
    let has_results = !turn.results.is_empty();
    messages.extend(turn.results);
    if turn.texts.is_empty() && turn.calls.is_empty() && has_results {
        return Ok(());
    }
    let mut message = json!({"role": role, "content": turn.texts.join("\n")});
    if !turn.thoughts.is_empty() {
        message["reasoning_content"] = json!(turn.thoughts.join("\n"));
    }
    if !turn.calls.is_empty() {
        message["tool_calls"] = Value::Array(turn.calls);
    }
    messages.push(message);
    Ok(())
}

/// Beginning of the ids of calls.
const TOOL_USE_ID: &str = "toolu_";

/// The id of a call as Anthropic's clients know it.
pub fn tool_use_id(id: &str) -> String {
    format!("{TOOL_USE_ID}{}", id.strip_prefix("call_").unwrap_or(id))
}

/// The id of a call as the template knows it: some accept those of one length only.
fn call_id(id: &str) -> &str {
    id.strip_prefix(TOOL_USE_ID).unwrap_or(id)
}

fn read_block(path: &str, mut block: Value, turn: &mut Turn) -> Result<(), ApiError> {
    let text = |name: &str| {
        let text = block[name].as_str().map(str::to_string);
        text.ok_or_else(|| missing(&format!("{path}.{name}")))
    };
    let name = |name: &str| match text(name)? {
        empty if empty.is_empty() => {
            let path = format!("{path}.{name}");
            Err(ApiError::invalid(path, "a non-empty text", &block[name]))
        }
        name => Ok(name),
    };
    match block["type"].as_str() {
        Some("text") => turn.texts.push(text("text")?),
        Some("thinking") => turn.thoughts.push(text("thinking")?),
        // Only who wrote it can read it.
        Some("redacted_thinking") => {}
        Some("tool_use") => {
            let (id, name) = (name("id")?, name("name")?);
            if block["input"].is_null() {
                return Err(missing(&format!("{path}.input")));
            }
            let function = json!({"name": name, "arguments": block["input"].take()});
            turn.calls
                .push(json!({"id": call_id(&id), "type": "function", "function": function}));
        }
        Some("tool_result") => {
            let id = name("tool_use_id")?;
            let content = result_text(&format!("{path}.content"), &block["content"])?;
            turn.results
                .push(json!({"role": "tool", "tool_call_id": call_id(&id), "content": content}));
        }
        Some(_) => {
            return Err(ApiError::Contradiction {
                param: format!("{path}.type"),
                reason: "models here read text; blocks are text, thinking, tool_use and tool_result".into(),
            });
        }
        None => return Err(missing(&format!("{path}.type"))),
    }
    Ok(())
}

fn result_text(path: &str, content: &Value) -> Result<String, ApiError> {
    match content {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Array(blocks) => {
            let text = |(idx, block): (usize, &Value)| match block["text"].as_str() {
                Some(text) => Ok(text.to_string()),
                None => Err(ApiError::invalid(
                    format!("{path}[{idx}]"),
                    "a block of type text",
                    block,
                )),
            };
            let texts: Vec<String> = blocks.iter().enumerate().map(text).collect::<Result<_, _>>()?;
            Ok(texts.join("\n"))
        }
        other => Err(ApiError::invalid(path, "a text or a list of blocks", other)),
    }
}

fn functions(tools: Value, names: &mut Names) -> Result<Value, ApiError> {
    let Value::Array(tools) = tools else {
        return Err(ApiError::invalid("tools", "a list of tools", &tools));
    };
    let function = |(idx, tool): (usize, Value)| {
        if !matches!(tool["type"].as_str(), None | Some("custom")) {
            return Err(ApiError::Contradiction {
                param: format!("tools[{idx}].type"),
                reason: "this server runs no tools of its own; custom is the only type".into(),
            });
        }
        let mut function = json!({"name": tool["name"], "parameters": tool["input_schema"]});
        if tool["description"].is_string() {
            function["description"] = tool["description"].clone();
        }
        names.add(format!("tools[{idx}].function"), format!("tools[{idx}]"));
        names.add(
            format!("tools[{idx}].function.parameters"),
            format!("tools[{idx}].input_schema"),
        );
        Ok(json!({"type": "function", "function": function}))
    };
    let functions = tools.into_iter().enumerate().map(function);
    functions.collect::<Result<Vec<_>, _>>().map(Value::Array)
}

fn tool_choice(choice: Value, fields: &mut Map<String, Value>) -> Result<(), ApiError> {
    let chat = match (choice["type"].as_str(), choice["name"].as_str()) {
        (Some("auto"), _) => json!("auto"),
        (Some("none"), _) => json!("none"),
        (Some("any"), _) => json!("required"),
        (Some("tool"), Some(name)) => json!({"type": "function", "function": {"name": name}}),
        (Some("tool"), None) => return Err(missing("tool_choice.name")),
        _ => {
            let expected = "an object of type auto, any, tool or none";
            return Err(ApiError::invalid("tool_choice", expected, &choice));
        }
    };
    fields.insert("tool_choice".into(), chat);
    if choice["disable_parallel_tool_use"] == true {
        fields.insert("parallel_tool_calls".into(), json!(false));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(body: Value) -> Result<Value, String> {
        let mut fields = body.as_object().unwrap().clone();
        let path = |error: ApiError| error.param().unwrap_or_default().to_string();
        to_chat(&mut fields).map(|_| Value::Object(fields)).map_err(path)
    }

    #[test]
    fn blocks_become_messages() {
        let body = json!({
            "model": "m", "max_tokens": 9, "stop_sequences": ["x"], "thinking": {"type": "disabled"},
            "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {"role": "user", "content": "Weather?"},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm", "signature": ""},
                    {"type": "text", "text": "Let me see."},
                    {"type": "tool_use", "id": "toolu_t1", "name": "f", "input": {"a": 1}}
                ]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": tool_use_id("call_t1"), "content": [{"type": "text", "text": "4"}]},
                    {"type": "text", "text": "So?"}
                ]},
                {"role": "assistant", "content": "It is"}
            ],
            "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
        });
        let call = json!({"id": "t1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}});
        let expected = json!({
            "model": "m", "max_completion_tokens": 9, "stop": ["x"], "continue_final_message": true,
            "chat_template_kwargs": {"enable_thinking": false},
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Weather?"},
                {"role": "assistant", "content": "Let me see.", "reasoning_content": "hm", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "t1", "content": "4"},
                {"role": "user", "content": "So?"},
                {"role": "assistant", "content": "It is"}
            ],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "description": "d"}}],
            "tool_choice": "required", "parallel_tool_calls": false,
        });
        assert_eq!(chat(body).unwrap(), expected);
    }

    #[test]
    fn what_the_system_says_comes_first() {
        let body = json!({"system": "a", "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "system", "content": [{"type": "text", "text": "b"}]},
        ]});
        let messages = json!([{"role": "system", "content": "a\nb"}, {"role": "user", "content": "Hi"}]);
        assert_eq!(chat(body).unwrap()["messages"], messages);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        let with =
            |content: Value| chat(json!({"messages": [{"role": "user", "content": content}]})).unwrap_err();
        assert_eq!(chat(json!({})).unwrap_err(), "messages");
        assert_eq!(with(json!(null)), "messages[0].content");
        assert_eq!(with(json!([{"type": "image"}])), "messages[0].content[0].type");
        assert_eq!(
            with(json!([{"type": "tool_result"}])),
            "messages[0].content[0].tool_use_id"
        );
        assert_eq!(with(json!([{"text": "a"}])), "messages[0].content[0].type");
        let developer = json!({"messages": [{"role": "developer", "content": "a"}]});
        assert_eq!(chat(developer).unwrap_err(), "messages[0].role");
        let used = |id: &str, name: &str, input: Value| {
            with(json!([{"type": "tool_use", "id": id, "name": name, "input": input}]))
        };
        let block = "messages[0].content[0]";
        assert_eq!(used("", "f", json!({})), format!("{block}.id"));
        assert_eq!(used("t1", "", json!({})), format!("{block}.name"));
        assert_eq!(used("t1", "f", json!(null)), format!("{block}.input"));
        let result = json!([{"type": "tool_result", "tool_use_id": "", "content": "4"}]);
        assert_eq!(with(result), format!("{block}.tool_use_id"));
        let hi = json!([{"role": "user", "content": "Hi"}]);
        let empty = json!({"messages": [], "system": "Be brief."});
        assert_eq!(chat(empty).unwrap_err(), "messages");
        let named = json!({"messages": hi, "tool_choice": {"type": "tool"}});
        assert_eq!(chat(named).unwrap_err(), "tool_choice.name");
        let server = json!({"messages": hi, "tools": [{"type": "bash_20250124", "name": "bash"}]});
        assert_eq!(chat(server).unwrap_err(), "tools[0].type");
    }
}
