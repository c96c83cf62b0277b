//! Answers of `/tokenize` and `/detokenize`.

use schemars::JsonSchema;
use serde::Serialize;

/// The tokens of a text.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Tokens {
    /// How many there are.
    pub count: usize,
    /// Prompt and answer at most, tokens.
    pub max_model_len: usize,
    /// Their ids.
    pub tokens: Vec<u32>,
    /// Their texts, where asked for.
    pub token_strs: Option<Vec<String>>,
}

/// The text of tokens.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Text {
    /// The text.
    pub prompt: String,
}
