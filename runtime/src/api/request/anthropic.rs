//! The bodies of `/v1/messages` and `/v1/messages/count_tokens`, rewritten as a chat's: blocks become messages, and
//! parameters get their other names.
//!
//! Source: Anthropic's API reference.

use serde_json::{Map, Value, json};

use super::chat::rewritten_chat;
use super::messages::listed;
use super::parameters::{MESSAGE_TOKENS, MESSAGES};
use super::params::{Params, set_default, take};
use super::prepared::Prepared;
use super::renames::Renames;
use super::rules::Rules;
use crate::api::error::ApiError;

/// Parameters, each with its name in a chat.
const RENAMED: [(&str, &str); 2] = [
    ("max_tokens", "max_completion_tokens"),
    ("stop_sequences", "stop"),
];

/// Reads the body of `/v1/messages`.
///
/// # Errors
/// [`ApiError`] for every error of the client.
pub fn anthropic(body: &[u8], rules: &Rules<'_>) -> Result<Prepared, ApiError> {
    let params = Params::parse(body, &MESSAGES, rules)?;
    if !params.has("max_tokens") {
        return Err(ApiError::missing("max_tokens"));
    }
    anthropic_chat(params, rules)
}

/// Reads the body of `/v1/messages/count_tokens`.
///
/// # Errors
/// [`ApiError`] for every error of the client.
pub fn anthropic_prompt(body: &[u8], rules: &Rules<'_>) -> Result<Prepared, ApiError> {
    anthropic_chat(Params::parse(body, &MESSAGE_TOKENS, rules)?, rules)
}

fn anthropic_chat(mut params: Params, rules: &Rules<'_>) -> Result<Prepared, ApiError> {
    // The range of a chat's temperature is larger.
    params.check_number("temperature")?;
    rewritten_chat(params, to_chat, rules)
}

/// Rewrites a body's fields as those of a chat.
///
/// # Errors
/// [`ApiError`] with the path in the client's body.
fn to_chat(fields: &mut Map<String, Value>) -> Result<Renames, ApiError> {
    let mut renames = Renames::default();
    let messages = messages(fields, &mut renames)?;
    // The answer continues a last message that the client wrote for the model.
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
            renames.add(chat, name);
        }
    }
    if let Some(tools) = take(fields, "tools") {
        fields.insert("tools".into(), functions(tools, &mut renames)?);
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
        set_default(fields, "chat_template_kwargs", json!({}));
        if let Some(Value::Object(variables)) = fields.get_mut("chat_template_kwargs") {
            // Chat templates call it so.
            set_default(variables, "enable_thinking", json!(is_enabled));
        }
    }
    Ok(renames)
}

/// The messages of a chat. All system messages are joined into the first.
fn messages(fields: &mut Map<String, Value>, renames: &mut Renames) -> Result<Vec<Value>, ApiError> {
    let mut system: Vec<String> = Vec::new();
    if let Some(value) = take(fields, "system") {
        system.push(system_text("system", &value)?);
    }
    let turns = listed(take(fields, "messages").ok_or_else(|| ApiError::missing("messages"))?)?;
    let mut others = Vec::with_capacity(turns.len());
    for (idx, turn) in turns.into_iter().enumerate() {
        let path = format!("messages[{idx}]");
        // Most templates accept a system message at the beginning only.
        if turn["role"] == "system" {
            system.push(system_text(&format!("{path}.content"), &turn["content"])?);
        } else {
            others.push((path, turn));
        }
    }
    let mut messages = Vec::new();
    if !system.is_empty() {
        messages.push(json!({"role": "system", "content": system.join("\n")}));
    }
    for (path, turn) in others {
        let first_idx = messages.len();
        turn_to_messages(&path, turn, &mut messages)?;
        for message_idx in first_idx..messages.len() {
            renames.add(format!("messages[{message_idx}]"), &path);
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
                    Some(text) => Ok(text),
                    None => Err(ApiError::invalid(
                        format!("{path}[{idx}]"),
                        "a block of type text",
                        block,
                    )),
                });
            let texts: Vec<&str> = texts.collect::<Result<_, _>>()?;
            Ok(texts.join("\n"))
        }
        Value::Null => Err(ApiError::missing(path)),
        other => Err(ApiError::invalid(path, "a string or a list of blocks", other)),
    }
}

