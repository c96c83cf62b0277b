//! Falcon in its four shapes: 7B, 40B and 180B, 11B, and RW with distances instead of positions.

use kernels::Activation;

use super::parts::{
    ALIBI_MAX, Sizes, Tie, activation, alibi_slopes, ffn_size, head, input_norm, layer, layer_norm, linear,
    no_norms, plain_mlp, taking,
};
use crate::model::config::{Fields, N_HEADS, N_KV_HEADS};
use crate::model::error::ModelError;
use crate::model::rope::RopeSpec;
use crate::model::spec::{Ffn, Matrix, ModelSpec, Norm, Norms, Task, Vector};

/// What the shapes differ in.
struct Shape {
    /// 40B, 180B, 11B.
    is_new: bool,
    /// One key and value head for all queries, in the old shapes.
    is_multi_query: bool,
    /// Both parts of a layer run side by side.
    is_parallel: bool,
    /// The feed-forward part has a norm of its own although it runs beside attention.
    has_two_norms: bool,
    /// Linear layers add biases.
    bias: bool,
}

impl Shape {
    fn read(config: &Fields) -> Result<Shape, ModelError> {
        let flag = |name, default| Ok::<_, ModelError>(config.flag(name)?.unwrap_or(default));
        let is_new = flag("new_decoder_architecture", false)?;
        let n_norms = config.size(&["num_ln_in_parallel_attn"])?.unwrap_or(2);
        Ok(Shape {
            is_new,
            is_multi_query: flag("multi_query", true)?,
            is_parallel: flag("parallel_attn", true)? || is_new,
            has_two_norms: is_new && n_norms == 2,
            bias: flag("bias", false)?,
        })
    }
}

/// Every Falcon, under its old names too.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let shape = Shape::read(config)?;
    let n_heads = config.required_size(N_HEADS)?;
    let n_kv_heads = match (shape.is_new, shape.is_multi_query) {
        (true, _) => config.size(N_KV_HEADS)?.unwrap_or(n_heads),
        (false, true) => 1,
        (false, false) => n_heads,
    };
    config.without_effect(N_KV_HEADS);
    let mut sizes = Sizes::with_kv_heads(config, n_kv_heads)?;
    sizes.norm_eps = config.positive(&["layer_norm_epsilon"])?.unwrap_or(1e-5) as f32;
    let has_slopes = config.flag("alibi")?.unwrap_or(false);
    let width = ffn_size(config, &sizes)?;
    let activation = activation(config, Activation::Gelu)?;
    let of_layer = |idx: usize| {
        let name = |part: &str| format!("transformer.h.{idx}.{part}");
        let out = linear(
            &name("self_attention.dense"),
            sizes.hidden_size,
            sizes.q_width(),
            shape.bias,
        );
        let qkv = qkv(&name("self_attention.query_key_value"), &sizes, &shape);
        let mut attention = sizes.attention(qkv, out);
        if has_slopes {
            // Scores and distances are scaled together.
            let slopes = alibi_slopes(n_heads, ALIBI_MAX).into_iter();
            attention.alibi_slopes = Some(slopes.map(|slope| slope * sizes.scale()).collect());
        } else {
            attention.rope = Some(0);
        }
        let up = linear(&name("mlp.dense_h_to_4h"), width, sizes.hidden_size, shape.bias);
        let down = linear(&name("mlp.dense_4h_to_h"), sizes.hidden_size, width, shape.bias);
        let (attention_norms, ffn_norms) = norms(&name, &sizes, &shape);
        let mut layer = layer(
            attention_norms,
            attention,
            ffn_norms,
            Ffn::Dense(plain_mlp(activation, up, down)),
        );
        layer.is_parallel = shape.is_parallel;
        layer
    };
    let layers = (0..sizes.n_layers).map(of_layer).collect();
    let task = Task::Generate(head(config, "lm_head", Tie::Tied, &sizes)?);
    let mut spec = sizes.model("transformer.word_embeddings", layers, task);
    if !has_slopes {
        spec.ropes = vec![RopeSpec::from_config(config, sizes.head_dim)?];
    }
    spec.final_norm = Some(norm("transformer.ln_f", &sizes));
    Ok(spec)
}

/// In the old multi-query shape all queries come first, in the others each group with its key and value.
fn qkv(name: &str, sizes: &Sizes, shape: &Shape) -> Matrix {
    let fused = sizes.fused_qkv(name, shape.bias);
    if !shape.is_new && shape.is_multi_query {
        fused
    } else {
        taking(fused, &sizes.ungrouped())
    }
}

/// The norms of both parts.
fn norms(name: &impl Fn(&str) -> String, sizes: &Sizes, shape: &Shape) -> (Norms<Vector>, Norms<Vector>) {
    let of = |part: &str| input_norm(norm(&name(part), sizes));
    if shape.has_two_norms {
        (of("ln_attn"), of("ln_mlp"))
    } else if shape.is_parallel {
        (of("input_layernorm"), no_norms())
    } else {
        (of("input_layernorm"), of("post_attention_layernorm"))
    }
}

fn norm(name: &str, sizes: &Sizes) -> Norm<Vector> {
    layer_norm(name, sizes.hidden_size, sizes.norm_eps, true)
}
