//! The shapes of answers on the wire: what is sent and what the OpenAPI document says are one type.
//!
//! OpenAI's fields, and vLLM's beside them. Must not know how an answer comes about.

pub mod chat;
pub mod completion;
pub mod logprobs;
pub mod messages;
pub mod models;
pub mod pooled;
pub mod responses;
pub mod tokens;

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use crate::api::answer::StopReason;

/// `system_fingerprint`: which program answered.
pub const FINGERPRINT: &str = concat!("build-", env!("CARGO_PKG_VERSION"));

/// A whole answer, or one event of a stream: both have this around their choices.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Answer<'a, C> {
    /// Name of the answer.
    pub id: &'a str,
    /// `chat.completion`, `chat.completion.chunk` or `text_completion`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The served name that was asked for.
    pub model: &'a str,
    /// The answers, or pieces of one.
    pub choices: Vec<C>,
    /// Tokens; in streams where `stream_options` ask for it, `null` in all events but the last.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "known_or_null")]
    #[schemars(with = "Option<Usage>")]
    pub usage: Option<Option<Usage>>,
    /// Which program answered.
    pub system_fingerprint: &'static str,
    /// Tokens of a chat's prompt, where asked for; in streams in the first event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_token_ids: Option<Vec<u32>>,
    /// Log-probabilities of a chat's prompt, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_logprobs: Option<logprobs::Prompt>,
}

fn known_or_null<S: Serializer>(usage: &Option<Option<Usage>>, serializer: S) -> Result<S::Ok, S::Error> {
    usage.as_ref().and_then(Option::as_ref).serialize(serializer)
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Usage {
    /// Of all prompts.
    pub prompt_tokens: usize,
    /// Of all answers.
    pub completion_tokens: usize,
    /// Both.
    pub total_tokens: usize,
    /// What the prefix cache had.
    pub prompt_tokens_details: PromptTokensDetails,
    /// What was thought.
    pub completion_tokens_details: CompletionTokensDetails,
}

/// Part of [`Usage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PromptTokensDetails {
    /// Tokens of the prompts that were not computed again.
    pub cached_tokens: usize,
}

/// Part of [`Usage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CompletionTokensDetails {
    /// Tokens of the answers that are thoughts.
    pub reasoning_tokens: usize,
}

/// vLLM's `stop_reason`: what the request named that ended the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum StopReasonJson {
    /// One of `stop_token_ids`.
    Token(u32),
    /// One of `stop`.
    Text(String),
}

impl From<&StopReason> for StopReasonJson {
    fn from(reason: &StopReason) -> Self {
        match reason {
            StopReason::Token(token) => Self::Token(*token),
            StopReason::Text(text) => Self::Text(text.clone()),
        }
    }
}

/// An error, as OpenAI writes it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ErrorBody {
    /// What is wrong.
    pub error: ErrorFields,
}

/// Part of [`ErrorBody`].
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ErrorFields {
    /// What is wrong, and what to do.
    pub message: String,
    /// `invalid_request_error`, `rate_limit_error` or `server_error`.
    pub r#type: &'static str,
    /// Path of the parameter that is to blame.
    pub param: Option<String>,
    /// A name for programs.
    pub code: Option<&'static str>,
}
