//! `slipway-runtime inspect`: what a model is, what it needs and what it costs, from its configuration alone.
//!
//! Owns the report and its two forms, a table for people and JSON for programs. Must not know HTTP or the engine.

pub mod effective;

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};

use crds::failure::chain;
use crds::settings::{Dtype, Quantization};
use serde::Serialize;

use crate::model::{ModelError, OpCost, Outline, StepShape};
use crate::serving::capacity::{self, Demand};
use crate::serving::quantization::Choice;

/// The command line of `inspect`.
#[derive(Clone, Debug, clap::Args)]
pub struct InspectArguments {
    /// The model's folder; a config.json in it is enough
    pub model: PathBuf,
    /// Memory for weights, cache and activations; by default what is free on this machine
    #[arg(long, value_name = "BYTES")]
    pub memory: Option<u64>,
    /// Also check the model with the settings of this file, as `serve --config` would read it; fail if it cannot be served
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Count with weights in this format, as the QUANTIZATION setting on the CPU
    #[arg(long, value_name = "FORMAT", default_value = "none", value_parser = quantization)]
    pub quantization: Quantization,
    /// Sequences of the decode step whose cost is counted
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub sequences: usize,
    /// Tokens of each of its sequences
    #[arg(long, value_name = "TOKENS", default_value_t = DECODE_CONTEXT)]
    pub context: usize,
    /// New tokens of the prefill step whose cost is counted
    #[arg(long, value_name = "TOKENS", default_value_t = PREFILL_TOKENS)]
    pub prompt: usize,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What is known of a model.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The model; absent where its configuration is refused.
    pub model: Option<Facts>,
    /// Why the model would not be served as it is; empty if it would.
    pub refused: Vec<String>,
}

/// What is known of a model whose configuration is accepted.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// The name in config.json's `architectures`.
    pub architecture: String,
    /// `generate`, `embed` or `score`.
    pub task: String,
    /// Layers.
    pub layers: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Parameters.
    pub parameters: u64,
    /// Bytes of weights in memory.
    pub weights_bytes: u64,
    /// The same by dtype.
    pub weights_bytes_by_dtype: BTreeMap<&'static str, u64>,
    /// Whether weight files are there.
    pub has_weights: bool,
    /// Bytes of KV cache of one token.
    pub kv_bytes_per_token: u64,
    /// Fields of config.json that this version does not know and passes over.
    pub unknown_fields: Vec<String>,
    /// Longest sequence that the model can read.
    pub context_len: usize,
    /// Bytes of memory that the report counts with.
    pub memory_bytes: u64,
    /// Longest sequence whose KV cache fits beside the weights.
    pub largest_context: usize,
    /// What a step of one new token costs.
    pub decode: StepCost,
    /// What a step of a part of a prompt costs.
    pub prefill: StepCost,
    /// The program, one op a line.
    pub program: String,
}

/// What a step costs.
#[derive(Clone, Debug, Serialize)]
pub struct StepCost {
    /// Sequences.
    pub sequences: usize,
    /// New tokens of each.
    pub new_tokens: usize,
    /// Tokens of each after the step.
    pub context_len: usize,
    /// Bytes that are read or written.
    pub bytes: u64,
    /// Floating-point operations.
    pub flops: u64,
    /// Equal ops together.
    pub ops: Vec<OpLine>,
}

/// What equal ops cost together.
#[derive(Clone, Debug, Serialize)]
pub struct OpLine {
    /// What they compute.
    pub op: String,
    /// How many there are.
    pub count: usize,
    /// Bytes of weights.
    pub weight_bytes: u64,
    /// Bytes of the KV cache.
    pub kv_bytes: u64,
    /// Bytes of activations.
    pub activation_bytes: u64,
    /// Floating-point operations.
    pub flops: u64,
}

/// Tokens in the cache when the cost of decoding is counted.
const DECODE_CONTEXT: usize = 1024;
/// New tokens of a part of a prompt.
const PREFILL_TOKENS: usize = 512;
/// Tokens in a block of the cache, the default of the BLOCK_SIZE setting.
const BLOCK_SIZE: usize = 16;

