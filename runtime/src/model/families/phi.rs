//! Phi 1.5 and 2, whose parts of a layer run side by side; Phi 3 and 4, a Llama with fused layers.

use kernels::Activation;

use super::llama;
use super::parts::{
    Sizes, activation, each_attention, ffn_size, head, input_norm, layer, layer_norm, linear, no_norms,
    plain_mlp, refuse_flag, windows,
};
use crate::model::ModelError;
use crate::model::config::{FFN_SIZE, Fields};
use crate::model::rope::RopeSpec;
use crate::model::spec::{Ffn, ModelSpec, Task};

/// Phi 1, 1.5, 2.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    refuse_flag(config, "qk_layernorm")?;
    let sizes = Sizes::read(config)?;
    let width = ffn_size(config, &sizes)?;
    let activation = activation(config, Activation::GeluTanh)?;
    let norm = |name: &str| layer_norm(name, sizes.hidden_size, sizes.norm_eps, true);
    let of_layer = |idx: usize| {
        let name = |part: &str| format!("model.layers.{idx}.{part}");
        let names = ["q_proj", "k_proj", "v_proj"].map(|part| name(&format!("self_attn.{part}")));
        let out = linear(&name("self_attn.dense"), sizes.hidden_size, sizes.q_width(), true);
        let mut attention = sizes.attention(sizes.separate_qkv(names, true), out);
        attention.rope = Some(0);
        let up = linear(&name("mlp.fc1"), width, sizes.hidden_size, true);
        let down = linear(&name("mlp.fc2"), sizes.hidden_size, width, true);
        let mut layer = layer(
            (input_norm(norm(&name("input_layernorm"))), attention),
            (no_norms(), Ffn::Dense(plain_mlp(activation, up, down))),
        );
        layer.is_parallel = true;
        layer
    };
    let layers = (0..sizes.n_layers).map(of_layer).collect();
    let mut head = head(config, ("lm_head", false), &sizes)?;
    head.weight = head
        .weight
        .map(|_| linear("lm_head", sizes.vocab_size, sizes.hidden_size, true));
    let mut spec = sizes.model("model.embed_tokens", layers, Task::Generate(head));
    spec.ropes = vec![RopeSpec::of_part(config, sizes.head_dim, 0.5)?];
    spec.final_norm = Some(norm("model.final_layernorm"));
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
