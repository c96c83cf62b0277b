//! StarCoder 2: a Llama with layer norms, biases and a feed-forward part without a gate.

use kernels::Activation;

use super::llama::{self, Biases};
use super::parts::{
    Sizes, Tie, activation, each_attention, ffn_size, head, input_norm, layer_norm, linear, plain_mlp,
    windows,
};
use crate::model::config::Fields;
use crate::model::error::ModelError;
use crate::model::spec::{Ffn, ModelSpec, Task};

/// StarCoder 2 3B, 7B, 15B.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let bias = config.flag("use_bias")?.unwrap_or(true);
    let width = ffn_size(config, &sizes)?;
    let activation = activation(config, Activation::GeluTanh)?;
    let biases = Biases {
        qkv: bias,
        out: bias,
        ffn: bias,
    };
    let mut spec = llama::with_biases(config, biases)?;
    let windows = windows(config, sizes.n_layers, |_| true)?;
    each_attention(&mut spec, |idx, attention| attention.window = windows[idx]);
    let norm = |name: &str| layer_norm(name, sizes.hidden_size, sizes.norm_eps, true);
    for (idx, layer) in spec.layers.iter_mut().enumerate() {
        let name = |part: &str| format!("model.layers.{idx}.{part}");
        layer.attention_norms = input_norm(norm(&name("input_layernorm")));
        layer.ffn_norms = input_norm(norm(&name("post_attention_layernorm")));
        let up = linear(&name("mlp.c_fc"), width, sizes.hidden_size, bias);
        let down = linear(&name("mlp.c_proj"), sizes.hidden_size, width, bias);
        layer.ffn = Ffn::Dense(plain_mlp(activation, up, down));
    }
    spec.final_norm = Some(norm("model.norm"));
    spec.task = Task::Generate(head(config, "lm_head", Tie::Tied, &sizes)?);
    Ok(spec)
}
