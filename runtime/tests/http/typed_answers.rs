//! The order of fields in the answers and events of `/v1/responses` and `/v1/messages`.

use serde_json::{Value, json};

use crate::fixture::{Server, Then, fake, script, with, with_model};

/// An answer with thoughts, content and a call.
const TEXT: &str = "<think>\nIt asks for weather.\n</think>\n\nSure.\n<tool_call>\n{\"name\": \"get_weather\", \
    \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>";

async fn server() -> Server {
    let parsers = [("tool-call-parser", "hermes"), ("reasoning-parser", "qwen3")];
    with_model(script(TEXT), &parsers).await
}

/// The names of all fields in their order. The first item of a list describes the list.
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

/// The events of a stream.
async fn events(server: &Server, path: &str, body: Value) -> Vec<Value> {
    let reply = server.post(path, with(body, json!({"stream": true}))).await;
    let read = |event: &str| {
        let (name, data) = event.split_once("\ndata: ").unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(name.strip_prefix("event: "), data["type"].as_str(), "{event}");
        data
    };
    let events = reply.text.split("\n\n").filter(|event| !event.is_empty());
    events.map(read).collect()
}

/// The type and the fields of each event; equal ones once.
fn described(events: &[Value]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for event in events {
        let line = format!("{} {}", event["type"].as_str().unwrap(), fields(event));
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
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
    let expected = "{id object created_at completed_at status background error incomplete_details max_tool_calls \
        model output[{id type summary[] content[{type text}] status}] previous_response_id service_tier store \
        usage{input_tokens input_tokens_details{cached_tokens cache_write_tokens} output_tokens \
        output_tokens_details{reasoning_tokens} total_tokens} frequency_penalty instructions max_output_tokens \
        metadata{} parallel_tool_calls presence_penalty prompt_cache_key reasoning{effort summary} \
        safety_identifier text{format{type}} tool_choice tools[{type name parameters{type}}] top_logprobs \
        truncation user temperature top_p}";
    assert_eq!(fields(&answer), expected);
    let items: Vec<String> = answer["output"].as_array().unwrap().iter().map(fields).collect();
    let token = "{token logprob bytes[] top_logprobs[{token logprob bytes[]}]}";
    let message = format!("{{id type role content[{{type text annotations[] logprobs[{token}]}}] status}}");
    assert_eq!(items[1], message);
    assert_eq!(items[2], "{id type call_id name arguments status}");
}

#[tokio::test]
async fn the_fields_of_a_responses_events_keep_their_order() {
    let server = server().await;
    let mut events = events(&server, "/v1/responses", responses_body()).await;
    let names = |response: &Value| response.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let answer = server.post("/v1/responses", responses_body()).await.json();
    for event in &mut events {
        if let Some(response) = event.get_mut("response").map(Value::take) {
            assert_eq!(names(&response), names(&answer), "{event}");
        }
    }
    let token = "{token logprob bytes[] top_logprobs[{token logprob bytes[]}]}";
    let place = "{type sequence_number item_id output_index";
    let expected = [
        "response.created {type sequence_number response}".to_owned(),
        "response.in_progress {type sequence_number response}".to_owned(),
        "response.output_item.added {type sequence_number output_index item{id type summary[] content[] status}}"
            .to_owned(),
        format!("response.content_part.added {place} part{{type text}} content_index}}"),
        format!("response.reasoning_text.delta {place} delta content_index}}"),
        format!("response.reasoning_text.done {place} text content_index}}"),
        format!("response.content_part.done {place} part{{type text}} content_index}}"),
        "response.output_item.done {type sequence_number output_index \
         item{id type summary[] content[{type text}] status}}"
            .to_owned(),
        "response.output_item.added {type sequence_number output_index item{id type role content[] status}}"
            .to_owned(),
        format!(
            "response.content_part.added {place} part{{type text annotations[] logprobs[]}} content_index}}"
        ),
        format!("response.output_text.delta {place} delta logprobs[{token}] content_index}}"),
        format!("response.output_text.done {place} text logprobs[{token}] content_index}}"),
        format!(
            "response.content_part.done {place} part{{type text annotations[] logprobs[{token}]}} content_index}}"
        ),
        format!(
            "response.output_item.done {{type sequence_number output_index \
             item{{id type role content[{{type text annotations[] logprobs[{token}]}}] status}}}}"
        ),
        "response.output_item.added {type sequence_number output_index \
         item{id type call_id name arguments status}}"
            .to_owned(),
        format!("response.function_call_arguments.delta {place} delta}}"),
        format!("response.function_call_arguments.done {place} arguments name}}"),
        "response.output_item.done {type sequence_number output_index \
         item{id type call_id name arguments status}}"
            .to_owned(),
        "response.completed {type sequence_number response}".to_owned(),
    ];
    assert_eq!(described(&events), expected);
}

#[tokio::test]
async fn the_fields_of_a_message_keep_their_order() {
    let server = server().await;
    let usage = "usage{input_tokens cache_creation_input_tokens cache_read_input_tokens output_tokens}";
    let answer = server.post("/v1/messages", messages_body()).await.json();
    let items: Vec<String> = answer["content"].as_array().unwrap().iter().map(fields).collect();
    let expected = format!(
        "{{id type role model content[{}] stop_reason stop_sequence {usage}}}",
        items[0]
    );
    assert_eq!(fields(&answer), expected);
    assert_eq!(
        items,
        [
            "{type thinking signature}",
            "{type text}",
            "{type id name input{city}}"
        ]
    );
    let expected = [
        format!(
            "message_start {{type message{{id type role model content[] stop_reason stop_sequence {usage}}}}}"
        ),
        "content_block_start {type index content_block{type thinking signature}}".to_owned(),
        "content_block_delta {type index delta{type thinking}}".to_owned(),
        "content_block_stop {type index}".to_owned(),
        "content_block_start {type index content_block{type text}}".to_owned(),
        "content_block_delta {type index delta{type text}}".to_owned(),
        "content_block_start {type index content_block{type id name input{}}}".to_owned(),
        "content_block_delta {type index delta{type partial_json}}".to_owned(),
        format!("message_delta {{type delta{{stop_reason stop_sequence}} {usage}}}"),
        "message_stop {type}".to_owned(),
    ];
    assert_eq!(
        described(&events(&server, "/v1/messages", messages_body()).await),
        expected
    );
}

#[tokio::test]
async fn the_fields_of_a_failure_keep_their_order() {
    let last = async |path: &str, body: Value| {
        let server = with_model(fake(Then::Fail { step: 2 }), &[]).await;
        events(&server, path, body).await.pop().unwrap()
    };
    let failed = last("/v1/responses", json!({"input": "Hi"})).await;
    assert_eq!(failed["type"], "response.failed", "{failed}");
    assert_eq!(fields(&failed["response"]["error"]), "{code message}");
    assert_eq!(failed["response"]["status"], "failed");
    let error = last("/v1/messages", messages_body()).await;
    assert_eq!(error["type"], "error", "{error}");
    assert_eq!(fields(&error), "{type error{type message} request_id}");
}
