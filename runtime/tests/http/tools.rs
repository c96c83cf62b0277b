//! Calls, thoughts, and the routes whose answers are made of them.

use axum::http::Request;
use serde_json::{Value, json};

use super::fixture::{Reply, Server, post, script, with, with_model};

const SAID: &str = "<think>\nIt asks for weather.\n</think>\n\nSure.\n<tool_call>\n{\"name\": \"get_weather\", \
    \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"get_time\", \"arguments\": {}}\n</tool_call>";

async fn saying(text: &str, flags: &[(&str, &str)]) -> Server {
    let parsers = [("tool-call-parser", "hermes"), ("reasoning-parser", "qwen3")];
    let flags: Vec<(&str, &str)> = parsers.iter().chain(flags).copied().collect();
    with_model(script(text), &flags).await
}

fn tools() -> Value {
    let tool = |name: &str| json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}});
    json!([tool("get_weather"), tool("get_time")])
}

fn chunks(reply: &Reply) -> Vec<Value> {
    let events = reply.events();
    assert_eq!(
        events.last().map(String::as_str),
        Some("[DONE]"),
        "{}",
        reply.text
    );
    let chunks = events[..events.len() - 1].iter();
    chunks.map(|event| serde_json::from_str(event).unwrap()).collect()
}

/// The texts of one field of all deltas, joined.
fn joined(chunks: &[Value], path: &str) -> String {
    let texts = chunks.iter().filter_map(|chunk| chunk.pointer(path)?.as_str());
    texts.collect()
}

#[tokio::test]
async fn a_chat_tells_thoughts_content_and_calls_apart() {
    let server = saying(SAID, &[]).await;
    let reply = server.chat(json!({"tools": tools()})).await;
    let answer = reply.json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{answer}");
    let message = &choice["message"];
    assert_eq!(message["reasoning_content"], "It asks for weather.");
    assert_eq!(message["reasoning"], "It asks for weather.");
    assert_eq!(message["content"], "Sure.");
    let calls = message["tool_calls"].as_array().unwrap();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0]["type"], "function");
    assert_eq!(
        calls[0]["function"],
        json!({"name": "get_weather", "arguments": "{\"city\": \"Oslo\"}"})
    );
    assert_eq!(
        calls[1]["function"],
        json!({"name": "get_time", "arguments": "{}"})
    );
    assert_ne!(calls[0]["id"], calls[1]["id"]);
    let usage = &answer["usage"];
    let thought = usage["completion_tokens_details"]["reasoning_tokens"]
        .as_u64()
        .unwrap();
    assert!(
        thought > 3 && thought < usage["completion_tokens"].as_u64().unwrap(),
        "{usage}"
    );
}

#[tokio::test]
async fn a_form_is_that_of_the_answer_and_not_of_the_thoughts() {
    let server = saying("<think>\nhm\n</think>\n\n{\"a\": 1} and more", &[]).await;
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]});
    let form = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    let answer = server.chat(json!({"response_format": form})).await.json();
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["reasoning_content"], "hm", "{answer}");
    assert_eq!(message["content"], "{\"a\": 1}");
    let closed = json!({"chat_template": "<think>\n\n</think>\n\n", "response_format": form});
    let answer = server.chat(closed).await.json();
    let content = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(content.starts_with('{'), "{answer}");
}

#[tokio::test]
async fn messages_of_the_harmony_format_are_told_apart() {
    const SAID: &str = "<|channel|>analysis<|message|>Weather.<|end|><|start|>assistant<|channel|>commentary \
        to=functions.get_weather <|constrain|>json<|message|>{\"city\": \"Oslo\"}<|call|>";
    let parsers = [
        ("tool-call-parser", "openai"),
        ("reasoning-parser", "openai_gptoss"),
    ];
    let server = with_model(script(SAID), &parsers).await;
    let answer = server.chat(json!({"tools": tools()})).await.json();
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["reasoning_content"], "Weather.", "{answer}");
    assert_eq!(message["content"], Value::Null);
    let function = &message["tool_calls"][0]["function"];
    assert_eq!(
        function,
        &json!({"name": "get_weather", "arguments": "{\"city\": \"Oslo\"}"})
    );
    let chunks = chunks(&server.chat(json!({"tools": tools(), "stream": true})).await);
    assert_eq!(joined(&chunks, "/choices/0/delta/reasoning_content"), "Weather.");
    assert_eq!(joined(&chunks, "/choices/0/delta/content"), "");
}