/// The report of a model in the chosen form.
pub fn text(arguments: &InspectArguments) -> String {
    let memory = arguments.memory.unwrap_or_else(capacity::bytes_free);
    let steps = Steps {
        n_sequences: arguments.sequences,
        context: arguments.context,
        prompt: arguments.prompt,
    };
    let report = Report::of_steps(&arguments.model, (memory, arguments.quantization), steps);
    if arguments.json {
        format!("{:#}\n", serde_json::json!(report))
    } else {
        report.to_string()
    }
}

/// A value of the QUANTIZATION setting.
fn quantization(text: &str) -> Result<Quantization, serde_json::Error> {
    serde_json::from_value(text.into())
}

/// The steps whose costs a report counts.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    /// Sequences that are decoded.
    pub n_sequences: usize,
    /// Tokens of each of them.
    pub context: usize,
    /// New tokens of a part of a prompt.
    pub prompt: usize,
}

impl Default for Steps {
    fn default() -> Steps {
        Steps {
            n_sequences: 1,
            context: DECODE_CONTEXT,
            prompt: PREFILL_TOKENS,
        }
    }
}

impl Steps {
    /// A step that decodes and one that reads a prompt, of a model whose sequences have up to `context_len` tokens.
    fn shapes(self, context_len: usize) -> [StepShape; 2] {
        let within = |n_tokens: usize| n_tokens.clamp(1, context_len.max(1));
        let decode = StepShape {
            n_sequences: self.n_sequences.max(1),
            query_len: 1,
            context_len: within(self.context),
        };
        let prefill = StepShape {
            n_sequences: 1,
            query_len: within(self.prompt),
            context_len: within(self.prompt),
        };
        [decode, prefill]
    }
}

impl Report {
    /// The report of the model in `dir` with `memory` bytes for weights, cache and activations.
    pub fn of(dir: &Path, memory: u64) -> Report {
        Report::of_steps(dir, (memory, Quantization::None), Steps::default())
    }

    /// The same with weights in a format, and the costs of other steps.
    pub fn of_steps(dir: &Path, (memory, quantization): (u64, Quantization), steps: Steps) -> Report {
        match Outline::read(dir) {
            Ok(outline) => {
                let stored_bytes = outline.weights_bytes.values().sum();
                let choice = Choice::on_cpu(quantization, stored_bytes, memory);
                let outline = outline.kept_as(Dtype::Auto, choice.format);
                Report::of_outline((&outline, dir), memory, steps)
            }
            Err(error) => Report {
                model: None,
                refused: vec![chain(&error)],
            },
        }
    }

    fn of_outline((outline, dir): (&Outline, &Path), memory: u64, steps: Steps) -> Report {
        let mut refused = Vec::new();
        let has_weights = match outline.check_weights(dir) {
            Ok(()) => true,
            Err(ModelError::MissingFile { .. }) => false,
            Err(error) => {
                refused.push(chain(&error));
                true
            }
        };
        let weights_bytes: u64 = outline.weights_bytes.values().sum();
        let bytes_available = capacity::of_host(memory.saturating_sub(weights_bytes));
        let largest_context = largest_context(outline, bytes_available);
        if weights_bytes > memory {
            refused.push(format!(
                "the weights take {weights_bytes} bytes, more than the {memory} bytes of memory"
            ));
        } else if largest_context < outline.context_len {
            refused.push(format!(
                "a sequence of {} tokens does not fit in memory: MAX_MODEL_LEN must be at most {largest_context}",
                outline.context_len
            ));
        }
        let [decode, prefill] = steps.shapes(outline.context_len);
        Report {
            model: Some(Facts {
                architecture: outline.architecture.clone(),
                task: format!("{:?}", outline.kind).to_lowercase(),
                layers: outline.n_layers,
                vocab_size: outline.vocab_size,
                hidden_size: outline.hidden_size,
                parameters: outline.n_params,
                weights_bytes,
                weights_bytes_by_dtype: outline.weights_bytes.clone(),
                has_weights,
                kv_bytes_per_token: outline.kv_bytes_per_token,
                unknown_fields: outline.unknown_fields.clone(),
                context_len: outline.context_len,
                memory_bytes: memory,
                largest_context,
                decode: StepCost::of(outline, decode),
                prefill: StepCost::of(outline, prefill),
                program: outline.program(),
            }),
            refused,
        }
    }
}

