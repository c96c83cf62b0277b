//! The settings of the cache and of the order of requests, by what a client sees of them.

use serde_json::{Value, json};

use crate::fixture::{Server, tiny};

/// A prompt of 40 tokens, of which the first two blocks can be known.
fn prompt(first: usize) -> Value {
    json!((first..first + 40).collect::<Vec<_>>())
}

async fn n_cached(server: &Server, prompt: Value) -> Value {
    let reply = server
        .complete(json!({"prompt": prompt, "max_tokens": 4, "n": 2, "seed": 1}))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"].clone()
}

#[tokio::test]
async fn a_prompt_seen_before_is_counted_as_cached_unless_caching_is_off() {
    let server = tiny(&[]).await;
    assert_eq!(n_cached(&server, prompt(5)).await, 0);
    assert_eq!(n_cached(&server, prompt(5)).await, 32);
    assert_eq!(n_cached(&server, prompt(6)).await, 0);
    let metrics = server.get("/metrics").await.text;
    let has = |name: &str, count: u64| {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line.ends_with(&format!(" {count}")), "{line}");
    };
    // Three prompts, and the token of the warm-up.
    has("vllm:prefix_cache_queries_total", 121);
    has("vllm:prefix_cache_hits_total", 32);

    let server = tiny(&[("enable-prefix-caching", "false")]).await;
    for _ in 0..2 {
        assert_eq!(n_cached(&server, prompt(5)).await, 0);
    }
}

#[tokio::test]
async fn a_prompt_shares_its_cache_only_with_those_of_its_salt() {
    let server = tiny(&[]).await;
    let n_cached = async |salt: Option<&str>| {
        let body = json!({"prompt": prompt(5), "max_tokens": 4, "cache_salt": salt});
        let reply = server.complete(body).await.json();
        reply["usage"]["prompt_tokens_details"]["cached_tokens"].clone()
    };
    assert_eq!(n_cached(None).await, 0);
    for salt in ["mine", "yours"] {
        assert_eq!(n_cached(Some(salt)).await, 0);
        assert_eq!(n_cached(Some(salt)).await, 32);
    }
    assert_eq!(n_cached(None).await, 32);
}

#[tokio::test]
async fn a_priority_needs_the_policy() {
    let urgent = json!({"priority": -3, "max_tokens": 1});
    let refused = tiny(&[]).await.complete(urgent.clone()).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["param"]),
        (400, &json!("priority"))
    );
    let server = tiny(&[("scheduling-policy", "priority")]).await;
    assert_eq!(server.complete(urgent).await.status, 200);
}

#[tokio::test]
async fn a_cache_too_small_for_all_changes_no_answer() {
    let many = json!({
        "prompt": (0..6).map(|idx| prompt(10 * idx)).collect::<Vec<_>>(),
        "n": 2, "seed": 7, "temperature": 1, "max_tokens": 48, "ignore_eos": true,
    });
    let texts = |body: Value| -> Vec<Value> {
        let choices = body["choices"].as_array().unwrap();
        choices.iter().map(|choice| choice["text"].clone()).collect()
    };
    let expected = texts(tiny(&[]).await.complete(many.clone()).await.json());
    assert_eq!(expected.len(), 12);
    for mode in ["recompute", "swap"] {
        // One sequence of 88 tokens needs six blocks.
        let flags = [
            ("num-gpu-blocks-override", "20"),
            ("max-model-len", "256"),
            ("preemption-mode", mode),
            ("swap-space", "1"),
        ];
        let server = tiny(&flags).await;
        assert_eq!(
            texts(server.complete(many.clone()).await.json()),
            expected,
            "{mode}"
        );
        let serving = server.app.serving.get().unwrap();
        assert!(
            serving.engine.counters().preemptions.get() > 0,
            "{mode}: the cache is not small enough"
        );
    }
}
