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
    /// The text; null where there are only thoughts or calls.
    pub content: Option<String>,
    /// Always null: models refuse in their own words.
    pub refusal: Option<String>,
    /// Thoughts before the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// The older name of `reasoning`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Tools that are to be called.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call, for requests with the older `functions`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_call: Option<Function>,
}

/// A call of a tool.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ToolCall {
    /// To be sent back with the result.
    pub id: String,
    /// `function`.
    pub r#type: &'static str,
    /// What to call.
    pub function: Function,
}

/// What to call.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Function {
    /// Name of the tool.
    pub name: String,
    /// Its arguments, JSON in a text.
    pub arguments: String,
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct DeltaMessage {
    /// In the first piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Text that goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Thoughts that go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// The older name of `reasoning`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// A call that begins or goes on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCallDelta>,
    /// The call, for requests with the older `functions`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_call: Option<FunctionDelta>,
}

/// What is new of a call.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ToolCallDelta {
    /// Which call of the answer.
    pub index: usize,
    /// To be sent back with the result; where the call begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `function`, where the call begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<&'static str>,
    /// What is new of it.
    pub function: FunctionDelta,
}

/// Part of [`ToolCallDelta`].
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct FunctionDelta {
    /// Name of the tool, where the call begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Arguments that go on.
    pub arguments: String,
}
