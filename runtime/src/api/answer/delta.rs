//! A piece of an answer, and why an answer ended.

use std::sync::Arc;

use crate::engine::TokenLogprobs;
use crate::parsers::Pieces;

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it, or a stop token or stop text of the request.
    Stop(Option<StopReason>),
    /// It reached `max_tokens` or the end of the context.
    Length,
}

/// The part of the request that ended an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// One of `stop_token_ids`.
    Token(u32),
    /// One of `stop`.
    Text(String),
}

impl Finish {
    /// OpenAI's `finish_reason`.
    pub fn label(&self) -> &'static str {
        match self {
            Finish::Stop(_) => "stop",
            Finish::Length => "length",
        }
    }

    /// vLLM's `stop_reason`.
    pub fn stop_reason(&self) -> Option<&StopReason> {
        match self {
            Finish::Stop(reason) => reason.as_ref(),
            Finish::Length => None,
        }
    }
}

/// A piece of one answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// Which answer of the request.
    pub choice_idx: usize,
    /// The new text. It can be empty in the last piece, and if each token has a piece.
    pub pieces: Pieces,
    /// Tokens since the piece before, if the request needs them or their log-probabilities.
    pub tokens: Vec<Token>,
    /// Log-probabilities of the prompt, in the first piece, if they are requested.
    pub prompt: Option<PromptLogprobs>,
    /// Tokens of the answer so far.
    pub counts: TokenCounts,
    /// Set in the last piece.
    pub finish: Option<Finish>,
}

/// Tokens of an answer and its prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenCounts {
    /// Generated tokens, including those without text.
    pub n_generated: usize,
    /// Generated tokens that are thoughts.
    pub n_reasoning: usize,
    /// Tokens of the prompt that were in the prefix cache.
    pub n_cached: usize,
}

/// Log-probabilities of a prompt's tokens; `None` for the first.
pub type PromptLogprobs = Arc<[Option<TokenLogprobs>]>;

/// A token of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its log-probability and those of the most probable tokens, if they are requested.
    pub logprobs: Option<TokenLogprobs>,
}
