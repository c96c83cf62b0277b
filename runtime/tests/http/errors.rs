//! What bad requests are answered with, and that the next good one works.

use axum::body::Body;
use axum::http::{Request, header};
use serde_json::{Value, json};

use crate::fixture::{Reply, Server, post, tiny, with};

/// Asserts OpenAI's shape and the status, and that a good request still works.
async fn assert_refused(server: &Server, reply: &Reply, expected: (u16, Option<&str>)) {
    let (status, param) = expected;
    let body = reply.json();
    assert_eq!(reply.status, status, "{body}");
    let error = body["error"].as_object().unwrap();
    assert_eq!(
        error.keys().collect::<Vec<_>>(),
        ["message", "type", "param", "code"]
    );
    assert_eq!(error["param"].as_str(), param, "{body}");
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|text| !text.is_empty() && text.len() < 1000),
        "{body}"
    );
    assert!(reply.headers.contains_key("x-request-id"));
    let good = server.complete(json!({"max_tokens": 1})).await;
    assert_eq!(good.status, 200, "after {body}: {}", good.text);
}

#[tokio::test]
async fn every_bad_completion_is_a_4xx_and_the_next_request_works() {
    let server = tiny(&[]).await;
    let bad = [
        (json!({"model": "gpt-5"}), 404, "model"),
        (json!({"model": ["tiny"]}), 400, "model"),
        (json!({"prompt": null}), 400, "prompt"),
        (json!({"prompt": []}), 400, "prompt"),
        (json!({"prompt": {"a": 1}}), 400, "prompt"),
        (json!({"prompt": 7}), 400, "prompt"),
        (json!({"prompt": [[]]}), 400, "prompt"),
        (json!({"prompt": [1, "a"]}), 400, "prompt"),
        (json!({"prompt": [-1]}), 400, "prompt"),
        (json!({"prompt": [1_000_000_000]}), 400, "prompt"),
        (json!({"prompt": [10_000_000_000_u64]}), 400, "prompt"),
        (json!({"prompt": ""}), 400, "prompt"),
        (json!({"prompt": "word ".repeat(5000)}), 400, "prompt"),
        (json!({"prompt": vec![5; 3000]}), 400, "prompt"),
        (json!({"prompt": vec!["a"; 1000]}), 400, "prompt"),
        (json!({"max_tokens": -1}), 400, "max_tokens"),
        (json!({"max_tokens": "many"}), 400, "max_tokens"),
        (json!({"max_tokens": 1.5}), 400, "max_tokens"),
        (json!({"max_tokens": 1e300}), 400, "max_tokens"),
        (json!({"min_tokens": 20, "max_tokens": 10}), 400, "min_tokens"),
        (json!({"temperature": 9}), 400, "temperature"),
        (json!({"temperature": -1}), 400, "temperature"),
        (json!({"temperature": "warm"}), 400, "temperature"),
        (json!({"top_p": -0.1}), 400, "top_p"),
        (json!({"top_p": 2}), 400, "top_p"),
        (json!({"top_k": -7}), 400, "top_k"),
        (json!({"min_p": -0.5}), 400, "min_p"),
        (json!({"presence_penalty": 2.5}), 400, "presence_penalty"),
        (json!({"frequency_penalty": "x"}), 400, "frequency_penalty"),
        (json!({"repetition_penalty": 0}), 400, "repetition_penalty"),
        (json!({"repetition_penalty": 1e-300}), 400, "repetition_penalty"),
        (json!({"n": 0}), 400, "n"),
        (json!({"n": 129}), 400, "n"),
        (json!({"n": 128, "prompt": vec!["a"; 128]}), 400, "n"),
        (json!({"seed": "x"}), 400, "seed"),
        (json!({"seed": 1e30}), 400, "seed"),
        (json!({"stop": ["a", ""]}), 400, "stop[1]"),
        (json!({"stop": [1]}), 400, "stop"),
        (json!({"stop_token_ids": [1.5]}), 400, "stop_token_ids"),
        (json!({"stream": "true"}), 400, "stream"),
        (
            json!({"stream_options": {"include_usage": true}}),
            400,
            "stream_options",
        ),
        (json!({"logprobs": 1000}), 400, "logprobs"),
        (json!({"logprobs": -1}), 400, "logprobs"),
        (json!({"echo": "yes"}), 400, "echo"),
        (json!({"best_of": 3, "n": 4}), 400, "best_of"),
        (json!({"suffix": "x"}), 400, "suffix"),
        (json!({"logit_bias": {"5": 101}}), 400, "logit_bias"),
        (json!({"logit_bias": {"99999": 1}}), 400, "logit_bias"),
        (json!({"allowed_token_ids": []}), 400, "allowed_token_ids"),
        (json!({"bad_words": [""]}), 400, "bad_words"),
        (
            json!({"response_format": {"type": "sound"}}),
            400,
            "response_format.type",
        ),
        (
            json!({"response_format": {"type": "json_schema"}}),
            400,
            "response_format.json_schema.schema",
        ),
        (json!({"guided_json": {"type": 123}}), 400, "guided_json"),
        (json!({"guided_regex": "[.*"}), 400, "guided_regex"),
        (json!({"guided_grammar": ""}), 400, "guided_grammar"),
        (json!({"guided_choice": []}), 400, "guided_choice"),
        (
            json!({"guided_regex": "a", "guided_choice": ["a"]}),
            400,
            "guided_choice",
        ),
        (
            json!({"prompt_logprobs": 1, "stream": true}),
            400,
            "prompt_logprobs",
        ),
    ];
    assert!(bad.len() >= 40);
    for (extra, status, param) in bad {
        let reply = server.complete(extra).await;
        assert_refused(&server, &reply, (status, Some(param))).await;
    }
}

