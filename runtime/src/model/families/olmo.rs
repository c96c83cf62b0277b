//! OLMo 1, 2, 3 and OLMoE: norms without parameters; norms of outputs only; norms of all queries together.

use kernels::{Activation, NormKind};

use super::llama;
use super::parts::{
    MlpShape, Sizes, activation, each_attention, experts, gated_mlp, input_norm, no_norms, rms_norm,
    rms_qk_norms_over_all, windows,
};
use crate::model::config::{FFN_SIZE, Fields};
use crate::model::error::ModelError;
use crate::model::rope::RopeSpec;
use crate::model::spec::{Ffn, ModelSpec, Norm, Norms};

/// OLMo 1.
pub(super) fn describe_1(config: &Fields) -> Result<ModelSpec, ModelError> {
    let norm = || Norm {
        kind: NormKind::Layer,
        eps: 1e-5,
        weight: None,
        bias: None,
    };
    let clip = config.positive(&["clip_qkv"])?.map(|clip| clip as f32);
    let mut spec = llama::describe(config)?;
    each_attention(&mut spec, |_, attention| attention.clip = clip);
    for layer in &mut spec.layers {
        layer.attention_norms = input_norm(norm());
        layer.ffn_norms = input_norm(norm());
    }
    spec.final_norm = Some(norm());
    Ok(spec)
}

/// OLMo 2.
pub(super) fn describe_2(config: &Fields) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let mut spec = llama::describe(config)?;
    each_attention(&mut spec, |idx, attention| {
        let name = format!("model.layers.{idx}.self_attn");
        attention.qk_norms = Some(rms_qk_norms_over_all(&name, &sizes));
    });
    norms_of_outputs(&mut spec, &sizes);
    Ok(spec)
}

/// Norms of what the parts of each layer add, and no others.
pub(super) fn norms_of_outputs(spec: &mut ModelSpec, sizes: &Sizes) {
    for (idx, layer) in spec.layers.iter_mut().enumerate() {
        let output = |part: &str| Norms {
            output: Some(rms_norm(
                &format!("model.layers.{idx}.{part}"),
                sizes.hidden_size,
                sizes.norm_eps,
            )),
            ..no_norms()
        };
        layer.attention_norms = output("post_attention_layernorm");
        layer.ffn_norms = output("post_feedforward_layernorm");
    }
}

/// OLMo 3: three layers of four are windowed, and only the others have stretched positions.
pub(super) fn describe_3(config: &Fields) -> Result<ModelSpec, ModelError> {
    let mut spec = describe_2(config)?;
    let windows = windows(config, spec.layers.len(), |idx| !(idx + 1).is_multiple_of(4))?;
    let head_dim = Sizes::read(config)?.head_dim;
    match RopeSpec::of_kinds(config, head_dim)? {
        Some((global, local)) => spec.ropes = vec![global, local],
        None => {
            let mut local = RopeSpec::plain(head_dim)?;
            local.theta = spec.ropes.first().map_or(local.theta, |global| global.theta);
            spec.ropes.push(local);
        }
    }
    each_attention(&mut spec, |idx, attention| {
        attention.window = windows[idx];
        attention.rope = Some(usize::from(attention.window.is_some()));
    });
    Ok(spec)
}

/// OLMoE.
pub(super) fn describe_moe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let width = config.required_size(FFN_SIZE)?;
    let activation = activation(config, Activation::Silu)?;
    let renormalise = config.flag("norm_topk_prob")?.unwrap_or(false);
    let clip = config.positive(&["clip_qkv"])?.map(|clip| clip as f32);
    let mut spec = llama::describe(config)?;
    each_attention(&mut spec, |idx, attention| {
        let name = format!("model.layers.{idx}.self_attn");
        attention.qk_norms = Some(rms_qk_norms_over_all(&name, &sizes));
        attention.clip = clip;
    });
    for (idx, layer) in spec.layers.iter_mut().enumerate() {
        let mlp = format!("model.layers.{idx}.mlp");
        let expert = |expert: usize| {
            let names =
                ["gate_proj", "up_proj", "down_proj"].map(|part| format!("{mlp}.experts.{expert}.{part}"));
            gated_mlp(
                names,
                MlpShape {
                    hidden_size: sizes.hidden_size,
                    width,
                    activation,
                    bias: false,
                },
            )
        };
        let mut moe = experts(config, &format!("{mlp}.gate"), sizes.hidden_size, expert)?;
        moe.renormalise = renormalise;
        layer.ffn = Ffn::Experts(Box::new(moe));
    }
    Ok(spec)
}