/// The content of one of the client's messages.
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
        None => return Err(ApiError::missing(format!("{path}.role"))),
    };
    let path = format!("{path}.content");
    let content = turn.get_mut("content").map(Value::take).unwrap_or_default();
    let mut turn = Turn::default();
    match content {
        Value::Null => return Err(ApiError::missing(&path)),
        Value::String(text) => turn.texts.push(text),
        Value::Array(blocks) => {
            for (idx, block) in blocks.into_iter().enumerate() {
                read_block(&format!("{path}[{idx}]"), &role, block, &mut turn)?;
            }
        }
        other => return Err(ApiError::invalid(path, "a string or a list of blocks", &other)),
    }
    // Results answer the calls of the message before, so they come before the user's text.
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

/// The id of a call in Anthropic's form.
pub fn tool_use_id(id: &str) -> String {
    format!("{TOOL_USE_ID}{}", id.strip_prefix("call_").unwrap_or(id))
}

/// The id of a call in a chat. Some templates accept ids of one length only.
fn call_id(id: &str) -> &str {
    id.strip_prefix(TOOL_USE_ID).unwrap_or(id)
}

fn read_block(path: &str, role: &str, mut block: Value, turn: &mut Turn) -> Result<(), ApiError> {
    let text = |name: &str| {
        let text = block[name].as_str().map(str::to_string);
        text.ok_or_else(|| ApiError::missing(format!("{path}.{name}")))
    };
    let name = |name: &str| match text(name)? {
        empty if empty.is_empty() => {
            let path = format!("{path}.{name}");
            Err(ApiError::invalid(path, "a non-empty string", &block[name]))
        }
        name => Ok(name),
    };
    // Elsewhere, no template would show it.
    let belongs_to = |owner: &str| match role == owner {
        true => Ok(()),
        false => Err(ApiError::Contradiction {
            param: format!("{path}.type"),
            reason: format!("this block belongs into a message of the role {owner}, not {role}"),
        }),
    };
    match block["type"].as_str() {
        Some("text") => turn.texts.push(text("text")?),
        Some("thinking") => turn.thoughts.push(text("thinking")?),
        // Only the server that encrypted it can read it.
        Some("redacted_thinking") => {}
        Some("tool_use") => {
            let (id, name) = (name("id")?, name("name")?);
            belongs_to("assistant")?;
            let function = json!({"name": name, "arguments": block["input"].take()});
            turn.calls
                .push(json!({"id": call_id(&id), "type": "function", "function": function}));
        }
        Some("tool_result") => {
            let id = name("tool_use_id")?;
            belongs_to("user")?;
            let content = result_text(&format!("{path}.content"), &block["content"])?;
            turn.results
                .push(json!({"role": "tool", "tool_call_id": call_id(&id), "content": content}));
        }
        Some(_) => match written_text(&block) {
            Some(text) => turn.texts.push(text),
            None => {
                return Err(ApiError::Contradiction {
                    param: format!("{path}.type"),
                    reason:
                        "models here read text; supported blocks are text, thinking, tool_use, tool_result, \
                         and others that contain a text"
                            .into(),
                });
            }
        },
        None => return Err(ApiError::missing(format!("{path}.type"))),
    }
    Ok(())
}

/// The text of a block of another type: its own, that of a document, or those of a search result.
fn written_text(block: &Value) -> Option<String> {
    let source = &block["source"];
    let own = block["text"].as_str();
    let text = own.or(source["data"].as_str().filter(|_| source["type"] == "text"));
    let parts = [&block["content"], &source["content"]]
        .into_iter()
        .filter_map(Value::as_array);
    let texts: Vec<&str> = parts.flatten().filter_map(|part| part["text"].as_str()).collect();
    text.map(str::to_owned)
        .or_else(|| (!texts.is_empty()).then(|| texts.join("\n")))
}