#[tokio::test]
async fn every_bad_chat_is_a_400_and_the_next_request_works() {
    let server = tiny(&[]).await;
    let image = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]);
    let bad = [
        (json!({"messages": null}), "messages"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": "Hi"}), "messages"),
        (json!({"messages": [{"content": "hi"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "user"}]}), "messages[0].content"),
        (
            json!({"messages": [{"role": "user", "content": 7}]}),
            "messages[0].content",
        ),
        (json!({"messages": image}), "messages[0].content[0]"),
        (
            json!({"messages": [{"role": "user", "content": "word ".repeat(5000)}]}),
            "messages",
        ),
        (json!({"max_completion_tokens": 0}), "max_completion_tokens"),
        (json!({"top_logprobs": 3}), "top_logprobs"),
        (json!({"logprobs": true, "top_logprobs": 99}), "top_logprobs"),
        (json!({"chat_template": "{{ 1 "}), "chat_template"),
        (json!({"tool_choice": "required"}), "tool_choice"),
    ];
    for (extra, param) in bad {
        let reply = server.chat(extra).await;
        assert_refused(&server, &reply, (400, Some(param))).await;
    }
}

#[tokio::test]
async fn a_template_that_refuses_is_a_400() {
    let template = "{{ raise_exception('roles must alternate') }}";
    let server = tiny(&[("chat-template", template)]).await;
    let reply = server.chat(json!({})).await;
    insta::assert_snapshot!(reply.text, @r#"{"error":{"message":"the chat template does not accept the messages: roles must alternate","type":"invalid_request_error","param":"messages","code":"invalid_messages"}}"#);
    assert_refused(&server, &reply, (400, Some("messages"))).await;
}

#[tokio::test]
async fn bodies_and_routes_that_are_none() {
    let server = tiny(&[]).await;
    let good = json!({"model": "tiny", "prompt": "Hello", "max_tokens": 1}).to_string();
    let form =
        Request::post("/v1/completions").header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    let mut compressed = post("/v1/completions", good.clone());
    let gzip = header::HeaderValue::from_static("gzip");
    compressed.headers_mut().insert(header::CONTENT_ENCODING, gzip);
    let cases = [
        (compressed, 415),
        (post("/v1/completions", "{\"model\": "), 400),
        (post("/v1/completions", ""), 400),
        (post("/v1/completions", "[1, 2]"), 400),
        (post("/v1/completions", "[".repeat(100_000)), 400),
        (post("/v1/completions", vec![0xff, 0xfe]), 400),
        (
            post(
                "/v1/completions",
                format!("{{\"prompt\": \"{}\"}}", "x".repeat(10 << 20)),
            ),
            413,
        ),
        (form.body(Body::from(good.clone())).unwrap(), 415),
        (Request::get("/v1/completions").body(Body::empty()).unwrap(), 405),
        (Request::delete("/v1/models").body(Body::empty()).unwrap(), 405),
        (post("/v1/images/generations", good.clone()), 404),
        (Request::get("/").body(Body::empty()).unwrap(), 404),
        (Request::get("/v1/models/%ff").body(Body::empty()).unwrap(), 404),
        (Request::get("/status/%c3%28").body(Body::empty()).unwrap(), 404),
        (
            Request::get(format!("/{}", "x".repeat(5000)))
                .body(Body::empty())
                .unwrap(),
            404,
        ),
    ];
    for (request, status) in cases {
        let reply = server.send(request).await;
        assert_refused(&server, &reply, (status, None)).await;
    }
    for wait in ["wait=soon", "wait=-1", "wait=1000&wait=2000"] {
        let job = json!({"input": {"prompt": "a"}});
        let reply = server.post(&format!("/runsync?{wait}"), job).await;
        assert_refused(&server, &reply, (400, Some("query"))).await;
    }
    let bare = Request::post("/v1/completions").body(Body::from(good)).unwrap();
    assert_eq!(
        server.send(bare).await.status,
        200,
        "a body of no declared type is taken for JSON"
    );
}

#[tokio::test]
async fn error_bodies_byte_for_byte() {
    let server = tiny(&[]).await;
    let mut bodies = Vec::new();
    for extra in [
        json!({"model": "gpt-5"}),
        json!({"temperature": "warm"}),
        json!({"best_of": 2, "n": 3}),
        json!({"prompt": vec![5; 2048]}),
    ] {
        bodies.push(server.complete(extra).await.text);
    }
    bodies.push(server.send(post("/v1/completions", "{\n  nonsense")).await.text);
    insta::assert_snapshot!(bodies.join("\n"), @r#"
    {"error":{"message":"the model 'gpt-5' does not exist; this server has tiny, alias","type":"invalid_request_error","param":"model","code":"model_not_found"}}
    {"error":{"message":"temperature must be a number from 0 to 2, but is \"warm\"","type":"invalid_request_error","param":"temperature","code":"invalid_value"}}
    {"error":{"message":"best_of must be at least n, which is 3, but is 2","type":"invalid_request_error","param":"best_of","code":"invalid_value"}}
    {"error":{"message":"prompt is too long: 2048 tokens > 2047 maximum. Please reduce the length of the input.","type":"invalid_request_error","param":"prompt","code":"context_length_exceeded"}}
    {"error":{"message":"the body is not valid JSON: key must be a string at line 2 column 3","type":"invalid_request_error","param":null,"code":"invalid_json"}}
    "#);
}

#[tokio::test]
async fn a_key_is_asked_for_on_the_openai_routes_only() {
    let server = tiny(&[("api-key", "first,second")]).await;
    let models = |authorization: Option<&str>| {
        let mut request = Request::get("/v1/models");
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        server.send(request.body(Body::empty()).unwrap())
    };
    for good in ["Bearer first", "bearer second"] {
        assert_eq!(models(Some(good)).await.status, 200);
    }
    for bad in [
        None,
        Some("Bearer firs"),
        Some("Bearer first,second"),
        Some("Basic first"),
        Some("firs"),
    ] {
        let reply = models(bad).await;
        assert_eq!(
            (reply.status, &reply.json()["error"]["code"]),
            (401, &json!("invalid_api_key"))
        );
        assert_eq!(reply.headers[header::WWW_AUTHENTICATE], "Bearer");
    }
    assert_eq!(server.complete(json!({})).await.status, 401);
    for open in [
        "/livez",
        "/readyz",
        "/startupz",
        "/metrics",
        "/internal/load",
        "/version",
        "/health",
    ] {
        assert_eq!(server.get(open).await.status, 200, "{open}");
    }
    // An unknown route says so whether there is a key or not.
    assert_eq!(server.get("/v1/nothing").await.status, 404);
}

#[tokio::test]
async fn every_response_has_an_id_and_a_clients_own_is_kept() {
    let server = tiny(&[]).await;
    let id_of = |given: Option<&str>| {
        let mut request = Request::get("/v1/models");
        if let Some(id) = given {
            request = request.header("x-request-id", id);
        }
        let sent = server.send(request.body(Body::empty()).unwrap());
        async { sent.await.headers["x-request-id"].to_str().unwrap().to_string() }
    };
    assert_eq!(id_of(Some("abc-123")).await, "abc-123");
    for insane in [None, Some(""), Some("a b"), Some("x".repeat(129).as_str())] {
        assert_eq!(id_of(insane).await.len(), 36, "{insane:?}");
    }
}

#[tokio::test]
async fn errors_are_counted_by_their_label() {
    let server = tiny(&[]).await;
    server.complete(json!({"temperature": 9})).await;
    server.complete(json!({"model": "x"})).await;
    let metrics = server.get("/metrics").await.text;
    for label in ["invalid_value", "unknown_model"] {
        assert!(
            metrics.contains(&format!("error=\"{label}\"}} 1")),
            "{label} in\n{metrics}"
        );
    }
}

#[tokio::test]
async fn parameters_that_ask_for_nothing_are_fine() {
    let server = tiny(&[]).await;
    let nothing: Value = with(
        json!({"tools": [], "tool_choice": "none", "response_format": {"type": "text"}, "logit_bias": {}}),
        json!({"user": "me", "stop": null, "n": null, "max_tokens": null, "best_of": 1, "functions": null}),
    );
    assert_eq!(server.chat(nothing).await.status, 200);
}

#[tokio::test]
async fn a_body_with_too_many_values_is_refused_on_every_route() {
    let server = tiny(&[]).await;
    let many = format!("[{}[0]]", "[0],".repeat(2_000_000));
    for (path, field) in [
        ("/v1/completions", "prompt"),
        ("/v1/chat/completions", "messages"),
        ("/tokenize", "prompt"),
        ("/invocations", "prompt"),
        ("/run", "input"),
    ] {
        let reply = server.send(post(path, format!("{{\"{field}\": {many}}}"))).await;
        assert_eq!(reply.status, 400, "{path}");
        assert_eq!(reply.json()["error"]["code"], "too_many_values", "{path}");
    }
    assert_eq!(server.complete(json!({"max_tokens": 1})).await.status, 200);
}
