//! Gemma 1, 2 and 3: norms that store what their weight exceeds 1 by, and scaled embeddings.

use kernels::Activation;

use super::llama;
use super::parts::{
    Sizes, activation, each_attention, input_norm, layer_types, rms_norm, rms_qk_norms, vision_parts,
};
use crate::model::config::{Fields, invalid};
use crate::model::error::ModelError;
use crate::model::rope::RopeSpec;
use crate::model::spec::{Ffn, ModelSpec, Norm, Norms, Task, Vector};

/// Gemma 1.
pub(super) fn describe_1(config: &Fields) -> Result<ModelSpec, ModelError> {
    let mut spec = llama::describe(config)?;
    let is_tied = config.flag("tie_word_embeddings")?.unwrap_or(true);
    if let Task::Generate(head) = &mut spec.task {
        head.weight = head.weight.take().filter(|_| !is_tied);
    }
    spec.embedding.scale = (spec.hidden_size as f32).sqrt();
    spec.final_norm = spec.final_norm.map(exceeding);
    // Configs of the first release name gelu and mean its approximation.
    let activation = match activation(config, Activation::GeluTanh)? {
        Activation::Gelu => Activation::GeluTanh,
        other => other,
    };
    for layer in &mut spec.layers {
        for norms in [&mut layer.attention_norms, &mut layer.ffn_norms] {
            norms.input = norms.input.take().map(exceeding);
        }
        if let Ffn::Dense(mlp) = &mut layer.ffn {
            mlp.activation = activation;
        }
    }
    Ok(spec)
}

/// Gemma 2: norms around both parts, capped scores and logits, every other layer windowed.
pub(super) fn describe_2(config: &Fields) -> Result<ModelSpec, ModelError> {
    sandwiched(config, |idx| idx % 2 == 0)
}

/// Gemma 3, text: as Gemma 2 with norms of queries and keys, and windowed layers with positions of their own.
pub(super) fn describe_3(config: &Fields) -> Result<ModelSpec, ModelError> {
    let config = &config.text_part()?;
    let pattern = config
        .size(&["sliding_window_pattern", "_sliding_window_pattern"])?
        .unwrap_or(6);
    let mut spec = sandwiched(config, |idx| !(idx + 1).is_multiple_of(pattern))?;
    let sizes = Sizes::read(config)?;
    let (global, local) = ropes(config, sizes.head_dim)?;
    spec.context_len = global.context_len(sizes.context_len).min(sizes.context_len);
    spec.ropes = vec![global, local];
    each_attention(&mut spec, |idx, attention| {
        attention.rope = Some(usize::from(attention.window.is_some()));
        let mut norms = rms_qk_norms(&format!("model.layers.{idx}.self_attn"), &sizes);
        norms.q = exceeding(norms.q);
        norms.k = exceeding(norms.k);
        attention.qk_norms = Some(norms);
    });
    spec.ignored = vision_parts();
    if config.flag("use_bidirectional_attention")?.unwrap_or(false) {
        spec.is_causal = false;
        // The window is then as wide as before, and half of it lies on each side.
        each_attention(&mut spec, |_, attention| {
            attention.window = attention.window.map(|window| window / 2 + 1);
        });
    }
    Ok(spec)
}

/// Positions of the layers that see everything, and of the windowed ones.
fn ropes(config: &Fields, head_dim: usize) -> Result<(RopeSpec, RopeSpec), ModelError> {
    if let Some(ropes) = RopeSpec::of_kinds(config, head_dim)? {
        return Ok(ropes);
    }
    let mut global = RopeSpec::from_config(config, head_dim)?;
    if config.positive(&["rope_theta"])?.is_none() {
        global.theta = 1e6;
    }
    let mut local = RopeSpec::plain(head_dim)?;
    local.theta = config.positive(&["rope_local_base_freq"])?.unwrap_or(1e4);
    Ok((global, local))
}

/// A Gemma 1 with norms around both parts.
fn sandwiched(config: &Fields, is_windowed: impl Fn(usize) -> bool) -> Result<ModelSpec, ModelError> {
    let mut spec = describe_1(config)?;
    let n_layers = spec.layers.len();
    let windowed = match layer_types(config, n_layers)? {
        Some(types) => types,
        None => (0..n_layers).map(is_windowed).collect(),
    };
    let window = config.size(&["sliding_window"])?;
    if window.is_none() && windowed.contains(&true) {
        return Err(invalid("sliding_window", "is missing".to_owned()));
    }
    let softcap = config
        .positive(&["attn_logit_softcapping"])?
        .map(|cap| cap as f32);
    let scalar = config.positive(&["query_pre_attn_scalar"])?;
    each_attention(&mut spec, |idx, attention| {
        attention.window = window.filter(|_| windowed[idx]);
        attention.softcap = softcap;
        if let Some(scalar) = scalar {
            attention.scale = scalar.powf(-0.5) as f32;
        }
    });
    let eps = Sizes::read(config)?.norm_eps;
    let hidden_size = spec.hidden_size;
    for (idx, layer) in spec.layers.iter_mut().enumerate() {
        let norm = |part: &str| exceeding(rms_norm(&format!("model.layers.{idx}.{part}"), hidden_size, eps));
        layer.attention_norms.output = Some(norm("post_attention_layernorm"));
        layer.ffn_norms = Norms {
            output: Some(norm("post_feedforward_layernorm")),
            ..input_norm(norm("pre_feedforward_layernorm"))
        };
    }
    if let Task::Generate(head) = &mut spec.task {
        head.softcap = config
            .positive(&["final_logit_softcapping"])?
            .map(|cap| cap as f32);
    }
    Ok(spec)
}

/// A norm whose tensor holds what its weight exceeds 1 by.
pub(super) fn exceeding(mut norm: Norm<Vector>) -> Norm<Vector> {
    if let Some(weight) = &mut norm.weight {
        weight.offset = 1.0;
    }
    norm
}
