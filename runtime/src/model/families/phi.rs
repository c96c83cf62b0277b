//! Phi 1.5 and 2, whose parts of a layer run side by side; Phi 3 and 4, a Llama with fused layers.

use kernels::Activation;

use super::llama;
use super::parts::{
    Sizes, Tie, activation, each_attention, ffn_size, head, input_norm, layer, layer_norm, linear, no_norms,
    plain_mlp, refuse_flag, windows,
};
use crate::model::config::{FFN_SIZE, Fields};
use crate::model::error::ModelError;
use crate::model::rope::RopeSpec;
use crate::model::spec::{Ffn, ModelSpec, Task};

/// Phi 1, 1.5, 2.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    const NAMES: Names = Names {
        embed: "model.embed_tokens",
        layers: "model.layers",
        norm: "input_layernorm",
        attention: "self_attn",
        out: "dense",
        mlp: ["mlp.fc1", "mlp.fc2"],
        final_norm: "model.final_layernorm",
        has_attention_bias: true,
    };
    refuse_flag(config, "qk_layernorm")?;
    let sizes = Sizes::read(config)?;
    let mut rope = RopeSpec::of_part(config, sizes.head_dim, 0.5)?;
    // The first releases name the elements that turn, and the others their part.
    let dim = config.size(&["rotary_dim"])?;
    if let (Some(dim), None) = (dim, config.number(&["partial_rotary_factor"])?) {
        rope.set_dim(dim, sizes.head_dim)?;
    }
    side_by_side(config, &NAMES, rope)
}

/// What models of [`side_by_side`] call their tensors.
pub(super) struct Names {
    pub(super) embed: &'static str,
    pub(super) layers: &'static str,
    pub(super) norm: &'static str,
    pub(super) attention: &'static str,
    pub(super) out: &'static str,
    pub(super) mlp: [&'static str; 2],
    pub(super) final_norm: &'static str,
    pub(super) has_attention_bias: bool,
}

/// Layers of one norm, after which both parts run side by side, and a head with a bias.
pub(super) fn side_by_side(config: &Fields, names: &Names, rope: RopeSpec) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let width = ffn_size(config, &sizes)?;
    let activation = activation(config, Activation::GeluTanh)?;
    let norm = |name: &str| layer_norm(name, sizes.hidden_size, sizes.norm_eps, true);
    let of_layer = |idx: usize| {
        let name = |part: &str| format!("{}.{idx}.{part}", names.layers);
        let of_attention = |part: &str| name(&format!("{}.{part}", names.attention));
        let bias = names.has_attention_bias;
        let qkv = sizes.separate_qkv(["q_proj", "k_proj", "v_proj"].map(of_attention), bias);
        let out = linear(&of_attention(names.out), sizes.hidden_size, sizes.q_width(), bias);
        let mut attention = sizes.attention(qkv, out);
        attention.rope = Some(0);
        let [up, down] = names.mlp.map(name);
        let up = linear(&up, width, sizes.hidden_size, true);
        let down = linear(&down, sizes.hidden_size, width, true);
        let mut layer = layer(
            input_norm(norm(&name(names.norm))),
            attention,
            no_norms(),
            Ffn::Dense(plain_mlp(activation, up, down)),
        );
        layer.is_parallel = true;
        layer
    };
    let layers = (0..sizes.n_layers).map(of_layer).collect();
    let mut head = head(config, "lm_head", Tie::Untied, &sizes)?;
    let with_bias = |_| linear("lm_head", sizes.vocab_size, sizes.hidden_size, true);
    head.weight = head.weight.map(with_bias);
    let mut spec = sizes.model(names.embed, layers, Task::Generate(head));
    spec.ropes = vec![rope];
    spec.final_norm = Some(norm(names.final_norm));
    Ok(spec)
}

/// Phi 3, 3.5, 4, 4-mini.
pub(super) fn describe_3(config: &Fields) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let width = config.required_size(FFN_SIZE)?;
    let mut spec = llama::describe(config)?;
    let windows = windows(config, sizes.n_layers, |_| true)?;
    each_attention(&mut spec, |idx, attention| {
        attention.window = windows[idx];
        attention.qkv = sizes.fused_qkv(&format!("model.layers.{idx}.self_attn.qkv_proj"), false);
    });
    for (idx, layer) in spec.layers.iter_mut().enumerate() {
        if let Ffn::Dense(mlp) = &mut layer.ffn {
            let name = format!("model.layers.{idx}.mlp.gate_up_proj");
            mlp.up = linear(&name, 2 * width, sizes.hidden_size, false);
        }
    }
    Ok(spec)
}
