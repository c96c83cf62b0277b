//! The body of `/v1/responses`, rewritten as a chat's: items become messages, and parameters get their other names.
//!
//! Nothing is stored, so a request contains its complete conversation. Source: OpenAI's API reference.

use serde_json::{Map, Value, json};

use super::chat::rewritten_chat;
use super::parameters::RESPONSES;
use super::params::{Params, take};
use super::prepared::Prepared;
use super::renames::Renames;
use super::rules::Rules;
use crate::api::error::ApiError;

/// Items of one input.
const ITEMS_MAX: usize = 8192;

/// Items of tools that ran elsewhere. What they found is part of the answers after them.
const HOSTED: [&str; 10] = [
    "code_interpreter_call",
    "file_search_call",
    "image_generation_call",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_list_tools",
    "tool_search_call",
    "tool_search_output",
    "web_search_call",
    "web_search_preview_call",
];

/// The value of `include` that requests log-probabilities.
const LOGPROBS: &str = "message.output_text.logprobs";

/// A checked request to `/v1/responses`.
#[derive(Debug)]
pub struct PreparedResponse {
    /// What to answer and how.
    pub prepared: Prepared,
    /// The client's body. The answer repeats some of its values.
    pub given: Map<String, Value>,
}

/// Reads the body of `/v1/responses`.
///
/// # Errors
/// [`ApiError`] for every error of the client.
pub fn response(body: &[u8], rules: &Rules<'_>) -> Result<PreparedResponse, ApiError> {
    let params = Params::parse(body, &RESPONSES, rules)?;
    let given = params.fields().clone();
    let prepared = rewritten_chat(params, to_chat, rules)?;
    Ok(PreparedResponse { prepared, given })
}

/// Rewrites a body's fields as those of a chat.
///
/// # Errors
/// [`ApiError`] with the path in the client's body.
fn to_chat(fields: &mut Map<String, Value>) -> Result<Renames, ApiError> {
    let mut renames = messages(fields)?;
    if let Some(limit) = take(fields, "max_output_tokens") {
        fields.insert("max_completion_tokens".into(), limit);
        for name in ["max_completion_tokens", "max_tokens"] {
            renames.add(name, "max_output_tokens");
        }
    }
    if let Some(tools) = take(fields, "tools") {
        fields.insert("tools".into(), nested_tools(tools, &mut renames)?);
    }
    if let Some(choice) = take(fields, "tool_choice") {
        fields.insert("tool_choice".into(), nested_choice(choice, &mut renames));
    }
    if fields.get("tools").is_none_or(|tools| tools == &json!([]))
        && fields.get("tool_choice") == Some(&json!("auto"))
    {
        fields.shift_remove("tool_choice");
    }
    if let Some(text) = take(fields, "text") {
        format(&text, fields)?;
        renames.add("response_format", "text.format");
        renames.add("response_format.json_schema", "text.format");
    }
    if let Some(effort) =
        take(fields, "reasoning").and_then(|mut reasoning| reasoning.get_mut("effort").map(Value::take))
    {
        fields.insert("reasoning_effort".into(), effort);
        renames.add("reasoning_effort", "reasoning.effort");
    }
    logprobs(fields)?;
    Ok(renames)
}

/// Only `include` requests log-probabilities; without it `top_logprobs` has no effect.
fn logprobs(fields: &mut Map<String, Value>) -> Result<(), ApiError> {
    let include = take(fields, "include").unwrap_or_else(|| json!([]));
    let Some(included) = include.as_array().filter(|all| all.iter().all(Value::is_string)) else {
        return Err(ApiError::invalid("include", "a list of strings", &include));
    };
    if included.iter().any(|name| name == LOGPROBS) {
        fields.insert("logprobs".into(), json!(true));
    } else {
        fields.shift_remove("top_logprobs");
    }
    Ok(())
}

/// Makes messages from instructions and input.
fn messages(fields: &mut Map<String, Value>) -> Result<Renames, ApiError> {
    let mut turns = Turns::default();
    turns.renames.add("messages", "input");
    match take(fields, "instructions") {
        None => {}
        Some(Value::String(text)) => turns.push("instructions", json!({"role": "system", "content": text})),
        Some(other) => return Err(ApiError::invalid("instructions", "a string", &other)),
    }
    match take(fields, "input").ok_or_else(|| ApiError::missing("input"))? {
        Value::String(text) => turns.push("input", json!({"role": "user", "content": text})),
        Value::Array(items) if (1..=ITEMS_MAX).contains(&items.len()) => {
            for (idx, item) in items.into_iter().enumerate() {
                turns.item(&format!("input[{idx}]"), item)?;
            }
            turns.end_thoughts();
        }
        other => {
            let expected = format!("a string or a list of 1 to {ITEMS_MAX} items");
            return Err(ApiError::invalid("input", expected, &other));
        }
    }
    fields.insert("messages".into(), Value::Array(turns.messages));
    Ok(turns.renames)
}

