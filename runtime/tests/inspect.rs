//! `slipway-runtime inspect`: the program of every family, and the report of one model, from config.json alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "inspect/configuration.rs"]
mod configuration;

use std::process::Command;

use configuration::configuration;
use runtime::inspect::Report;
use runtime::model::Outline;
use serde_json::{Value, json};

/// One checkpoint of each family, and of each kind of layer that a family has beside it.
#[test]
fn the_program_of_each_family() {
    for name in [
        "apertus",
        "baichuan2-7b",
        "bert-cross-encoder",
        "bge-m3-xlmr-cls",
        "bloom",
        "command-r7b-cohere2",
        "dbrx",
        "deepseek_v3",
        "falcon-7b",
        "falcon-40b",
        "gemma3_text",
        "gemma4-dense",
        "glm4-0414",
        "gpt2",
        "gptj",
        "gpt_oss-mxfp4",
        "granite",
        "hunyuan_dense",
        "internlm2",
        "llama3",
        "llama4",
        "mixtral",
        "modernbert-reranker",
        "mpnet-mean",
        "mpt",
        "olmo2",
        "opt-350m-postln",
        "phi3",
        "phimoe",
        "qwen2_moe",
        "qwen3-embedding-lasttoken",
        "qwen3-reranker",
        "stablelm",
        "starcoder2",
    ] {
        let dir = configuration(name);
        insta::assert_snapshot!(name, Outline::read(dir.path()).unwrap().program());
    }
}

/// A Llama with the sizes of TinyLlama 1.1B.
fn llama() -> tempfile::TempDir {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "vocab_size": 32000, "hidden_size": 2048,
        "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32,
        "num_key_value_heads": 4, "max_position_embeddings": 2048, "torch_dtype": "bfloat16",
    });
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    dir
}

/// The first lines of the table, without the program, which has a test of its own.
#[test]
fn the_report_of_a_model_without_weights() {
    let report = Report::of(llama().path(), 8 << 30).to_string();
    let (facts, _) = report.split_once("\nprogram\n").unwrap();
    insta::assert_snapshot!("report", facts);
    assert!(report.ends_with("refused              nothing\n"), "{report}");
}

#[test]
fn figures_are_those_of_the_sizes() {
    let facts = Report::of(llama().path(), 8 << 30).model.unwrap();
    assert_eq!(facts.parameters, 1_100_048_384);
    assert_eq!(facts.weights_bytes, 2 * facts.parameters + 2 * 45 * 2048);
    assert_eq!(facts.kv_bytes_per_token, 22 * 2 * 4 * 64 * 2);
    assert!(!facts.has_weights);
    // Every matrix but the embedding is multiplied with each token, and so is the last one's with the head.
    let products = facts.parameters - 32000 * 2048 - 45 * 2048;
    let attention = 22 * 2 * 1024 * 32 * (64 + 64);
    assert_eq!(facts.decode.flops, 2 * products + attention);
    let kv = 22 * 1024 * 2 * 4 * 64 * 2;
    let read: u64 = facts.decode.ops.iter().map(|op| op.kv_bytes).sum();
    assert_eq!(read, kv + 22 * 2 * 4 * 64 * 2);
}

#[test]
fn what_does_not_fit_or_is_not_supported_is_named() {
    let tight = Report::of(llama().path(), 2_300_000_000);
    let largest = tight.model.unwrap().largest_context;
    assert!((1..2048).contains(&largest), "{largest}");
    assert!(
        tight.refused[0].contains(&format!("at most {largest}")),
        "{:?}",
        tight.refused
    );
    let none = Report::of(llama().path(), 1 << 30);
    assert!(none.refused[0].contains("the weights take"), "{:?}", none.refused);
    let dir = tempfile::tempdir().unwrap();
    let missing = Report::of(dir.path(), 1 << 30);
    assert!(missing.model.is_none() && missing.refused[0].contains("config.json is missing"));
    std::fs::write(
        dir.path().join("config.json"),
        r#"{"architectures": ["Mamba2ForCausalLM"]}"#,
    )
    .unwrap();
    let unknown = Report::of(dir.path(), 1 << 30);
    assert!(unknown.refused[0].contains("Mamba2ForCausalLM is not supported"));
    let broken = llama();
    std::fs::write(broken.path().join("model.safetensors"), b"x").unwrap();
    let broken = Report::of(broken.path(), 8 << 30);
    assert!(broken.model.unwrap().has_weights && broken.refused[0].contains("not a usable weight file"));
}

#[test]
fn the_binary_prints_both_forms() {
    let dir = llama();
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slipway-runtime"));
        let output = command
            .arg("inspect")
            .arg(dir.path())
            .args(more)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let json: Value = serde_json::from_str(&run(&["--json", "--memory", "8000000000"])).unwrap();
    assert_eq!(json["model"]["parameters"], 1_100_048_384_u64);
    assert_eq!(json["refused"], json!([]));
    assert!(run(&["--memory", "8000000000"]).contains("largest context      2048 tokens"));
}

/// With a file of settings, `inspect` fails as `serve` would before it loads weights.
#[test]
fn settings_that_the_model_cannot_be_served_with_are_refused() {
    let dir = llama();
    let check = |settings: &str| {
        let file = dir.path().join("settings.yaml");
        std::fs::write(&file, settings).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_slipway-runtime"));
        let command = command.arg("inspect").arg(dir.path()).arg("--config").arg(file);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, words) = check("max-model-len: 16000000");
    assert!(code == Some(10) && words.contains("16000000"), "{code:?} {words}");
    let (code, words) = check("no-such-setting: 1");
    assert!(
        code == Some(10) && words.contains("no-such-setting"),
        "{code:?} {words}"
    );
    let (code, words) = check("max-model-len: 64");
    assert_eq!(code, Some(23), "there are no weights: {words}");

    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/models/tiny-trained");
    let file = dir.path().join("settings.yaml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipway-runtime"));
    let output = command
        .arg("inspect")
        .arg(shipped)
        .arg("--config")
        .arg(file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}
