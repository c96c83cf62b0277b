//! Draws: what the engine wants of a step's rows of logits, and what it gets.
//!
//! Owns the parameters of a draw and its result. Must not know who draws, the engine's sampler or the model.

/// Most probable tokens that a model returns at most beside a token that it draws.
pub const N_TOP_BY_MODEL_MAX: usize = 20;

/// What the engine wants of one row of logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DrawSpec<'a> {
    /// The row itself: the engine draws, searches or scores.
    Logits,
    /// A token that the model draws as [`TokenDraw`] describes.
    Token(TokenDraw<'a>),
}

/// How the model draws a token: the engine's sampler defines the result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenDraw<'a> {
    /// Number of the answer, its own as long as the engine runs.
    pub id: u64,
    /// How to draw.
    pub params: &'a SamplingParams,
    /// Decides the draw, together with the number of tokens before it.
    pub seed: u64,
    /// Tokens of the prompt.
    pub prompt: &'a [u32],
    /// Generated tokens that the engine knows. One more follows if the row's last token is one of
    /// [`Batch::from_previous`](super::Batch::from_previous).
    pub generated: &'a [u32],
}

/// What is known of a draw only after the step was submitted, because it depends on the token before.
#[derive(Clone, Debug, PartialEq)]
pub struct LateInput<'a> {
    /// Index of the draw among those of the step.
    pub draw: usize,
    /// One bit per token that may be drawn, as in a grammar's mask: 32 to a word, the lowest first; a token beyond
    /// the last word may not be drawn. `None`: all may.
    pub mask: Option<&'a [u32]>,
    /// Tokens that may not be drawn.
    pub forbidden: Vec<u32>,
}

/// How to draw tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; below 1e-5 the most probable token is taken.
    pub temperature: f32,
    /// Keep the fewest most probable tokens whose probabilities reach this sum. In (0, 1].
    pub top_p: f32,
    /// Keep this many of the most probable tokens.
    pub top_k: Option<usize>,
    /// Keep tokens at least this fraction as probable as the most probable one. In [0, 1].
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens in prompt or answer. Above 0.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of tokens in the answer. In [-2, 2].
    pub presence_penalty: f32,
    /// Subtracted from the logits of tokens in the answer, once per occurrence. In [-2, 2].
    pub frequency_penalty: f32,
    /// Fixes the draws; `None`: the engine picks a seed.
    pub seed: Option<u64>,
    /// Return the token's log-probability and those of this many most probable tokens.
    pub logprobs: Option<usize>,
    /// Added to the logits of these tokens, before penalties. Each in [-100, 100].
    pub logit_bias: Vec<(u32, f32)>,
    /// The only tokens that may be drawn; not empty.
    pub allowed_token_ids: Option<Vec<u32>>,
    /// Runs of tokens that the answer may not contain; none of them empty.
    pub bad_words: Vec<Vec<u32>>,
}

/// A drawn token.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// Its id.
    pub token: u32,
    /// Log-probabilities, where [`SamplingParams::logprobs`] requests them.
    pub logprobs: Option<TokenLogprobs>,
}

/// Natural log-probabilities under the model alone: before penalties, temperature and filters.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// Of the token that was drawn or given.
    pub chosen: f32,
    /// Its rank: 1 if no token is more probable.
    pub rank: usize,
    /// The most probable tokens, most probable first; ties by lower id.
    pub top: Vec<(u32, f32)>,
}

/// Why no token could be drawn.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SampleError {
    /// The model produced NaN or positive infinity, or a penalty turned a logit into it.
    #[error("the logit of token {token} is {value}")]
    BadLogit {
        /// The first such token.
        token: usize,
        /// Its logit.
        value: f32,
    },
    /// Every token is forbidden or has a logit of negative infinity.
    #[error("no token may be drawn")]
    NoCandidate,
}

impl Default for SamplingParams {
    /// OpenAI's defaults: the model's own distribution.
    fn default() -> SamplingParams {
        SamplingParams {
            temperature: 1.0,
            top_p: 1.0,
            top_k: None,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: None,
            logprobs: None,
            logit_bias: Vec::new(),
            allowed_token_ids: None,
            bad_words: Vec::new(),
        }
    }
}
