//! Llama, and what is a Llama under another name.
//!
//! Names and options: Touvron et al. 2023 as published on the Hugging Face Hub (`model_type: llama`).

use kernels::{Activation, RopePairs};

use super::parts::{
    MlpShape, Sizes, Tie, activation, each_attention, ffn_size, head, input_norm, layer, linear, llama_mlp,
    rms_norm, rotary_layers, windows,
};
use crate::model::config::{Fields, invalid};
use crate::model::error::ModelError;
use crate::model::rope::RopeSpec;
use crate::model::spec::{Ffn, Matrix, ModelSpec, Task, Vector};

/// Llama 1, 2, 3 and their many fine-tunes; also Aquila, Xverse and early Yi.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let attention_bias = config.flag("attention_bias")?.unwrap_or(false);
    let biases = Biases {
        qkv: attention_bias,
        out: attention_bias,
        ffn: config.flag("mlp_bias")?.unwrap_or(false),
    };
    with_biases(config, biases)
}

/// InternLM 1: one flag `bias` for all of attention.
pub(super) fn describe_internlm(config: &Fields) -> Result<ModelSpec, ModelError> {
    let bias = config.flag("bias")?.unwrap_or(true);
    let biases = Biases {
        qkv: bias,
        out: bias,
        ffn: false,
    };
    with_biases(config, biases)
}

/// InternLM 3: `qkv_bias` for what attention reads, `bias` for all other layers.
pub(super) fn describe_internlm3(config: &Fields) -> Result<ModelSpec, ModelError> {
    let bias = config.flag("bias")?.unwrap_or(false);
    let biases = Biases {
        qkv: config.flag("qkv_bias")?.unwrap_or(false),
        out: bias,
        ffn: bias,
    };
    with_biases(config, biases)
}

/// Seed-OSS: a flag for each kind of bias.
pub(super) fn describe_seed_oss(config: &Fields) -> Result<ModelSpec, ModelError> {
    let biases = Biases {
        qkv: config.flag("attention_bias")?.unwrap_or(true),
        out: config.flag("attention_out_bias")?.unwrap_or(false),
        ffn: config.flag("mlp_bias")?.unwrap_or(false),
    };
    with_biases(config, biases)
}

/// SmolLM 3: every fourth layer has no positions, and may look back over a window.
pub(super) fn describe_smollm3(config: &Fields) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let rotary = rotary_layers(config, sizes.n_layers)?;
    let mut windows = windows(config, sizes.n_layers, |idx| !rotary[idx])?;
    if !config.flag("use_sliding_window")?.unwrap_or(false) {
        windows.fill(None);
    }
    let mut spec = describe(config)?;
    each_attention(&mut spec, |idx, attention| {
        attention.rope = rotary[idx].then_some(0);
        attention.window = windows[idx];
    });
    spec.task = Task::Generate(head(config, "lm_head", Tie::Tied, &sizes)?);
    Ok(spec)
}

/// Helium: neighbouring elements turn together.
pub(super) fn describe_helium(config: &Fields) -> Result<ModelSpec, ModelError> {
    let mut spec = describe(config)?;
    for rope in &mut spec.ropes {
        rope.pairs = RopePairs::Interleaved;
    }
    Ok(spec)
}

/// DeciLM: each layer has its own number of key and value heads.
pub(super) fn describe_decilm(config: &Fields) -> Result<ModelSpec, ModelError> {
    const PER_LAYER: &str = "num_key_value_heads_per_layer";
    let Some(n_kv_heads) = config.sizes(PER_LAYER)? else {
        return describe(config);
    };
    let mut spec = describe(config)?;
    if n_kv_heads.len() != spec.layers.len() {
        let reason = format!(
            "has {} entries for {} layers",
            n_kv_heads.len(),
            spec.layers.len()
        );
        return Err(invalid(PER_LAYER, reason));
    }
    let of_layer = n_kv_heads.iter().map(|&n| Sizes::with_kv_heads(config, n));
    let sizes = of_layer.collect::<Result<Vec<_>, _>>()?;
    let bias = config.flag("attention_bias")?.unwrap_or(false);
    each_attention(&mut spec, |idx, attention| {
        attention.n_kv_heads = sizes[idx].n_kv_heads;
        attention.qkv = sizes[idx].separate_qkv(qkv_names(idx), bias);
    });
    Ok(spec)
}

/// Which linear layers of a block add a bias.
pub(super) struct Biases {
    pub(super) qkv: bool,
    pub(super) out: bool,
    pub(super) ffn: bool,
}

/// A Llama with the given biases.
pub(super) fn with_biases(config: &Fields, biases: Biases) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let shape = MlpShape {
        hidden_size: sizes.hidden_size,
        width: ffn_size(config, &sizes)?,
        activation: activation(config, Activation::Silu)?,
        bias: biases.ffn,
    };
    with_ffn(config, biases, |name| Ffn::Dense(llama_mlp(name, shape)))
}

/// A Llama with the given biases of attention, and the feed-forward parts that `ffn` makes of their names.
pub(super) fn with_ffn(
    config: &Fields,
    biases: Biases,
    ffn: impl Fn(&str) -> Ffn<Matrix, Vector>,
) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let rope = RopeSpec::from_config(config, sizes.head_dim)?;
    let of_layer = |idx: usize| {
        let name = |part: &str| format!("model.layers.{idx}.{part}");
        let norm = |part: &str| input_norm(rms_norm(&name(part), sizes.hidden_size, sizes.norm_eps));
        let qkv = sizes.separate_qkv(qkv_names(idx), biases.qkv);
        let out = linear(
            &name("self_attn.o_proj"),
            sizes.hidden_size,
            sizes.q_width(),
            biases.out,
        );
        let mut attention = sizes.attention(qkv, out);
        attention.rope = Some(0);
        layer(
            norm("input_layernorm"),
            attention,
            norm("post_attention_layernorm"),
            ffn(&name("mlp")),
        )
    };
    let layers = (0..sizes.n_layers).map(of_layer).collect();
    let task = Task::Generate(head(config, "lm_head", Tie::Untied, &sizes)?);
    let mut spec = sizes.model("model.embed_tokens", layers, task);
    spec.context_len = rope.context_len(sizes.context_len);
    spec.ropes = vec![rope];
    spec.final_norm = Some(rms_norm("model.norm", sizes.hidden_size, sizes.norm_eps));
    Ok(spec)
}

fn qkv_names(layer: usize) -> [String; 3] {
    ["q_proj", "k_proj", "v_proj"].map(|part| format!("model.layers.{layer}.self_attn.{part}"))
}
