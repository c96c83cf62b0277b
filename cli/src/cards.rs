//! Which GPUs a model fits, estimated from what `slipway-runtime inspect` computes of its configuration.
//!
//! Pure. Weights and KV cache are exact; activations are a rule of thumb, and a card's memory is its maker's figure.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Deserialize;

use crate::display::{bytes, table};

const GIB: u64 = 1 << 30;
/// Part of a card's memory that is used: the default of GPU_MEMORY_UTILIZATION.
const UTILIZATION: f64 = 0.9;
/// Bytes that the runtime leaves free on a card.
const SLACK_BYTES: u64 = 512 << 20;
/// Sequences of a step: the default of MAX_NUM_SEQS.
const SEQUENCES: u64 = 256;
/// Tokens of a step: the default of MAX_NUM_BATCHED_TOKENS.
const STEP_TOKENS: u64 = 512;
/// Rows as wide as the model that a step holds at a time, about.
const WIDE_ROWS: u64 = 16;

/// Cards that the kernels support, and the memory that they have for programs, in GiB.
const CARDS: [(&str, f64); 11] = [
    ("A10", 22.5),
    ("L4", 22.5),
    ("RTX 4090", 24.0),
    ("RTX 5090", 31.8),
    ("A40", 45.0),
    ("L40S", 45.0),
    ("A100 40GB", 40.0),
    ("A100 80GB", 80.0),
    ("H100", 79.6),
    ("H200", 140.4),
    ("B200", 179.0),
];

/// The report of `slipway-runtime inspect --json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    /// The model, unless its configuration is refused.
    pub model: Option<Facts>,
    /// Why it would not be served.
    #[serde(default)]
    pub refused: Vec<String>,
}

/// What is known of a model.
#[derive(Clone, Debug, Deserialize)]
pub struct Facts {
    architecture: String,
    vocab_size: u64,
    hidden_size: u64,
    parameters: u64,
    weights_bytes: u64,
    weights_bytes_by_dtype: BTreeMap<String, u64>,
    kv_bytes_per_token: u64,
    context_len: u64,
}

/// What fits on a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// Tokens of all sequences together; `None` where the weights do not fit.
    pub tokens: Option<u64>,
}

impl Facts {
    fn activation_bytes(&self) -> u64 {
        SEQUENCES * self.vocab_size * 4 + STEP_TOKENS * self.hidden_size * WIDE_ROWS * 4
    }

    /// What fits on a card with so much memory.
    pub fn fit(&self, memory_bytes: u64) -> Fit {
        let used = (memory_bytes as f64 * UTILIZATION) as u64;
        let taken = SLACK_BYTES + self.weights_bytes + self.activation_bytes();
        let free = used.checked_sub(taken);
        Fit {
            tokens: free
                .map(|free| free / self.kv_bytes_per_token.max(1))
                .filter(|tokens| *tokens > 0),
        }
    }
}

/// The estimate for a person.
pub fn text(name: &str, facts: &Facts) -> String {
    let mut out = format!("{name}: {}\n\n", facts.architecture);
    let dtypes: Vec<&str> = facts.weights_bytes_by_dtype.keys().map(String::as_str).collect();
    let rows = [
        (
            "parameters",
            format!("{:.1} million", facts.parameters as f64 / 1e6),
        ),
        (
            "weights",
            format!("{} ({})", bytes(facts.weights_bytes), dtypes.join(", ")),
        ),
        ("KV per token", bytes(facts.kv_bytes_per_token)),
        ("context", format!("{} tokens at most", facts.context_len)),
        (
            "activations",
            format!("about {}", bytes(facts.activation_bytes())),
        ),
    ];
    for (name, value) in rows {
        let _ = writeln!(out, "  {name:<13} {value}");
    }
    let rows: Vec<Vec<String>> = CARDS.iter().map(|(card, gib)| row(facts, (card, *gib))).collect();
    let header = ["CARD", "MEMORY", "LARGEST CONTEXT", "SEQUENCES OF IT AT ONCE"];
    let _ = write!(out, "\n{}", table(&header, &rows));
    out += "\nAn estimate for one card of each kind, not a measurement: 90 % of the card's memory without 512 MiB; weights and\n\
            cache follow from config.json; activations are a rule of thumb; layers with sliding windows need less cache.\n";
    out
}

fn row(facts: &Facts, (card, gib): (&str, f64)) -> Vec<String> {
    let fit = facts.fit((gib * GIB as f64) as u64);
    let context = facts.context_len.max(1);
    let (largest, sequences) = match fit.tokens {
        None => ("the weights do not fit".to_string(), String::new()),
        Some(tokens) if tokens < context => (format!("{tokens} tokens"), "1".to_string()),
        Some(tokens) => (
            format!("{context} tokens (all)"),
            (tokens / context).min(SEQUENCES).to_string(),
        ),
    };
    vec![card.to_string(), format!("{gib:.1} GiB"), largest, sequences]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The shape of an 8-billion model in bf16.
    fn facts() -> Facts {
        serde_json::from_value(json!({
            "architecture": "LlamaForCausalLM", "vocab_size": 128_256, "hidden_size": 4096,
            "parameters": 8_030_261_248_u64, "weights_bytes": 16_060_522_496_u64,
            "weights_bytes_by_dtype": {"bf16": 16_060_522_496_u64}, "kv_bytes_per_token": 131_072, "context_len": 131_072,
            "later": 1
        }))
        .unwrap()
    }

    #[test]
    fn more_memory_fits_more() {
        let tokens: Vec<Option<u64>> = [8, 24, 80].map(|gib| facts().fit(gib * GIB).tokens).to_vec();
        assert_eq!(tokens[0], None);
        assert!(tokens[1].unwrap() > 30_000 && tokens[1] < tokens[2], "{tokens:?}");
    }

    #[test]
    fn the_table_names_what_is_estimated() {
        insta::assert_snapshot!(text("meta-llama/Llama-3.1-8B-Instruct", &facts()));
    }
}
