//! Answers made of vectors: embeddings, scores, rankings.

use schemars::JsonSchema;
use serde::Serialize;

/// A list of embeddings or scores.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct List<T> {
    /// Name of the answer.
    pub id: String,
    /// `list`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The served name that was asked for.
    pub model: String,
    /// One entry per input, in their order.
    pub data: Vec<T>,
    /// Tokens.
    pub usage: PromptUsage,
}

/// Tokens of a request that generates none.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct PromptUsage {
    /// Of all inputs.
    pub prompt_tokens: usize,
    /// 0.
    pub completion_tokens: usize,
    /// Of all inputs.
    pub total_tokens: usize,
}

/// The vector of an input.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Embedding {
    /// Which input.
    pub index: usize,
    /// `embedding`.
    pub object: &'static str,
    /// The vector.
    pub embedding: Vector,
}

/// A vector, as `encoding_format` asks for it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Vector {
    /// Its numbers.
    Float(Vec<f32>),
    /// The bytes of its numbers, in base64.
    Base64(String),
}

/// How well a pair of texts goes together.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Score {
    /// Which pair.
    pub index: usize,
    /// `score`.
    pub object: &'static str,
    /// The higher the better.
    pub score: f32,
}

/// Documents in the order in which they fit a query, in the form of the request.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Ranked {
    /// Of `documents`.
    Documents(Ranking),
    /// Of `texts`, the best first.
    Texts(Vec<RankedText>),
}

/// An entry of the answer to `texts`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RankedText {
    /// Which text of the request.
    pub index: usize,
    /// The higher the better.
    pub score: f32,
}

/// Documents in the order in which they fit a query.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Ranking {
    /// Name of the answer.
    pub id: String,
    /// The served name that was asked for.
    pub model: String,
    /// Tokens.
    pub usage: PromptUsage,
    /// The best first.
    pub results: Vec<RankedDocument>,
}

/// A document of a [`Ranking`].
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RankedDocument {
    /// Which document of the request.
    pub index: usize,
    /// The document, unless it was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<Document>,
    /// The higher the better.
    pub relevance_score: f32,
}

/// A document of a [`Ranking`].
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Document {
    /// Its text.
    pub text: String,
}
