//! Probes, load and metrics through the life of a server.

use std::sync::Arc;

use runtime::http::routes;
use serde_json::{Value, json};

use crate::fixture::{Server, Then, fake, loading, tiny, until, with_model};

#[tokio::test]
async fn while_loading_it_lives_and_is_not_ready() {
    let server = loading(&[]);
    assert_eq!(server.get("/livez").await.status, 200);
    for path in ["/readyz", "/health", "/startupz"] {
        assert_eq!(server.get(path).await.status, 503, "{path}");
    }
    let startup = server.get("/startupz").await.json();
    assert_eq!(
        (&startup["stage"], &startup["done"]),
        (&json!("Starting"), &json!(false))
    );
    for reply in [
        server.chat(json!({})).await,
        server.complete(json!({})).await,
        server.get("/v1/models").await,
    ] {
        assert_eq!(
            (reply.status, &reply.json()["error"]["code"]),
            (503, &json!("model_loading"))
        );
        assert!(reply.headers.contains_key("retry-after"));
    }
    assert_eq!(server.get("/internal/load").await.json()["running"], 0);
    assert!(server.get("/metrics").await.text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn a_control_port_takes_the_routes_that_are_not_for_clients() {
    let server = tiny(&[("control-port", "8001")]).await;
    let control = Server {
        router: routes::control_router(Arc::clone(&server.app)),
        ..server.clone()
    };
    for path in ["/livez", "/readyz"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
        assert_eq!(control.get(path).await.status, 200, "{path}");
    }
    for path in ["/startupz", "/metrics", "/load", "/internal/load"] {
        assert_eq!(server.get(path).await.status, 404, "{path}");
        assert_eq!(control.get(path).await.status, 200, "{path}");
    }
    for path in ["/health", "/ping", "/version", "/v1/models"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
        assert_eq!(control.get(path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn once_loaded_it_says_what_it_serves() {
    let server = tiny(&[("max-model-len", "512")]).await;
    for path in ["/livez", "/readyz", "/health"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    let startup = server.get("/startupz").await;
    assert_eq!(startup.status, 200);
    let mut model = startup.json()["model"].take();
    let memory_bytes = model.as_object_mut().unwrap().remove("memoryBytes");
    assert!(memory_bytes.and_then(|bytes| bytes.as_u64()) > Some(9970688));
    let expected =
        json!({"architecture": "LlamaForCausalLM", "bytes": 9970688, "device": "CPU", "maxModelLen": 512});
    assert_eq!(model, expected);
    assert_eq!(
        server.get("/version").await.json(),
        json!({"version": env!("CARGO_PKG_VERSION")})
    );
}

#[tokio::test]
async fn the_load_and_the_metrics_follow_the_requests() {
    let server = tiny(&[]).await;
    let before = counter(&server.get("/metrics").await.text, "vllm:generation_tokens_total");
    let usage = server
        .complete(json!({"max_tokens": 5, "ignore_eos": true}))
        .await
        .json()["usage"]
        .clone();
    let stopped = server.chat(json!({"stop": "5"})).await.json()["usage"].clone();
    assert_eq!(usage["completion_tokens"], 5);
    let metrics = server.get("/metrics").await.text;
    let drawn = counter(&metrics, "vllm:generation_tokens_total") - before;
    assert!(
        drawn >= 5.0 + stopped["completion_tokens"].as_f64().unwrap(),
        "{drawn}"
    );
    for (name, value) in [
        (
            "vllm:request_success_total{model_name=\"tiny\",finished_reason=\"stop\"}",
            1.0,
        ),
        (
            "vllm:request_success_total{model_name=\"tiny\",finished_reason=\"length\"}",
            1.0,
        ),
        ("vllm:time_to_first_token_seconds_count{model_name=\"tiny\"}", 2.0),
        ("vllm:e2e_request_latency_seconds_count{model_name=\"tiny\"}", 2.0),
        ("vllm:request_queue_time_seconds_count{model_name=\"tiny\"}", 2.0),
    ] {
        assert_eq!(counter(&metrics, name), value, "{name} in\n{metrics}");
    }
    let (n_steps, n_computed) = (
        counter(&metrics, "vllm:iteration_tokens_total_count"),
        counter(&metrics, "vllm:iteration_tokens_total_sum"),
    );
    assert_eq!(n_steps, counter(&metrics, "slipway_engine_steps_total"));
    assert!(n_computed > n_steps, "prompts have several tokens");
    // The engine learns of a stop string on its next turn.
    let engine = &server.app.serving.get().unwrap().engine;
    until("nothing runs", || engine.load().n_running == 0).await;
    let load = server.get("/internal/load").await.json();
    assert_eq!(
        (&load["running"], &load["waiting"], &load["arrivalsTotal"]),
        (&json!(0), &json!(0), &json!(2))
    );
    assert_eq!(
        (&load["rejectedTotal"], &load["capacity"]),
        (&json!(0), &json!(256))
    );
    assert!(
        load["serviceTimeSeconds"]
            .as_f64()
            .is_some_and(|seconds| seconds > 0.0),
        "{load}"
    );
}

/// The value of a line, or the sum over its labels.
fn counter(metrics: &str, name: &str) -> f64 {
    let of_name = |line: &&str| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with([' ', '{']))
    };
    let value = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
    metrics.lines().filter(of_name).map(value).sum()
}

#[tokio::test]
async fn a_full_queue_is_429_with_the_time_to_come_back() {
    let (gate, receiver) = std::sync::mpsc::channel();
    let server = with_model(fake(Then::Gate(receiver)), &[]).await;
    // Four run, two wait.
    let n = 6;
    let held = server.clone();
    let running = tokio::spawn(async move { held.complete(json!({"n": n, "max_tokens": 2})).await });
    let load = || server.app.serving.get().unwrap().engine.load();
    until("all are held", || load().n_running + load().n_waiting == n).await;
    let refused = server.complete(json!({})).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (429, &json!("rate_limit_exceeded"))
    );
    assert!(
        refused.headers["retry-after"]
            .to_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
            >= 1
    );
    assert_eq!(server.get("/internal/load").await.json()["rejectedTotal"], 1);
    drop(gate);
    let body: Value = running.await.unwrap().json();
    assert_eq!(body["choices"].as_array().unwrap().len(), n);
    assert_eq!(server.complete(json!({})).await.status, 200);
}
