//! The types of answers. The same types are sent and described in the OpenAPI document.
//!
//! OpenAI's fields, vLLM's additions, and Anthropic's messages. Must not know how an answer is generated.

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

/// `system_fingerprint`: the version of this program.
pub const FINGERPRINT: &str = concat!("build-", env!("CARGO_PKG_VERSION"));

/// A complete answer, or one event of a stream.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Answer<'a, C> {
    /// Id of the answer.
    pub id: &'a str,
    /// `chat.completion`, `chat.completion.chunk` or `text_completion`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The served name that the client uses.
    pub model: &'a str,
    /// The answers, or new pieces of them.
    pub choices: Vec<C>,
    /// Tokens. In a stream only if `stream_options` requests them, and then `null` in all events except the last.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "known_or_null")]
    #[schemars(with = "Option<Usage>")]
    pub usage: Option<Option<Usage>>,
    /// The version of this program.
    pub system_fingerprint: &'static str,
    /// Token ids of a chat's prompt, if requested; in a stream in the first event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_token_ids: Option<Vec<u32>>,
    /// Log-probabilities of a chat's prompt, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_logprobs: Option<logprobs::Prompt>,
}

fn known_or_null<S: Serializer>(usage: &Option<Option<Usage>>, serializer: S) -> Result<S::Ok, S::Error> {
    usage.as_ref().and_then(Option::as_ref).serialize(serializer)
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Usage {
    /// Tokens of all prompts.
    pub prompt_tokens: usize,
    /// Tokens of all answers.
    pub completion_tokens: usize,
    /// The sum of both.
    pub total_tokens: usize,
    /// Details of `prompt_tokens`.
    pub prompt_tokens_details: PromptTokensDetails,
    /// Details of `completion_tokens`.
    pub completion_tokens_details: CompletionTokensDetails,
}

/// Part of [`Usage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PromptTokensDetails {
    /// Tokens of the prompts that were in the prefix cache.
    pub cached_tokens: usize,
}

/// Part of [`Usage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CompletionTokensDetails {
    /// Tokens of thoughts.
    pub reasoning_tokens: usize,
}

/// vLLM's `stop_reason`: the stop token or stop text that ended the answer.
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

/// An error, in OpenAI's form.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorFields,
}

/// Part of [`ErrorBody`].
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ErrorFields {
    /// The error, and what to do.
    pub message: String,
    /// `invalid_request_error`, `rate_limit_error` or `server_error`.
    pub r#type: &'static str,
    /// Path of the wrong parameter.
    pub param: Option<String>,
    /// A name for programs.
    pub code: Option<&'static str>,
}
