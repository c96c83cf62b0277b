//! Gemma 4, text: layers that see everything have larger heads, whose keys are also their values.

use kernels::NormKind;

use super::llama;
use super::parts::{
    Sizes, Tie, each_attention, head, input_norm, layer_types, linear, refuse_flag, rms_norm, rms_qk_norms,
    unsupported, vector, vision_parts,
};
use crate::model::config::{Fields, invalid};
use crate::model::error::ModelError;
use crate::model::rope::RopeSpec;
use crate::model::spec::{Grouped, ModelSpec, Norm, Norms, QkNorms, Task};

/// Gemma 4 31B; pictures and sound are not read. Experts, embeddings of each layer and layers that share their cache
/// are not implemented.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let mut spec = describe_text(&config.text_part()?)?;
    spec.ignored = vision_parts();
    Ok(spec)
}

fn describe_text(config: &Fields) -> Result<ModelSpec, ModelError> {
    refuse_what_is_missing(config)?;
    let near = Sizes::read(config)?;
    let far = far_sizes(config, &near)?;
    let is_near = near_layers(config, near.n_layers)?;
    let Some(window) = config.size(&["sliding_window"])? else {
        return Err(invalid("sliding_window", "is missing".to_owned()));
    };
    let shares = config.flag("attention_k_eq_v")?.unwrap_or(false);
    let bias = config.flag("attention_bias")?.unwrap_or(false);
    let mut spec = llama::describe(config)?;
    spec.ropes = vec![
        rope(config, "full_attention", far.head_dim)?,
        rope(config, "sliding_attention", near.head_dim)?,
    ];
    each_attention(&mut spec, |idx, attention| {
        let name = |part: &str| format!("model.layers.{idx}.self_attn.{part}");
        let sizes = if is_near[idx] { &near } else { &far };
        let values = if shares && !is_near[idx] {
            "k_proj"
        } else {
            "v_proj"
        };
        let qkv = sizes.separate_qkv(["q_proj", "k_proj", values].map(name), bias);
        let out = linear(&name("o_proj"), sizes.hidden_size, sizes.q_width(), bias);
        let of_values = Norm {
            kind: NormKind::Rms,
            eps: sizes.norm_eps,
            weight: None,
            bias: None,
        };
        *attention = Grouped {
            window: is_near[idx].then_some(window),
            rope: Some(usize::from(is_near[idx])),
            scale: 1.0,
            qk_norms: Some(QkNorms {
                v: Some(of_values),
                ..rms_qk_norms(&format!("model.layers.{idx}.self_attn"), sizes)
            }),
            ..sizes.attention(qkv, out)
        };
    });
    add_edges(config, &mut spec, &near)?;
    Ok(spec)
}

/// Refuses the options of the other sizes.
fn refuse_what_is_missing(config: &Fields) -> Result<(), ModelError> {
    refuse_flag(config, "enable_moe_block")?;
    for option in ["hidden_size_per_layer_input", "num_kv_shared_layers"] {
        if let Some(size) = config.count(option)?.filter(|size| *size > 0) {
            return Err(unsupported(option, &size.to_string(), "0"));
        }
    }
    const DIRECTIONS: &[&str] = &["use_bidirectional_attention"];
    match config.text(DIRECTIONS)?.filter(|of| *of != "vision") {
        Some(other) => Err(unsupported(DIRECTIONS[0], other, "vision")),
        None => Ok(()),
    }
}

/// Norms around both parts of each layer, its factor, and what is before and after all layers.
fn add_edges(config: &Fields, spec: &mut ModelSpec, sizes: &Sizes) -> Result<(), ModelError> {
    for (idx, layer) in spec.layers.iter_mut().enumerate() {
        let name = |part: &str| format!("model.layers.{idx}.{part}");
        let norm = |part: &str| rms_norm(&name(part), sizes.hidden_size, sizes.norm_eps);
        layer.attention_norms.output = Some(norm("post_attention_layernorm"));
        layer.ffn_norms = Norms {
            output: Some(norm("post_feedforward_layernorm")),
            ..input_norm(norm("pre_feedforward_layernorm"))
        };
        layer.factor = Some(vector(name("layer_scalar"), 1));
    }
    spec.embedding.scale = (sizes.hidden_size as f32).sqrt();
    let mut head = head(config, "lm_head", Tie::Tied, sizes)?;
    head.softcap = config
        .positive(&["final_logit_softcapping"])?
        .map(|cap| cap as f32);
    spec.task = Task::Generate(head);
    Ok(())
}

/// Which layers are windowed; the last one never is.
fn near_layers(config: &Fields, n_layers: usize) -> Result<Vec<bool>, ModelError> {
    let mut is_near = match layer_types(config, n_layers)? {
        Some(types) => types,
        None => (0..n_layers).map(|idx| !(idx + 1).is_multiple_of(6)).collect(),
    };
    is_near.iter_mut().rev().take(1).for_each(|last| *last = false);
    Ok(is_near)
}

/// Sizes of the layers that see everything.
fn far_sizes(config: &Fields, near: &Sizes) -> Result<Sizes, ModelError> {
    /// What transformers takes where the field is missing.
    const HEAD_DIM: usize = 512;
    let n_kv_heads = match config.flag("attention_k_eq_v")? {
        Some(true) => config.size(&["num_global_key_value_heads"])?,
        Some(false) | None => None,
    };
    let sizes = Sizes::with_kv_heads(config, n_kv_heads.unwrap_or(near.n_kv_heads))?;
    Ok(Sizes {
        head_dim: config.size(&["global_head_dim"])?.unwrap_or(HEAD_DIM),
        ..sizes
    })
}

/// Positions of a kind of layer.
fn rope(config: &Fields, kind: &'static str, head_dim: usize) -> Result<RopeSpec, ModelError> {
    let missing = || invalid("rope_parameters", format!("has no object {kind}"));
    let kinds = config.object("rope_parameters")?.ok_or_else(missing)?;
    let parameters = kinds.object(kind)?.ok_or_else(missing)?;
    RopeSpec::from_parameters(Some(&parameters), config, head_dim, 1.0)
}
