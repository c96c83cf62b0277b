//! GPT-J and GPT-NeoX (Pythia): rotary positions of a part of each head.

use kernels::{Activation, RopePairs};

use super::parts::{
    Sizes, Tie, activation, ffn_size, head, input_norm, layer, layer_norm, linear, plain_mlp, taking,
};
use super::phi::{Names, side_by_side};
use crate::model::config::Fields;
use crate::model::error::ModelError;
use crate::model::rope::RopeSpec;
use crate::model::spec::{Ffn, ModelSpec, Task};

/// GPT-J 6B.
pub(super) fn describe_gptj(config: &Fields) -> Result<ModelSpec, ModelError> {
    const NAMES: Names = Names {
        embed: "transformer.wte",
        layers: "transformer.h",
        norm: "ln_1",
        attention: "attn",
        out: "out_proj",
        mlp: ["mlp.fc_in", "mlp.fc_out"],
        final_norm: "transformer.ln_f",
        has_attention_bias: false,
    };
    let head_dim = Sizes::read(config)?.head_dim;
    let mut rope = RopeSpec::plain(head_dim)?;
    rope.set_dim(config.size(&["rotary_dim"])?.unwrap_or(head_dim), head_dim)?;
    rope.pairs = RopePairs::Interleaved;
    side_by_side(config, &NAMES, rope)
}

/// GPT-NeoX 20B, Pythia, Dolly, RedPajama.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let width = ffn_size(config, &sizes)?;
    let activation = activation(config, Activation::Gelu)?;
    let is_parallel = config.flag("use_parallel_residual")?.unwrap_or(true);
    let bias = config.flag("attention_bias")?.unwrap_or(true);
    let norm = |name: &str| layer_norm(name, sizes.hidden_size, sizes.norm_eps, true);
    let of_layer = |idx: usize| {
        let name = |part: &str| format!("gpt_neox.layers.{idx}.{part}");
        let fused = sizes.fused_qkv(&name("attention.query_key_value"), bias);
        let out = linear(&name("attention.dense"), sizes.hidden_size, sizes.q_width(), bias);
        let mut attention = sizes.attention(taking(fused, &sizes.ungrouped()), out);
        attention.rope = Some(0);
        let up = linear(&name("mlp.dense_h_to_4h"), width, sizes.hidden_size, true);
        let down = linear(&name("mlp.dense_4h_to_h"), sizes.hidden_size, width, true);
        let mut layer = layer(
            input_norm(norm(&name("input_layernorm"))),
            attention,
            input_norm(norm(&name("post_attention_layernorm"))),
            Ffn::Dense(plain_mlp(activation, up, down)),
        );
        layer.is_parallel = is_parallel;
        layer
    };
    let layers = (0..sizes.n_layers).map(of_layer).collect();
    let task = Task::Generate(head(config, "embed_out", Tie::Untied, &sizes)?);
    let mut spec = sizes.model("gpt_neox.embed_in", layers, task);
    spec.ropes = vec![RopeSpec::of_part(config, sizes.head_dim, 0.25)?];
    spec.final_norm = Some(norm("gpt_neox.final_layer_norm"));
    Ok(spec)
}
