//! EXAONE 4: norms of outputs and of each head; only windowed layers have positions where some see everything.

use super::llama;
use super::olmo::norms_of_outputs;
use super::parts::{Sizes, each_attention, layer_types, rms_qk_norms, windows};
use crate::model::config::{Fields, invalid};
use crate::model::error::ModelError;
use crate::model::spec::ModelSpec;

/// EXAONE 4.0.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let mut spec = llama::describe(config)?;
    norms_of_outputs(&mut spec, &sizes);
    let is_windowed = pattern(config, sizes.n_layers)?;
    let windows = windows(config, sizes.n_layers, |idx| is_windowed[idx])?;
    let has_window = config.size(&["sliding_window"])?.is_some();
    each_attention(&mut spec, |idx, attention| {
        let name = format!("model.layers.{idx}.self_attn");
        attention.qk_norms = Some(rms_qk_norms(&name, &sizes));
        attention.window = windows[idx];
        attention.rope = (windows[idx].is_some() || !has_window).then_some(0);
    });
    Ok(spec)
}

/// Which layers are windowed: `layer_types` has it layer by layer, `sliding_window_pattern` is a number, so that every
/// so-manieth layer sees everything, or letters that repeat, L for a windowed layer, with the last layer not windowed.
fn pattern(config: &Fields, n_layers: usize) -> Result<Vec<bool>, ModelError> {
    const PATTERN: &str = "sliding_window_pattern";
    /// What transformers takes where the field is missing.
    const DEFAULT: usize = 4;
    let types = layer_types(config, n_layers)?;
    let by_pattern: Vec<bool> = if let Ok(Some(letters)) = config.text(&[PATTERN]) {
        if letters.is_empty() || !letters.chars().all(|letter| matches!(letter, 'L' | 'G')) {
            return Err(invalid(PATTERN, format!("is {letters:?}, must be of L and G")));
        }
        let of_layer = letters.chars().cycle().take(n_layers).enumerate();
        of_layer
            .map(|(idx, letter)| letter == 'L' && idx + 1 < n_layers)
            .collect()
    } else {
        // A file without windows may have a zero.
        let every = config
            .count(PATTERN)?
            .filter(|every| *every > 0)
            .unwrap_or(DEFAULT);
        (0..n_layers)
            .map(|idx| !(idx + 1).is_multiple_of(every))
            .collect()
    };
    Ok(types.unwrap_or(by_pattern))
}
