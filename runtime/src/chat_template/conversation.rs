//! The input of a chat template.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Variables such as `bos_token`, with the texts of the special tokens.
pub type SpecialTokens = BTreeMap<&'static str, String>;

/// The input of one rendering, besides the special tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversation {
    /// The messages, each an object with `role` and `content`.
    pub messages: Vec<Value>,
    /// How the prompt ends.
    pub ending: Ending,
    /// Further variables, from `chat_template_kwargs`. They cannot replace the messages.
    pub variables: Map<String, Value>,
}

/// How a prompt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With the text that begins an answer.
    GenerationPrompt,
    /// With the last message.
    Messages,
    /// Inside the last message, which the answer continues.
    OpenMessage,
}
