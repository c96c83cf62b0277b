//! Answers and events of `/v1/responses`. Source: OpenAI's API reference.
//!
//! The order of fields is their order in the JSON.

use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::CompletionTokensDetails;
use super::logprobs::ChatToken;

/// An answer of `/v1/responses`. Answers are not stored.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ResponseAnswer {
    /// Id of the answer.
    pub id: String,
    /// `response`.
    pub object: &'static str,
    /// Start of the answer, in seconds since 1970.
    pub created_at: u64,
    /// End of a completed answer, in seconds since 1970.
    pub completed_at: Option<u64>,
    /// State of the answer.
    pub status: ResponseStatus,
    /// Always false.
    pub background: bool,
    /// Why the answer failed.
    pub error: Option<ResponseError>,
    /// Why the answer is incomplete.
    pub incomplete_details: Option<IncompleteDetails>,
    /// Always null, because this server runs no tools of its own.
    pub max_tool_calls: Option<u64>,
    /// The served name that the client uses.
    pub model: String,
    /// Thoughts, messages and calls in their order.
    pub output: Vec<OutputItem>,
    /// Always null, because answers are not stored.
    pub previous_response_id: Option<String>,
    /// Always `default`.
    pub service_tier: &'static str,
    /// Always false, because answers are not stored.
    pub store: bool,
    /// Tokens; null before the end.
    pub usage: Option<ResponseUsage>,
    /// Values of the request.
    #[serde(flatten)]
    pub request: RepeatedParameters,
}

/// Parameters that an answer of `/v1/responses` repeats: the client's values, or the defaults.
///
/// A field without a type repeats a value that this server does not check.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RepeatedParameters {
    /// Subtracted from the logits of tokens once per occurrence.
    #[schemars(with = "f64")]
    pub frequency_penalty: Value,
    /// The system message.
    #[schemars(with = "Option<String>")]
    pub instructions: Value,
    /// Largest number of tokens of the answer.
    #[schemars(with = "Option<u64>")]
    pub max_output_tokens: Value,
    /// The client's own data.
    pub metadata: Value,
    /// Whether the answer may contain several calls.
    #[schemars(with = "bool")]
    pub parallel_tool_calls: Value,
    /// Subtracted from the logits of tokens that the answer contains.
    #[schemars(with = "f64")]
    pub presence_penalty: Value,
    /// Without effect.
    pub prompt_cache_key: Value,
    /// Options of reasoning.
    pub reasoning: Value,
    /// Without effect.
    pub safety_identifier: Value,
    /// The format of the answer.
    pub text: Value,
    /// Whether the model calls a tool.
    pub tool_choice: Value,
    /// The tools that the model may call.
    #[schemars(with = "Vec<Value>")]
    pub tools: Value,
    /// Number of alternatives to each token.
    pub top_logprobs: Value,
    /// `disabled` or `auto`; input is never shortened.
    pub truncation: Value,
    /// Without effect.
    pub user: Value,
    /// Divides the logits.
    #[schemars(with = "f64")]
    pub temperature: Value,
    /// Sum of the probabilities of the tokens that are kept.
    #[schemars(with = "f64")]
    pub top_p: Value,
}

/// State of an answer or of one of its items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResponseStatus {
    /// It is being generated.
    InProgress,
    /// It is complete.
    Completed,
    /// It reached the largest number of tokens.
    Incomplete,
    /// The server failed.
    Failed,
}

/// Why an answer failed.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ResponseError {
    /// `server_error`, or `invalid_prompt` if the request caused it.
    pub code: &'static str,
    /// The error in words.
    pub message: String,
}

/// Why an answer is incomplete.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct IncompleteDetails {
    /// `max_output_tokens`.
    pub reason: &'static str,
}

/// Tokens of a request to `/v1/responses`.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct ResponseUsage {
    /// Tokens of the prompt.
    pub input_tokens: usize,
    /// Details of them.
    pub input_tokens_details: InputTokensDetails,
    /// Tokens of the answer.
    pub output_tokens: usize,
    /// Details of them.
    pub output_tokens_details: CompletionTokensDetails,
    /// The sum of both.
    pub total_tokens: usize,
}

/// Part of [`ResponseUsage`].
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct InputTokensDetails {
    /// Tokens of the prompt that were in the prefix cache.
    pub cached_tokens: usize,
    /// Always 0: writing to the cache is not counted.
    pub cache_write_tokens: usize,
}

/// An item of the output.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum OutputItem {
    /// Thoughts.
    Reasoning(ReasoningItem),
    /// Text.
    Message(MessageItem),
    /// A call of a tool.
    FunctionCall(FunctionCallItem),
}

/// Thoughts of the model.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ReasoningItem {
    /// Id of the item.
    pub id: String,
    /// `reasoning`.
    pub r#type: &'static str,
    /// Always empty.
    pub summary: Vec<Value>,
    /// The thoughts; empty before they begin.
    pub content: Vec<ContentPart>,
    /// State of the item.
    pub status: ResponseStatus,
}

/// Text of the model.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MessageItem {
    /// Id of the item.
    pub id: String,
    /// `message`.
    pub r#type: &'static str,
    /// `assistant`.
    pub role: &'static str,
    /// The text; empty before it begins.
    pub content: Vec<ContentPart>,
    /// State of the item.
    pub status: ResponseStatus,
}

