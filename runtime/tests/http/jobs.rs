//! RunPod's jobs, from the client's side.

use serde_json::{Value, json};

use crate::fixture::{Reply, Server, Then, fake, loading, post, tiny, until, with_model};

/// The body of a job once it has ended.
async fn ended(server: &Server, id: &str) -> Value {
    loop {
        let reply = server.get(&format!("/status/{id}")).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let body = reply.json();
        if !matches!(body["status"].as_str(), Some("IN_QUEUE" | "IN_PROGRESS")) {
            return body;
        }
        tokio::task::yield_now().await;
    }
}

async fn submitted(server: &Server, input: Value) -> String {
    let reply = server.post("/run", json!({"input": input})).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let body = reply.json();
    assert_eq!(body["status"], "IN_QUEUE");
    body["id"].as_str().unwrap().to_string()
}

async fn done(server: &Server, input: Value) -> Value {
    let id = submitted(server, input).await;
    ended(server, &id).await
}

/// All that `/stream` gives, until there is no more.
async fn streamed(server: &Server, id: &str) -> Vec<Value> {
    let mut outputs = Vec::new();
    loop {
        let body = server.get(&format!("/stream/{id}")).await.json();
        let items = body["stream"].as_array().unwrap().clone();
        let is_final = !matches!(body["status"].as_str(), Some("IN_QUEUE" | "IN_PROGRESS"));
        if is_final && items.is_empty() {
            assert_eq!(body["status"], "COMPLETED", "{body}");
            return outputs;
        }
        outputs.extend(items.into_iter().map(|item| item["output"].clone()));
        tokio::task::yield_now().await;
    }
}

fn n_tokens(batches: &[Value]) -> Vec<usize> {
    let n = |batch: &Value| batch["choices"][0]["tokens"].as_array().unwrap().len();
    batches.iter().map(n).collect()
}

