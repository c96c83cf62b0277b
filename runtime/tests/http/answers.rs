//! What good requests are answered with.

use futures::future::join_all;
use serde_json::{Value, json};

use crate::fixture::{Server, steady, tiny, tiny_folder, with};

struct Reference {
    prompt: String,
    ids: Vec<u32>,
    greedy: Vec<u32>,
    text: String,
}

/// The prompts of the shipped reference whose answers end by themselves.
fn references() -> Vec<Reference> {
    let text = std::fs::read_to_string(tiny_folder().join("reference.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let ids = |value: &Value| -> Vec<u32> { serde_json::from_value(value.clone()).unwrap() };
    let found: Vec<Reference> = json["prompts"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|prompt| {
            let text = prompt["greedy_text"].as_str()?.strip_suffix("<|im_end|>")?;
            Some(Reference {
                prompt: prompt["prompt"].as_str()?.to_string(),
                ids: ids(&prompt["ids"]),
                greedy: ids(&prompt["greedy"]),
                text: text.to_string(),
            })
        })
        .collect();
    assert!(found.len() >= 4);
    found
}

async fn assert_reference(server: &Server, reference: &Reference) {
    for prompt in [json!(reference.prompt), json!(reference.ids)] {
        let reply = server.complete(json!({"prompt": prompt, "max_tokens": 64})).await;
        let body = reply.json();
        assert_eq!(body["choices"][0]["text"], reference.text, "{body}");
        assert_eq!(body["choices"][0]["finish_reason"], "stop");
        assert_eq!(body["usage"]["prompt_tokens"], reference.ids.len());
        assert_eq!(body["usage"]["completion_tokens"], reference.greedy.len());
    }
}

#[tokio::test]
async fn greedy_text_is_the_references_alone() {
    let server = tiny(&[]).await;
    for reference in references() {
        assert_reference(&server, &reference).await;
    }
}

#[tokio::test]
async fn greedy_text_is_the_references_sixteen_at_a_time_and_in_chunks() {
    let references = references();
    for flags in [
        &[][..],
        &[("max-num-batched-tokens", "16")],
        &[("max-num-seqs", "3")],
    ] {
        let server = tiny(flags).await;
        let sixteen = references.iter().cycle().take(16);
        join_all(sixteen.map(|reference| assert_reference(&server, reference))).await;
    }
}

#[tokio::test]
async fn a_chat_answer_byte_for_byte() {
    let server = tiny(&[]).await;
    let reply = server.chat(json!({})).await;
    insta::assert_snapshot!(steady(&reply.text), @r#"{"id":"ID","object":"chat.completion","created":0,"model":"tiny","choices":[{"index":0,"message":{"role":"assistant","content":"7 + 5 = 12","refusal":null},"logprobs":null,"finish_reason":"stop","stop_reason":null}],"usage":{"prompt_tokens":18,"completion_tokens":9,"total_tokens":27,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}},"system_fingerprint":"build-0.1.0"}"#);
    let role = tiny(&[("openai-response-role", "helper")]).await;
    let body = role.chat(json!({"model": "alias"})).await.json();
    assert_eq!(
        (&body["choices"][0]["message"]["role"], &body["model"]),
        (&json!("helper"), &json!("alias"))
    );
}

#[tokio::test]
async fn a_chat_stream_byte_for_byte() {
    let server = tiny(&[]).await;
    let options = json!({"include_usage": true});
    let reply = server
        .chat(json!({"stream": true, "stream_options": options}))
        .await;
    insta::assert_snapshot!(reply.events().join("\n"), @r#"
    {"id":"ID","object":"chat.completion.chunk","created":0,"model":"tiny","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null,"system_fingerprint":"build-0.1.0"}
    {"id":"ID","object":"chat.completion.chunk","created":0,"model":"tiny","choices":[{"index":0,"delta":{"content":"7"},"logprobs":null,"finish_reason":null}],"usage":null,"system_fingerprint":"build-0.1.0"}
    {"id":"ID","object":"chat.completion.chunk","created":0,"model":"tiny","choices":[{"index":0,"delta":{"content":" +"},"logprobs":null,"finish_reason":null}],"usage":null,"system_fingerprint":"build-0.1.0"}
    {"id":"ID","object":"chat.completion.chunk","created":0,"model":"tiny","choices":[{"index":0,"delta":{"content":" "},"logprobs":null,"finish_reason":null}],"usage":null,"system_fingerprint":"build-0.1.0"}
    {"id":"ID","object":"chat.completion.chunk","created":0,"model":"tiny","choices":[{"index":0,"delta":{"content":"5"},"logprobs":null,"finish_reason":null}],"usage":null,"system_fingerprint":"build-0.1.0"}
    {"id":"ID","object":"chat.completion.chunk","created":0,"model":"tiny","choices":[{"index":0,"delta":{"content":" ="},"logprobs":null,"finish_reason":null}],"usage":null,"system_fingerprint":"build-0.1.0"}
    {"id":"ID","object":"chat.completion.chunk","created":0,"model":"tiny","choices":[{"index":0,"delta":{"content":" "},"logprobs":null,"finish_reason":null}],"usage":null,"system_fingerprint":"build-0.1.0"}
    {"id":"ID","object":"chat.completion.chunk","created":0,"model":"tiny","choices":[{"index":0,"delta":{"content":"1"},"logprobs":null,"finish_reason":null}],"usage":null,"system_fingerprint":"build-0.1.0"}
    {"id":"ID","object":"chat.completion.chunk","created":0,"model":"tiny","choices":[{"index":0,"delta":{"content":"2"},"logprobs":null,"finish_reason":null}],"usage":null,"system_fingerprint":"build-0.1.0"}
    {"id":"ID","object":"chat.completion.chunk","created":0,"model":"tiny","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null,"system_fingerprint":"build-0.1.0"}
    {"id":"ID","object":"chat.completion.chunk","created":0,"model":"tiny","choices":[],"usage":{"prompt_tokens":18,"completion_tokens":9,"total_tokens":27,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}},"system_fingerprint":"build-0.1.0"}
    [DONE]
    "#);
}

#[tokio::test]
async fn a_completion_stream_byte_for_byte() {
    let server = tiny(&[]).await;
    let reply = server
        .complete(json!({"stream": true, "echo": true, "max_tokens": 3, "ignore_eos": true}))
        .await;
    insta::assert_snapshot!(reply.events().join("\n"), @r#"
    {"id":"ID","object":"text_completion","created":0,"model":"tiny","choices":[{"index":0,"text":"Hello!","logprobs":null,"finish_reason":null,"stop_reason":null}],"system_fingerprint":"build-0.1.0"}
    {"id":"ID","object":"text_completion","created":0,"model":"tiny","choices":[{"index":0,"text":" How","logprobs":null,"finish_reason":null,"stop_reason":null}],"system_fingerprint":"build-0.1.0"}
    {"id":"ID","object":"text_completion","created":0,"model":"tiny","choices":[{"index":0,"text":" can","logprobs":null,"finish_reason":"length","stop_reason":null}],"system_fingerprint":"build-0.1.0"}
    [DONE]
    "#);
}

#[tokio::test]
async fn usage_in_every_chunk_only_grows() {
    let server = tiny(&[]).await;
    let options = json!({"include_usage": true, "continuous_usage_stats": true});
    let reply = server
        .chat(json!({"stream": true, "stream_options": options}))
        .await;
    let counts: Vec<u64> = reply
        .events()
        .iter()
        .filter_map(|event| serde_json::from_str::<Value>(event).ok())
        .map(|chunk| chunk["usage"]["completion_tokens"].as_u64().unwrap())
        .collect();
    assert!(counts.is_sorted() && counts[..2] == [0, 1], "{counts:?}");
}

#[tokio::test]
async fn a_stream_has_the_text_of_the_whole_answer() {
    let server = tiny(&[]).await;
    let extra = json!({"max_tokens": 48, "temperature": 1.2, "seed": 5, "n": 3, "ignore_eos": true, "skip_special_tokens": false});
    let whole = server.complete(extra.clone()).await.json();
    let mut streamed = vec![String::new(); 3];
    let mut extra = extra;
    extra["stream"] = json!(true);
    for event in server.complete(extra).await.events() {
        if let Ok(chunk) = serde_json::from_str::<Value>(&event) {
            let choice = &chunk["choices"][0];
            streamed[choice["index"].as_u64().unwrap() as usize] += choice["text"].as_str().unwrap();
        }
    }
    let texts: Vec<&str> = (0..3)
        .map(|idx| whole["choices"][idx]["text"].as_str().unwrap())
        .collect();
    assert_eq!(streamed, texts);
    assert_ne!(texts[0], texts[1], "each answer has a seed of its own");
}

#[tokio::test]
async fn answers_to_several_prompts_come_in_their_order() {
    let server = tiny(&[]).await;
    let references = references();
    let prompts: Vec<&str> = references
        .iter()
        .take(3)
        .map(|reference| reference.prompt.as_str())
        .collect();
    let body = server
        .complete(json!({"prompt": prompts, "n": 2, "max_tokens": 64}))
        .await
        .json();
    let choices = body["choices"].as_array().unwrap();
    for (idx, choice) in choices.iter().enumerate() {
        assert_eq!(choice["index"], idx);
        assert_eq!(choice["text"], references[idx / 2].text);
    }
    assert_eq!(choices.len(), 6);
}

#[tokio::test]
async fn stop_strings_end_an_answer_inside_a_token() {
    let server = tiny(&[]).await;
    let chat = |extra: Value| async { server.chat(extra).await.json()["choices"][0].clone() };
    // The whole answer is "7 + 5 = 12".
    let cut = chat(json!({"stop": ["= 1", "zzz"]})).await;
    assert_eq!(
        (&cut["message"]["content"], &cut["finish_reason"]),
        (&json!("7 + 5 "), &json!("stop"))
    );
    let kept = chat(json!({"stop": "= 1", "include_stop_str_in_output": true})).await;
    assert_eq!(kept["message"]["content"], "7 + 5 = 1");
    let token = chat(json!({"stop_token_ids": [423]})).await;
    assert_eq!(
        (&token["message"]["content"], &token["finish_reason"]),
        (&json!("7 + 5"), &json!("stop"))
    );
    let short = chat(json!({"max_completion_tokens": 3})).await;
    assert_eq!(
        (&short["message"]["content"], &short["finish_reason"]),
        (&json!("7 + "), &json!("length"))
    );
    // A limit beyond the context means the rest of it.
    let long = chat(json!({"max_completion_tokens": 65_535})).await;
    assert_eq!(
        (&long["message"]["content"], &long["finish_reason"]),
        (&json!("7 + 5 = 12"), &json!("stop"))
    );
    // The stop string is complete in the fifth token.
    let late = chat(json!({"stop": "+", "min_tokens": 7})).await;
    assert_eq!(late["message"]["content"], "7 + 5 = 12");
    let long = chat(json!({"min_tokens": 12, "max_tokens": 12})).await;
    assert_eq!(long["finish_reason"], "length");
    let shown = chat(json!({"skip_special_tokens": false, "include_stop_str_in_output": true})).await;
    assert_eq!(shown["message"]["content"], "7 + 5 = 12<|im_end|>");
}

/// Rounds log-probabilities, so that the order of additions does not show.
fn rounded(mut value: Value) -> Value {
    match &mut value {
        Value::Number(number) if number.is_f64() => {
            json!((number.as_f64().unwrap() * 100.0).round() / 100.0 + 0.0)
        }
        Value::Array(items) => items.iter().cloned().map(rounded).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), rounded(value.clone())))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        _ => value,
    }
}

#[tokio::test]
async fn log_probabilities_in_openais_two_shapes() {
    let server = tiny(&[]).await;
    let chat = server
        .chat(json!({"logprobs": true, "top_logprobs": 2, "max_tokens": 2}))
        .await
        .json();
    insta::assert_snapshot!(rounded(chat["choices"][0]["logprobs"].clone()).to_string(), @r#"{"content":[{"token":"7","logprob":0.0,"bytes":[55],"top_logprobs":[{"token":"7","logprob":0.0,"bytes":[55]},{"token":"city","logprob":-7.77,"bytes":[99,105,116,121]}]},{"token":" +","logprob":0.0,"bytes":[32,43],"top_logprobs":[{"token":" +","logprob":0.0,"bytes":[32,43]},{"token":" plus","logprob":-7.54,"bytes":[32,112,108,117,115]}]}],"refusal":null}"#);
    let text = server
        .complete(json!({"max_tokens": 2, "logprobs": 1}))
        .await
        .json();
    let choice = &text["choices"][0];
    let tokens: Vec<&str> = choice["logprobs"]["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| token.as_str().unwrap())
        .collect();
    assert_eq!(choice["text"], tokens.concat());
    assert_eq!(
        choice["logprobs"]["text_offset"],
        json!([0, tokens[0].chars().count()])
    );
    let top = &choice["logprobs"]["top_logprobs"][0];
    let own = choice["logprobs"]["token_logprobs"][0].as_f64().unwrap();
    assert!((top[tokens[0]].as_f64().unwrap() - own).abs() < 1e-6);
}

#[tokio::test]
async fn streamed_log_probabilities_are_those_of_the_whole_answer() {
    let server = tiny(&[]).await;
    let extra = |stream: bool| json!({"logprobs": 2, "max_tokens": 24, "ignore_eos": true, "stop": "zzzz", "stream": stream});
    let whole = server.complete(extra(false)).await.json();
    let mut offsets = Vec::new();
    let mut tokens = Vec::new();
    for event in server.complete(extra(true)).await.events() {
        if let Ok(chunk) = serde_json::from_str::<Value>(&event) {
            let logprobs = &chunk["choices"][0]["logprobs"];
            offsets.extend(logprobs["text_offset"].as_array().unwrap().clone());
            tokens.extend(logprobs["tokens"].as_array().unwrap().clone());
        }
    }
    let expected = &whole["choices"][0]["logprobs"];
    assert_eq!(
        (&json!(tokens), &json!(offsets)),
        (&expected["tokens"], &expected["text_offset"])
    );
}

#[tokio::test]
async fn what_means_nothing_here_is_told() {
    let server = tiny(&[]).await;
    let reply = server
        .complete(json!({"temprature": 1, "user": "me", "new\nthing": 2}))
        .await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.headers["x-slipway-ignored-parameters"],
        "temprature, newthing"
    );
    assert!(
        !server
            .complete(json!({}))
            .await
            .headers
            .contains_key("x-slipway-ignored-parameters")
    );
}

#[tokio::test]
async fn the_models_are_the_served_names() {
    let server = tiny(&[("max-model-len", "512")]).await;
    let list = server.get("/v1/models").await.json();
    let ids: Vec<&Value> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| &model["id"])
        .collect();
    assert_eq!(ids, ["tiny", "alias"]);
    let one = server.get("/v1/models/alias").await.json();
    assert_eq!(
        (&one["id"], &one["max_model_len"]),
        (&json!("alias"), &json!(512))
    );
    assert_eq!(server.get("/v1/models/org/other").await.status, 404);
}

#[tokio::test]
async fn the_best_answers_are_those_of_the_highest_probability() {
    let server = tiny(&[]).await;
    let drawn = json!({"temperature": 1.5, "seed": 3, "max_tokens": 4, "logprobs": 0, "ignore_eos": true});
    let all = server.complete(with(drawn.clone(), json!({"n": 5}))).await.json();
    let sum = |choice: &Value| -> f64 {
        let logprobs = choice["logprobs"]["token_logprobs"].as_array().unwrap();
        logprobs.iter().map(|logprob| logprob.as_f64().unwrap()).sum()
    };
    let mut expected: Vec<(f64, Value)> = all["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| (sum(choice), choice["text"].clone()))
        .collect();
    expected.sort_by(|a, b| b.0.total_cmp(&a.0));
    let best = server
        .complete(with(drawn, json!({"n": 2, "best_of": 5, "logprobs": null})))
        .await
        .json();
    let texts: Vec<&Value> = best["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| &choice["text"])
        .collect();
    assert_eq!(texts, [&expected[0].1, &expected[1].1]);
    assert_eq!(best["choices"][0]["logprobs"], Value::Null);
}

#[tokio::test]
async fn a_beam_search_is_answered_whole_and_as_a_stream() {
    let server = tiny(&[]).await;
    let asked = json!({"use_beam_search": true, "n": 2, "best_of": 3, "max_tokens": 8});
    let whole = server.complete(asked.clone()).await.json();
    let texts: Vec<Value> = (0..2).map(|idx| whole["choices"][idx]["text"].clone()).collect();
    assert_eq!(whole["choices"].as_array().unwrap().len(), 2);
    assert_ne!(texts[0], texts[1]);
    let greedy = server.complete(json!({"max_tokens": 8})).await.json();
    assert_eq!(
        greedy["choices"][0]["text"], texts[0],
        "the model is sure of its answer"
    );
    let events = server
        .complete(with(asked, json!({"stream": true})))
        .await
        .events();
    let streamed: Vec<Value> = events[..events.len() - 1]
        .iter()
        .map(|event| serde_json::from_str::<Value>(event).unwrap()["choices"][0]["text"].clone())
        .collect();
    assert_eq!(streamed, texts);
}

#[tokio::test]
async fn what_ended_an_answer_is_told() {
    let server = tiny(&[]).await;
    let reason = async |extra: Value| server.chat(extra).await.json()["choices"][0]["stop_reason"].clone();
    assert_eq!(reason(json!({})).await, Value::Null);
    assert_eq!(reason(json!({"stop": [" ="]})).await, " =");
    let ids = server.chat(json!({"return_token_ids": true})).await.json();
    let second = ids["choices"][0]["token_ids"][1].clone();
    assert_eq!(reason(json!({"stop_token_ids": [second]})).await, second);
    let told = ids["choices"][0]["token_ids"].as_array().unwrap();
    assert_eq!(
        told.len() as u64,
        ids["usage"]["completion_tokens"].as_u64().unwrap()
    );
    assert_eq!(
        ids["prompt_token_ids"].as_array().unwrap().len() as u64,
        ids["usage"]["prompt_tokens"].as_u64().unwrap()
    );
}

#[tokio::test]
async fn an_echoed_prompt_needs_no_answer() {
    let server = tiny(&[]).await;
    let body = server
        .complete(json!({"echo": true, "max_tokens": 0}))
        .await
        .json();
    assert_eq!(
        (&body["choices"][0]["text"], &body["choices"][0]["finish_reason"]),
        (&json!("Hello"), &json!("length"))
    );
    assert_eq!(body["usage"]["completion_tokens"], 0);
    let nothing = server.complete(json!({"max_tokens": 0})).await.json();
    let choice = &nothing["choices"][0];
    assert_eq!(
        (&choice["text"], &choice["finish_reason"]),
        (&json!(""), &json!("length"))
    );
    assert_eq!(nothing["usage"]["completion_tokens"], 0);
    let options = json!({"include_usage": true});
    let streamed = json!({"echo": true, "max_tokens": 0, "stream": true, "stream_options": options});
    let events = server.complete(streamed).await.events();
    let last: Value = serde_json::from_str(&events[events.len() - 2]).unwrap();
    assert_eq!(last["usage"]["completion_tokens"], 0, "{events:?}");
    let scored =
        json!({"echo": true, "max_tokens": 0, "logprobs": 1, "prompt_logprobs": 3, "prompt": [5, 6, 7]});
    let choice = server.complete(scored).await.json()["choices"][0].clone();
    let n_alternatives = |scores: &Value| scores.as_object().unwrap().len();
    // The token itself, and as many others as each of the two asks for at most.
    assert!(
        (1..=2).contains(&n_alternatives(&choice["logprobs"]["top_logprobs"][1])),
        "{choice}"
    );
    assert!(
        (3..=4).contains(&n_alternatives(&choice["prompt_logprobs"][1])),
        "{choice}"
    );
    let messages = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well, "}]);
    let chat = server
        .chat(json!({"messages": messages, "echo": true, "continue_final_message": true}))
        .await;
    let content = chat.json()["choices"][0]["message"]["content"].clone();
    assert!(content.as_str().unwrap().starts_with("Well, "), "{content}");
}

#[tokio::test]
async fn where_each_event_tells_the_usage_the_last_text_comes_with_the_end() {
    let server = tiny(&[]).await;
    let options = json!({"continuous_usage_stats": true, "include_usage": true});
    let asked = json!({"stream": true, "stream_options": options, "max_tokens": 3});
    let events = server.chat(asked).await.events();
    let chunks: Vec<Value> = events[..events.len() - 1]
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    let counts: Vec<u64> = chunks
        .iter()
        .map(|chunk| chunk["usage"]["completion_tokens"].as_u64().unwrap())
        .collect();
    assert_eq!(counts, [0, 1, 2, 3, 3]);
    let last = &chunks[3]["choices"][0];
    assert_eq!(last["finish_reason"], "length");
    assert!(last["delta"]["content"].is_string(), "{last}");
}

#[tokio::test]
async fn a_request_that_forbids_every_token_is_a_400() {
    let server = tiny(&[]).await;
    let nothing = json!({"guided_choice": ["a"], "allowed_token_ids": [5], "bad_words": ["a"]});
    let reply = server.complete(nothing).await;
    assert_eq!(reply.status, 400, "{}", reply.text);
    assert!(reply.text.contains("exclude every token"), "{}", reply.text);
}

#[tokio::test]
async fn an_answer_is_called_as_the_client_calls_it() {
    let server = tiny(&[]).await;
    let body = server.complete(json!({"request_id": "mine"})).await.json();
    assert_eq!(body["id"], "cmpl-mine");
    let request = crate::fixture::post("/v1/completions", r#"{"prompt": "a", "request_id": "body"}"#);
    let (mut parts, body) = request.into_parts();
    parts.headers.insert("x-request-id", "header".parse().unwrap());
    let reply = server.send(axum::http::Request::from_parts(parts, body)).await;
    assert_eq!(reply.json()["id"], "cmpl-header");
}

#[tokio::test]
async fn every_prefix_leads_to_the_same_routes() {
    let server = tiny(&[]).await;
    for prefix in ["/v1", "/openai/v1", ""] {
        assert_eq!(server.get(&format!("{prefix}/models")).await.status, 200);
        let body = json!({"prompt": "Hello", "temperature": 0});
        let reply = server.post(&format!("{prefix}/completions"), body).await;
        assert_eq!(reply.status, 200, "{prefix}");
    }
    let messages = json!({"messages": [{"role": "user", "content": "Hi"}], "temperature": 0});
    assert_eq!(
        server.post("/invocations", messages).await.json()["object"],
        "chat.completion"
    );
    assert_eq!(server.post("/ping", json!({})).await.status, 200);
    assert_eq!(server.get("/load").await.json()["server_load"], 0);
}

#[tokio::test]
async fn text_becomes_tokens_and_tokens_text() {
    let server = tiny(&[]).await;
    let tokens = server
        .post(
            "/tokenize",
            json!({"prompt": "Hello there", "return_token_strs": true}),
        )
        .await
        .json();
    let texts: Vec<&str> = tokens["token_strs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|text| text.as_str().unwrap())
        .collect();
    assert_eq!(texts.concat(), "Hello there");
    assert_eq!(
        (&tokens["count"], &tokens["max_model_len"]),
        (&json!(texts.len()), &json!(2048))
    );
    let back = server
        .post("/detokenize", json!({"tokens": tokens["tokens"]}))
        .await
        .json();
    assert_eq!(back, json!({"prompt": "Hello there", "content": "Hello there"}));
    let pieces = server
        .post(
            "/tokenize",
            json!({"content": "Hello there", "with_pieces": true}),
        )
        .await
        .json();
    let ids = tokens["tokens"].as_array().unwrap().iter().zip(texts);
    let expected: Vec<Value> = ids.map(|(id, piece)| json!({"id": id, "piece": piece})).collect();
    assert_eq!(pieces["tokens"], json!(expected));
    let messages = json!({"messages": [{"role": "user", "content": "Hi"}]});
    let chat = server.post("/tokenize", messages).await.json();
    let rendered = server
        .post("/detokenize", json!({"tokens": chat["tokens"]}))
        .await
        .json();
    assert_eq!(
        rendered["prompt"],
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
    let outside = server.post("/detokenize", json!({"tokens": [99_999]})).await;
    assert_eq!(outside.status, 400);
    assert!(outside.text.contains("out of vocabulary"), "{}", outside.text);
}
