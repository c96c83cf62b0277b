//! Choices of `/v1/completions`.

use schemars::JsonSchema;
use serde::Serialize;

use super::StopReasonJson;
use super::logprobs;

/// One answer, or a piece of one.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Choice {
    /// Which answer.
    pub index: usize,
    /// The text.
    pub text: String,
    /// Log-probabilities, where asked for.
    pub logprobs: Option<logprobs::Completion>,
    /// `stop` or `length`; in a stream, in the last piece.
    pub finish_reason: Option<&'static str>,
    /// What the request named that ended it.
    pub stop_reason: Option<StopReasonJson>,
    /// Tokens of the answer, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
    /// Tokens of its prompt, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_token_ids: Option<Vec<u32>>,
    /// Log-probabilities of its prompt, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_logprobs: Option<logprobs::Prompt>,
}
