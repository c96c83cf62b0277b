//! Answers, events and errors of `/v1/messages`. Source: Anthropic's API reference.
//!
//! The order of fields is their order in the JSON.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

/// An answer of `/v1/messages`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AnthropicMessage {
    /// Id of the answer.
    pub id: String,
    /// `message`.
    pub r#type: &'static str,
    /// `assistant`.
    pub role: &'static str,
    /// The served name that the client uses.
    pub model: String,
    /// Thoughts, text and calls in their order.
    pub content: Vec<ContentBlock>,
    /// Why the answer ended; null before its end.
    pub stop_reason: Option<AnthropicStopReason>,
    /// The stop sequence that ended the answer.
    pub stop_sequence: Option<String>,
    /// Tokens so far.
    pub usage: Option<AnthropicUsage>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnthropicStopReason {
    /// The model ended it.
    EndTurn,
    /// It reached `max_tokens` or the end of the context.
    MaxTokens,
    /// It contained a stop sequence.
    StopSequence,
    /// It calls a tool.
    ToolUse,
}

/// Tokens of a request to `/v1/messages`.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct AnthropicUsage {
    /// Tokens of the prompt that were not in the prefix cache.
    pub input_tokens: usize,
    /// Always 0.
    pub cache_creation_input_tokens: usize,
    /// Tokens of the prompt that were in the prefix cache.
    pub cache_read_input_tokens: usize,
    /// Tokens of the answer.
    pub output_tokens: usize,
}

/// A block of an answer's content.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ContentBlock {
    /// Thoughts.
    Thinking {
        /// The thoughts.
        thinking: String,
        /// Always empty.
        signature: &'static str,
    },
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// A call of a tool.
    ToolUse {
        /// Id of the call, which the client sends with the result.
        id: String,
        /// Name of the tool.
        name: String,
        /// The arguments.
        input: Map<String, Value>,
    },
}

/// An event of a stream.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AnthropicEvent {
    /// The first event.
    MessageStart {
        /// The answer without content.
        message: AnthropicMessage,
    },
    /// A block begins.
    ContentBlockStart {
        /// Index of the block.
        index: usize,
        /// The block without content.
        content_block: ContentBlock,
    },
    /// New content of a block.
    ContentBlockDelta {
        /// Index of the block.
        index: usize,
        /// The new content.
        delta: ContentDelta,
    },
    /// A block ends.
    ContentBlockStop {
        /// Index of the block.
        index: usize,
    },
    /// Why the answer ended.
    MessageDelta {
        /// The end of the answer.
        delta: MessageEnd,
        /// Tokens.
        usage: AnthropicUsage,
    },
    /// The last event of a complete answer.
    MessageStop,
    /// The last event of an answer that failed.
    #[serde(untagged)]
    Error(AnthropicError),
}

/// New content of a block.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ContentDelta {
    /// Thoughts.
    ThinkingDelta {
        /// The new thoughts.
        thinking: String,
    },
    /// Text.
    TextDelta {
        /// The new text.
        text: String,
    },
    /// Arguments of a call.
    InputJsonDelta {
        /// The new part of a JSON object.
        partial_json: String,
    },
}

/// The end of an answer.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MessageEnd {
    /// Why the answer ended.
    pub stop_reason: AnthropicStopReason,
    /// The stop sequence that ended the answer.
    pub stop_sequence: Option<String>,
}

/// The answer of `/v1/messages/count_tokens`.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct AnthropicTokenCount {
    /// Tokens of the prompt.
    pub input_tokens: usize,
}

/// An error, in Anthropic's form.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AnthropicError {
    /// `error`.
    pub r#type: &'static str,
    /// The error.
    pub error: AnthropicErrorFields,
    /// Id of the request.
    pub request_id: String,
}

/// Part of [`AnthropicError`].
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AnthropicErrorFields {
    /// A name for programs, such as `invalid_request_error`.
    pub r#type: &'static str,
    /// The error, and what to do.
    pub message: String,
}
