//! Qwen2 and Qwen2.5: a Llama with biased queries, keys and values.

use super::llama::{self, Biases};
use crate::model::ModelError;
use crate::model::config::Fields;
use crate::model::spec::{Bias, DecoderSpec};

/// Every size of Qwen2 and Qwen2.5 text models.
pub(super) fn describe(config: &Fields) -> Result<DecoderSpec, ModelError> {
    let biases = Biases {
        qkv: Bias::Present,
        out: Bias::Absent,
        ffn: Bias::Absent,
    };
    let mut spec = llama::with_biases(config, biases)?;
    if config.flag("use_sliding_window")?.unwrap_or(false) {
        let first = max_window_layers(config)?;
        spec.windows = llama::windows(config, spec.n_layers(), |layer| layer >= first)?;
    }
    Ok(spec)
}

/// Layers from this one on are windowed; zero, so all of them, is a value that occurs.
fn max_window_layers(config: &Fields) -> Result<usize, ModelError> {
    let given = config.count("max_window_layers")?;
    Ok(given.unwrap_or(DEFAULT_MAX_WINDOW_LAYERS))
}

/// What transformers takes where the field is missing.
const DEFAULT_MAX_WINDOW_LAYERS: usize = 28;