/// The longest sequence whose cache fits into `bytes_available`; 0 if none fits.
fn largest_context(outline: &Outline, bytes_available: u64) -> usize {
    let fits = |max_model_len: usize| {
        let demand = Demand {
            kv_bytes_per_token: outline.kv_bytes_per_token,
            groups: &outline.kv_groups,
            block_size: BLOCK_SIZE,
            max_model_len,
            max_num_seqs: 1,
        };
        capacity::n_blocks(demand, bytes_available).is_ok()
    };
    let (mut fitting, mut beyond) = (0, outline.context_len + 1);
    while beyond - fitting > 1 {
        let middle = fitting + (beyond - fitting) / 2;
        if fits(middle) {
            fitting = middle;
        } else {
            beyond = middle;
        }
    }
    fitting
}

impl StepCost {
    fn of(outline: &Outline, step: StepShape) -> StepCost {
        let total = outline.total_cost(step);
        StepCost {
            sequences: step.n_sequences,
            new_tokens: step.query_len,
            context_len: step.context_len,
            bytes: total.bytes(),
            flops: total.flops,
            ops: outline.costs(step).into_iter().map(OpLine::of).collect(),
        }
    }
}

impl OpLine {
    fn of(ops: OpCost) -> OpLine {
        OpLine {
            op: ops.op,
            count: ops.n,
            weight_bytes: ops.cost.weight_bytes,
            kv_bytes: ops.cost.kv_bytes,
            activation_bytes: ops.cost.activation_bytes,
            flops: ops.cost.flops,
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(facts) = &self.model {
            facts.fmt(f)?;
        }
        match self.refused.as_slice() {
            [] => writeln!(f, "\nrefused              nothing"),
            reasons => {
                writeln!(f)?;
                reasons
                    .iter()
                    .try_for_each(|reason| writeln!(f, "refused              {reason}"))
            }
        }
    }
}

impl Display for Facts {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: String| writeln!(f, "{name:<20} {value}");
        row("architecture", self.architecture.clone())?;
        row("task", self.task.clone())?;
        row("layers", self.layers.to_string())?;
        row("vocabulary", self.vocab_size.to_string())?;
        row("hidden size", self.hidden_size.to_string())?;
        row("parameters", count(self.parameters))?;
        row("weights in memory", bytes(self.weights_bytes))?;
        for (dtype, n_bytes) in &self.weights_bytes_by_dtype {
            row(&format!("  {dtype}"), bytes(*n_bytes))?;
        }
        let found = if self.has_weights { "found" } else { "absent" };
        row("weight files", found.to_owned())?;
        row("KV cache per token", bytes(self.kv_bytes_per_token))?;
        row("context", format!("{} tokens", self.context_len))?;
        if !self.unknown_fields.is_empty() {
            row("unknown fields", self.unknown_fields.join(", "))?;
        }
        row("memory", bytes(self.memory_bytes))?;
        row("largest context", format!("{} tokens", self.largest_context))?;
        write!(f, "\ndecode: {}\nprefill: {}", self.decode, self.prefill)?;
        write!(f, "\nprogram\n{}", self.program)
    }
}

impl Display for StepCost {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} sequence{}, {} new tokens, {} in all: {}, {}FLOP",
            self.sequences,
            if self.sequences == 1 { "" } else { "s" },
            self.new_tokens,
            self.context_len,
            bytes(self.bytes),
            count(self.flops)
        )?;
        let (op, n, weights, kv) = ("op", "count", "weights", "KV cache");
        writeln!(
            f,
            "  {op:<34} {n:>5} {weights:>11} {kv:>11} {:>11} {:>8}",
            "activations", "FLOP"
        )?;
        for line in &self.ops {
            writeln!(
                f,
                "  {:<34} {:>5} {:>11} {:>11} {:>11} {:>8}",
                line.op,
                line.count,
                bytes(line.weight_bytes),
                bytes(line.kv_bytes),
                bytes(line.activation_bytes),
                count(line.flops)
            )?;
        }
        Ok(())
    }
}

/// Bytes in decimal units.
fn bytes(n: u64) -> String {
    format!("{}B", count(n))
}

/// A count in decimal units, three digits or more.
fn count(n: u64) -> String {
    const UNITS: [&str; 6] = ["", "k", "M", "G", "T", "P"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 9999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{n} ")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}
