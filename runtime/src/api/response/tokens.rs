//! Answers of `/tokenize` and `/detokenize`.

use schemars::JsonSchema;
use serde::Serialize;

/// The tokens of a text.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Tokens {
    /// Number of tokens.
    pub count: usize,
    /// Largest number of tokens of prompt and answer together.
    pub max_model_len: usize,
    /// The tokens.
    pub tokens: TokenList,
    /// Their texts, if requested.
    pub token_strs: Option<Vec<String>>,
}

/// Tokens, in the requested form.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum TokenList {
    /// Their ids.
    Ids(Vec<u32>),
    /// Ids and texts.
    Pieces(Vec<Piece>),
}

/// A token with its text.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Piece {
    /// Its id.
    pub id: u32,
    /// Its text.
    pub piece: String,
}

/// The text of tokens.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Text {
    /// The text.
    pub prompt: String,
    /// The text, by llama.cpp's name.
    pub content: String,
}
