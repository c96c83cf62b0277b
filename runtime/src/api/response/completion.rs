//! Choices of `/v1/completions`.

use schemars::JsonSchema;
use serde::Serialize;

use super::StopReasonJson;
use super::logprobs;

/// One answer, or a piece of one.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Choice {
    /// Index of the answer.
    pub index: usize,
    /// The text.
    pub text: String,
    /// Log-probabilities, if requested.
    pub logprobs: Option<logprobs::Completion>,
    /// `stop` or `length`; in a stream, in the last piece.
    pub finish_reason: Option<&'static str>,
    /// The stop token or stop text that ended it.
    pub stop_reason: Option<StopReasonJson>,
    /// Token ids of the answer, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
    /// Token ids of its prompt, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_token_ids: Option<Vec<u32>>,
    /// Log-probabilities of its prompt, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_logprobs: Option<logprobs::Prompt>,
}
