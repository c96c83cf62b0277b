//! The results, as JSON has them. docs/benchmarks.md explains the fields.

use serde::Serialize;

use super::machine::{Limits, Machine};
use super::statistics::Spread;
use crate::model::Cost;

/// All results.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of the program.
    pub version: &'static str,
    /// What computed.
    pub machine: Machine,
    /// What was computed.
    pub model: ModelFacts,
    /// The limits of the machine, before and after everything else.
    pub probe: Probe,
    /// Prefill and decode, without scheduler and sampler.
    pub steps: Vec<Phase>,
    /// Requests through the engine; absent if it was left out.
    pub served: Option<Served>,
}

/// The model.
#[derive(Clone, Debug, Serialize)]
pub struct ModelFacts {
    /// Its folder.
    pub folder: String,
    /// The name in config.json's `architectures`.
    pub architecture: String,
    /// Parameters.
    pub parameters: u64,
    /// Where its weights come from.
    pub weights: WeightsFrom,
    /// Bytes of its weights in memory.
    pub weights_bytes: u64,
    /// Number type of its weights in memory.
    pub dtype: &'static str,
    /// Bytes of KV cache of one token.
    pub kv_bytes_per_token: u64,
    /// Seconds that loading took.
    pub load_s: f64,
}

/// Where weights come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightsFrom {
    /// The checkpoint's files.
    Files,
    /// They are random numbers.
    Random,
}

/// The limits of the machine by numbers of threads, those of the model last.
#[derive(Clone, Debug, Serialize)]
pub struct Probe {
    /// Before everything else.
    pub start: Vec<Limits>,
    /// After everything else.
    pub end: Vec<Limits>,
}

/// What was measured of steps of one shape.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    /// What is computed.
    pub kind: PhaseKind,
    /// Sequences.
    pub sequences: usize,
    /// New tokens of each.
    pub new_tokens: usize,
    /// Tokens of each at the end.
    pub context_len: usize,
    /// New tokens of all per second, at the median.
    pub tokens_per_s: f64,
    /// Milliseconds.
    pub ms: Spread,
    /// Times that it was measured.
    pub runs: usize,
    /// What it costs, and the rates at the median.
    #[serde(flatten)]
    pub rates: Rates,
    /// Its ops, the longest first; empty without `--profile`.
    pub ops: Vec<OpTime>,
}

/// What steps compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PhaseKind {
    /// Prompts.
    Prefill,
    /// One token of each sequence.
    Decode,
}

/// Bytes and operations, and how fast they were compared with the machine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rates {
    /// Bytes that are read or written: weights, KV cache and activations.
    pub bytes: u64,
    /// Floating-point operations.
    pub flops: u64,
    /// GB per second.
    pub gb_s: f64,
    /// GFLOP per second.
    pub gflop_s: f64,
    /// The least time that the limits allow, divided by the time; absent for a card.
    pub of_limit: Option<f64>,
    /// Which limit decides; absent for a card.
    pub bound: Option<Bound>,
}

/// What limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// Reading memory.
    Memory,
    /// Multiply-adds.
    Compute,
}

/// The time of equal ops together.
#[derive(Clone, Debug, Serialize)]
pub struct OpTime {
    /// What they compute.
    pub op: String,
    /// How many there are.
    pub count: usize,
    /// Milliseconds, at the median.
    pub ms: f64,
    /// Their part of the time of all ops.
    pub share: f64,
    /// What they cost.
    #[serde(flatten)]
    pub rates: Rates,
}

/// What streams got from the engine.
#[derive(Clone, Debug, Serialize)]
pub struct Served {
    /// Streams at a time, all of which begin at once.
    pub streams: usize,
    /// Tokens of each prompt; no two prompts begin alike.
    pub prompt_tokens: usize,
    /// Tokens of each answer.
    pub output_tokens: usize,
    /// Times that all of this was done.
    pub runs: usize,
    /// Tokens of answers per second, from the first request to the last token.
    pub tokens_per_s: f64,
    /// Milliseconds from a request to its first token.
    pub first_token_ms: Spread,
    /// Milliseconds between two tokens of a stream; absent for answers of one token.
    pub gap_ms: Option<Spread>,
    /// Tokens of other streams' prompts that were computed between two tokens of a stream.
    pub prompt_tokens_in_gap: Option<Spread>,
    /// The same in the longest gap.
    pub prompt_tokens_in_longest_gap: Option<usize>,
    /// Steps of the engine in all runs.
    pub steps: usize,
    /// What they cost together.
    #[serde(flatten)]
    pub rates: Rates,
}

impl Rates {
    /// Of work that took `seconds` on a machine with these limits.
    pub(super) fn of(cost: Cost, seconds: f64, limits: Option<&Limits>) -> Rates {
        let (bytes, flops) = (cost.bytes(), cost.flops);
        let (gb_s, gflop_s) = (bytes as f64 / seconds / 1e9, flops as f64 / seconds / 1e9);
        let shares = limits.map(|limits| (gb_s / limits.read_gb_s(), gflop_s / limits.fma_f32_gflop_s));
        Rates {
            bytes,
            flops,
            gb_s,
            gflop_s,
            of_limit: shares.map(|(of_read, of_fma)| of_read.max(of_fma)),
            bound: shares.map(|(of_read, of_fma)| {
                if of_read >= of_fma {
                    Bound::Memory
                } else {
                    Bound::Compute
                }
            }),
        }
    }
}

impl Probe {
    /// The limits for the model's threads.
    pub(super) fn limits(&self) -> Option<Limits> {
        let (start, end) = (self.start.last()?, self.end.last()?);
        Some(start.better(*end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        threads: 2,
        read_one_stream_gb_s: 10.0,
        read_streams_gb_s: 20.0,
        fma_f32_gflop_s: 100.0,
    };

    fn cost(weight_bytes: u64, flops: u64) -> Cost {
        Cost {
            weight_bytes,
            flops,
            ..Cost::default()
        }
    }

    #[test]
    fn the_nearer_limit_decides() {
        // 5 GB in half a second are half of 20 GB/s; 10 GFLOP in it are a fifth of 100 GFLOP/s.
        let rates = Rates::of(cost(5_000_000_000, 10_000_000_000), 0.5, Some(&LIMITS));
        assert_eq!((rates.gb_s, rates.gflop_s), (10.0, 20.0));
        assert_eq!((rates.of_limit, rates.bound), (Some(0.5), Some(Bound::Memory)));
        let rates = Rates::of(cost(1_000_000_000, 40_000_000_000), 0.5, Some(&LIMITS));
        assert_eq!((rates.of_limit, rates.bound), (Some(0.8), Some(Bound::Compute)));
        let rates = Rates::of(cost(1, 1), 1.0, None);
        assert_eq!((rates.of_limit, rates.bound), (None, None));
    }

    #[test]
    fn a_limit_is_the_best_that_was_seen() {
        let later = Limits {
            read_one_stream_gb_s: 30.0,
            fma_f32_gflop_s: 90.0,
            ..LIMITS
        };
        let probe = Probe {
            start: vec![later, LIMITS],
            end: vec![LIMITS, later],
        };
        let limits = probe.limits().unwrap();
        assert_eq!((limits.read_gb_s(), limits.fma_f32_gflop_s), (30.0, 100.0));
        assert_eq!(
            Probe {
                start: Vec::new(),
                end: Vec::new()
            }
            .limits(),
            None
        );
    }
}