#[tokio::test]
async fn a_stream_says_the_same_as_a_whole_answer() {
    let server = saying(SAID, &[]).await;
    let asked = json!({"tools": tools(), "logprobs": true});
    let whole = server.chat(asked.clone()).await.json();
    let stream = json!({"stream": true, "stream_options": {"include_usage": true}});
    let chunks = chunks(&server.chat(with(asked, stream)).await);
    let message = &whole["choices"][0]["message"];
    let delta = "/choices/0/delta";
    assert_eq!(
        joined(&chunks, &format!("{delta}/content")),
        message["content"].as_str().unwrap()
    );
    for field in ["reasoning", "reasoning_content"] {
        assert_eq!(
            joined(&chunks, &format!("{delta}/{field}")),
            message[field].as_str().unwrap()
        );
    }
    for idx in 0..2 {
        let of_call = |chunk: &&Value| chunk["choices"][0]["delta"]["tool_calls"][0]["index"] == idx;
        let of_call: Vec<Value> = chunks.iter().filter(of_call).cloned().collect();
        let call = format!("{delta}/tool_calls/0");
        let first = of_call[0].pointer(&call).unwrap();
        assert_eq!(first["type"], "function");
        assert_eq!(first["function"]["arguments"], "");
        assert!(first["id"].as_str().unwrap().starts_with("call_"), "{first}");
        assert!(
            of_call.len() > 1
                && of_call[1..]
                    .iter()
                    .all(|chunk| chunk.pointer(&format!("{call}/id")).is_none())
        );
        let expected = &message["tool_calls"][idx]["function"];
        assert_eq!(
            joined(&of_call, &format!("{call}/function/name")),
            expected["name"].as_str().unwrap()
        );
        let arguments = joined(&of_call, &format!("{call}/function/arguments"));
        assert_eq!(arguments, expected["arguments"].as_str().unwrap());
    }
    let finishes: Vec<&Value> = chunks
        .iter()
        .filter_map(|chunk| chunk.pointer("/choices/0/finish_reason"))
        .collect();
    assert_eq!(finishes.iter().filter(|finish| !finish.is_null()).count(), 1);
    assert_eq!(**finishes.last().unwrap(), json!("tool_calls"));
    let usage = |answer: &Value| {
        (
            answer["usage"]["completion_tokens"].clone(),
            answer["usage"]["completion_tokens_details"].clone(),
        )
    };
    assert_eq!(usage(chunks.last().unwrap()), usage(&whole));
    let tokens = |choices: Vec<&Value>| -> Vec<Value> {
        let lists = choices
            .iter()
            .filter_map(|choice| choice["logprobs"]["content"].as_array());
        lists.flatten().cloned().collect()
    };
    let streamed = tokens(
        chunks
            .iter()
            .filter_map(|chunk| chunk.pointer("/choices/0"))
            .collect(),
    );
    assert_eq!(streamed, tokens(vec![&whole["choices"][0]]));
}

#[tokio::test]
async fn a_request_decides_what_of_it_is_told() {
    let server = saying(SAID, &[]).await;
    let message = async |extra: Value| {
        let reply = server.chat(extra).await.json();
        (
            reply["choices"][0]["message"].clone(),
            reply["choices"][0]["finish_reason"].clone(),
        )
    };
    let (hidden, _) = message(json!({"tools": tools(), "include_reasoning": false})).await;
    assert!(
        hidden.get("reasoning").is_none() && hidden["content"] == "Sure.",
        "{hidden}"
    );
    let (single, _) = message(json!({"tools": tools(), "parallel_tool_calls": false})).await;
    assert_eq!(single["tool_calls"].as_array().unwrap().len(), 1, "{single}");
    let (text, finish) = message(json!({"tools": tools(), "tool_choice": "none"})).await;
    assert!(text.get("tool_calls").is_none() && finish == "stop", "{text}");
    assert!(
        text["content"].as_str().unwrap().contains("<tool_call>"),
        "{text}"
    );
    let functions = json!([{"name": "get_weather"}, {"name": "get_time"}]);
    let (older, finish) = message(json!({"functions": functions, "function_call": "auto"})).await;
    assert_eq!(older["function_call"]["name"], "get_weather", "{older}");
    assert!(
        finish == "function_call" && older.get("tool_calls").is_none(),
        "{older}"
    );
    let (cut, finish) = message(json!({"max_tokens": 10})).await;
    assert!(finish == "length" && cut["content"].is_null(), "{cut}");
}

