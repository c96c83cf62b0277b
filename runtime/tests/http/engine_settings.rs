//! Settings of the engine and of the tokenizer, each by an effect that a client or an operator sees.

use std::path::Path;
use std::sync::Arc;

use runtime::serving::load;
use serde_json::{Value, json};

use crate::checkpoint::materialise;
use crate::fixture::{Server, loading, tiny, tiny_folder, with};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Why a server with these settings does not start.
async fn refusal(flags: &[(&str, &str)]) -> String {
    let server = loading(flags);
    let loaded = load(Arc::clone(&server.app.config), server.app.startup.clone()).await;
    loaded.unwrap_err().failure().message
}

/// Tokens of a prompt that every vocabulary has.
fn prompt(n_tokens: usize) -> Value {
    json!((0..n_tokens).map(|idx| 5 + idx * 7 % 400).collect::<Vec<_>>())
}

async fn completed(server: &Server, extra: Value) -> Value {
    let body = with(
        json!({"prompt": prompt(40), "max_tokens": 2, "ignore_eos": true}),
        extra,
    );
    let reply = server.complete(body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()
}

/// The log-probabilities of an answer, which show any change of the numbers.
async fn numbers(flags: &[(&str, &str)]) -> Value {
    let server = tiny(&[flags, &[("skip-tokenizer-init", "true")]].concat()).await;
    completed(&server, json!({"logprobs": 5})).await["choices"][0]["logprobs"].clone()
}

/// A copy of a checkpoint with other fields in config.json.
fn edited(folder: &Path, fields: Value) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    let path = copy.path().join("config.json");
    let config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    std::fs::write(path, with(config, fields).to_string()).unwrap();
    copy
}

#[tokio::test]
async fn rotary_settings_compute_what_config_json_with_them_does() {
    let scaling = json!({"rope_type": "linear", "factor": 4.0});
    let scaling_text = scaling.to_string();
    let llama = materialise("llama2");
    let plain = numbers(&[("model", text(llama.path()))]).await;
    let cases = [
        (json!({"rope_theta": 100.0}), vec![("rope-theta", "100")]),
        (
            json!({"rope_scaling": scaling}),
            vec![("rope-scaling", scaling_text.as_str())],
        ),
    ];
    for (fields, mut flags) in cases {
        let folder = edited(llama.path(), fields);
        let of_config = numbers(&[("model", text(folder.path()))]).await;
        flags.push(("model", text(llama.path())));
        let of_settings = numbers(&flags).await;
        assert_eq!(of_settings, of_config, "{flags:?}");
        assert_ne!(of_settings, plain, "{flags:?}");
    }
}

