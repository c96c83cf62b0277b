//! T5's encoder, as text embedding models use it (sentence-t5, gtr-t5): biases by distance in the place of positions,
//! and scores without a factor.

use kernels::Activation;

use super::parts::{
    MlpShape, Sizes, each_attention, ffn_size, gated_mlp, input_norm, layer, linear, named_activation,
    plain_mlp, rms_norm,
};
use super::relative::Buckets;
use crate::model::config::Fields;
use crate::model::error::ModelError;
use crate::model::spec::{Ffn, ModelSpec, Task};

/// Where a config names none, as T5's first ones do not.
const FARTHEST: usize = 128;

/// The encoder of T5 and of T5 1.1.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    // The decoder is left out; the last two follow from feed_forward_proj.
    config.without_effect(&[
        "num_decoder_layers",
        "tie_word_embeddings",
        "dense_act_fn",
        "is_gated_act",
    ]);
    let sizes = Sizes::read(config)?;
    let width = ffn_size(config, &sizes)?;
    let (activation, is_gated) = feed_forward(config)?;
    let norm = |name: &str| rms_norm(name, sizes.hidden_size, sizes.norm_eps);
    let of_layer = |idx: usize| {
        let name = |part: &str| format!("encoder.block.{idx}.layer.{part}");
        let qkv = ["q", "k", "v"].map(|part| name(&format!("0.SelfAttention.{part}")));
        let out = linear(
            &name("0.SelfAttention.o"),
            sizes.hidden_size,
            sizes.q_width(),
            false,
        );
        let mut attention = sizes.attention(sizes.separate_qkv(qkv, false), out);
        attention.scale = 1.0;
        let dense = |part: &str| name(&format!("1.DenseReluDense.{part}"));
        let mlp = if is_gated {
            let shape = MlpShape {
                hidden_size: sizes.hidden_size,
                width,
                activation,
                bias: false,
            };
            gated_mlp(["wi_0", "wi_1", "wo"].map(dense), shape)
        } else {
            let up = linear(&dense("wi"), width, sizes.hidden_size, false);
            plain_mlp(
                activation,
                up,
                linear(&dense("wo"), sizes.hidden_size, width, false),
            )
        };
        layer(
            input_norm(norm(&name("0.layer_norm"))),
            attention,
            input_norm(norm(&name("1.layer_norm"))),
            Ffn::Dense(mlp),
        )
    };
    let layers = (0..sizes.n_layers).map(of_layer).collect();
    let mut spec = sizes.model("shared", layers, Task::Embed);
    spec.final_norm = Some(norm("encoder.final_layer_norm"));
    spec.is_causal = false;
    spec.ignored = ["encoder.embed_tokens.", "decoder.", "lm_head."]
        .map(str::to_owned)
        .to_vec();
    let n_buckets = config.required_size(&["relative_attention_num_buckets"])?;
    let farthest = config.size(&["relative_attention_max_distance"])?;
    let buckets = Buckets::new(n_buckets, farthest.unwrap_or(FARTHEST))?;
    each_attention(&mut spec, |_, attention| {
        let name = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
        attention.relative = Some(buckets.bias(name, attention.n_heads));
    });
    Ok(spec)
}

/// The activation function of the feed-forward part, and whether it has a gate.
fn feed_forward(config: &Fields) -> Result<(Activation, bool), ModelError> {
    match config.text(&["feed_forward_proj"])?.unwrap_or("relu") {
        // The name means another GELU than elsewhere.
        "gated-gelu" => Ok((Activation::GeluTanh, true)),
        gated if gated.starts_with("gated-") => Ok((named_activation(&gated["gated-".len()..])?, true)),
        plain => Ok((named_activation(plain)?, false)),
    }
}
