//! The serving path under test: the real engine around a model that keeps the logits it gave.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use kernels::Isa;
use runtime::batch::{Batch, BatchRow, Forward, KvGroup, StepOutput, Tap, TokenLogprobs};
use runtime::engine::scheduler::N_SCORED_MAX;
use runtime::engine::{
    Engine, EngineConfig, Event, GenerateRequest, PoolRequest, PreemptionMode, SamplingParams, Ticket,
};
use runtime::model::{DtypeChoice, KvDtypeChoice, LoadOptions, Model, StepLimits};

/// How requests are served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// Whether blocks of equal prefixes are shared.
    pub(crate) caches_prefixes: bool,
    /// Tokens of a step, and so of a chunk.
    pub(crate) n_step_tokens: usize,
    /// Whether all requests are served at once.
    pub(crate) is_mixed: bool,
    /// Whether there are too few blocks for all requests at once, and what then happens.
    pub(crate) preempts: Option<PreemptionMode>,
}

/// Plenty of everything, one request after the other.
pub(crate) const ALONE: Setup = Setup {
    caches_prefixes: false,
    n_step_tokens: 2048,
    is_mixed: false,
    preempts: None,
};

const BLOCK_SIZE: usize = 16;

/// Sequences that run at once.
const N_SEQUENCES: usize = 8;

/// Blocks of a group that hold the longest sequence of the fixtures (157 tokens of prompt and 32 of answer),
/// and not one more beside it.
const SCARCE_BLOCKS: usize = 13;

/// Blocks that a group needs for the longest sequence: what its window and a chunk cover, or all of it.
fn scarce_blocks(group: KvGroup, n_step_tokens: usize) -> usize {
    group.window.map_or(SCARCE_BLOCKS, |window| {
        let seen = (window - 1 + n_step_tokens).div_ceil(BLOCK_SIZE) + 1;
        seen.min(SCARCE_BLOCKS)
    })
}

/// Last logits of each prompt, by its length.
type Seen = Arc<Mutex<BTreeMap<usize, Vec<f32>>>>;

/// Keeps the logits after each prompt that a step completes.
fn keep(seen: &Seen, batch: &Batch, output: &StepOutput) {
    let mut seen = seen.lock().unwrap();
    // A model that draws for itself keeps the logits.
    if output.logits.values.len() != batch.logits_at.len() * output.logits.vocab_size {
        return;
    }
    for (idx, &at) in batch.logits_at.iter().enumerate() {
        let is_last = |row: &&BatchRow| {
            row.query_start + row.query_len - 1 == at as usize && row.context_len == row.prompt_len
        };
        if let Some(row) = batch.rows.iter().find(is_last) {
            seen.insert(row.prompt_len, output.logits.row(idx).to_vec());
        }
    }
}

/// An engine that serves one checkpoint.
pub(crate) struct Serving {
    setup: Setup,
    /// All layers see all of a context, so that scarce blocks cannot hold two of the longest sequences, while a
    /// few windows may fit side by side.
    pub(crate) keeps_everything: bool,
    engine: Engine,
    seen: Seen,
    tokio: tokio::runtime::Runtime,
}

/// What became of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    /// Logits after the prompt, if the engine sees any.
    pub(crate) logits: Vec<f32>,
    /// Greedy tokens.
    pub(crate) tokens: Vec<u32>,
}

/// What a model can read, from its configuration and the scaling of its positions.
pub(crate) fn context_len(dir: &Path) -> usize {
    let model = Model::load(dir, &LoadOptions::default(), &|_| {}).unwrap();
    model.info().max_model_len as usize
}

/// Options with which the cache and products on the CPU are as exact as those of the references: some instructions round the
/// activations that meet weights in bf16, so these are kept in f32.
pub(crate) fn as_exact(isa: Isa) -> LoadOptions {
    let mut options = LoadOptions {
        isa: Some(isa),
        kv_cache_dtype: KvDtypeChoice::Float32,
        ..LoadOptions::default()
    };
    if isa.multiplies_bf16() {
        options.dtype = DtypeChoice::Float32;
    }
    options
}

impl Serving {
    /// Loads the checkpoint in `dir` and starts an engine on the CPU whose cache is exact, as the references are.
    pub(crate) fn start(dir: &Path, setup: Setup) -> Serving {
        Serving::with(dir, setup, as_exact(Isa::best()))
    }

    /// Loads the checkpoint in `dir` with these options and starts an engine.
    pub(crate) fn with(dir: &Path, setup: Setup, options: LoadOptions) -> Serving {
        let options = LoadOptions {
            n_threads: Some(1),
            ..options
        };
        let mut model = Model::load(dir, &options, &|_| {}).unwrap();
        let info = model.info().clone();
        let groups = model.kv_groups();
        let n_host_blocks = groups.len() * 64;
        let scarce = |group: &KvGroup| scarce_blocks(*group, setup.n_step_tokens);
        let n_blocks = match setup.preempts {
            Some(_) => groups.iter().map(scarce).sum(),
            None => groups.len() * 64,
        };
        let context_len = (info.max_model_len as usize).min(SCARCE_BLOCKS * BLOCK_SIZE);
        let limits = StepLimits {
            n_tokens: setup.n_step_tokens.max(context_len),
            n_sequences: N_SEQUENCES,
            n_logits: N_SEQUENCES + N_SCORED_MAX,
            context_len,
            block_size: BLOCK_SIZE,
        };
        model.reserve(&limits).unwrap();
        model.allocate_cache(n_blocks, BLOCK_SIZE, n_host_blocks).unwrap();
        let seen = Seen::default();
        let kept = Arc::clone(&seen);
        let recorder = Tap::new(model, move |batch: &Batch, output: &mut StepOutput| {
            keep(&kept, batch, output);
            Ok(())
        });
        let config = EngineConfig {
            n_blocks,
            n_host_blocks,
            block_size: BLOCK_SIZE,
            enable_prefix_caching: setup.caches_prefixes,
            preemption_mode: setup.preempts.unwrap_or(PreemptionMode::Recompute),
            max_num_seqs: N_SEQUENCES,
            max_num_batched_tokens: setup.n_step_tokens,
            // As long as the fixtures need: their contexts are longer than a scarce cache.
            max_model_len: context_len,
            max_waiting: 8,
            eos_token_ids: info.eos_token_ids.into(),
            ..EngineConfig::default()
        };
        Serving {
            setup,
            keeps_everything: groups.iter().all(|group| group.window.is_none()),
            engine: Engine::start(Box::new(recorder), config).unwrap(),
            seen,
            tokio: tokio::runtime::Builder::new_current_thread().build().unwrap(),
        }
    }

