//! Llama, and what is a Llama under another name.
//!
//! Names and options: Touvron et al. 2023 as published on the Hugging Face Hub (`model_type: llama`).

use crate::model::ModelError;
use crate::model::config::{
    CONTEXT_LEN, FFN_SIZE, Fields, HIDDEN_SIZE, N_HEADS, N_KV_HEADS, N_LAYERS, NORM_EPS, invalid,
};
use crate::model::rope::RopeSpec;
use crate::model::spec::{Bias, DecoderSpec, LinearNames, Names};

/// Most layers; published models have at most a few hundred.
const N_LAYERS_MAX: usize = 4096;

/// Llama 1, 2, 3 and their many fine-tunes; also Aquila, Xverse and early Yi.
pub(super) fn describe(config: &Fields) -> Result<DecoderSpec, ModelError> {
    let attention_bias = config.flag("attention_bias")?.unwrap_or(false).into();
    let mlp_bias = config.flag("mlp_bias")?.unwrap_or(false).into();
    with_biases(
        config,
        Biases {
            qkv: attention_bias,
            out: attention_bias,
            ffn: mlp_bias,
        },
    )
}

/// InternLM 1: one flag `bias` for all of attention.
pub(super) fn describe_internlm(config: &Fields) -> Result<DecoderSpec, ModelError> {
    let bias = config.flag("bias")?.unwrap_or(true).into();
    with_biases(
        config,
        Biases {
            qkv: bias,
            out: bias,
            ffn: Bias::Absent,
        },
    )
}

/// Which linear layers of a block add a bias.
pub(super) struct Biases {
    pub(super) qkv: Bias,
    pub(super) out: Bias,
    pub(super) ffn: Bias,
}

/// A Llama with the given biases.
pub(super) fn with_biases(config: &Fields, biases: Biases) -> Result<DecoderSpec, ModelError> {
    check_activation(config)?;
    let hidden_size = config.required_size(HIDDEN_SIZE)?;
    let ffn_size = config.required_size(FFN_SIZE)?;
    let n_layers = config.required_size(N_LAYERS)?;
    if n_layers > N_LAYERS_MAX {
        return Err(invalid(
            "num_hidden_layers",
            format!("is {n_layers}, must be at most {N_LAYERS_MAX}"),
        ));
    }
    let (n_heads, n_kv_heads, head_dim) = heads(config, hidden_size)?;
    let rope = RopeSpec::from_config(config, head_dim)?;
    let attention = |part| (part, n_heads * head_dim);
    let shared = |part| (part, n_kv_heads * head_dim);
    let qkv = vec![
        attention("model.layers.{i}.self_attn.q_proj"),
        shared("model.layers.{i}.self_attn.k_proj"),
        shared("model.layers.{i}.self_attn.v_proj"),
    ];
    let out = vec![("model.layers.{i}.self_attn.o_proj", hidden_size)];
    let gate_up = vec![
        ("model.layers.{i}.mlp.gate_proj", ffn_size),
        ("model.layers.{i}.mlp.up_proj", ffn_size),
    ];
    let down = vec![("model.layers.{i}.mlp.down_proj", hidden_size)];
    let tied = config.flag("tie_word_embeddings")?.unwrap_or(false);
    Ok(DecoderSpec {
        vocab_size: config.required_size(&["vocab_size"])?,
        hidden_size,
        n_heads,
        n_kv_heads,
        head_dim,
        ffn_size,
        norm_eps: config.positive(NORM_EPS)?.unwrap_or(1e-6) as f32,
        context_len: rope.context_len(config.required_size(CONTEXT_LEN)?),
        rope,
        windows: vec![None; n_layers],
        names: Names {
            embed: "model.embed_tokens",
            final_norm: "model.norm",
            head: (!tied).then_some("lm_head"),
            attention_norm: "model.layers.{i}.input_layernorm",
            ffn_norm: "model.layers.{i}.post_attention_layernorm",
            qkv: LinearNames {
                parts: qkv,
                n_cols: hidden_size,
                bias: biases.qkv,
            },
            out: LinearNames {
                parts: out,
                n_cols: n_heads * head_dim,
                bias: biases.out,
            },
            gate_up: LinearNames {
                parts: gate_up,
                n_cols: hidden_size,
                bias: biases.ffn,
            },
            down: LinearNames {
                parts: down,
                n_cols: ffn_size,
                bias: biases.ffn,
            },
        },
    })
}

/// Query heads, key and value heads, elements of a head.
fn heads(config: &Fields, hidden_size: usize) -> Result<(usize, usize, usize), ModelError> {
    let n_heads = config.required_size(N_HEADS)?;
    let n_kv_heads = config.size(N_KV_HEADS)?.unwrap_or(n_heads);
    if !n_heads.is_multiple_of(n_kv_heads) {
        let reason = format!("is {n_kv_heads}, which does not divide the {n_heads} attention heads");
        return Err(invalid("num_key_value_heads", reason));
    }
    let head_dim = match config.size(&["head_dim"])? {
        Some(head_dim) => head_dim,
        None if hidden_size.is_multiple_of(n_heads) => hidden_size / n_heads,
        None => {
            let reason = format!("is {n_heads}, which does not divide the hidden size {hidden_size}");
            return Err(invalid("num_attention_heads", reason));
        }
    };
    Ok((n_heads, n_kv_heads, head_dim))
}

/// Every family here has the same activation; the field only says so.
fn check_activation(config: &Fields) -> Result<(), ModelError> {
    match config.text(&["hidden_act", "hidden_activation", "activation_function"])? {
        None | Some("silu" | "swish") => Ok(()),
        Some(other) => Err(ModelError::UnsupportedOption {
            option: "hidden_act",
            value: other.to_owned(),
            supported: "silu",
        }),
    }
}

/// How far each layer looks back: `layer_types` says it layer by layer, else `windowed` does.
pub(super) fn windows(
    config: &Fields,
    n_layers: usize,
    windowed: impl Fn(usize) -> bool,
) -> Result<Vec<Option<usize>>, ModelError> {
    let Some(window) = config.size(&["sliding_window"])? else {
        return Ok(vec![None; n_layers]);
    };
    let Some(types) = config.texts("layer_types")? else {
        return Ok((0..n_layers)
            .map(|layer| windowed(layer).then_some(window))
            .collect());
    };
    if types.len() != n_layers {
        return Err(invalid(
            "layer_types",
            format!("has {} entries for {n_layers} layers", types.len()),
        ));
    }
    let of_type = |kind: &str| match kind {
        "sliding_attention" => Ok(Some(window)),
        "full_attention" => Ok(None),
        other => Err(ModelError::UnsupportedOption {
            option: "layer_types",
            value: other.to_owned(),
            supported: "full_attention, sliding_attention",
        }),
    };
    types.into_iter().map(of_type).collect()
}
