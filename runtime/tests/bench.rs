//! `slipway-runtime bench`: what it counts, and that each form of its results is whole. No time is tested.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "inspect/configuration.rs"]
mod configuration;

use std::path::Path;
use std::process::{Command, Output};

use configuration::configuration;
use crds::settings::Quantization;
use runtime::inspect::{Report, StepCost, Steps};
use serde_json::Value;

fn bench(folder: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipway-runtime"));
    let command = command
        .arg("bench")
        .arg(folder)
        .args(["--device", "cpu", "--seconds", "0"]);
    command.env_clear().args(more).output().unwrap()
}

/// The results of a model that is made up, as JSON; the table; the picture.
fn results(name: &str, more: &[&str]) -> (Value, String, String) {
    let dir = configuration(name);
    let (json, svg) = (dir.path().join("out.json"), dir.path().join("out.svg"));
    let files = ["--json", json.to_str().unwrap(), "--svg", svg.to_str().unwrap()];
    let output = bench(dir.path(), &[more, &files].concat());
    assert!(output.status.success(), "{output:?}");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    (serde_json::from_str(&read(&json)).unwrap(), table, read(&svg))
}

#[test]
fn every_phase_is_measured_and_costs_what_inspect_counts() {
    let sizes = [
        "--prefill",
        "8,40",
        "--decode",
        "2",
        "--context",
        "16",
        "--threads",
        "2",
        "--profile",
    ];
    let streams = [
        "--streams",
        "3",
        "--prompt",
        "9",
        "--output",
        "4",
        "--max-num-batched-tokens",
        "16",
    ];
    let (json, table, svg) = results("llama3", &[&sizes[..], &streams].concat());
    let steps = json["steps"].as_array().unwrap();
    let shape =
        |step: &Value| ["sequences", "new_tokens", "context_len"].map(|key| step[key].as_u64().unwrap());
    let shapes: Vec<_> = steps.iter().map(shape).collect();
    assert_eq!(shapes, [[1, 8, 8], [1, 40, 40], [2, 1, 16]]);
    assert_eq!(steps[0]["kind"], "prefill");
    assert_eq!(steps[2]["kind"], "decode");
    for step in steps {
        for key in ["tokens_per_s", "gb_s", "gflop_s", "of_limit"] {
            assert!(step[key].as_f64().unwrap() > 0.0, "{key} of {step}");
        }
        let shares = step["ops"]
            .as_array()
            .unwrap()
            .iter()
            .map(|op| op["share"].as_f64().unwrap());
        assert!((shares.sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(["memory", "compute"].contains(&step["bound"].as_str().unwrap()));
    }
    // A prompt in three parts has the products of one in one part, and the head's once.
    let inspected = inspected("llama3", 40);
    assert_eq!(steps[1]["flops"], inspected.prefill.flops);
    let inspected = self::inspected("llama3", 8);
    assert_eq!(steps[0]["bytes"], inspected.prefill.bytes);
    assert_eq!(steps[0]["flops"], inspected.prefill.flops);
    assert_eq!(steps[2]["bytes"], inspected.decode.bytes);
    assert_eq!(steps[2]["flops"], inspected.decode.flops);
    assert_eq!(json["model"]["weights"], "random");
    assert_eq!(json["probe"]["start"].as_array().unwrap().len(), 2);
    assert_eq!(json["probe"]["end"][1]["threads"], 2);

    let served = &json["served"];
    assert_eq!(
        [
            &served["streams"],
            &served["prompt_tokens"],
            &served["output_tokens"]
        ],
        [3, 9, 4]
    );
    assert!(served["tokens_per_s"].as_f64().unwrap() > 0.0);
    // Prompts of 27 tokens do not fit into a step of 16, so the first stream waits for prompts of the others.
    assert!(served["prompt_tokens_in_gap"]["max"].as_f64().unwrap() > 0.0);
    assert!(
        table.contains("prefill 40") && table.contains("3 streams at once"),
        "{table}"
    );
    assert_eq!(open_tags(&svg), Vec::<String>::new());
    assert!(
        svg.contains("decode 2 × 16 tokens") && svg.contains("3 streams served"),
        "{svg}"
    );
}

/// What inspect counts for the same steps.
fn inspected(name: &str, prompt: usize) -> Inspected {
    let steps = Steps {
        n_sequences: 2,
        context: 16,
        prompt,
    };
    let model = Report::of_steps(configuration(name).path(), (8 << 30, Quantization::None), steps)
        .model
        .unwrap();
    Inspected {
        decode: model.decode,
        prefill: model.prefill,
    }
}

struct Inspected {
    decode: StepCost,
    prefill: StepCost,
}

/// Tags that are opened and never closed, and those that are closed and were not open.
fn open_tags(xml: &str) -> Vec<String> {
    let mut open: Vec<String> = Vec::new();
    for part in xml.split('<').skip(1) {
        let (tag, _) = part.split_once('>').unwrap();
        let name = tag
            .trim_start_matches('/')
            .split_whitespace()
            .next()
            .unwrap()
            .to_owned();
        if tag.starts_with('/') && open.last() == Some(&name) {
            open.pop();
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    open
}

#[test]
fn a_model_that_makes_vectors_reads_prompts_only() {
    let (json, _, _) = results("bert-cross-encoder", &["--prefill", "8"]);
    assert_eq!(json["steps"].as_array().unwrap().len(), 1);
    assert_eq!(json["served"], Value::Null);
    assert_eq!(json["steps"][0]["ops"], Value::Array(Vec::new()));
}

#[test]
fn what_cannot_be_measured_is_named() {
    let dir = configuration("llama3");
    for (flags, word) in [
        (&["--prefill", "1000000"][..], "--prefill"),
        (&["--context", "0"], "--context"),
        (&["--prompt", "100000000"], "--prompt"),
        (&["--threads", "0"], "--threads"),
        (&["--seconds=-1"], "--seconds"),
        (&["--dtype", "int3"], "int3"),
        (&["--load-format", "safetensors"], "safetensors"),
    ] {
        let output = bench(dir.path(), flags);
        let words = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && words.contains(word),
            "{flags:?}: {words}"
        );
    }
    let vectors = configuration("bert-cross-encoder");
    let output = bench(vectors.path(), &["--streams", "2"]);
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(
        words.contains("--streams") && words.contains("makes vectors"),
        "{words}"
    );
    let output = bench(Path::new("no/such"), &[]);
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(10) && words.contains("no/such"),
        "{words}"
    );
}
