//! Engines that fail, and processes that end, while somebody waits for an answer.

use std::time::Duration;

use runtime::engine::Phase;
use serde_json::json;
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::fixture::{Then, fake, post, tiny, until, with_model};

#[tokio::test]
async fn a_stream_whose_engine_dies_ends_with_an_error_and_no_done() {
    for then in [Then::Fail { step: 3 }, Then::Panic { step: 3 }] {
        let server = with_model(fake(then), &[]).await;
        let reply = server.complete(json!({"stream": true, "max_tokens": 20})).await;
        assert_eq!(reply.status, 200);
        let events = reply.events();
        let last: serde_json::Value = serde_json::from_str(events.last().unwrap()).unwrap();
        assert_eq!(last["error"]["code"], "internal_error");
        assert!(
            events.len() > 1 && !events.contains(&"[DONE]".to_string()),
            "{events:?}"
        );
        // Dead: not ready, not alive, and it says so to whoever comes next.
        until("the engine is dead", || {
            server.app.serving.get().unwrap().engine.liveness().phase == Phase::Dead
        })
        .await;
        assert_eq!(server.get("/readyz").await.status, 503);
        assert_eq!(server.get("/livez").await.status, 503);
        let next = server.complete(json!({})).await;
        assert_eq!(
            (next.status, &next.json()["error"]["type"]),
            (500, &json!("server_error"))
        );
        assert!(
            !next.text.contains("purpose"),
            "details belong into the log: {}",
            next.text
        );
    }
}

#[tokio::test]
async fn logits_that_are_no_numbers_fail_one_request_only() {
    let server = with_model(fake(Then::NotANumber { step: 2 }), &[]).await;
    let failed = server.complete(json!({"max_tokens": 20})).await;
    assert_eq!(
        (failed.status, &failed.json()["error"]["code"]),
        (500, &json!("internal_error"))
    );
    assert_eq!(server.get("/livez").await.status, 200);
    let next = server.complete(json!({"max_tokens": 3})).await.json();
    assert_eq!(next["choices"][0]["text"], "aaa");
}

#[tokio::test]
async fn draining_finishes_what_runs_and_refuses_what_comes() {
    let (gate, receiver) = std::sync::mpsc::channel();
    let server = with_model(fake(Then::Gate(receiver)), &[]).await;
    let held = server.clone();
    let running = tokio::spawn(async move { held.complete(json!({"max_tokens": 5})).await });
    until("it runs", || {
        server.app.serving.get().unwrap().engine.load().n_running == 1
    })
    .await;
    let draining = server.clone();
    let drained = tokio::spawn(async move { draining.app.drain().await });
    let phase = || server.app.serving.get().unwrap().engine.liveness().phase;
    until("it drains", || phase() == Phase::Draining).await;
    let refused = server.complete(json!({})).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (503, &json!("shutting_down"))
    );
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(server.get("/readyz").await.status, 503);
    assert_eq!(server.get("/livez").await.status, 200);
    assert!(!drained.is_finished());
    drop(gate);
    assert_eq!(running.await.unwrap().json()["choices"][0]["text"], "aaaaa");
    drained.await.unwrap();
    assert_eq!(server.get("/livez").await.status, 200);
}

#[tokio::test]
async fn a_server_that_shuts_down_sends_clients_elsewhere_and_still_answers_them() {
    let server = with_model(
        fake(Then::Fail { step: usize::MAX }),
        &[("shutdown-delay-seconds", "5")],
    )
    .await;
    let leaving = server.clone();
    let left = tokio::spawn(async move { leaving.app.shut_down().await });
    until("it shuts down", || server.app.is_draining()).await;
    assert_eq!(server.get("/readyz").await.status, 503);
    let answered = server.complete(json!({"max_tokens": 1})).await;
    assert_eq!(
        (answered.status, &answered.headers["connection"]),
        (200, &"close".parse().unwrap())
    );
    assert_eq!(server.get("/livez").await.status, 200);
    left.await.unwrap();
    assert_eq!(server.complete(json!({})).await.status, 503);
}

#[tokio::test]
async fn a_server_whose_engine_stopped_by_itself_is_not_alive() {
    let server = with_model(fake(Then::Fail { step: usize::MAX }), &[]).await;
    let engine = &server.app.serving.get().unwrap().engine;
    engine.drain();
    engine.drained().await;
    assert_eq!(server.get("/livez").await.status, 503);
}

#[tokio::test]
async fn what_still_runs_after_the_drain_timeout_is_cut_off_and_says_so() {
    let (gate, receiver) = std::sync::mpsc::channel();
    let server = with_model(fake(Then::Gate(receiver)), &[("drain-timeout-seconds", "0")]).await;
    let held = server.clone();
    let running =
        tokio::spawn(async move { held.complete(json!({"max_tokens": 200, "stream": true})).await });
    until("it runs", || {
        server.app.serving.get().unwrap().engine.load().n_running == 1
    })
    .await;
    let draining = server.clone();
    tokio::spawn(async move { draining.app.drain().await });
    // One token at a time, so that the end of the drain falls between two of them.
    while !running.is_finished() {
        let _ended = gate.send(());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let events = running.await.unwrap().events();
    let last: serde_json::Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "shutting_down");
}

#[tokio::test]
async fn requests_whose_clients_left_take_no_place_in_the_queue() {
    let server = tiny(&[]).await;
    let body = json!({"model": "tiny", "prompt": "Hello, world. ".repeat(4000), "truncate_prompt_tokens": 1,
        "max_tokens": 1});
    let body = body.to_string();
    // One client may not fill the queue; whoever comes last is told to come again.
    let mut waiting = JoinSet::new();
    for _ in 0..600 {
        waiting.spawn(
            server
                .router
                .clone()
                .oneshot(post("/v1/completions", body.clone())),
        );
    }
    let refused = loop {
        let answer = waiting.join_next().await.expect("the queue has a bound");
        let answer = answer.unwrap().unwrap();
        if answer.status() != 200 {
            break answer;
        }
    };
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    waiting.shutdown().await;
    let answer = server.send(post("/v1/completions", body)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}
