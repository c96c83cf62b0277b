//! Command R: layer norms without biases, parts side by side, neighbouring elements turn together.

use kernels::RopePairs;

use super::llama;
use super::parts::{Sizes, each_attention, input_norm, layer_norm, layer_types, no_norms, vector_of_shape};
use crate::model::config::{Fields, invalid};
use crate::model::error::ModelError;
use crate::model::spec::{ModelSpec, Norm, QkNorms, Task};

/// Command R and R+.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let mut spec = llama::describe(config)?;
    let norm = |name: &str| layer_norm(name, sizes.hidden_size, sizes.norm_eps, false);
    for (idx, layer) in spec.layers.iter_mut().enumerate() {
        layer.attention_norms = input_norm(norm(&format!("model.layers.{idx}.input_layernorm")));
        layer.ffn_norms = no_norms();
        layer.is_parallel = true;
    }
    spec.final_norm = Some(norm("model.norm"));
    for rope in &mut spec.ropes {
        rope.pairs = RopePairs::Interleaved;
    }
    if let Task::Generate(head) = &mut spec.task {
        head.scale = config.positive(&["logit_scale"])?.unwrap_or(0.0625) as f32;
        if config.flag("tie_word_embeddings")?.unwrap_or(true) {
            head.weight = None;
        }
    }
    if config.flag("use_qk_norm")?.unwrap_or(false) {
        each_attention(&mut spec, |idx, attention| {
            let of = |part: &str, n_heads| {
                let name = format!("model.layers.{idx}.self_attn.{part}");
                Norm {
                    weight: Some(vector_of_shape(
                        format!("{name}.weight"),
                        vec![n_heads, sizes.head_dim],
                    )),
                    ..layer_norm(&name, sizes.head_dim, sizes.norm_eps, false)
                }
            };
            attention.qk_norms = Some(QkNorms {
                after_rope: false,
                over_all_heads: false,
                q: of("q_norm", sizes.n_heads),
                k: of("k_norm", sizes.n_kv_heads),
                v: None,
            });
        });
    }
    Ok(spec)
}

/// Command R7B: windowed layers with positions, and every fourth one that sees everything without any.
pub(super) fn describe_2(config: &Fields) -> Result<ModelSpec, ModelError> {
    let mut spec = describe(config)?;
    let n_layers = spec.layers.len();
    let pattern = config
        .size(&["sliding_window_pattern", "_sliding_window_pattern"])?
        .unwrap_or(4);
    let windowed = match layer_types(config, n_layers)? {
        Some(types) => types,
        None => (0..n_layers)
            .map(|idx| !(idx + 1).is_multiple_of(pattern))
            .collect(),
    };
    let Some(window) = config.size(&["sliding_window"])? else {
        return Err(invalid("sliding_window", "is missing".to_owned()));
    };
    each_attention(&mut spec, |idx, attention| {
        attention.window = windowed[idx].then_some(window);
        attention.rope = windowed[idx].then_some(0);
    });
    Ok(spec)
}
