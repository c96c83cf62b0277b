//! Mistral and Mixtral: a Llama whose first release looks back over a window; with experts.

use kernels::Activation;

use super::llama;
use super::parts::{MlpShape, Sizes, activation, each_attention, experts, gated_mlp, vision_parts, windows};
use crate::model::config::{FFN_SIZE, Fields};
use crate::model::error::ModelError;
use crate::model::spec::{Ffn, ModelSpec};

/// Mistral 7B, Nemo, Small.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let mut spec = llama::describe(config)?;
    let head_dim = Sizes::read(config)?.head_dim;
    for rope in &mut spec.ropes {
        rope.read_query_growth(config, head_dim)?;
    }
    let windows = windows(config, spec.layers.len(), |_| true)?;
    each_attention(&mut spec, |idx, attention| attention.window = windows[idx]);
    Ok(spec)
}

/// The text part of Mistral Small 3.1 and later; pictures are not read.
pub(super) fn describe_with_vision(config: &Fields) -> Result<ModelSpec, ModelError> {
    let mut spec = describe(&config.text_part()?)?;
    spec.ignored = vision_parts();
    Ok(spec)
}

/// Mixtral 8x7B, 8x22B.
pub(super) fn describe_mixtral(config: &Fields) -> Result<ModelSpec, ModelError> {
    let mut spec = describe(config)?;
    let width = config.required_size(FFN_SIZE)?;
    let activation = activation(config, Activation::Silu)?;
    let hidden_size = spec.hidden_size;
    for (idx, layer) in spec.layers.iter_mut().enumerate() {
        let moe = format!("model.layers.{idx}.block_sparse_moe");
        let expert = |expert: usize| {
            let names = ["w1", "w3", "w2"].map(|part| format!("{moe}.experts.{expert}.{part}"));
            gated_mlp(
                names,
                MlpShape {
                    hidden_size,
                    width,
                    activation,
                    bias: false,
                },
            )
        };
        let moe = experts(config, &format!("{moe}.gate"), hidden_size, expert)?;
        layer.ffn = Ffn::Experts(Box::new(moe));
    }
    Ok(spec)
}
