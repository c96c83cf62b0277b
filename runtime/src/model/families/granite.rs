//! Granite and MiniCPM: a Llama whose parts are multiplied.

use kernels::Activation;

use super::llama;
use super::parts::{MlpShape, each_attention, experts, factor, gated_mlp};
use crate::model::config::{FFN_SIZE, Fields};
use crate::model::error::ModelError;
use crate::model::spec::{Ffn, ModelSpec, Task};

/// Granite 3.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let attention_scale = config
        .positive(&["attention_multiplier"])?
        .map(|scale| scale as f32);
    let multipliers = Multipliers {
        embedding: factor(config, &["embedding_multiplier"])?,
        residual: factor(config, &["residual_multiplier"])?,
        logits: 1.0 / factor(config, &["logits_scaling"])?,
    };
    let mut spec = llama::describe(config)?;
    multipliers.apply(&mut spec);
    each_attention(&mut spec, |_, attention| {
        attention.scale = attention_scale.unwrap_or(attention.scale);
    });
    Ok(spec)
}

/// MiniCPM 1B and 2B, and the variant with experts.
pub(super) fn describe_minicpm(config: &Fields) -> Result<ModelSpec, ModelError> {
    let mut spec = llama::describe(config)?;
    Multipliers::of_minicpm(config, &spec)?.apply(&mut spec);
    if config.count("num_experts")?.unwrap_or(0) > 0 {
        let (hidden_size, width) = (spec.hidden_size, config.required_size(FFN_SIZE)?);
        for (idx, layer) in spec.layers.iter_mut().enumerate() {
            let mlp = format!("model.layers.{idx}.mlp");
            let expert = |expert: usize| {
                let names = ["w1", "w3", "w2"].map(|part| format!("{mlp}.experts.{expert}.{part}"));
                gated_mlp(
                    names,
                    MlpShape {
                        hidden_size,
                        width,
                        activation: Activation::Silu,
                        bias: false,
                    },
                )
            };
            let moe = experts(config, &format!("{mlp}.gate"), hidden_size, expert)?;
            layer.ffn = Ffn::Experts(Box::new(moe));
        }
    }
    Ok(spec)
}

/// Factors of what flows through a model.
pub(super) struct Multipliers {
    embedding: f32,
    residual: f32,
    logits: f32,
}

impl Multipliers {
    /// MiniCPM's, which depend on depth and width.
    pub(super) fn of_minicpm(config: &Fields, spec: &ModelSpec) -> Result<Multipliers, ModelError> {
        let depth = (spec.layers.len() as f32).sqrt();
        let width = config.positive(&["dim_model_base"])?;
        Ok(Multipliers {
            embedding: factor(config, &["scale_emb"])?,
            residual: config
                .positive(&["scale_depth"])?
                .map_or(1.0, |scale| scale as f32 / depth),
            logits: width.map_or(1.0, |width| width as f32 / spec.hidden_size as f32),
        })
    }

    /// Puts them where they belong.
    pub(super) fn apply(&self, spec: &mut ModelSpec) {
        spec.embedding.scale = self.embedding;
        for layer in &mut spec.layers {
            layer.residual_scale = self.residual;
        }
        if let Task::Generate(head) = &mut spec.task {
            head.scale = self.logits;
        }
    }
}
