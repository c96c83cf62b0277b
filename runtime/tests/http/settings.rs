//! Settings whose effect shows only in a running server.

use std::path::Path;
use std::sync::Arc;

use runtime::serving::load;
use serde_json::json;

use crate::fixture::{loading, tiny, tiny_folder};

/// The shipped model without its weights.
fn without_weights() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(tiny_folder().join(name), folder.path().join(name)).unwrap();
    }
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn dummy_weights_need_no_files() {
    let folder = without_weights();
    let server = tiny(&[("model", text(folder.path())), ("load-format", "dummy")]).await;
    let reply = server
        .complete(json!({"max_tokens": 4, "ignore_eos": true}))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.json()["usage"]["completion_tokens"], 4);
}

#[tokio::test]
async fn the_cache_has_the_type_of_its_setting() {
    for (choice, name, bytes) in [
        ("auto", "bfloat16", 2048),
        ("fp8", "fp8_e4m3", 1024),
        ("float32", "float32", 4096),
    ] {
        let server = tiny(&[("kv-cache-dtype", choice)]).await;
        let info = &server.app.serving.get().unwrap().info;
        assert_eq!((info.kv_cache_dtype, info.kv_bytes_per_token), (name, bytes));
        let reply = server
            .complete(json!({"max_tokens": 4, "ignore_eos": true}))
            .await;
        assert_eq!(reply.status, 200, "{choice}: {}", reply.text);
    }
}

#[tokio::test]
async fn weights_have_the_format_of_their_setting() {
    let mut sizes = Vec::new();
    for choice in ["none", "ifq", "fp8", "ifq_nf4"] {
        let server = tiny(&[("quantization", choice)]).await;
        sizes.push(server.app.serving.get().unwrap().info.weights_bytes);
        let reply = server
            .complete(json!({"max_tokens": 4, "ignore_eos": true}))
            .await;
        assert_eq!(reply.status, 200, "{choice}: {}", reply.text);
    }
    let [none, ifq, fp8, nf4] = sizes[..] else {
        panic!("four sizes: {sizes:?}")
    };
    // The embedding, which is the output layer as well, keeps its 16 bits.
    assert!(ifq < none * 3 / 4 && fp8 == ifq && nf4 < ifq, "{sizes:?}");
}

#[tokio::test]
async fn a_load_format_without_its_files_is_an_error() {
    let folder = without_weights();
    for (folder, format) in [(folder.path(), "auto"), (&tiny_folder(), "pt")] {
        let server = loading(&[("model", text(folder)), ("load-format", format)]);
        let loaded = load(Arc::clone(&server.app.config), server.app.startup.clone()).await;
        let message = loaded.unwrap_err().failure().message;
        assert!(message.contains("missing"), "{format}: {message}");
    }
}