#[tokio::test]
async fn a_call_that_was_demanded_is_all_there_is_and_may_be_cut_off() {
    let choice = json!({"type": "function", "function": {"name": "get_time"}});
    let listed = r#"[{"name": "get_time", "parameters": {"zone": "UTC"}}]"#;
    for (choice, said) in [(choice, r#"{"zone": "UTC"}"#), (json!("required"), listed)] {
        let server = saying(said, &[]).await;
        let asked = json!({"tools": tools(), "tool_choice": choice, "parallel_tool_calls": false});
        let whole = server.chat(asked.clone()).await.json();
        let message = &whole["choices"][0]["message"];
        assert_eq!(message.get("content"), Some(&Value::Null), "{whole}");
        let n_tokens = whole["usage"]["completion_tokens"].as_u64().unwrap();
        let cut = json!({"max_tokens": n_tokens - 4});
        let streamed = with(asked.clone(), with(cut.clone(), json!({"stream": true})));
        let cut = server.chat(with(asked, cut)).await.json();
        assert_eq!(cut["choices"][0]["finish_reason"], "length", "{cut}");
        let call = &cut["choices"][0]["message"]["tool_calls"][0]["function"];
        let part = call["arguments"].as_str().unwrap();
        assert!(part.len() > 2 && r#"{"zone": "UTC"}"#.starts_with(part), "{cut}");
        let path = "/choices/0/delta/tool_calls/0/function/arguments";
        assert_eq!(joined(&chunks(&server.chat(streamed).await), path), part);
    }
}

#[tokio::test]
async fn settings_turn_parsers_off() {
    let off = [("tool-call-parser", "none"), ("reasoning-parser", "none")];
    let server = with_model(script(SAID), &off).await;
    let reply = server.chat(json!({"tools": tools()})).await.json();
    assert_eq!(reply["choices"][0]["message"]["content"], SAID, "{reply}");
}

fn typed_events(reply: &Reply) -> Vec<Value> {
    let events = reply.text.split("\n\n").filter(|event| !event.is_empty());
    let read = |event: &str| {
        let (name, data) = event.split_once("\ndata: ").unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(name.strip_prefix("event: "), data["type"].as_str(), "{event}");
        data
    };
    events.map(read).collect()
}

/// Types of events, those that follow on themselves once.
fn types(events: &[Value]) -> Vec<&str> {
    let mut types: Vec<&str> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    types.dedup();
    types
}

#[tokio::test]
async fn a_response_is_items_and_its_stream_tells_them_in_order() {
    let server = saying(SAID, &[]).await;
    let tool = |name: &str| json!({"type": "function", "name": name, "parameters": {"type": "object"}});
    let body = json!({"input": "Weather?", "tools": [tool("get_weather"), tool("get_time")], "temperature": 0, "store": true});
    let whole = server.post("/v1/responses", body.clone()).await.json();
    assert_eq!(
        (&whole["object"], &whole["status"]),
        (&json!("response"), &json!("completed")),
        "{whole}"
    );
    let output = whole["output"].as_array().unwrap();
    let kinds: Vec<&str> = output.iter().map(|item| item["type"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        ["reasoning", "message", "function_call", "function_call"],
        "{whole}"
    );
    assert_eq!(output[0]["content"][0]["text"], "It asks for weather.");
    assert_eq!(output[1]["content"][0]["text"], "Sure.");
    assert_eq!(output[2]["arguments"], "{\"city\": \"Oslo\"}");
    assert_eq!(whole["tools"], body["tools"]);
    assert_eq!(whole["store"], false);
    assert!(
        whole["completed_at"].as_u64() >= whole["created_at"].as_u64(),
        "{whole}"
    );
    assert!(
        whole["usage"]["output_tokens_details"]["reasoning_tokens"]
            .as_u64()
            .unwrap()
            > 3,
        "{whole}"
    );

    let events = typed_events(
        &server
            .post("/v1/responses", with(body, json!({"stream": true})))
            .await,
    );
    let text = |kind: &'static str| ["response.output_item.added", "response.content_part.added", kind];
    let done = |kind: &'static str| [kind, "response.content_part.done", "response.output_item.done"];
    let call = [
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
    ];
    let expected: Vec<&str> = ["response.created", "response.in_progress"]
        .into_iter()
        .chain(text("response.reasoning_text.delta"))
        .chain(done("response.reasoning_text.done"))
        .chain(text("response.output_text.delta"))
        .chain(done("response.output_text.done"))
        .chain(call)
        .chain(call)
        .chain(["response.completed"])
        .collect();
    assert_eq!(types(&events), expected);
    let numbers: Vec<u64> = events
        .iter()
        .map(|event| event["sequence_number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (0..events.len() as u64).collect::<Vec<_>>());
    let last = &events.last().unwrap()["response"];
    let done = events
        .iter()
        .filter(|event| event["type"] == "response.output_item.done");
    assert_eq!(
        last["output"],
        Value::Array(done.map(|event| event["item"].clone()).collect())
    );
    assert_eq!(last["usage"], whole["usage"]);
}

#[tokio::test]
async fn a_response_that_is_cut_off_is_incomplete_and_one_with_a_store_refused() {
    let server = saying("One two three four five six seven.", &[]).await;
    let cut = json!({"input": "Count.", "max_output_tokens": 2, "temperature": 0});
    let cut = server.post("/v1/responses", cut).await.json();
    assert_eq!(cut["status"], "incomplete", "{cut}");
    assert_eq!(cut["incomplete_details"], json!({"reason": "max_output_tokens"}));
    assert_eq!(cut.get("completed_at"), Some(&Value::Null));
    assert_eq!(cut["output"][0]["status"], "incomplete");
    let stored = json!({"input": "Hi", "previous_response_id": "resp_1"});
    let stored = server.post("/v1/responses", stored).await;
    assert_eq!(stored.status, 400, "{}", stored.text);
    assert_eq!(stored.json()["error"]["param"], "previous_response_id");
}

#[tokio::test]
async fn a_response_says_what_it_was_made_with() {
    let server = saying("One.", &[]).await;
    let said = async |extra: Value| {
        server
            .post("/v1/responses", with(json!({"input": "Hi"}), extra))
            .await
            .json()
    };
    let silent = said(json!({})).await;
    for (name, default) in [
        ("temperature", json!(0.7)),
        ("top_p", json!(1)),
        ("presence_penalty", json!(0)),
        ("frequency_penalty", json!(0)),
        ("top_logprobs", json!(0)),
        ("max_tool_calls", json!(null)),
        ("safety_identifier", json!(null)),
        ("prompt_cache_key", json!(null)),
    ] {
        assert_eq!(silent.get(name), Some(&default), "{name}: {silent}");
    }
    let given = json!({"temperature": 0.3, "top_p": 0.9, "presence_penalty": 0.5, "prompt_cache_key": "k"});
    let told = said(given.clone()).await;
    for (name, value) in given.as_object().unwrap() {
        assert_eq!(told.get(name), Some(value), "{name}: {told}");
    }
}

fn claude(extra: Value) -> Value {
    let tool = |name: &str| json!({"name": name, "input_schema": {"type": "object"}});
    let base = json!({
        "model": "tiny", "max_tokens": 200, "messages": [{"role": "user", "content": "Weather?"}],
        "tools": [tool("get_weather"), tool("get_time")], "temperature": 0,
    });
    with(base, extra)
}

#[tokio::test]
async fn anthropics_messages_are_blocks() {
    let server = saying(SAID, &[]).await;
    let whole = server.post("/v1/messages", claude(json!({}))).await.json();
    assert_eq!(
        (&whole["type"], &whole["role"]),
        (&json!("message"), &json!("assistant")),
        "{whole}"
    );
    assert_eq!(whole["stop_reason"], "tool_use", "{whole}");
    let content = whole["content"].as_array().unwrap();
    assert_eq!(
        content[0],
        json!({"type": "thinking", "thinking": "It asks for weather.", "signature": ""})
    );
    assert_eq!(content[1], json!({"type": "text", "text": "Sure."}));
    assert_eq!(
        (&content[2]["name"], &content[2]["input"]),
        (&json!("get_weather"), &json!({"city": "Oslo"}))
    );
    assert_eq!((content.len(), &content[3]["input"]), (4, &json!({})));
    assert!(
        content[3]["id"].as_str().unwrap().starts_with("toolu_"),
        "{whole}"
    );

    let events = typed_events(&server.post("/v1/messages", claude(json!({"stream": true}))).await);
    let block = ["content_block_start", "content_block_delta", "content_block_stop"];
    let blocks = std::iter::repeat_n(block, 4).flatten();
    let expected: Vec<&str> = ["message_start"]
        .into_iter()
        .chain(blocks)
        .chain(["message_delta", "message_stop"])
        .collect();
    assert_eq!(types(&events), expected);
    let message = &events[0]["message"];
    assert!(
        message["content"] == json!([]) && message["usage"]["input_tokens"].as_u64().is_some(),
        "{message}"
    );
    let partial: String = events
        .iter()
        .filter(|event| event["index"] == 2)
        .filter_map(|event| event["delta"]["partial_json"].as_str())
        .collect();
    assert_eq!(partial, "{\"city\": \"Oslo\"}");
    let end = &events[events.len() - 2];
    assert_eq!(end["delta"]["stop_reason"], "tool_use");
    assert_eq!(end["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
}

#[tokio::test]
async fn anthropics_stop_reasons_counts_and_errors() {
    let server = saying("One two three four.", &[("api-key", "secret")]).await;
    let asked = async |path: &str, body: Value| {
        let mut request: Request<_> = post(path, body.to_string());
        request
            .headers_mut()
            .insert("x-api-key", "secret".parse().unwrap());
        server.send(request).await
    };
    let stopped = asked("/v1/messages", claude(json!({"stop_sequences": ["three"]})))
        .await
        .json();
    assert_eq!(
        (&stopped["stop_reason"], &stopped["stop_sequence"]),
        (&json!("stop_sequence"), &json!("three")),
        "{stopped}"
    );
    let cut_reply = asked("/v1/messages", claude(json!({"max_tokens": 2}))).await;
    let cut = cut_reply.json();
    assert_eq!(cut["stop_reason"], "max_tokens", "{cut}");
    let ended = asked("/v1/messages", claude(json!({}))).await.json();
    assert_eq!(
        (&ended["stop_reason"], &ended["stop_sequence"]),
        (&json!("end_turn"), &Value::Null),
        "{ended}"
    );
    let n_input = |usage: &Value| {
        ["input_tokens", "cache_read_input_tokens"]
            .map(|name| usage[name].as_u64().unwrap())
            .iter()
            .sum::<u64>()
    };
    let counted = asked(
        "/v1/messages/count_tokens",
        json!({"messages": claude(json!({}))["messages"]}),
    )
    .await;
    assert_eq!(
        counted.json(),
        json!({"input_tokens": n_input(&ended["usage"])}),
        "{}",
        counted.text
    );

    let refused = asked("/v1/messages", claude(json!({"max_tokens": null}))).await;
    assert_eq!(refused.status, 400);
    assert_eq!(
        refused.json()["error"],
        json!({"type": "invalid_request_error", "message": "max_tokens is missing"})
    );
    let unknown = asked("/v1/messages", claude(json!({"model": "claude"}))).await;
    assert_eq!(
        (unknown.status, &unknown.json()["error"]["type"]),
        (404, &json!("not_found_error"))
    );
    let locked = server.post("/v1/messages", claude(json!({}))).await;
    assert_eq!(
        (locked.status, &locked.json()["error"]["type"]),
        (401, &json!("authentication_error"))
    );
    assert_eq!(locked.json()["type"], "error");
    for reply in [cut_reply, refused, unknown, locked] {
        assert_eq!(
            reply.headers["request-id"], reply.headers["x-request-id"],
            "{}",
            reply.text
        );
        let told = reply.json().get("request_id").cloned();
        assert!(reply.status == 200 || told == Some(json!(reply.headers["request-id"].to_str().unwrap())));
    }
}
