//! ModernBERT: an encoder of pre-normed layers with rotary positions, of which two of three see a neighbourhood.

use kernels::Activation;

use super::parts::{
    Sizes, activation, input_norm, layer, layer_norm, layer_types, linear, n_labels, named_activation,
    no_norms, unsupported,
};
use crate::model::config::{Aliases, FFN_SIZE, Fields};
use crate::model::error::ModelError;
use crate::model::pooling::PoolingKind;
use crate::model::rope::RopeSpec;
use crate::model::spec::{Classifier, Ffn, Hidden, Mlp, ModelSpec, Norm, Task, Vector};

/// Its embeddings.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let is_near = near_layers(config, sizes.n_layers)?;
    let reach = config.size(&["local_attention"])?.unwrap_or(128) / 2;
    let attention_bias = config.flag("attention_bias")?.unwrap_or(false);
    let ffn_bias = config.flag("mlp_bias")?.unwrap_or(false);
    let width = config.required_size(FFN_SIZE)?;
    let activation = activation(config, Activation::Gelu)?;
    let norm = |name: &str| norm(config, &sizes, name);
    let of_layer = |idx: usize| {
        let name = |part: &str| format!("layers.{idx}.{part}");
        let out = linear(
            &name("attn.Wo"),
            sizes.hidden_size,
            sizes.q_width(),
            attention_bias,
        );
        let mut attention = sizes.attention(sizes.fused_qkv(&name("attn.Wqkv"), attention_bias), out);
        attention.window = is_near[idx].then_some(reach + 1);
        attention.rope = Some(usize::from(is_near[idx]));
        let mlp = Mlp {
            activation,
            width,
            is_gated: true,
            up: linear(&name("mlp.Wi"), 2 * width, sizes.hidden_size, ffn_bias),
            down: linear(&name("mlp.Wo"), sizes.hidden_size, width, ffn_bias),
        };
        // The embedding's norm is the first layer's.
        let first = match idx {
            0 => no_norms(),
            _ => input_norm(norm(&name("attn_norm"))?),
        };
        let second = input_norm(norm(&name("mlp_norm"))?);
        Ok(layer(first, attention, second, Ffn::Dense(mlp)))
    };
    let layers = (0..sizes.n_layers)
        .map(of_layer)
        .collect::<Result<_, ModelError>>()?;
    let mut spec = sizes.model("embeddings.tok_embeddings", layers, Task::Embed);
    spec.ropes = ropes(config, sizes.head_dim)?;
    spec.embedding.norm = Some(norm("embeddings.norm")?);
    spec.final_norm = Some(norm("final_norm")?);
    spec.is_causal = false;
    spec.ignored = ["head.", "decoder.", "classifier."].map(str::to_owned).to_vec();
    Ok(spec)
}

/// A cross-encoder.
pub(super) fn describe_classifier(config: &Fields) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let mut spec = describe(config)?;
    let bias = config.flag("classifier_bias")?.unwrap_or(false);
    let activation = match config.text(&["classifier_activation"])? {
        Some(name) => named_activation(name)?,
        None => Activation::Gelu,
    };
    let pooling = match config.text(&["classifier_pooling"])? {
        Some("cls") | None => PoolingKind::First,
        Some("mean") => PoolingKind::Mean,
        Some(other) => return Err(unsupported("classifier_pooling", other, "cls, mean")),
    };
    spec.task = Task::Classify(Box::new(Classifier {
        pooling,
        hidden: Some(Hidden {
            dense: linear("head.dense", sizes.hidden_size, sizes.hidden_size, bias),
            activation: Some(activation),
            norm: Some(norm(config, &sizes, "head.norm")?),
        }),
        out: linear("classifier", n_labels(config)?, sizes.hidden_size, true),
    }));
    spec.ignored = vec!["decoder.".to_owned()];
    Ok(spec)
}

fn norm(config: &Fields, sizes: &Sizes, name: &str) -> Result<Norm<Vector>, ModelError> {
    let bias = config.flag("norm_bias")?.unwrap_or(false);
    let eps = config.positive(&["norm_eps"])?.unwrap_or(1e-5) as f32;
    Ok(layer_norm(name, sizes.hidden_size, eps, bias))
}

/// Which layers see a neighbourhood: `layer_types` has it layer by layer, else all but every
/// `global_attn_every_n_layers`-th one from the first on.
fn near_layers(config: &Fields, n_layers: usize) -> Result<Vec<bool>, ModelError> {
    let every = config.size(&["global_attn_every_n_layers"])?.unwrap_or(3);
    let types = layer_types(config, n_layers)?;
    Ok(types.unwrap_or_else(|| (0..n_layers).map(|idx| !idx.is_multiple_of(every)).collect()))
}

/// Positions of the layers that see everything, and of the others.
fn ropes(config: &Fields, head_dim: usize) -> Result<Vec<RopeSpec>, ModelError> {
    let parameters = config.object("rope_parameters")?;
    let of = |kind, field: Aliases, default| -> Result<RopeSpec, ModelError> {
        let inner = match &parameters {
            Some(parameters) => parameters.object(kind)?,
            None => None,
        };
        let mut rope = match &inner {
            Some(inner) => RopeSpec::from_parameters(Some(inner), config, head_dim, 1.0)?,
            None => RopeSpec::plain(head_dim)?,
        };
        let has_theta = match &inner {
            Some(inner) => inner.positive(&["rope_theta"])?.is_some(),
            None => false,
        };
        let outside = config.positive(field)?;
        if !has_theta {
            rope.theta = outside.unwrap_or(default);
        }
        Ok(rope)
    };
    let global = of("full_attention", &["global_rope_theta"], 160_000.0)?;
    let local = of("sliding_attention", &["local_rope_theta"], 10_000.0)?;
    Ok(vec![global, local])
}