    /// Greedy answers of `n_tokens` each, whatever ends them.
    pub(crate) fn generate(&self, prompts: &[&[u32]], n_tokens: usize) -> Vec<Answer> {
        let requests: Vec<_> = prompts
            .iter()
            .map(|prompt| greedy(prompt, (1, n_tokens)))
            .collect();
        let n_together = if self.setup.is_mixed { requests.len() } else { 1 };
        let mut answers = Vec::new();
        for (requests, prompts) in requests.chunks(n_together).zip(prompts.chunks(n_together)) {
            self.seen.lock().unwrap().clear();
            let tickets = self.engine.submit(requests.to_vec()).unwrap();
            let tokens: Vec<Vec<u32>> = tickets.into_iter().map(|ticket| self.tokens(ticket)).collect();
            let seen = self.seen.lock().unwrap();
            answers.extend(tokens.into_iter().zip(prompts).map(|(tokens, prompt)| Answer {
                logits: seen.get(&prompt.len()).cloned().unwrap_or_default(),
                tokens,
            }));
        }
        answers
    }

    /// Log-probabilities of the tokens of prompts that are served together, to the bit.
    pub(crate) fn prompt_logprobs(&self, prompts: &[&[u32]]) -> Vec<Vec<Option<f32>>> {
        let chosen = |score: Option<TokenLogprobs>| score.map(|score| score.chosen);
        let scores = self.prompt_scores(prompts).into_iter();
        scores
            .map(|scores| scores.into_iter().map(chosen).collect())
            .collect()
    }

    /// The same with the most probable token of each place.
    pub(crate) fn prompt_scores(&self, prompts: &[&[u32]]) -> Vec<Vec<Option<TokenLogprobs>>> {
        let scored = |prompt: &&[u32]| GenerateRequest {
            prompt_logprobs: Some(1),
            ..greedy(prompt, (1, 1))
        };
        let tickets = self.engine.submit(prompts.iter().map(scored).collect()).unwrap();
        let scores = |mut ticket: Ticket| match self.tokio.block_on(ticket.next()).unwrap() {
            Event::Prompt(scores) => scores.to_vec(),
            other => panic!("{other:?}"),
        };
        tickets.into_iter().map(scores).collect()
    }

    /// `n` greedy answers of one prompt.
    pub(crate) fn branches(&self, prompt: &[u32], (n, n_tokens): (usize, usize)) -> Vec<Vec<u32>> {
        let answers = self.answers(vec![greedy(prompt, (n, n_tokens))]);
        assert_eq!(answers.len(), n);
        answers
    }

    /// The tokens of the answers to requests that are served together.
    pub(crate) fn answers(&self, requests: Vec<GenerateRequest>) -> Vec<Vec<u32>> {
        let tickets = self.engine.submit(requests).unwrap();
        tickets.into_iter().map(|ticket| self.tokens(ticket)).collect()
    }

    fn tokens(&self, mut ticket: Ticket) -> Vec<u32> {
        let mut tokens = Vec::new();
        loop {
            match self.tokio.block_on(ticket.next()).unwrap() {
                Event::Token { token, .. } => tokens.push(token),
                Event::Finished { last, .. } => {
                    tokens.extend(last.map(|(token, _)| token));
                    return tokens;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// One vector of each prompt.
    pub(crate) fn pool(&self, requests: Vec<PoolRequest>) -> Vec<Vec<f32>> {
        let tickets = self.engine.submit_pooling(requests).unwrap();
        let vector = |mut ticket: Ticket| match self.tokio.block_on(ticket.next()).unwrap() {
            Event::Pooled(vector) => vector,
            other => panic!("{other:?}"),
        };
        tickets.into_iter().map(vector).collect()
    }

    /// Times a sequence lost its blocks.
    pub(crate) fn n_preemptions(&self) -> u64 {
        self.engine.counters().preemptions.get()
    }

    /// Prompt tokens that were there already.
    pub(crate) fn n_cached(&self) -> u64 {
        self.engine.counters().prefix_cache_hits.get()
    }
}

/// A request for `n` answers of exactly `n_tokens` tokens.
pub(crate) fn greedy(prompt: &[u32], (n, n_tokens): (usize, usize)) -> GenerateRequest {
    GenerateRequest {
        prompt: prompt.to_vec().into(),
        n,
        sampling: SamplingParams {
            temperature: 0.0,
            ..SamplingParams::default()
        }
        .into(),
        max_tokens: Some(n_tokens),
        ignore_eos: true,
        ..GenerateRequest::default()
    }
}
