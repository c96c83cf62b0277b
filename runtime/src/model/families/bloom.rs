//! BLOOM and MPT: distances instead of positions.

use kernels::Activation;

use super::parts::{
    ALIBI_MAX, Sizes, Tie, alibi_slopes, factor, ffn_size, head, input_norm, layer, layer_norm, linear,
    plain_mlp, refuse_flag, taking, unsupported,
};
use crate::model::config::{Fields, N_HEADS, N_KV_HEADS, invalid};
use crate::model::error::ModelError;
use crate::model::spec::{Ffn, Head, Matrix, ModelSpec, QkNorms, Task};

/// BLOOM, BLOOMZ.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let width = ffn_size(config, &sizes)?;
    let adds_to_normed = config
        .flag("apply_residual_connection_post_layernorm")?
        .unwrap_or(false);
    let norm = |name: &str| layer_norm(name, sizes.hidden_size, sizes.norm_eps, true);
    let of_layer = |idx: usize| {
        let name = |part: &str| format!("transformer.h.{idx}.{part}");
        let fused = sizes.fused_qkv(&name("self_attention.query_key_value"), true);
        let out = linear(
            &name("self_attention.dense"),
            sizes.hidden_size,
            sizes.q_width(),
            true,
        );
        let mut attention = sizes.attention(taking(fused, &sizes.ungrouped()), out);
        attention.alibi_slopes = Some(alibi_slopes(sizes.n_heads, ALIBI_MAX));
        let up = linear(&name("mlp.dense_h_to_4h"), width, sizes.hidden_size, true);
        let down = linear(&name("mlp.dense_4h_to_h"), sizes.hidden_size, width, true);
        let mlp = plain_mlp(Activation::GeluTanh, up, down);
        let mut layer = layer(
            input_norm(norm(&name("input_layernorm"))),
            attention,
            input_norm(norm(&name("post_attention_layernorm"))),
            Ffn::Dense(mlp),
        );
        layer.adds_to_normed = adds_to_normed;
        layer
    };
    let layers = (0..sizes.n_layers).map(of_layer).collect();
    let task = Task::Generate(head(config, "lm_head", Tie::Tied, &sizes)?);
    let mut spec = sizes.model("transformer.word_embeddings", layers, task);
    spec.embedding.norm = Some(norm("transformer.word_embeddings_layernorm"));
    spec.final_norm = Some(norm("transformer.ln_f"));
    Ok(spec)
}

/// MPT 7B, 30B, Storywriter.
pub(super) fn describe_mpt(config: &Fields) -> Result<ModelSpec, ModelError> {
    let attn = config.object("attn_config")?;
    let attn = attn.ok_or_else(|| invalid("attn_config", "is missing".to_owned()))?;
    for option in ["prefix_lm", "rope", "attn_uses_sequence_id"] {
        refuse_flag(&attn, option)?;
    }
    // In which precision norms are computed.
    if let Some(other) = config
        .text(&["norm_type"])?
        .filter(|name| !name.ends_with("layernorm"))
    {
        return Err(unsupported(
            "norm_type",
            other,
            "layernorm, low_precision_layernorm",
        ));
    }
    let n_heads = config.required_size(N_HEADS)?;
    let n_kv_heads = match (attn.size(N_KV_HEADS)?, attn.text(&["attn_type"])?) {
        (Some(n_kv_heads), _) => n_kv_heads,
        (None, Some("multiquery_attention")) => 1,
        (None, _) => n_heads,
    };
    let mut sizes = Sizes::with_kv_heads(config, n_kv_heads)?;
    sizes.norm_eps = 1e-5;
    let bias = !config.flag("no_bias")?.unwrap_or(true);
    let width = config.size(&["expansion_ratio"])?.unwrap_or(4) * sizes.hidden_size;
    let clip = attn.positive(&["clip_qkv"])?.map(|clip| clip as f32);
    let scale = attn.positive(&["softmax_scale"])?.map(|scale| scale as f32);
    let slopes = match attn.flag("alibi")?.unwrap_or(false) {
        true => Some(alibi_slopes(
            n_heads,
            attn.positive(&["alibi_bias_max"])?.unwrap_or(ALIBI_MAX),
        )),
        false => None,
    };
    let has_qk_norms = attn.flag("qk_ln")?.unwrap_or(false);
    let norm = |name: &str| layer_norm(name, sizes.hidden_size, sizes.norm_eps, bias);
    let of_layer = |idx: usize| {
        let name = |part: &str| format!("transformer.blocks.{idx}.{part}");
        let out = linear(&name("attn.out_proj"), sizes.hidden_size, sizes.q_width(), bias);
        let mut attention = sizes.attention(sizes.fused_qkv(&name("attn.Wqkv"), bias), out);
        attention.scale = scale.unwrap_or(attention.scale);
        attention.clip = clip;
        attention.alibi_slopes.clone_from(&slopes);
        if has_qk_norms {
            attention.qk_norms = Some(QkNorms {
                after_rope: false,
                over_all_heads: true,
                q: layer_norm(&name("attn.q_ln"), sizes.q_width(), sizes.norm_eps, bias),
                k: layer_norm(&name("attn.k_ln"), sizes.kv_width(), sizes.norm_eps, bias),
                v: None,
            });
        }
        let up = linear(&name("ffn.up_proj"), width, sizes.hidden_size, bias);
        let down = linear(&name("ffn.down_proj"), sizes.hidden_size, width, bias);
        let mlp = plain_mlp(Activation::Gelu, up, down);
        layer(
            input_norm(norm(&name("norm_1"))),
            attention,
            input_norm(norm(&name("norm_2"))),
            Ffn::Dense(mlp),
        )
    };
    let layers = (0..sizes.n_layers).map(of_layer).collect();
    let mut spec = sizes.model(
        "transformer.wte",
        layers,
        Task::Generate(mpt_head(config, &sizes)?),
    );
    if slopes.is_none() && config.flag("learned_pos_emb")?.unwrap_or(true) {
        let table = linear("transformer.wpe", sizes.context_len, sizes.hidden_size, false);
        spec.embedding.positions = Some(table);
    }
    spec.final_norm = Some(norm("transformer.norm_f"));
    Ok(spec)
}

fn mpt_head(config: &Fields, sizes: &Sizes) -> Result<Head<Matrix>, ModelError> {
    let mut head = head(config, "lm_head", Tie::Tied, sizes)?;
    head.scale = match config.text(&["logit_scale"]) {
        Ok(None) => 1.0,
        Ok(Some("inv_sqrt_d_model")) => (sizes.hidden_size as f32).powf(-0.5),
        Ok(Some(other)) => return Err(unsupported("logit_scale", other, "inv_sqrt_d_model or a number")),
        Err(_) => factor(config, &["logit_scale"])?,
    };
    Ok(head)
}
