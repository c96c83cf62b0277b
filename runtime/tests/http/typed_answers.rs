//! The order of fields in the answers and events of `/v1/responses` and `/v1/messages`.
//!
//! Clients do not depend on the order, but a recorded answer can then be compared as a text.

use serde_json::{Value, json};

use crate::fixture::{Server, Then, fake, script, with, with_model};

/// An answer with thoughts, content and a call.
const TEXT: &str = "<think>\nIt asks for weather.\n</think>\n\nSure.\n<tool_call>\n{\"name\": \"get_weather\", \
    \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>";

async fn server() -> Server {
    let parsers = [("tool-call-parser", "hermes"), ("reasoning-parser", "qwen3")];
    with_model(script(TEXT), &parsers).await
}

/// The names of all fields in their order. A list is described by its first item.
fn fields(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let field = |(name, value): (&String, &Value)| format!("{name}{}", fields(value));
            let all: Vec<String> = object.iter().map(field).collect();
            format!("{{{}}}", all.join(" "))
        }
        Value::Array(items) => format!("[{}]", items.first().map(fields).unwrap_or_default()),
        _ => String::new(),
    }
}

/// The type and the fields of each event; equal ones once.
async fn events(server: &Server, path: &str, body: Value) -> String {
    let reply = server.post(path, with(body, json!({"stream": true}))).await;
    let mut lines: Vec<String> = Vec::new();
    for event in reply.text.split("\n\n").filter(|event| !event.is_empty()) {
        let (name, data) = event.split_once("\ndata: ").unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(name.strip_prefix("event: "), data["type"].as_str(), "{event}");
        let line = format!("{} {}", data["type"].as_str().unwrap(), fields(&data));
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines.join("\n")
}

fn responses_body() -> Value {
    let tool = json!({"type": "function", "name": "get_weather", "parameters": {"type": "object"}});
    json!({
        "input": "Weather?", "temperature": 0, "tools": [tool], "include": ["message.output_text.logprobs"],
        "top_logprobs": 1,
    })
}

fn messages_body() -> Value {
    json!({
        "max_tokens": 200, "temperature": 0, "messages": [{"role": "user", "content": "Weather?"}],
        "tools": [{"name": "get_weather", "input_schema": {"type": "object"}}],
    })
}

#[tokio::test]
async fn the_fields_of_a_response_keep_their_order() {
    let server = server().await;
    let answer = server.post("/v1/responses", responses_body()).await.json();
    insta::assert_snapshot!(fields(&answer), @"");
    for item in answer["output"].as_array().unwrap() {
        let expected = match item["type"].as_str().unwrap() {
            "reasoning" => "{id type summary[] content[{type text}] status}",
            "message" => {
                "{id type role content[{type text annotations[] \
                 logprobs[{token logprob bytes[] top_logprobs[{token logprob bytes[]}]}]}] status}"
            }
            "function_call" => "{id type call_id name arguments status}",
            other => panic!("unexpected {other}"),
        };
        assert_eq!(fields(item), expected);
    }
    insta::assert_snapshot!(events(&server, "/v1/responses", responses_body()).await, @"");
}

#[tokio::test]
async fn the_fields_of_a_message_keep_their_order() {
    let server = server().await;
    let answer = server.post("/v1/messages", messages_body()).await.json();
    insta::assert_snapshot!(fields(&answer), @"");
    insta::assert_snapshot!(events(&server, "/v1/messages", messages_body()).await, @"");
}

#[tokio::test]
async fn the_fields_of_a_failure_keep_their_order() {
    let failing = || async { with_model(fake(Then::Fail { step: 2 }), &[]).await };
    let response = events(&failing().await, "/v1/responses", json!({"input": "Hi"})).await;
    insta::assert_snapshot!(response.lines().last().unwrap(), @"");
    let message = events(&failing().await, "/v1/messages", messages_body()).await;
    insta::assert_snapshot!(message.lines().last().unwrap(), @"");
}
