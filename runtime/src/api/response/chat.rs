//! Choices of `/v1/chat/completions`.

use schemars::JsonSchema;
use serde::Serialize;

use super::StopReasonJson;
use super::logprobs;

/// One answer.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Choice {
    /// Index of the answer.
    pub index: usize,
    /// The text, thoughts and calls of an answer.
    pub message: Message,
    /// Log-probabilities, if requested.
    pub logprobs: Option<logprobs::Chat>,
    /// `stop`, `length` or `tool_calls`.
    pub finish_reason: Option<&'static str>,
    /// The stop token or stop text that ended it.
    pub stop_reason: Option<StopReasonJson>,
    /// Token ids of the answer, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
}

/// The text, thoughts and calls of an answer.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Message {
    /// `assistant`, or the value of OPENAI_RESPONSE_ROLE.
    pub role: String,
    /// The text; null if there are only thoughts or calls.
    pub content: Option<String>,
    /// Always null; a refusal is part of the text.
    pub refusal: Option<String>,
    /// Thoughts before the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// The older name of `reasoning`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Calls of tools.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call, if the request uses the older `functions`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_call: Option<Function>,
}

/// A call of a tool.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ToolCall {
    /// Id of the call, which the client sends with the result.
    pub id: String,
    /// `function`.
    pub r#type: &'static str,
    /// The function of a call.
    pub function: Function,
}

/// The function of a call.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Function {
    /// Name of the tool.
    pub name: String,
    /// Its arguments: a JSON object, as a text.
    pub arguments: String,
}

/// A piece of an answer.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ChunkChoice {
    /// Index of the answer.
    pub index: usize,
    /// The new content.
    pub delta: DeltaMessage,
    /// Log-probabilities, if requested.
    pub logprobs: Option<logprobs::Chat>,
    /// Set in the last piece.
    pub finish_reason: Option<&'static str>,
    /// The stop token or stop text that ended it; in the last piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<StopReasonJson>,
    /// Token ids of the piece, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
}

/// The new content of a piece.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct DeltaMessage {
    /// Role of the answer; in the first piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// New text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// New thoughts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// The older name of `reasoning`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// New parts of calls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCallDelta>,
    /// The call, if the request uses the older `functions`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_call: Option<FunctionDelta>,
}

/// The new part of a call.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ToolCallDelta {
    /// Index of the call.
    pub index: usize,
    /// Id of the call, which the client sends with the result; in the first piece of the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `function`, in the first piece of the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<&'static str>,
    /// The new part of the function.
    pub function: FunctionDelta,
}

/// Part of [`ToolCallDelta`].
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct FunctionDelta {
    /// Name of the tool, in the first piece of the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// New part of the arguments.
    pub arguments: String,
}
