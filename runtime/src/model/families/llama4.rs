//! Llama 4, text: experts that read a weighted input, and every fourth layer without positions.
//!
//! The context ends where the other layers would no longer see all of it (`attention_chunk_size`), and where the scores
//! of layers without positions would begin to grow (`floor_scale`).

use kernels::{Activation, NormKind, RopePairs, Scoring};

use super::llama;
use super::parts::{
    MlpShape, Sizes, activation, each_attention, experts, llama_mlp, rotary_layers, vision_parts,
};
use super::stack::Stack;
use crate::model::config::{FFN_SIZE, Fields, N_EXPERTS, invalid};
use crate::model::error::ModelError;
use crate::model::spec::{Ffn, Layout, ModelSpec, Norm, QkNorms, Vector};

/// Llama 4 Scout and Maverick; pictures are not read.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let mut spec = describe_text(&config.text_part()?)?;
    spec.ignored = vision_parts();
    Ok(spec)
}

fn describe_text(config: &Fields) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let rotary = rotary_layers(config, sizes.n_layers)?;
    check_types(config, &rotary)?;
    let norms_heads = config.flag("use_qk_norm")?.unwrap_or(true);
    let mut spec = llama::describe(config)?;
    for rope in &mut spec.ropes {
        rope.pairs = RopePairs::Interleaved;
    }
    each_attention(&mut spec, |idx, attention| {
        attention.rope = rotary[idx].then_some(0);
        attention.qk_norms = (norms_heads && rotary[idx]).then(|| norms_without_weights(&sizes));
    });
    spec.context_len = spec.context_len.min(plain_context_len(config)?);
    let is_sparse = sparse_layers(config)?;
    let stack = Stack {
        n_experts: config.required_size(N_EXPERTS)?,
        width: config.required_size(FFN_SIZE)?,
        hidden_size: sizes.hidden_size,
        layout: Layout::Columns,
        activation: activation(config, Activation::Silu)?,
    };
    let shape = MlpShape::unbiased(config, sizes.hidden_size, stack.width)?;
    let dense = MlpShape {
        width: config.size(&["intermediate_size_mlp"])?.unwrap_or(stack.width),
        ..shape
    };
    for (idx, layer) in spec.layers.iter_mut().enumerate() {
        let name = format!("model.layers.{idx}.feed_forward");
        if !is_sparse(idx) {
            layer.ffn = Ffn::Dense(llama_mlp(&name, dense));
            continue;
        }
        let expert = |expert| {
            let names = ["gate_up_proj", "down_proj"].map(|part| format!("{name}.experts.{part}"));
            stack.expert(names, expert)
        };
        let mut moe = experts(config, &format!("{name}.router"), sizes.hidden_size, expert)?;
        moe.scoring = Scoring::Sigmoid;
        moe.renormalise = false;
        moe.weighs_input = true;
        let shared = format!("{name}.shared_expert");
        moe.shared = Some(llama_mlp(&shared, shape));
        layer.ffn = Ffn::Experts(Box::new(moe));
    }
    Ok(spec)
}

/// Refuses a file whose layers with positions are not those that see chunks.
fn check_types(config: &Fields, rotary: &[bool]) -> Result<(), ModelError> {
    const TYPES: &str = "layer_types";
    let Some(types) = config.texts(TYPES)? else {
        return Ok(());
    };
    let agree = |(kind, has_positions): (&&str, &bool)| *has_positions || *kind == "full_attention";
    if types.len() >= rotary.len() && types.iter().zip(rotary).all(agree) {
        return Ok(());
    }
    Err(invalid(TYPES, "does not agree with no_rope_layers".to_owned()))
}

/// Tokens up to which every layer sees all of a text, with scores that do not depend on its length.
fn plain_context_len(config: &Fields) -> Result<usize, ModelError> {
    /// What transformers takes where a field is missing.
    const DEFAULT: usize = 8192;
    let chunk = config.size(&["attention_chunk_size"])?.unwrap_or(DEFAULT);
    let floor = config.size(&["floor_scale"])?.unwrap_or(DEFAULT);
    // Some files have a number in the place of true.
    let is_tuned = config.flag("attn_temperature_tuning").ok().flatten() != Some(false);
    let grows = is_tuned && config.number(&["attn_scale"])? != Some(0.0);
    let unscaled = if grows { (floor - 1).max(1) } else { chunk };
    Ok(chunk.min(unscaled))
}

/// The layers with experts: those that `moe_layers` lists, or every `interleave_moe_layer_step`-th one.
fn sparse_layers(config: &Fields) -> Result<impl Fn(usize) -> bool + use<>, ModelError> {
    let listed = config.counts("moe_layers")?;
    let step = config.size(&["interleave_moe_layer_step"])?.unwrap_or(1);
    Ok(move |idx: usize| match &listed {
        Some(layers) => layers.contains(&idx),
        None => (idx + 1).is_multiple_of(step),
    })
}

/// Norms that make every head as long as its number of elements.
fn norms_without_weights(sizes: &Sizes) -> QkNorms<Vector> {
    let norm = || Norm {
        kind: NormKind::Rms,
        eps: sizes.norm_eps,
        weight: None,
        bias: None,
    };
    QkNorms {
        after_rope: true,
        over_all_heads: false,
        q: norm(),
        k: norm(),
        v: None,
    }
}