fn result_text(path: &str, content: &Value) -> Result<String, ApiError> {
    match content {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Array(blocks) => {
            let text = |(idx, block): (usize, &Value)| match written_text(block) {
                Some(text) => Ok(text),
                None => Err(ApiError::invalid(
                    format!("{path}[{idx}]"),
                    "a block of type text",
                    block,
                )),
            };
            let texts: Vec<String> = blocks.iter().enumerate().map(text).collect::<Result<_, _>>()?;
            Ok(texts.join("\n"))
        }
        other => Err(ApiError::invalid(path, "a string or a list of blocks", other)),
    }
}

fn functions(tools: Value, renames: &mut Renames) -> Result<Value, ApiError> {
    let Value::Array(tools) = tools else {
        return Err(ApiError::invalid("tools", "a list of tools", &tools));
    };
    let function = |(idx, tool): (usize, Value)| {
        if !matches!(tool["type"].as_str(), None | Some("custom")) {
            return Ok(tool);
        }
        let mut function = json!({"name": tool["name"], "parameters": tool["input_schema"]});
        if tool["description"].is_string() {
            function["description"] = tool["description"].clone();
        }
        renames.add(format!("tools[{idx}].function"), format!("tools[{idx}]"));
        renames.add(
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
        (Some("tool"), None) => return Err(ApiError::missing("tool_choice.name")),
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
    fn system_messages_come_first() {
        let body = json!({"system": "a", "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "system", "content": [{"type": "text", "text": "b"}]},
        ]});
        let messages = json!([{"role": "system", "content": "a\nb"}, {"role": "user", "content": "Hi"}]);
        assert_eq!(chat(body).unwrap()["messages"], messages);
    }

    #[test]
    fn an_error_has_the_path_of_the_wrong_value() {
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
        let result = json!([{"type": "tool_result", "tool_use_id": "", "content": "4"}]);
        assert_eq!(with(result), format!("{block}.tool_use_id"));
        // A block in a message of the other role would not reach the prompt.
        assert_eq!(used("t1", "f", json!({})), format!("{block}.type"));
        let answered = json!([{"type": "tool_result", "tool_use_id": "t1", "content": "4"}]);
        let of_assistant = json!({"messages": [{"role": "assistant", "content": answered}]});
        assert_eq!(chat(of_assistant).unwrap_err(), format!("{block}.type"));
        let hi = json!([{"role": "user", "content": "Hi"}]);
        let empty = json!({"messages": [], "system": "Be brief."});
        assert_eq!(chat(empty).unwrap_err(), "messages");
        let named = json!({"messages": hi, "tool_choice": {"type": "tool"}});
        assert_eq!(chat(named).unwrap_err(), "tool_choice.name");
    }

    #[test]
    fn variables_of_the_client_remain() {
        let variables = |given: Value| {
            let body = json!({"messages": [{"role": "user", "content": "Hi"}], "thinking": {"type": "enabled"}, "chat_template_kwargs": given});
            chat(body).unwrap()["chat_template_kwargs"].clone()
        };
        assert_eq!(
            variables(json!({"n": 100})),
            json!({"n": 100, "enable_thinking": true})
        );
        assert_eq!(
            variables(json!({"enable_thinking": false})),
            json!({"enable_thinking": false})
        );
        assert_eq!(variables(json!(null)), json!({"enable_thinking": true}));
    }

    #[test]
    fn a_block_with_a_text_is_a_text() {
        let blocks = json!([
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a"}},
            {"type": "search_result", "source": "https://example.com", "title": "T", "content": [{"type": "text", "text": "b"}]},
            {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "c"}]}},
            {"type": "new", "text": "d"},
        ]);
        let body = json!({"messages": [{"role": "user", "content": blocks}]});
        assert_eq!(chat(body).unwrap()["messages"][0]["content"], "a\nb\nc\nd");
        let pdf = json!([{"type": "document", "source": {"type": "base64", "data": "eA=="}}]);
        let body = json!({"messages": [{"role": "user", "content": pdf}]});
        assert_eq!(chat(body).unwrap_err(), "messages[0].content[0].type");
    }
}