/// The conversation so far.
#[derive(Default)]
struct Turns {
    messages: Vec<Value>,
    renames: Renames,
    /// Thoughts that belong to the model's next message or call, and the path of their item.
    thoughts: Option<(String, String)>,
}

impl Turns {
    /// Adds a message that is at `path` in the client's body.
    fn push(&mut self, path: &str, message: Value) {
        self.renames
            .add(format!("messages[{}]", self.messages.len()), path);
        self.messages.push(message);
    }

    fn take_thoughts(&mut self) -> Option<String> {
        self.thoughts.take().map(|(_, thoughts)| thoughts)
    }

    /// Thoughts that nothing of the model follows are an answer of their own, which ended inside them.
    fn end_thoughts(&mut self) {
        if let Some((path, thoughts)) = self.thoughts.take().filter(|(_, thoughts)| !thoughts.is_empty()) {
            let message = json!({"role": "assistant", "content": "", "reasoning_content": thoughts});
            self.push(&path, message);
        }
    }

    fn item(&mut self, path: &str, mut item: Value) -> Result<(), ApiError> {
        match item["type"].as_str().or(item["role"].as_str().map(|_| "message")) {
            Some("message") => {
                let mut message = message(item);
                if message["role"] == "assistant" {
                    add_thoughts(&mut message, self.take_thoughts());
                }
                self.end_thoughts();
                self.push(path, message);
            }
            Some("reasoning") => {
                let texts = texts(&item["content"]).or_else(|| texts(&item["summary"]));
                let before = self.take_thoughts().filter(|before| !before.is_empty());
                let thoughts: Vec<String> = before.into_iter().chain(texts).collect();
                self.thoughts = Some((path.to_owned(), thoughts.join("\n")));
            }
            Some("function_call") => self.call(path, &item)?,
            // The calls of tools that are not functions, from a server that offers such tools.
            Some("custom_tool_call") => {
                item["arguments"] = json!({"input": item["input"].take()});
                self.call(path, &item)?;
            }
            Some("local_shell_call") => {
                item["name"] = json!("local_shell");
                item["arguments"] = item["action"].take();
                self.call(path, &item)?;
            }
            Some("function_call_output" | "custom_tool_call_output" | "local_shell_call_output") => {
                self.output(path, item)?;
            }
            Some(kind) if HOSTED.contains(&kind) => {
                self.renames.leave_out(format!("{path}:{kind}"));
            }
            Some(_) => {
                let reason = "supported items are message, reasoning, function_call and function_call_output, and the \
                              calls of other tools; nothing is stored here";
                return Err(ApiError::contradiction(format!("{path}.type"), reason));
            }
            None => return Err(ApiError::missing(format!("{path}.type"))),
        }
        Ok(())
    }

    /// A call joins the assistant's message before it.
    fn call(&mut self, path: &str, item: &Value) -> Result<(), ApiError> {
        for name in ["call_id", "name"] {
            if !item[name].is_string() {
                return Err(ApiError::missing(format!("{path}.{name}")));
            }
        }
        let call = json!({
            "id": item["call_id"],
            "type": "function",
            "function": {"name": item["name"], "arguments": item["arguments"]},
        });
        let thoughts = self.take_thoughts();
        let joins = self
            .messages
            .last()
            .is_some_and(|last| last["role"] == "assistant");
        if thoughts.is_some() || !joins {
            let mut message = json!({"role": "assistant", "content": null});
            add_thoughts(&mut message, thoughts);
            self.push(path, message);
        }
        let message_idx = self.messages.len() - 1;
        let message = &mut self.messages[message_idx];
        if message["tool_calls"].is_null() {
            message["tool_calls"] = json!([]);
        }
        if let Some(calls) = message["tool_calls"].as_array_mut() {
            let function = format!("messages[{message_idx}].tool_calls[{}].function", calls.len());
            calls.push(call);
            self.renames.add(function, path);
        }
        Ok(())
    }

