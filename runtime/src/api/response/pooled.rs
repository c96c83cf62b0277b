//! Embeddings, scores and rankings.

use schemars::JsonSchema;
use serde::Serialize;

/// A list of embeddings or scores.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct List<T> {
    /// Id of the answer.
    pub id: String,
    /// `list`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The served name that the client uses.
    pub model: String,
    /// One entry for each input, in their order.
    pub data: Vec<T>,
    /// Tokens.
    pub usage: PromptUsage,
}

/// Tokens of a request that generates no text.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct PromptUsage {
    /// Tokens of all inputs.
    pub prompt_tokens: usize,
    /// Always 0.
    pub completion_tokens: usize,
    /// Tokens of all inputs.
    pub total_tokens: usize,
}

/// The vector of an input.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Embedding {
    /// Index of the input.
    pub index: usize,
    /// `embedding`.
    pub object: &'static str,
    /// The vector.
    pub embedding: Vector,
}

/// A vector, in the form that `encoding_format` requests.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Vector {
    /// Its numbers.
    Float(Vec<f32>),
    /// The bytes of its numbers, in base64.
    Base64(String),
}

/// The score of a pair of texts.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Score {
    /// Index of the pair.
    pub index: usize,
    /// `score`.
    pub object: &'static str,
    /// The score; higher is better.
    pub score: f32,
}

/// Ranked documents, in the form of the request.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Ranked {
    /// For `documents`.
    Documents(Ranking),
    /// For `texts`, the best first.
    Texts(Vec<RankedText>),
}

/// An entry of the answer to `texts`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RankedText {
    /// Index of the text in the request.
    pub index: usize,
    /// The score; higher is better.
    pub score: f32,
}

/// Ranked documents.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Ranking {
    /// Id of the answer.
    pub id: String,
    /// The served name that the client uses.
    pub model: String,
    /// Tokens.
    pub usage: PromptUsage,
    /// The best first.
    pub results: Vec<RankedDocument>,
}

/// A document of a [`Ranking`].
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RankedDocument {
    /// Index of the document in the request.
    pub index: usize,
    /// The document, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<Document>,
    /// The score; higher is better.
    pub relevance_score: f32,
}

/// A document of a [`Ranking`].
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Document {
    /// Its text.
    pub text: String,
}