/// A call of a tool.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FunctionCallItem {
    /// Id of the item.
    pub id: String,
    /// `function_call`.
    pub r#type: &'static str,
    /// Id of the call, which the client sends with the result.
    pub call_id: String,
    /// Name of the tool.
    pub name: String,
    /// A JSON object, as a text.
    pub arguments: String,
    /// State of the item.
    pub status: ResponseStatus,
}

/// A part of an item's content.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ContentPart {
    /// Thoughts.
    ReasoningText {
        /// The thoughts.
        text: String,
    },
    /// Text.
    OutputText {
        /// The text.
        text: String,
        /// Always empty.
        annotations: Vec<Value>,
        /// Log-probabilities of the tokens, if they are requested.
        #[serde(serialize_with = "as_f64")]
        #[schemars(with = "Vec<ChatToken>")]
        logprobs: Vec<ChatToken>,
    },
}

/// An event of a stream.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(tag = "type")]
pub enum ResponseEvent {
    /// The first event.
    #[serde(rename = "response.created")]
    Created(StateEvent),
    /// The second event.
    #[serde(rename = "response.in_progress")]
    InProgress(StateEvent),
    /// The last event of a complete answer.
    #[serde(rename = "response.completed")]
    Completed(StateEvent),
    /// The last event of an answer that reached the largest number of tokens.
    #[serde(rename = "response.incomplete")]
    Incomplete(StateEvent),
    /// The last event of an answer that failed.
    #[serde(rename = "response.failed")]
    Failed(StateEvent),
    /// An item begins.
    #[serde(rename = "response.output_item.added")]
    ItemAdded(ItemEvent),
    /// An item ends.
    #[serde(rename = "response.output_item.done")]
    ItemDone(ItemEvent),
    /// A part of an item begins.
    #[serde(rename = "response.content_part.added")]
    PartAdded(PartEvent),
    /// A part of an item ends.
    #[serde(rename = "response.content_part.done")]
    PartDone(PartEvent),
    /// New thoughts.
    #[serde(rename = "response.reasoning_text.delta")]
    ReasoningDelta {
        /// Number of the event.
        sequence_number: u64,
        /// Id of the item.
        item_id: String,
        /// Index of the item.
        output_index: usize,
        /// The new thoughts.
        delta: String,
        /// Index of the part.
        content_index: usize,
    },
    /// All thoughts of an item.
    #[serde(rename = "response.reasoning_text.done")]
    ReasoningDone {
        /// Number of the event.
        sequence_number: u64,
        /// Id of the item.
        item_id: String,
        /// Index of the item.
        output_index: usize,
        /// The thoughts.
        text: String,
        /// Index of the part.
        content_index: usize,
    },
    /// New text.
    #[serde(rename = "response.output_text.delta")]
    TextDelta {
        /// Number of the event.
        sequence_number: u64,
        /// Id of the item.
        item_id: String,
        /// Index of the item.
        output_index: usize,
        /// The new text.
        delta: String,
        /// Log-probabilities of its tokens, if they are requested.
        #[serde(serialize_with = "as_f64")]
        #[schemars(with = "Vec<ChatToken>")]
        logprobs: Vec<ChatToken>,
        /// Index of the part.
        content_index: usize,
    },
    /// The complete text of an item.
    #[serde(rename = "response.output_text.done")]
    TextDone {
        /// Number of the event.
        sequence_number: u64,
        /// Id of the item.
        item_id: String,
        /// Index of the item.
        output_index: usize,
        /// The text.
        text: String,
        /// Log-probabilities of its tokens, if they are requested.
        #[serde(serialize_with = "as_f64")]
        #[schemars(with = "Vec<ChatToken>")]
        logprobs: Vec<ChatToken>,
        /// Index of the part.
        content_index: usize,
    },
    /// New arguments of a call.
    #[serde(rename = "response.function_call_arguments.delta")]
    ArgumentsDelta {
        /// Number of the event.
        sequence_number: u64,
        /// Id of the item.
        item_id: String,
        /// Index of the item.
        output_index: usize,
        /// The new part of the arguments.
        delta: String,
    },
    /// The complete arguments of a call.
    #[serde(rename = "response.function_call_arguments.done")]
    ArgumentsDone {
        /// Number of the event.
        sequence_number: u64,
        /// Id of the item.
        item_id: String,
        /// Index of the item.
        output_index: usize,
        /// A JSON object, as a text.
        arguments: String,
        /// Name of the tool.
        name: String,
    },
}

/// An event with the answer so far.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct StateEvent {
    /// Number of the event.
    pub sequence_number: u64,
    /// The answer so far.
    pub response: ResponseAnswer,
}

/// An event with an item.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ItemEvent {
    /// Number of the event.
    pub sequence_number: u64,
    /// Index of the item.
    pub output_index: usize,
    /// The item so far.
    pub item: OutputItem,
}

/// An event with a part of an item.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PartEvent {
    /// Number of the event.
    pub sequence_number: u64,
    /// Id of the item.
    pub item_id: String,
    /// Index of the item.
    pub output_index: usize,
    /// The part so far.
    pub part: ContentPart,
    /// Index of the part.
    pub content_index: usize,
}

/// Writes log-probabilities with the digits of an `f64`, as this route always did.
fn as_f64<S: Serializer>(tokens: &[ChatToken], serializer: S) -> Result<S::Ok, S::Error> {
    let value = serde_json::to_value(tokens).map_err(serde::ser::Error::custom)?;
    value.serialize(serializer)
}