    fn output(&mut self, path: &str, mut item: Value) -> Result<(), ApiError> {
        if !item["call_id"].is_string() {
            return Err(ApiError::missing(format!("{path}.call_id")));
        }
        self.end_thoughts();
        let content = format!("messages[{}].content", self.messages.len());
        self.renames.add(content, format!("{path}.output"));
        let output = item["output"].take();
        self.push(
            path,
            json!({"role": "tool", "tool_call_id": item["call_id"], "content": output}),
        );
        Ok(())
    }
}

fn message(mut item: Value) -> Value {
    if let Some(fields) = item.as_object_mut() {
        for name in ["type", "id", "status"] {
            fields.shift_remove(name);
        }
    }
    item
}

/// Joins the texts of parts; `None` if no part has one.
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

/// Puts each tool into `function`, as in a chat.
fn nested_tools(tools: Value, renames: &mut Renames) -> Result<Value, ApiError> {
    let Value::Array(tools) = tools else {
        return Err(ApiError::invalid("tools", "a list of tools", &tools));
    };
    let nested = |(idx, mut tool): (usize, Value)| {
        if tool["type"] != "function" || tool.get("function").is_some_and(Value::is_object) {
            return tool;
        }
        if let Some(fields) = tool.as_object_mut() {
            fields.shift_remove("type");
        }
        renames.add(format!("tools[{idx}].function"), format!("tools[{idx}]"));
        json!({"type": "function", "function": tool})
    };
    Ok(tools.into_iter().enumerate().map(nested).collect())
}

fn nested_choice(choice: Value, renames: &mut Renames) -> Value {
    match (choice["type"].as_str(), choice["name"].as_str()) {
        (Some("allowed_tools"), _) => {
            renames.add("tool_choice.allowed_tools", "tool_choice");
            json!({"type": "allowed_tools", "allowed_tools": choice})
        }
        (Some("function"), Some(name)) => json!({"type": "function", "function": {"name": name}}),
        _ => choice,
    }
}

/// Rewrites `text.format` as a chat's `response_format`, whose schema is one level deeper.
fn format(text: &Value, fields: &mut Map<String, Value>) -> Result<(), ApiError> {
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
        let described = |error: ApiError| (error.param().unwrap_or_default().to_string(), error.to_string());
        to_chat(&mut fields)
            .map(|_| Value::Object(fields))
            .map_err(described)
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
    fn calls_of_other_tools_are_calls_or_are_left_out() {
        let mut fields = json!({"input": [
            {"role": "user", "content": "a"},
            {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}},
            {"type": "custom_tool_call", "call_id": "c1", "name": "apply_patch", "input": "*** Begin"},
            {"type": "custom_tool_call_output", "call_id": "c1", "output": "Done"},
        ]});
        let renames = to_chat(fields.as_object_mut().unwrap());
        assert_eq!(renames.unwrap().take_left_out(), ["input[1]:web_search_call"]);
        let function = json!({"name": "apply_patch", "arguments": {"input": "*** Begin"}});
        let expected = json!([
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": "c1", "content": "Done"},
        ]);
        assert_eq!(fields["messages"], expected);
    }

    #[test]
    fn thoughts_alone_are_an_answer() {
        let thoughts = |text: &str| json!({"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": text}]});
        let user = json!({"role": "user", "content": "a"});
        let body = json!({"input": [user, thoughts("b"), thoughts("c"), user, thoughts("d")]});
        let answer = |text: &str| json!({"role": "assistant", "content": "", "reasoning_content": text});
        let expected = json!([user, answer("b\nc"), user, answer("d")]);
        assert_eq!(chat(body).unwrap()["messages"], expected);
    }

    #[test]
    fn include_requests_log_probabilities() {
        let with = |include: Value| {
            let body = json!({"input": "Hi", "top_logprobs": 2, "include": include});
            chat(body).map(|chat| (chat["logprobs"].clone(), chat["top_logprobs"].clone()))
        };
        let included = with(json!([
            "reasoning.encrypted_content",
            "message.output_text.logprobs"
        ]));
        assert_eq!(included.unwrap(), (json!(true), json!(2)));
        assert_eq!(with(json!([])).unwrap(), (Value::Null, Value::Null));
        assert_eq!(with(json!("x")).unwrap_err().0, "include");
    }

    #[test]
    fn an_error_has_the_path_of_the_wrong_value() {
        let refused = |name: &str, value: Value| {
            let mut body = json!({"input": "Hi"});
            body[name] = value;
            chat(body).unwrap_err().0
        };
        assert_eq!(chat(json!({})).unwrap_err().0, "input");
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
