//! Mistral: a Llama whose first release looks back over a window.

use super::llama;
use crate::model::ModelError;
use crate::model::config::Fields;
use crate::model::spec::DecoderSpec;

/// Mistral 7B, Nemo, Small.
pub(super) fn describe(config: &Fields) -> Result<DecoderSpec, ModelError> {
    let mut spec = llama::describe(config)?;
    spec.windows = llama::windows(config, spec.n_layers(), |_| true)?;
    Ok(spec)
}
