//! Mistral and Mixtral: a Llama whose first release looks back over a window; with experts. MiniMax M2 and Phi-3.5-MoE
//! have these experts.

use kernels::{Activation, Scoring};

use super::llama;
use super::parts::{
    MlpShape, Sizes, activation, each_attention, experts, gated_mlp, input_norm, layer_norm, linear,
    rms_qk_norms_over_all, unsupported, vector, vision_parts, windows,
};
use crate::model::config::{Aliases, FFN_SIZE, Fields};
use crate::model::error::ModelError;
use crate::model::spec::{Ffn, ModelSpec, Task};

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
    with_experts(config, describe(config)?)
}

/// MiniMax M2: norms of all queries and all keys together, heads of which a part turns, and DeepSeek-V3's choice.
pub(super) fn describe_minimax_m2(config: &Fields) -> Result<ModelSpec, ModelError> {
    refuse_other(config, &["scoring_func"], "sigmoid")?;
    refuse_other(config, &["qk_norm_type"], "per_layer")?;
    let sizes = Sizes::read(config)?;
    let mut spec = with_experts(config, llama::describe(config)?)?;
    if let Some(dim) = config.size(&["rotary_dim"])? {
        for rope in &mut spec.ropes {
            rope.set_dim(dim, sizes.head_dim)?;
        }
    }
    if config.flag("use_qk_norm")?.unwrap_or(true) {
        each_attention(&mut spec, |idx, attention| {
            let name = format!("model.layers.{idx}.self_attn");
            attention.qk_norms = Some(rms_qk_norms_over_all(&name, &sizes));
        });
    }
    let has_bias = config.flag("use_routing_bias")?.unwrap_or(true);
    for (idx, layer) in spec.layers.iter_mut().enumerate() {
        if let Ffn::Experts(moe) = &mut layer.ffn {
            let name = format!("model.layers.{idx}.block_sparse_moe.e_score_correction_bias");
            moe.scoring = Scoring::Sigmoid;
            moe.choice_bias = has_bias.then(|| vector(name, moe.experts.len()));
        }
    }
    Ok(spec)
}

/// Phi-3.5-MoE: a Mixtral with layer norms and a choice of two experts one after the other.
pub(super) fn describe_phimoe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let mut spec = with_experts(config, describe(config)?)?;
    let jitter = config.positive(&["router_jitter_noise"])?.unwrap_or(0.01) as f32;
    let norm = |name: &str| layer_norm(name, sizes.hidden_size, sizes.norm_eps, true);
    for (idx, layer) in spec.layers.iter_mut().enumerate() {
        let name = |part| format!("model.layers.{idx}.{part}");
        layer.attention_norms = input_norm(norm(&name("input_layernorm")));
        layer.ffn_norms = input_norm(norm(&name("post_attention_layernorm")));
        if let Ffn::Experts(moe) = &mut layer.ffn {
            if moe.n_chosen != 2 {
                return Err(unsupported("num_experts_per_tok", &moe.n_chosen.to_string(), "2"));
            }
            moe.scoring = Scoring::SparseMixer { jitter };
            moe.renormalise = false;
        }
    }
    spec.final_norm = Some(norm("model.norm"));
    if config.flag("lm_head_bias")?.unwrap_or(false)
        && let Task::Generate(head) = &mut spec.task
    {
        let with_bias = |_| linear("lm_head", sizes.vocab_size, sizes.hidden_size, true);
        head.weight = head.weight.take().map(with_bias);
    }
    Ok(spec)
}

/// Refuses an option whose value is another than the one that is implemented.
fn refuse_other(config: &Fields, option: Aliases, only: &'static str) -> Result<(), ModelError> {
    match config.text(option)?.filter(|value| *value != only) {
        Some(other) => Err(unsupported(option[0], other, only)),
        None => Ok(()),
    }
}

/// Gives Mixtral's experts to every layer.
fn with_experts(config: &Fields, mut spec: ModelSpec) -> Result<ModelSpec, ModelError> {
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
