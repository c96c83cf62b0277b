//! The engine as its callers see it: tickets, over a model that checks every block table it is given.

mod answers;
mod endings;
mod failures;
mod grammars;
mod lifecycle;
mod pace;
mod queue;
mod scores;

use std::sync::mpsc;

use super::fake::{Dice, HashModel, Reference, Shape};
use super::*;
use crate::batch::{Batch, FunctionModel, KvGroup, Logits, StepError, StepOutput, Tap};
use crate::engine::sampler::{Draw, SampleError, sample};

const VOCAB_SIZE: usize = 48;

const EOS: u32 = 5;

fn config() -> EngineConfig {
    EngineConfig {
        n_blocks: 256,
        block_size: 4,
        max_num_seqs: 16,
        max_num_batched_tokens: 64,
        max_model_len: 100,
        seed: 11,
        eos_token_ids: [EOS].into(),
        ..EngineConfig::default()
    }
}

/// Steps in flight: the engine draws, or the model does.
const DEPTHS: [usize; 2] = [1, 2];

/// Too few blocks for all requests at once.
fn scarce() -> EngineConfig {
    EngineConfig {
        n_blocks: 30,
        ..config()
    }
}

/// The same, with room on the host for sequences that lose their blocks.
fn swapping() -> EngineConfig {
    EngineConfig {
        n_host_blocks: 30,
        preemption_mode: PreemptionMode::Swap,
        ..scarce()
    }
}

fn engine(config: EngineConfig) -> Engine {
    engine_of_depth(1, config)
}

fn engine_of_depth(depth: usize, config: EngineConfig) -> Engine {
    Engine::start(Box::new(model(&config).with_depth(depth)), config).unwrap()
}

fn model(config: &EngineConfig) -> HashModel {
    grouped(config, &[None])
}

/// A model of one group of layers per window.
fn grouped(config: &EngineConfig, windows: &[Option<usize>]) -> HashModel {
    let shape = Shape {
        vocab_size: VOCAB_SIZE,
        block_size: config.block_size,
        groups: groups(windows),
        whole_prompts: false,
        reads_media: true,
    };
    HashModel::new(shape, config.n_blocks, config.n_host_blocks)
}

fn groups(windows: &[Option<usize>]) -> Vec<KvGroup> {
    windows.iter().map(|&window| KvGroup { window }).collect()
}

/// Request `idx` of a varied crowd: greedy and sampled, short and long.
fn request(idx: usize) -> GenerateRequest {
    let mut dice = Dice::new(idx as u64);
    let n_prompt = dice.within(1..=40);
    let sampling = SamplingParams {
        temperature: [0.0, 0.7, 1.3][idx % 3],
        top_p: [1.0, 0.9][idx % 2],
        top_k: [None, Some(10)][idx / 2 % 2],
        repetition_penalty: [1.0, 1.2][idx / 3 % 2],
        bad_words: [vec![], vec![vec![7, 9], vec![11]]][idx / 6 % 2].clone(),
        seed: Some(idx as u64),
        ..SamplingParams::default()
    };
    let prompt = (0..n_prompt).map(|_| dice.below(VOCAB_SIZE) as u32).collect();
    let max_tokens = dice.within(1..=40);
    GenerateRequest {
        prompt,
        sampling: sampling.into(),
        max_tokens: Some(max_tokens),
        min_tokens: [0, 5][idx / 4 % 2].min(max_tokens),
        stop_token_ids: [vec![], vec![13]][idx / 5 % 2].clone(),
        ..GenerateRequest::default()
    }
}

/// The answer by definition: no engine, no cache, no batch.
fn expected_answer(request: &GenerateRequest) -> (Vec<u32>, FinishReason) {
    expected_of(&[None], request)
}

fn expected_of(windows: &[Option<usize>], request: &GenerateRequest) -> (Vec<u32>, FinishReason) {
    let mut generated = Vec::new();
    let prompt: Vec<u32> = request.prompt.ids().collect();
    let stops = [&request.stop_token_ids[..], &[EOS]].concat();
    let (mut text, mut hash) = Reference::of(&groups(windows), &request.prompt, &[]);
    loop {
        let draw = Draw {
            params: &request.sampling,
            prompt: &prompt,
            generated: &generated,
            forbidden: if generated.len() < request.min_tokens {
                &stops
            } else {
                &[]
            },
            mask: None,
            seed: request.sampling.seed.unwrap(),
        };
        let token = sample(&hash.logits(VOCAB_SIZE), &draw).unwrap().token;
        if token == EOS {
            return (generated, FinishReason::Eos(EOS));
        }
        if request.stop_token_ids.contains(&token) {
            return (generated, FinishReason::StopToken(token));
        }
        generated.push(token);
        hash = text.push(token);
        if Some(generated.len()) == request.max_tokens {
            return (generated, FinishReason::Length);
        }
    }
}

/// Every event of a ticket.
async fn read(ticket: &mut Ticket) -> (Vec<u32>, Event) {
    let mut tokens = Vec::new();
    loop {
        match ticket.next().await.expect("a ticket ends with an event") {
            Event::Token { token, .. } => tokens.push(token),
            Event::Prompt(_) => assert!(tokens.is_empty(), "a prompt after its answer"),
            end @ (Event::Finished { .. } | Event::Beams(_) | Event::Pooled(_) | Event::Failed(_)) => {
                if let Event::Finished {
                    last: Some((token, _)),
                    ..
                } = end
                {
                    tokens.push(token);
                }
                assert_eq!(ticket.next().await, None, "an event after the end");
                return (tokens, end);
            }
        }
    }
}

async fn answer(ticket: &mut Ticket) -> (Vec<u32>, FinishReason) {
    let (tokens, end) = read(ticket).await;
    let Event::Finished {
        reason,
        last,
        ended_by: None,
        n_generated,
    } = end
    else {
        panic!("{end:?}")
    };
    let n_withheld = usize::from(matches!(
        reason,
        FinishReason::Eos(_) | FinishReason::StopToken(_)
    ));
    assert_eq!(n_generated, tokens.len() + n_withheld);
    assert_eq!(
        last.is_some(),
        matches!(reason, FinishReason::Length | FinishReason::Complete)
    );
    (tokens, reason)
}

fn submit_one(engine: &Engine, request: GenerateRequest) -> Ticket {
    engine.submit(vec![request]).unwrap().remove(0)
}

/// Nothing runs, waits or holds a block once a drained engine has stopped.
async fn assert_ends_empty(engine: Engine) {
    engine.drain();
    assert_eq!(engine.drained().await, Phase::Stopped);
    let Load {
        n_running,
        n_waiting,
        n_blocks_used,
        ..
    } = engine.load();
    assert_eq!((n_running, n_waiting, n_blocks_used), (0, 0, 0));
}

fn endless(n_prompt: usize) -> GenerateRequest {
    GenerateRequest {
        prompt: vec![1; n_prompt].into(),
        max_tokens: Some(50),
        ignore_eos: true,
        ..GenerateRequest::default()
    }
}

/// An engine that gets the result of one step per permit, so that a test decides how far it gets. A dropped sender
/// opens the gate for good.
fn gated(depth: usize, config: EngineConfig) -> (Engine, mpsc::SyncSender<()>) {
    let (gate, permits) = mpsc::sync_channel(1);
    let model = Tap::new(
        model(&config).with_depth(depth),
        move |_: &Batch, _: &mut StepOutput| {
            let _ = permits.recv();
            Ok(())
        },
    );
    (Engine::start(Box::new(model), config).unwrap(), gate)
}