fn text(batches: &[Value]) -> String {
    let tokens = batches
        .iter()
        .flat_map(|batch| batch["choices"][0]["tokens"].as_array().unwrap());
    tokens.map(|token| token.as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_prompt_is_answered_like_a_completion() {
    let server = tiny(&[]).await;
    let params = json!({"temperature": 0, "max_tokens": 8, "ignore_eos": true});
    let body = done(&server, json!({"prompt": "Hello", "sampling_params": params})).await;
    let same = server
        .complete(json!({"max_tokens": 8, "ignore_eos": true}))
        .await
        .json();
    let expected = json!([{
        "choices": [{"tokens": [same["choices"][0]["text"]]}],
        "usage": {"input": same["usage"]["prompt_tokens"], "output": 8},
    }]);
    assert_eq!(
        (&body["output"], &body["status"]),
        (&expected, &json!("COMPLETED"))
    );
    assert!(
        body["delayTime"].is_u64() && body["executionTime"].is_u64(),
        "{body}"
    );
    let short = done(
        &server,
        json!({"prompt": "Hello", "sampling_params": {"ignore_eos": true}}),
    )
    .await;
    assert_eq!(
        short["output"][0]["usage"]["output"], 16,
        "the documented default"
    );
}

#[tokio::test]
async fn messages_go_through_the_template_and_a_prompt_does_if_asked() {
    let server = tiny(&[]).await;
    let question = "What is 7 plus 5?";
    let params = json!({"temperature": 0, "max_tokens": 12});
    let chat = server.chat(json!({"max_tokens": 12})).await.json();
    let messages = json!([{"role": "user", "content": question}]);
    for input in [
        json!({"messages": messages, "prompt": "something else", "sampling_params": params}),
        json!({"prompt": question, "apply_chat_template": true, "sampling_params": params}),
        json!({"messages": question, "sampling_params": params}),
    ] {
        let body = done(&server, input).await;
        assert_eq!(
            body["output"][0]["choices"][0]["tokens"][0],
            chat["choices"][0]["message"]["content"]
        );
        assert_eq!(
            body["output"][0]["usage"]["input"],
            chat["usage"]["prompt_tokens"]
        );
    }
}

#[tokio::test]
async fn a_stream_comes_in_growing_batches() {
    let server = tiny(&[]).await;
    let params = json!({"temperature": 0, "max_tokens": 100, "ignore_eos": true});
    let input = json!({"prompt": "Hello", "stream": true, "sampling_params": params});
    let id = submitted(&server, input.clone()).await;
    let batches = streamed(&server, &id).await;
    assert_eq!(n_tokens(&batches), [1, 3, 9, 27, 50, 10]);
    let usages: Vec<&Value> = batches.iter().map(|batch| &batch["usage"]["output"]).collect();
    assert_eq!(usages, [1, 4, 13, 40, 90, 100]);
    let same = server
        .complete(json!({"max_tokens": 100, "ignore_eos": true}))
        .await
        .json();
    assert_eq!(text(&batches), same["choices"][0]["text"]);
    let whole = ended(&server, &id).await;
    assert_eq!(
        whole["output"],
        json!(batches),
        "the status has all of it, in batches"
    );
    let messages = json!([{"role": "user", "content": "Hello"}]);
    let params = json!({"max_tokens": 30, "ignore_eos": true});
    let chat = json!({"messages": messages, "stream": true, "sampling_params": params});
    let id = submitted(&server, chat).await;
    assert_eq!(n_tokens(&streamed(&server, &id).await), [1, 3, 9, 17]);
    let own = json!({"max_batch_size": 40, "min_batch_size": 10, "batch_size_growth_factor": 2});
    let id = submitted(&server, crate::fixture::with(input, own)).await;
    assert_eq!(n_tokens(&streamed(&server, &id).await), [10, 20, 40, 30]);
}

#[tokio::test]
async fn the_sizes_of_batches_are_settings() {
    let flags = [
        ("default-batch-size", "4"),
        ("default-min-batch-size", "2"),
        ("default-batch-size-growth-factor", "1.5"),
    ];
    let server = tiny(&flags).await;
    let params = json!({"max_tokens": 12, "ignore_eos": true});
    let id = submitted(
        &server,
        json!({"prompt": "Hello", "stream": true, "sampling_params": params}),
    )
    .await;
    assert_eq!(n_tokens(&streamed(&server, &id).await), [2, 3, 4, 3]);
}

#[tokio::test]
async fn an_openai_route_is_asked_whole_or_streamed_raw_or_as_objects() {
    let input = |stream: bool| {
        let body = json!({
            "model": "tiny", "prompt": "Hello", "temperature": 0, "max_tokens": 10, "ignore_eos": true,
            "stream": stream,
        });
        json!({"openai_route": "/v1/completions", "openai_input": body})
    };
    let server = tiny(&[]).await;
    let same = server
        .complete(json!({"max_tokens": 10, "ignore_eos": true}))
        .await
        .json();
    let whole = done(&server, input(false)).await;
    assert_eq!(whole["output"][0]["choices"], same["choices"]);
    let models = done(&server, json!({"openai_route": "/v1/models", "openai_input": {}})).await;
    assert_eq!(models["output"][0]["data"][0]["id"], "tiny");
    let id = submitted(&server, input(true)).await;
    let raw: String = streamed(&server, &id)
        .await
        .iter()
        .map(|item| item.as_str().unwrap())
        .collect();
    assert!(
        raw.starts_with("data: {\"id\":\"cmpl-") && raw.ends_with("data: [DONE]\n\n"),
        "{raw}"
    );
    let server = tiny(&[("raw-openai-output", "0")]).await;
    let id = submitted(&server, input(true)).await;
    let objects = streamed(&server, &id).await;
    let chunks = objects.iter().flat_map(|batch| batch.as_array().unwrap());
    let text: String = chunks
        .map(|chunk| chunk["choices"][0]["text"].as_str().unwrap())
        .collect();
    assert_eq!(text, same["choices"][0]["text"]);
}

#[tokio::test]
async fn what_a_job_gets_wrong_is_said() {
    let server = tiny(&[]).await;
    for (body, param) in [
        (json!({}), "input"),
        (json!({"input": "Hello"}), "input"),
        (
            json!({"input": {"prompt": "Hi"}, "webhook": "http://x"}),
            "webhook",
        ),
        (
            json!({"input": {"prompt": "Hi"}, "policy": {"ttl": 1}}),
            "policy.ttl",
        ),
    ] {
        let reply = server.post("/run", body).await;
        assert_eq!(
            (reply.status, reply.json()["error"]["param"].as_str()),
            (400, Some(param))
        );
    }
    let failed = async |input: Value| {
        let body = done(&server, input).await;
        assert_eq!(body["status"], "FAILED", "{body}");
        body["error"].as_str().unwrap().to_string()
    };
    let unknown = json!({"prompt": "Hi", "sampling_params": {"temprature": 0}});
    assert!(failed(unknown).await.starts_with("sampling_params.temprature"));
    let above = json!({"prompt": "Hi", "sampling_params": {"temperature": -1}});
    assert!(failed(above).await.contains("temperature"));
    let absent = json!({"openai_route": "/v1/nothing", "openai_input": {"a": 1}});
    assert!(failed(absent).await.contains("/v1/nothing"));
    let ignored = server
        .post(
            "/run",
            json!({"input": {"prompt": "Hi", "batch_size": 3}, "x": 1}),
        )
        .await;
    assert_eq!(
        ignored.headers["x-slipway-ignored-parameters"],
        "x, input.batch_size"
    );
    for path in ["/status/nobody", "/stream/nobody"] {
        assert_eq!(server.get(path).await.json()["error"]["code"], "job_not_found");
    }
    assert_eq!(server.post("/cancel/nobody", json!({})).await.status, 404);
}

#[tokio::test]
async fn runsync_answers_with_the_job() {
    let server = tiny(&[]).await;
    let reply = server
        .post("/runsync", json!({"input": {"prompt": "Hello"}}))
        .await;
    let body = reply.json();
    assert_eq!((reply.status, &body["status"]), (200, &json!("COMPLETED")));
    assert!(body["id"].as_str().unwrap().starts_with("sync-"));
    assert!(body["output"][0]["choices"][0]["tokens"][0].is_string(), "{body}");
    let reply = server
        .post("/runsync?wait=7", json!({"input": {"prompt": "Hello"}}))
        .await;
    assert_eq!(
        (reply.status, &reply.json()["error"]["param"]),
        (400, &json!("wait"))
    );
}

#[tokio::test]
async fn jobs_wait_are_cancelled_and_purged() {
    let (gate, receiver) = std::sync::mpsc::channel();
    let server = with_model(fake(Then::Gate(receiver)), &[("max-concurrency", "1")]).await;
    let input = json!({"prompt": "Hello", "stream": true, "sampling_params": {"max_tokens": 3}});
    let running = submitted(&server, input.clone()).await;
    let counts = || server.app.jobs.counts();
    until("one runs", || counts().n_running == 1).await;
    let engine = &server.app.serving.get().unwrap().engine;
    until("the engine has it", || engine.load().n_running == 1).await;
    let queued = submitted(&server, input.clone()).await;
    let other = submitted(&server, input).await;
    let health = server.get("/health").await;
    let jobs = json!({"completed": 0, "failed": 0, "inProgress": 1, "inQueue": 2, "retried": 0});
    assert_eq!((health.status, &health.json()["jobs"]), (200, &jobs));
    assert_eq!(health.json()["workers"]["running"], 1);
    let reply = server.post(&format!("/cancel/{queued}"), json!(null)).await;
    assert_eq!(reply.json(), json!({"id": queued, "status": "CANCELLED"}));
    let purged = server.post("/purge-queue", json!(null)).await.json();
    assert_eq!(purged, json!({"removed": 1, "status": "completed"}));
    assert_eq!(ended(&server, &other).await["status"], "CANCELLED");
    server.post(&format!("/cancel/{running}"), json!(null)).await;
    until("nobody works on it", || server.app.jobs.tasks.is_empty()).await;
    drop(gate);
    until("the engine was told", || engine.counters().cancelled.get() == 1).await;
    until("nothing is held", || engine.load().n_blocks_used == 0).await;
    let stream = server.get(&format!("/stream/{running}")).await.json();
    assert_eq!(stream, json!({"status": "CANCELLED", "stream": []}));
}

#[tokio::test]
async fn a_failed_job_is_tried_again() {
    let server = with_model(fake(Then::NotANumber { step: 0 }), &[]).await;
    let id = submitted(
        &server,
        json!({"prompt": "Hello", "sampling_params": {"max_tokens": 2}}),
    )
    .await;
    assert_eq!(ended(&server, &id).await["status"], "FAILED");
    let again = server.post(&format!("/retry/{id}"), json!(null)).await;
    assert_eq!(again.json(), json!({"id": id, "status": "IN_QUEUE"}));
    let body = ended(&server, &id).await;
    assert_eq!(
        (&body["status"], &body["output"][0]["usage"]["output"]),
        (&json!("COMPLETED"), &json!(2))
    );
    assert_eq!(
        server.post(&format!("/retry/{id}"), json!(null)).await.status,
        400
    );
    assert_eq!(server.get("/health").await.json()["jobs"]["retried"], 1);
}

/// Sends a body with a key.
async fn with_key(server: &Server, key: &str, path: &str, body: Value) -> Reply {
    let mut request = post(path, body.to_string());
    let value = format!("Bearer {key}").parse().unwrap();
    request.headers_mut().insert("authorization", value);
    server.send(request).await
}

#[tokio::test]
async fn a_job_belongs_to_the_key_that_made_it() {
    let (gate, receiver) = std::sync::mpsc::channel();
    let flags = [("api-key", "first,second"), ("max-concurrency", "1")];
    let server = with_model(fake(Then::Gate(receiver)), &flags).await;
    let job = || json!({"input": {"prompt": "Hello", "sampling_params": {"max_tokens": 2}}});
    let run = async |key: &str| {
        let reply = with_key(&server, key, "/run", job()).await;
        reply.json()["id"].as_str().unwrap().to_string()
    };
    let (running, queued) = (run("first").await, run("first").await);
    for id in [&running, &queued] {
        for route in ["status", "stream", "cancel", "retry"] {
            let reply = with_key(&server, "second", &format!("/{route}/{id}"), json!(null)).await;
            assert_eq!(reply.status, 404, "{route}");
        }
    }
    let purged = with_key(&server, "second", "/purge-queue", json!(null)).await;
    assert_eq!(purged.json()["removed"], 0);
    let status = with_key(&server, "first", &format!("/status/{queued}"), json!(null)).await;
    assert_eq!(status.json()["status"], "IN_QUEUE");
    let other = run("second").await;
    let counts = || server.app.jobs.counts();
    until("one of each key runs", || counts().n_running == 2).await;
    drop(gate);
    until("all have ended", || counts().n_completed == 3).await;
    let status = with_key(&server, "second", &format!("/status/{other}"), json!(null)).await;
    assert_eq!(status.json()["status"], "COMPLETED");
}

#[tokio::test]
async fn a_job_that_failed_by_its_input_keeps_none() {
    let server = tiny(&[]).await;
    for input in [
        json!({"prompt": "Hi", "sampling_params": {"temperature": -1}}),
        json!({"prompt": 7}),
    ] {
        let id = submitted(&server, input).await;
        assert_eq!(ended(&server, &id).await["status"], "FAILED");
        let again = server.post(&format!("/retry/{id}"), json!(null)).await;
        assert_eq!(again.status, 400);
        let message = again.json()["error"]["message"].to_string();
        assert!(message.contains("send a corrected job"), "{message}");
    }
}

#[tokio::test]
async fn jobs_need_the_key_and_a_loaded_model_and_are_waited_for() {
    let server = tiny(&[("api-key", "secret")]).await;
    for path in [
        "/run",
        "/runsync",
        "/cancel/x",
        "/retry/x",
        "/purge-queue",
        "/status/x",
        "/stream/x",
    ] {
        assert_eq!(
            server.post(path, json!({"input": {"prompt": "Hi"}})).await.status,
            401,
            "{path}"
        );
    }
    assert_eq!(server.get("/health").await.status, 200);
    let early = loading(&[])
        .post("/run", json!({"input": {"prompt": "Hi"}}))
        .await;
    assert_eq!(early.status, 503);
    let server = tiny(&[]).await;
    let id = submitted(
        &server,
        json!({"prompt": "Hi", "sampling_params": {"max_tokens": 50}}),
    )
    .await;
    server.app.drain().await;
    assert_eq!(ended(&server, &id).await["status"], "COMPLETED");
    assert_eq!(
        server
            .post("/run", json!({"input": {"prompt": "Hi"}}))
            .await
            .status,
        503
    );
}
