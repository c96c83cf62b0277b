//! Requests to the engine, before and after admission.
//!
//! Owns their fields and the rule when an answer ends. Must not know sequences, blocks or tickets.

use std::sync::Arc;

use super::prompt::Prompt;
use super::sampler::SamplingParams;
use crate::client::Client;
use crate::grammar::Grammar;

/// What to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateRequest {
    /// Whose it is: clients are served in turn.
    pub client: Client,
    /// The prompt, of at least one token.
    pub prompt: Prompt,
    /// Answers. The prompt is computed once for all of them; answer `i` draws with the seed plus `i`.
    pub n: usize,
    /// Under [`SchedulingPolicy::Priority`](super::SchedulingPolicy::Priority) the smaller goes first.
    pub priority: i32,
    /// How to draw tokens.
    pub sampling: Arc<SamplingParams>,
    /// Tokens to generate at most; `None`: as many as the context has room for.
    pub max_tokens: Option<usize>,
    /// Tokens to generate before a stop token may end the answer.
    pub min_tokens: usize,
    /// Tokens that end the answer, besides the model's own end-of-sequence tokens.
    pub stop_token_ids: Vec<u32>,
    /// The model's end-of-sequence tokens are tokens like any other.
    pub ignore_eos: bool,
    /// Return the log-probabilities of the prompt's tokens and of this many most probable ones in their places. Such
    /// a request does not read the prefix cache.
    pub prompt_logprobs: Option<usize>,
    /// What the answer must look like; each of several answers follows it on its own.
    pub grammar: Option<Grammar>,
    /// The prompt shares cached blocks only with prompts of the same salt.
    pub cache_salt: u64,
    /// Later requests that may overtake it, because nobody waits for it now. It still gets what they leave.
    pub n_overtaking_max: u64,
}

impl Default for GenerateRequest {
    /// One answer, as long as it gets; only the prompt is missing.
    fn default() -> GenerateRequest {
        GenerateRequest {
            client: Client::default(),
            prompt: Prompt::default(),
            n: 1,
            priority: 0,
            sampling: Arc::default(),
            max_tokens: None,
            min_tokens: 0,
            stop_token_ids: Vec::new(),
            ignore_eos: false,
            prompt_logprobs: None,
            grammar: None,
            cache_salt: 0,
            n_overtaking_max: 0,
        }
    }
}

/// What to make a vector of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolRequest {
    /// Whose it is: clients are served in turn.
    pub client: Client,
    /// The prompt, of at least one token.
    pub prompt: Prompt,
    /// Segment of each token, for models that tell segments apart; empty: all 0.
    pub token_types: Vec<u32>,
    /// See [`GenerateRequest::cache_salt`].
    pub cache_salt: u64,
}

/// A prompt to search continuations of.
#[derive(Clone, Debug, PartialEq)]
pub struct BeamRequest {
    /// Whose it is: clients are served in turn.
    pub client: Client,
    /// The prompt, of at least one token.
    pub prompt: Prompt,
    /// How to search.
    pub params: BeamParams,
    /// Under [`SchedulingPolicy::Priority`](super::SchedulingPolicy::Priority) the smaller goes first.
    pub priority: i32,
    /// Tokens of a text at most; `None`: as many as the context has room for.
    pub max_tokens: Option<usize>,
    /// Tokens before a stop token may end a text.
    pub min_tokens: usize,
    /// Tokens that end a text, besides the model's own end-of-sequence tokens.
    pub stop_token_ids: Vec<u32>,
    /// The model's end-of-sequence tokens are tokens like any other.
    pub ignore_eos: bool,
}

/// How to search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BeamParams {
    /// Texts that go on in parallel, and answers; at least 1.
    pub width: usize,
    /// A text's score is the sum of its log-probabilities divided by its length to this power.
    pub length_penalty: f64,
    /// When to stop.
    pub early_stopping: EarlyStopping,
}

/// When a search stops that has as many finished texts as beams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EarlyStopping {
    /// At once: transformers' `True`.
    AtOnce,
    /// When the best running text, were it to end now, is no better than the worst finished one: `False`.
    #[default]
    Heuristic,
    /// When no running text can become better than the worst finished one: `"never"`.
    Never,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model generated this end-of-sequence token.
    Eos(u32),
    /// The model generated this one of the request's `stop_token_ids`.
    StopToken(u32),
    /// The answer is all that the request's grammar allows.
    Complete,
    /// The answer reached `max_tokens`, or the context its end.
    Length,
    /// The engine was stopped before the answer was complete.
    Abort,
}

/// A request that passed [`super::admission::Limits`]: it fits, and its limits are resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Admitted {
    /// Whose it is: clients are served in turn.
    pub client: Client,
    /// The prompt, of at least one token.
    pub prompt: Prompt,
    /// Sequences that it becomes.
    pub n_branches: usize,
    /// The smaller goes first.
    pub priority: i32,
    /// What to do with the prompt.
    pub task: Task,
    /// The prompt shares cached blocks only with prompts of the same salt.
    pub cache_salt: u64,
    /// See [`GenerateRequest::n_overtaking_max`].
    pub n_overtaking_max: u64,
}

/// What to do with a prompt.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// Continue it.
    Generate {
        /// How to draw tokens; all answers share it.
        sampling: Arc<SamplingParams>,
        /// When the answer ends.
        stop: StopRules,
        /// See [`GenerateRequest::prompt_logprobs`].
        prompt_logprobs: Option<usize>,
        /// See [`GenerateRequest::grammar`].
        grammar: Option<Grammar>,
    },
    /// Continue it in several ways at once; the sequences of one search compute their next tokens in the same
    /// step or not at all, and lose their blocks together.
    Search {
        /// How to search.
        params: BeamParams,
        /// When a text ends.
        stop: StopRules,
    },
    /// Make a vector of it.
    Pool {
        /// Segment of each token; empty: all 0.
        token_types: Vec<u32>,
    },
}

/// When a sequence ends.
#[derive(Clone, Debug, PartialEq)]
pub struct StopRules {
    /// Tokens to generate at most.
    pub max_tokens: usize,
    /// Tokens to generate before a stop token may end the answer.
    pub min_tokens: usize,
    /// The model's end-of-sequence tokens; empty if the request ignores them.
    pub eos_token_ids: Arc<[u32]>,
    /// Tokens that end the answer, besides those.
    pub stop_token_ids: Vec<u32>,
}

impl Admitted {
    /// Answers that are waited for: a search has one, however many sequences it becomes.
    pub fn n_tickets(&self) -> usize {
        match self.task {
            Task::Search { .. } => 1,
            Task::Generate { .. } | Task::Pool { .. } => self.n_branches,
        }
    }
}

impl StopRules {
    /// Whether `token`, drawn after `n_generated` others, ends the answer.
    pub fn finish(&self, n_generated: usize, token: u32) -> Option<FinishReason> {
        let may_stop = n_generated >= self.min_tokens;
        if may_stop && self.eos_token_ids.contains(&token) {
            Some(FinishReason::Eos(token))
        } else if may_stop && self.stop_token_ids.contains(&token) {
            Some(FinishReason::StopToken(token))
        } else if n_generated + 1 >= self.max_tokens {
            Some(FinishReason::Length)
        } else {
            None
        }
    }

    /// Tokens that may not be drawn after `n_generated`: those that would end the answer before `min_tokens`.
    pub fn forbidden(&self, n_generated: usize) -> Vec<u32> {
        if n_generated >= self.min_tokens {
            return Vec::new();
        }
        [&self.eos_token_ids[..], &self.stop_token_ids].concat()
    }
}