#[tokio::test]
async fn rotary_settings_that_fit_no_model_are_named() {
    let (llama, gpt2) = (materialise("llama2"), materialise("gpt2"));
    let of_llama =
        async |scaling: &str| refusal(&[("model", text(llama.path())), ("rope-scaling", scaling)]).await;
    let without_factor = of_llama(r#"{"rope_type": "linear"}"#).await;
    assert!(without_factor.contains("ROPE_SCALING: "), "{without_factor}");
    assert!(without_factor.contains("needs a factor"), "{without_factor}");
    let unknown_key = of_llama(r#"{"rope_type": "linear", "factor": 2, "spiral": 3}"#).await;
    assert!(
        unknown_key.contains("ROPE_SCALING: ") && unknown_key.contains("spiral"),
        "{unknown_key}"
    );
    let of_gpt2 = refusal(&[("model", text(gpt2.path())), ("rope-theta", "100")]).await;
    assert!(
        of_gpt2.contains("ROPE_THETA: this model has no rotary positions"),
        "{of_gpt2}"
    );
}

#[tokio::test]
async fn without_a_sliding_window_the_context_ends_at_it() {
    let mistral = materialise("mistral-swa");
    let folder = text(mistral.path());
    let max_model_len = async |flags: &[(&str, &str)]| {
        let server = tiny(&[flags, &[("model", folder), ("skip-tokenizer-init", "true")]].concat()).await;
        let models = server.get("/v1/models").await.json();
        (models["data"][0]["max_model_len"].clone(), server)
    };
    assert_eq!(max_model_len(&[]).await.0, 256);
    let (length, server) = max_model_len(&[("disable-sliding-window", "true")]).await;
    assert_eq!(length, 32);
    let long = server
        .complete(json!({"prompt": prompt(40), "max_tokens": 1}))
        .await;
    assert_eq!(long.status, 400, "{}", long.text);
    let within = json!({"prompt": prompt(20), "logprobs": 5});
    let (_, windowed) = max_model_len(&[]).await;
    assert_eq!(
        completed(&server, within.clone()).await["choices"],
        completed(&windowed, within).await["choices"]
    );
    let asked = [
        ("model", folder),
        ("disable-sliding-window", "1"),
        ("max-model-len", "33"),
    ];
    assert!(refusal(&asked).await.contains("1..=32"));
}

#[tokio::test]
async fn a_model_that_generates_text_embeds_it_where_that_is_its_task() {
    for task in ["embed", "embedding"] {
        let server = tiny(&[("task", task)]).await;
        let reply = server
            .post("/v1/embeddings", json!({"model": "tiny", "input": "Hello"}))
            .await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let vector: Vec<f64> = serde_json::from_value(reply.json()["data"][0]["embedding"].clone()).unwrap();
        let length: f64 = vector.iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-3, "{length}");
        assert_eq!(server.complete(json!({})).await.status, 400);
    }
    let bert = materialise("bge-bert-cls");
    for (folder, task) in [
        (bert.path(), "generate"),
        (&tiny_folder(), "score"),
        (&tiny_folder(), "classify"),
    ] {
        let message = refusal(&[("model", text(folder)), ("task", task)]).await;
        assert!(
            message.contains(&format!("TASK: {task} is not possible")),
            "{message}"
        );
    }
    assert_eq!(
        tiny(&[("task", "generate")])
            .await
            .complete(json!({}))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn without_a_tokenizer_token_ids_go_in_and_out() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(
        tiny_folder().join("config.json"),
        folder.path().join("config.json"),
    )
    .unwrap();
    let flags = [
        ("model", text(folder.path())),
        ("load-format", "dummy"),
        ("skip-tokenizer-init", "true"),
    ];
    let server = tiny(&flags).await;
    let ids = json!({"prompt": prompt(8), "max_tokens": 3, "ignore_eos": true, "logprobs": 1});
    let body = completed(&server, ids.clone()).await;
    let choice = &body["choices"][0];
    assert_eq!(choice["token_ids"].as_array().unwrap().len(), 3);
    assert_eq!(choice["text"], "");
    let named = choice["logprobs"]["tokens"][0].as_str().unwrap();
    assert!(named.starts_with("token_id:"), "{named}");
    for (path, body) in [
        ("/v1/completions", json!({"model": "tiny", "prompt": "Hello"})),
        ("/v1/completions", with(ids.clone(), json!({"stop": ["."]}))),
        ("/v1/completions", with(ids.clone(), json!({"bad_words": ["no"]}))),
        ("/v1/completions", with(ids, json!({"guided_regex": "a+"}))),
        (
            "/v1/chat/completions",
            json!({"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}),
        ),
        ("/tokenize", json!({"model": "tiny", "prompt": "Hello"})),
        ("/detokenize", json!({"model": "tiny", "tokens": [5]})),
    ] {
        let reply = server.post(path, body.clone()).await;
        assert_eq!(reply.status, 400, "{path} {body}: {}", reply.text);
    }
    let refused = server.complete(json!({})).await.json();
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("SKIP_TOKENIZER_INIT") && message.contains("token ids"),
        "{message}"
    );
}

#[tokio::test]
async fn a_prompt_is_computed_at_once_if_chunks_are_off_and_a_step_has_room() {
    let n_steps = async |chunked: &str, step: &str| {
        let flags = [
            ("enable-chunked-prefill", chunked),
            ("max-num-batched-tokens", step),
            ("max-model-len", "256"),
        ];
        let server = tiny(&flags).await;
        let engine = Arc::clone(&server.app.serving.get().unwrap().engine);
        let before = engine.counters().steps.get();
        let body = completed(
            &server,
            json!({"prompt": prompt(100), "max_tokens": 1, "logprobs": 5}),
        )
        .await;
        (engine.counters().steps.get() - before, body["choices"].clone())
    };
    let (in_chunks, at_once) = (n_steps("true", "16").await, n_steps("false", "256").await);
    assert_eq!((in_chunks.0, at_once.0), (7, 1));
    assert_eq!(in_chunks.1, at_once.1);
    // Forms contain `false`: it alone makes no step larger.
    assert_eq!(n_steps("False", "16").await, in_chunks);
}

#[tokio::test]
async fn the_sizes_of_the_engine_are_settings() {
    let flags = [
        ("max-batch-size", "3"),
        ("block-size", "8"),
        ("num-gpu-blocks-override", "77"),
        ("max-model-len", "99"),
    ];
    let server = tiny(&flags).await;
    let serving = server.app.serving.get().unwrap();
    let load = serving.engine.load();
    assert_eq!((load.n_running_max, load.block_size, load.n_blocks), (3, 8, 77));
    assert_eq!(serving.max_model_len, 99);
}

#[tokio::test]
async fn the_seed_of_requests_without_one_is_a_setting() {
    let drawn = async |seed: &str| {
        let server = tiny(&[("seed", seed)]).await;
        completed(&server, json!({"temperature": 1.5, "max_tokens": 24})).await["choices"][0]["text"].clone()
    };
    let first = drawn("1").await;
    assert_eq!(first, drawn("1").await);
    assert_ne!(first, drawn("2").await);
}

#[tokio::test]
async fn the_number_of_log_probabilities_is_bounded_by_a_setting() {
    let server = tiny(&[("max-logprobs", "2")]).await;
    assert_eq!(server.complete(json!({"logprobs": 2})).await.status, 200);
    assert_eq!(server.complete(json!({"logprobs": 3})).await.status, 400);
}

#[tokio::test]
async fn the_tokenizer_and_its_template_are_settings() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(tiny_folder().join(name), folder.path().join(name)).unwrap();
    }
    let tokenizer = tiny_folder();
    let flags = [
        ("model", text(folder.path())),
        ("tokenizer", text(&tokenizer)),
        (
            "chat-template",
            "{% for m in messages %}{{ m.content }}!{% endfor %}",
        ),
        ("tokenizer-pool-size", "1"),
    ];
    let server = tiny(&flags).await;
    let messages = json!([{"role": "user", "content": "Hello"}]);
    let n_tokens = async |server: &Server, body: Value| {
        server
            .post("/tokenize", with(json!({"model": "tiny"}), body))
            .await
            .json()["count"]
            .clone()
    };
    let of_chat = n_tokens(
        &server,
        json!({"messages": messages, "add_special_tokens": false}),
    )
    .await;
    let of_text = n_tokens(&server, json!({"prompt": "Hello!", "add_special_tokens": false})).await;
    assert_eq!(of_chat, of_text);
    let own = n_tokens(&tiny(&[]).await, json!({"messages": messages})).await;
    assert_ne!(own, of_chat);
}

#[tokio::test]
async fn the_form_of_contents_is_a_setting() {
    let n_tokens = async |format: &str| {
        let flags = [
            (
                "chat-template",
                "{% for m in messages %}{{ m.content }}{% endfor %}",
            ),
            ("chat-template-content-format", format),
        ];
        let body = json!({"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]});
        let reply = tiny(&flags).await.post("/tokenize", body).await.json();
        reply["count"].as_u64().unwrap()
    };
    // A list of parts is written with their types.
    assert!(n_tokens("openai").await > n_tokens("string").await);
}
