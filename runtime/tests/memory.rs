//! Memory that loading takes beyond the weights themselves. A process of its own: the peak is the process's.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::fs::File;
use std::io::Write as _;

use runtime::model::{LoadOptions, Model};
use serde_json::json;

const VOCAB: usize = 32_000;
const HIDDEN: usize = 1024;
const FFN: usize = 4096;
const N_LAYERS: usize = 6;

/// A Llama in bf16 of zeros, of which a third is the embedding; the file has no blocks on the disk.
fn checkpoint(dir: &std::path::Path) {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "vocab_size": VOCAB, "hidden_size": HIDDEN,
        "intermediate_size": FFN, "num_hidden_layers": N_LAYERS, "num_attention_heads": 16,
        "max_position_embeddings": 64, "tie_word_embeddings": true,
    });
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let mut tensors = vec![
        ("model.embed_tokens".to_owned(), vec![VOCAB, HIDDEN]),
        ("model.norm".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..N_LAYERS {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        for part in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            tensors.push((name(&format!("self_attn.{part}")), vec![HIDDEN, HIDDEN]));
        }
        tensors.push((name("mlp.gate_proj"), vec![FFN, HIDDEN]));
        tensors.push((name("mlp.up_proj"), vec![FFN, HIDDEN]));
        tensors.push((name("mlp.down_proj"), vec![HIDDEN, FFN]));
        tensors.push((name("input_layernorm"), vec![HIDDEN]));
        tensors.push((name("post_attention_layernorm"), vec![HIDDEN]));
    }
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        let entry = json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]});
        header.insert(format!("{name}.weight"), entry);
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut file = File::create(dir.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();
}

/// A figure of this process in bytes.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let kib = line.trim_matches([':', ' ', '\t', 'k', 'B']);
    kib.parse::<u64>().unwrap() * 1024
}

#[test]
fn loading_takes_little_more_than_the_weights() {
    let dir = tempfile::tempdir().unwrap();
    checkpoint(dir.path());
    let before = status("VmRSS");
    let options = LoadOptions {
        n_threads: Some(2),
        ..LoadOptions::default()
    };
    let model = Model::load(dir.path(), &options, &|_| {}).unwrap();
    let weights = model.info().weights_bytes;
    assert!(weights > 200 << 20, "too small to tell: {weights}");
    let taken = status("VmHWM") - before;
    println!("{taken} bytes at the peak for {weights} bytes of weights");
    assert!(taken >= weights, "the weights are not in memory yet");
    assert!(
        taken * 100 <= weights * 115,
        "{taken} bytes for {weights} of weights"
    );
}
