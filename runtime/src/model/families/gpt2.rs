//! GPT-2, GPT BigCode (StarCoder, SantaCoder) and Jais.

use kernels::Activation;

use super::parts::{
    ALIBI_MAX, MlpShape, Sizes, Tie, activation, alibi_slopes, each_attention, factor, ffn_size, gated_mlp,
    head, input_norm, layer, layer_norm, linear, linear_transposed, plain_mlp, refuse_flag, taking,
    unsupported,
};
use crate::model::config::{Fields, N_HEADS};
use crate::model::error::ModelError;
use crate::model::spec::{Ffn, Layout, ModelSpec, Task};

/// GPT-2, whose linear layers are stored `[in, out]`.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    refuse_flag(config, "scale_attn_by_inverse_layer_idx")?;
    refuse_flag(config, "add_cross_attention")?;
    let sizes = Sizes::read(config)?;
    let width = ffn_size(config, &sizes)?;
    let activation = activation(config, Activation::GeluTanh)?;
    let hidden_size = sizes.hidden_size;
    let norm = |name: &str| layer_norm(name, hidden_size, sizes.norm_eps, true);
    let of_layer = |idx: usize| {
        let name = |part: &str| format!("transformer.h.{idx}.{part}");
        let n_qkv = sizes.q_width() + 2 * sizes.kv_width();
        let qkv = linear_transposed(&name("attn.c_attn"), n_qkv, hidden_size, true);
        let out = linear_transposed(&name("attn.c_proj"), hidden_size, sizes.q_width(), true);
        let up = linear_transposed(&name("mlp.c_fc"), width, hidden_size, true);
        let down = linear_transposed(&name("mlp.c_proj"), hidden_size, width, true);
        layer(
            input_norm(norm(&name("ln_1"))),
            sizes.attention(qkv, out),
            input_norm(norm(&name("ln_2"))),
            Ffn::Dense(plain_mlp(activation, up, down)),
        )
    };
    let layers = (0..sizes.n_layers).map(of_layer).collect();
    let task = Task::Generate(head(config, "lm_head", Tie::Tied, &sizes)?);
    let mut spec = sizes.model("transformer.wte", layers, task);
    spec.embedding.positions = Some(linear("transformer.wpe", sizes.context_len, hidden_size, false));
    spec.final_norm = Some(norm("transformer.ln_f"));
    Ok(spec)
}

/// GPT BigCode: ordinary linear layers, one key and value head for all queries.
pub(super) fn describe_bigcode(config: &Fields) -> Result<ModelSpec, ModelError> {
    let is_multi_query = config.flag("multi_query")?.unwrap_or(true);
    let n_kv_heads = if is_multi_query {
        1
    } else {
        config.required_size(N_HEADS)?
    };
    let sizes = Sizes::with_kv_heads(config, n_kv_heads)?;
    let width = ffn_size(config, &sizes)?;
    let mut spec = describe(config)?;
    each_attention(&mut spec, |idx, attention| {
        let name = |part: &str| format!("transformer.h.{idx}.attn.{part}");
        let qkv = sizes.fused_qkv(&name("c_attn"), true);
        attention.n_kv_heads = n_kv_heads;
        attention.qkv = if is_multi_query {
            qkv
        } else {
            taking(qkv, &sizes.ungrouped())
        };
        attention.out = linear(&name("c_proj"), sizes.hidden_size, sizes.q_width(), true);
    });
    for (idx, layer) in spec.layers.iter_mut().enumerate() {
        let name = |part: &str| format!("transformer.h.{idx}.mlp.{part}");
        if let Ffn::Dense(mlp) = &mut layer.ffn {
            mlp.up = linear(&name("c_fc"), width, sizes.hidden_size, true);
            mlp.down = linear(&name("c_proj"), sizes.hidden_size, width, true);
        }
    }
    Ok(spec)
}

/// Jais: GPT-2 with distances instead of positions, a gated feed-forward part, and scales.
pub(super) fn describe_jais(config: &Fields) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let width = ffn_size(config, &sizes)?;
    let mut spec = describe(config)?;
    match config.text(&["position_embedding_type"])? {
        Some("alibi") => spec.embedding.positions = None,
        None | Some("learned") => {}
        Some(other) => return Err(unsupported("position_embedding_type", other, "alibi, learned")),
    }
    let by_dim = config.flag("mup_scale_qk_dot_by_d")?;
    let by_dim = by_dim.or(config.flag("scale_qk_dot_by_d")?).unwrap_or(false);
    let has_slopes = spec.embedding.positions.is_none();
    each_attention(&mut spec, |_, attention| {
        attention.alibi_slopes = has_slopes.then(|| alibi_slopes(sizes.n_heads, ALIBI_MAX));
        if by_dim {
            attention.scale = 1.0 / sizes.head_dim as f32;
        }
    });
    for (idx, layer) in spec.layers.iter_mut().enumerate() {
        let names = ["c_fc2", "c_fc", "c_proj"].map(|part| format!("transformer.h.{idx}.mlp.{part}"));
        let mut mlp = gated_mlp(
            names,
            MlpShape {
                hidden_size: sizes.hidden_size,
                width,
                activation: Activation::Silu,
                bias: true,
            },
        );
        for part in mlp.up.parts.iter_mut().chain(&mut mlp.down.parts) {
            part.layout = Layout::Columns;
            part.tensor.shape.reverse();
        }
        layer.ffn = Ffn::Dense(mlp);
    }
    spec.embedding.scale = factor(config, &["embeddings_scale", "mup_embeddings_scale"])?;
    if let Task::Generate(head) = &mut spec.task {
        head.scale = match config.positive(&["width_scale"])? {
            Some(scale) => scale as f32,
            None => factor(config, &["mup_output_alpha"])? * factor(config, &["mup_width_scale"])?,
        };
    }
    Ok(spec)
}
