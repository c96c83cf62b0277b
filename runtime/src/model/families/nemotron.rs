//! Nemotron, Arcee and Apertus: a Llama whose feed-forward part has no gate.

use kernels::Activation;

use super::gemma::exceeding;
use super::llama::{self, Biases};
use super::parts::{
    Sizes, activation, each_attention, ffn_size, input_norm, layer_norm, linear, plain_mlp, refuse_flag,
    rms_norm, rms_qk_norms, unsupported,
};
use crate::model::config::{ACTIVATION, Fields};
use crate::model::error::ModelError;
use crate::model::rope::RopeSpec;
use crate::model::spec::{Ffn, ModelSpec, TensorSpec, Vector, Xielu};

/// Arcee's AFM: the activation function is the square of what is above zero.
pub(super) fn describe_arcee(config: &Fields) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let (width, hidden_size) = (ffn_size(config, &sizes)?, sizes.hidden_size);
    let bias = config.flag("mlp_bias")?.unwrap_or(false);
    let activation = activation(config, Activation::SquaredRelu)?;
    llama::with_ffn(config, attention_biases(config)?, |name| {
        let up = linear(&format!("{name}.up_proj"), width, hidden_size, bias);
        let down = linear(&format!("{name}.down_proj"), hidden_size, width, bias);
        Ffn::Dense(plain_mlp(activation, up, down))
    })
}

/// Nemotron and Minitron: layer norms that store what their weight exceeds 1 by, and heads of which half turns.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let mut spec = describe_arcee(config)?;
    spec.ropes = vec![RopeSpec::of_part(config, sizes.head_dim, 0.5)?];
    let norm = |name: &str| exceeding(layer_norm(name, sizes.hidden_size, sizes.norm_eps, true));
    for (idx, layer) in spec.layers.iter_mut().enumerate() {
        let name = |part: &str| format!("model.layers.{idx}.{part}");
        layer.attention_norms = input_norm(norm(&name("input_layernorm")));
        layer.ffn_norms = input_norm(norm(&name("post_attention_layernorm")));
    }
    spec.final_norm = Some(norm("model.norm"));
    Ok(spec)
}

/// Apertus: norms of queries and keys, and an activation function whose parameters are weights.
pub(super) fn describe_apertus(config: &Fields) -> Result<ModelSpec, ModelError> {
    if let Some(other) = config.text(ACTIVATION)?.filter(|name| *name != "xielu") {
        return Err(unsupported("hidden_act", other, "xielu"));
    }
    refuse_flag(config, "post_norm")?;
    let sizes = Sizes::read(config)?;
    let (width, hidden_size) = (ffn_size(config, &sizes)?, sizes.hidden_size);
    let mut spec = llama::with_ffn(config, attention_biases(config)?, |name| {
        let parameter = |part: &str, shape| TensorSpec {
            name: format!("{name}.act_fn.{part}"),
            shape,
        };
        Ffn::Xielu(Box::new(Xielu {
            up: linear(&format!("{name}.up_proj"), width, hidden_size, false),
            curve: Vector {
                tensors: vec![
                    parameter("alpha_p", vec![1]),
                    parameter("alpha_n", vec![1]),
                    parameter("beta", Vec::new()),
                ],
                offset: 0.0,
            },
            down: linear(&format!("{name}.down_proj"), hidden_size, width, false),
        }))
    })?;
    if config.flag("qk_norm")?.unwrap_or(true) {
        each_attention(&mut spec, |idx, attention| {
            let name = format!("model.layers.{idx}.self_attn");
            attention.qk_norms = Some(rms_qk_norms(&name, &sizes));
        });
    }
    for (idx, layer) in spec.layers.iter_mut().enumerate() {
        let norm = |part: &str| {
            let name = format!("model.layers.{idx}.{part}");
            input_norm(rms_norm(&name, hidden_size, sizes.norm_eps))
        };
        layer.attention_norms = norm("attention_layernorm");
        layer.ffn_norms = norm("feedforward_layernorm");
    }
    // A bound of the exponent near zero, which changes values by less than a millionth.
    let bound = |idx| format!("model.layers.{idx}.mlp.act_fn.eps");
    spec.ignored = (0..sizes.n_layers).map(bound).collect();
    Ok(spec)
}

fn attention_biases(config: &Fields) -> Result<Biases, ModelError> {
    let bias = config.flag("attention_bias")?.unwrap_or(false);
    Ok(Biases {
        qkv: bias,
        out: bias,
        ffn: false,
    })
}
