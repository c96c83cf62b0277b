//! Choices of `/v1/chat/completions`.

use schemars::JsonSchema;
use serde::Serialize;

use super::StopReasonJson;
use super::logprobs;

/// One answer.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Choice {
    /// Which answer.
    pub index: usize,
    /// What the model says.
    pub message: Message,
    /// Log-probabilities, where asked for.
    pub logprobs: Option<logprobs::Chat>,
    /// `stop`, `length` or `tool_calls`.
    pub finish_reason: Option<&'static str>,
    /// What the request named that ended it.
    pub stop_reason: Option<StopReasonJson>,
    /// Tokens of the answer, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
}

/// What the model says.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Message {
    /// `assistant`, or what OPENAI_RESPONSE_ROLE says.
    pub role: String,
    /// The text.
    pub content: Option<String>,
    /// Always null: models refuse in their own words.
    pub refusal: Option<String>,
}

/// A piece of an answer.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ChunkChoice {
    /// Which answer.
    pub index: usize,
    /// What is new.
    pub delta: DeltaMessage,
    /// Log-probabilities, where asked for.
    pub logprobs: Option<logprobs::Chat>,
    /// Set in the last piece.
    pub finish_reason: Option<&'static str>,
    /// What the request named that ended it; in the last piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<StopReasonJson>,
    /// Tokens of the piece, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
}

/// What is new in a piece.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct DeltaMessage {
    /// In the first piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Text that goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}
