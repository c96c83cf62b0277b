//! StableLM and Orion: a Llama with layer norms.

use super::llama::{self, Biases};
use super::parts::{Sizes, each_attention, input_norm, layer_norm, no_norms};
use crate::model::config::Fields;
use crate::model::error::ModelError;
use crate::model::rope::RopeSpec;
use crate::model::spec::{ModelSpec, Norm, QkNorms, TensorSpec, Vector};

/// Orion 14B.
pub(super) fn describe_orion(config: &Fields) -> Result<ModelSpec, ModelError> {
    with_layer_norms(config, llama::describe(config)?)
}

/// StableLM 3B, StableLM 2.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let biases = Biases {
        qkv: config.flag("use_qkv_bias")?.unwrap_or(false),
        out: false,
        ffn: false,
    };
    let sizes = Sizes::read(config)?;
    let mut spec = with_layer_norms(config, llama::with_biases(config, biases)?)?;
    spec.ropes = vec![RopeSpec::of_part(config, sizes.head_dim, 0.25)?];
    if config.flag("qk_layernorm")?.unwrap_or(false) {
        each_attention(&mut spec, |idx, attention| {
            let name = |part| format!("model.layers.{idx}.self_attn.{part}_layernorm");
            attention.qk_norms = Some(QkNorms {
                after_rope: false,
                over_all_heads: false,
                q: norm_per_head(&name("q"), sizes.n_heads, &sizes),
                k: norm_per_head(&name("k"), sizes.n_kv_heads, &sizes),
                v: None,
            });
        });
    }
    if config.flag("use_parallel_residual")?.unwrap_or(false) {
        for layer in &mut spec.layers {
            layer.is_parallel = true;
            layer.ffn_norms = no_norms();
        }
    }
    Ok(spec)
}

/// Replaces root mean square norms by layer norms of the same names.
fn with_layer_norms(config: &Fields, mut spec: ModelSpec) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let norm = |name: &str| layer_norm(name, sizes.hidden_size, sizes.norm_eps, true);
    for (idx, layer) in spec.layers.iter_mut().enumerate() {
        let name = |part| format!("model.layers.{idx}.{part}");
        layer.attention_norms = input_norm(norm(&name("input_layernorm")));
        layer.ffn_norms = input_norm(norm(&name("post_attention_layernorm")));
    }
    spec.final_norm = Some(norm("model.norm"));
    Ok(spec)
}

/// A norm with a tensor for each head.
fn norm_per_head(name: &str, n_heads: usize, sizes: &Sizes) -> Norm<Vector> {
    let of_head = |head| TensorSpec {
        name: format!("{name}.norms.{head}.weight"),
        shape: vec![sizes.head_dim],
    };
    let weight = Vector {
        tensors: (0..n_heads).map(of_head).collect(),
        offset: 0.0,
    };
    Norm {
        weight: Some(weight),
        ..layer_norm(name, sizes.head_dim, sizes.norm_eps, false)
    }
}
