//! Beam search through the engine against Hugging Face transformers (`fixtures/beam/make.py`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::path::Path;

use runtime::client::Client;
use runtime::engine::{
    Beam, BeamParams, BeamRequest, EarlyStopping, Engine, EngineConfig, Event, FinishReason, PreemptionMode,
};
use runtime::model::{KvDtypeChoice, LoadOptions, Model};
use serde::Deserialize;

/// Sums of a few tens of log-probabilities, each of which two fp32 implementations give within 2e-4.
const SCORE_TOLERANCE: f64 = 2e-3;

const BLOCK_SIZE: usize = 4;

#[derive(Deserialize)]
struct Reference {
    cases: Vec<Case>,
}

#[derive(Clone, Deserialize)]
struct Case {
    ids: Vec<u32>,
    width: usize,
    length_penalty: f64,
    early_stopping: String,
    max_tokens: usize,
    beams: Vec<Expected>,
}

#[derive(Clone, Deserialize)]
struct Expected {
    tokens: Vec<u32>,
    eos: bool,
    score: Option<f64>,
}

impl Case {
    fn request(&self) -> BeamRequest {
        BeamRequest {
            client: Client::default(),
            prompt: self.ids.clone().into(),
            params: BeamParams {
                width: self.width,
                length_penalty: self.length_penalty,
                early_stopping: match self.early_stopping.as_str() {
                    "true" => EarlyStopping::AtOnce,
                    "never" => EarlyStopping::Never,
                    _ => EarlyStopping::Heuristic,
                },
            },
            priority: 0,
            max_tokens: Some(self.max_tokens),
            min_tokens: 0,
            stop_token_ids: Vec::new(),
            ignore_eos: false,
        }
    }

    fn check(&self, beams: &[Beam], context: &str) {
        assert_eq!(beams.len(), self.beams.len(), "{context}");
        for (beam, expected) in beams.iter().zip(&self.beams) {
            assert_eq!(beam.tokens, expected.tokens, "{context}");
            assert_eq!(
                matches!(beam.reason, FinishReason::Eos(_)),
                expected.eos,
                "{context}"
            );
            if let Some(score) = expected.score {
                assert!(
                    (beam.score - score).abs() < SCORE_TOLERANCE,
                    "{context}: {} {score}",
                    beam.score
                );
            }
        }
    }
}

fn engine(n_blocks: usize, preemption_mode: PreemptionMode) -> Engine {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/tiny-trained");
    // The scores of the reference are exact.
    let options = LoadOptions {
        kv_cache_dtype: KvDtypeChoice::Float32,
        ..LoadOptions::default()
    };
    let mut model = Model::load(&dir, &options, &|_| {}).unwrap();
    model.allocate_cache(n_blocks, BLOCK_SIZE, n_blocks).unwrap();
    let config = EngineConfig {
        n_blocks,
        n_host_blocks: n_blocks,
        block_size: BLOCK_SIZE,
        preemption_mode,
        max_num_seqs: 64,
        max_num_batched_tokens: 64,
        max_model_len: 128,
        max_waiting: 100,
        eos_token_ids: model.info().eos_token_ids.as_slice().into(),
        ..EngineConfig::default()
    };
    Engine::start(Box::new(model), config).unwrap()
}

fn cases() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/beam/reference.json");
    let reference: Reference = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(reference.cases.len() >= 10);
    reference.cases
}

#[tokio::test]
async fn searches_find_the_texts_that_transformers_finds() {
    // All of them at once and twice, with room for all and with room for little more than the largest.
    let cases = [cases(), cases()].concat();
    let of_case = |case: &Case| case.width * (case.ids.len() + case.max_tokens).div_ceil(BLOCK_SIZE);
    let n_blocks_largest = cases.iter().map(of_case).max().unwrap();
    for (n_blocks, mode, is_tight) in [
        (4000, PreemptionMode::Recompute, false),
        (n_blocks_largest, PreemptionMode::Recompute, true),
        (n_blocks_largest, PreemptionMode::Swap, true),
    ] {
        let engine = engine(n_blocks, mode);
        let requests = cases.iter().map(Case::request).collect();
        let mut tickets = engine.submit_beam_searches(requests).unwrap();
        for (idx, (ticket, case)) in tickets.iter_mut().zip(&cases).enumerate() {
            let Some(Event::Beams(beams)) = ticket.next().await else {
                panic!("case {idx}: no beams")
            };
            case.check(&beams, &format!("case {idx}, {n_blocks} blocks, {mode:?}"));
            assert_eq!(ticket.next().await, None);
        }
        assert_eq!(engine.load().n_blocks_used, 0);
        assert!(
            !is_tight || engine.counters().preemptions.get() > 0,
            "{n_blocks} blocks are not few"
        );
    }
}
