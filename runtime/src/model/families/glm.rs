//! GLM-4, GLM-4.5 and ChatGLM 2 and 3: half of each head turns, neighbouring elements together.

use kernels::{Activation, NormKind, RopePairs};

use super::deepseek;
use super::llama::{self, Biases};
use super::parts::{
    Sizes, Tie, each_attention, head, input_norm, layer, layer_norm, linear, rms_norm, rms_qk_norms,
    unsupported,
};
use crate::model::config::{FFN_SIZE, Fields};
use crate::model::error::ModelError;
use crate::model::rope::RopeSpec;
use crate::model::spec::{Ffn, Mlp, ModelSpec, Task};

/// GLM-4-9B in transformers' own format.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let width = config.required_size(FFN_SIZE)?;
    let biases = Biases {
        qkv: config.flag("attention_bias")?.unwrap_or(false),
        out: false,
        ffn: false,
    };
    let mut spec = llama::with_biases(config, biases)?;
    let mut rope = RopeSpec::of_part(config, sizes.head_dim, 0.5)?;
    rope.pairs = RopePairs::Interleaved;
    spec.ropes = vec![rope];
    for (idx, layer) in spec.layers.iter_mut().enumerate() {
        if let Ffn::Dense(mlp) = &mut layer.ffn {
            let name = format!("model.layers.{idx}.mlp.gate_up_proj");
            mlp.up = linear(&name, 2 * width, sizes.hidden_size, false);
        }
    }
    Ok(spec)
}

/// GLM-4-0414: norms of what both parts add.
pub(super) fn describe_4(config: &Fields) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let mut spec = describe(config)?;
    for (idx, layer) in spec.layers.iter_mut().enumerate() {
        let norm = |part: &str| {
            let name = format!("model.layers.{idx}.{part}");
            Some(rms_norm(&name, sizes.hidden_size, sizes.norm_eps))
        };
        layer.attention_norms.output = norm("post_self_attn_layernorm");
        layer.ffn_norms.output = norm("post_mlp_layernorm");
    }
    Ok(spec)
}

/// GLM-4.5 and later with DeepSeek-V3's experts.
pub(super) fn describe_4_moe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let biases = Biases {
        qkv: config.flag("attention_bias")?.unwrap_or(false),
        out: false,
        ffn: false,
    };
    let mut spec = llama::with_biases(config, biases)?;
    spec.ropes = vec![RopeSpec::of_part(config, sizes.head_dim, 0.5)?];
    if config.flag("use_qk_norm")?.unwrap_or(false) {
        each_attention(&mut spec, |idx, attention| {
            let name = format!("model.layers.{idx}.self_attn");
            attention.qk_norms = Some(rms_qk_norms(&name, &sizes));
        });
    }
    deepseek::with_experts(config, spec, &deepseek::Router::of_3(config)?)
}

/// ChatGLM 2 and 3, and GLM-4-9B as first published.
pub(super) fn describe_chatglm(config: &Fields) -> Result<ModelSpec, ModelError> {
    let flag = |name, default| Ok::<_, ModelError>(config.flag(name)?.unwrap_or(default));
    let n_kv_heads = match flag("multi_query_attention", false)? {
        true => config.size(&["multi_query_group_num"])?,
        false => None,
    };
    let mut sizes = match n_kv_heads {
        Some(n_kv_heads) => Sizes::with_kv_heads(config, n_kv_heads)?,
        None => Sizes::read(config)?,
    };
    if let Some(padded) = config.size(&["padded_vocab_size"])? {
        sizes.vocab_size = padded;
    }
    let width = config.required_size(FFN_SIZE)?;
    let bias = flag("add_bias_linear", false)?;
    let qkv_bias = bias || flag("add_qkv_bias", false)?;
    let adds_to_normed = flag("apply_residual_connection_post_layernorm", false)?;
    let kind = if flag("rmsnorm", true)? {
        NormKind::Rms
    } else {
        NormKind::Layer
    };
    let norm = |name: &str| match kind {
        NormKind::Rms => rms_norm(name, sizes.hidden_size, sizes.norm_eps),
        NormKind::Layer => layer_norm(name, sizes.hidden_size, sizes.norm_eps, true),
    };
    let of_layer = |idx: usize| {
        let name = |part: &str| format!("transformer.encoder.layers.{idx}.{part}");
        let qkv = sizes.fused_qkv(&name("self_attention.query_key_value"), qkv_bias);
        let out = linear(
            &name("self_attention.dense"),
            sizes.hidden_size,
            sizes.q_width(),
            bias,
        );
        let mlp = Mlp {
            activation: Activation::Silu,
            width,
            is_gated: true,
            up: linear(&name("mlp.dense_h_to_4h"), 2 * width, sizes.hidden_size, bias),
            down: linear(&name("mlp.dense_4h_to_h"), sizes.hidden_size, width, bias),
        };
        let mut layer = layer(
            input_norm(norm(&name("input_layernorm"))),
            sizes.attention(qkv, out),
            input_norm(norm(&name("post_attention_layernorm"))),
            Ffn::Dense(mlp),
        );
        layer.adds_to_normed = adds_to_normed;
        layer
    };
    let layers = (0..sizes.n_layers).map(of_layer).collect();
    let task = Task::Generate(head(config, "transformer.output_layer", Tie::Untied, &sizes)?);
    let mut spec = sizes.model("transformer.embedding.word_embeddings", layers, task);
    each_attention(&mut spec, |_, attention| attention.rope = Some(0));
    if config.flag("original_rope")? == Some(false) {
        return Err(unsupported("original_rope", "false", "true"));
    }
    let mut rope = RopeSpec::plain(sizes.head_dim)?;
    rope.set_dim(sizes.head_dim / 2, sizes.head_dim)?;
    rope.theta *= config.positive(&["rope_ratio"])?.unwrap_or(1.0);
    rope.pairs = RopePairs::Interleaved;
    spec.ropes = vec![rope];
    if flag("post_layer_norm", true)? {
        spec.final_norm = Some(norm("transformer.encoder.final_layernorm"));
    }
    Ok(spec)
}
