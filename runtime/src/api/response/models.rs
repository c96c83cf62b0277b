//! Answers of `/v1/models`.

use schemars::JsonSchema;
use serde::Serialize;

/// The served names.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Models {
    /// `list`.
    pub object: &'static str,
    /// One entry for each name.
    pub data: Vec<Model>,
}

/// A name under which the model is served.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Model {
    /// The name.
    pub id: String,
    /// `model`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// `slipway`.
    pub owned_by: &'static str,
    /// The first name.
    pub root: String,
    /// Always null.
    pub parent: Option<String>,
    /// Largest number of tokens of prompt and answer together.
    pub max_model_len: usize,
}
