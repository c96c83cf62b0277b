//! Granite and MiniCPM: a Llama whose parts are multiplied.

use kernels::Activation;

use super::llama;
use super::parts::{MlpShape, activation, each_attention, experts, factor, gated_mlp, linear, unsupported};
use super::stack::Stack;
use crate::model::config::{FFN_SIZE, Fields, N_EXPERTS, invalid};
use crate::model::error::ModelError;
use crate::model::spec::{Ffn, Layout, Matrix, Mlp, ModelSpec, Task};

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

/// Granite 3 with experts, and those with an expert of every token.
pub(super) fn describe_moe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let mut spec = describe(config)?;
    let stack = Stack {
        n_experts: config.required_size(N_EXPERTS)?,
        width: config.required_size(FFN_SIZE)?,
        hidden_size: spec.hidden_size,
        layout: Layout::Rows,
        activation: activation(config, Activation::Silu)?,
    };
    let shared = Shared::read(config, &spec)?;
    for (idx, layer) in spec.layers.iter_mut().enumerate() {
        let name = format!("model.layers.{idx}.block_sparse_moe");
        let expert = |expert| {
            let names = ["input_linear", "output_linear"].map(|part| format!("{name}.{part}.weight"));
            stack.expert(names, expert)
        };
        let mut moe = experts(config, &format!("{name}.router.layer"), stack.hidden_size, expert)?;
        moe.shared = shared.as_ref().map(|shared| shared.mlp(idx));
        layer.ffn = Ffn::Experts(Box::new(moe));
    }
    Ok(spec)
}

/// Granite 4 without state-space layers: dense, or with experts.
pub(super) fn describe_4(config: &Fields) -> Result<ModelSpec, ModelError> {
    let types = config.texts("layer_types")?.unwrap_or_default();
    let is_other = |kind: &&&str| !matches!(**kind, "attention" | "full_attention");
    let other = types.iter().find(is_other).copied();
    if let Some(other) = other.or(types.is_empty().then_some("mamba")) {
        return Err(unsupported("layer_types", other, "attention"));
    }
    let mut spec = match config.count("num_local_experts")?.unwrap_or(0) {
        0 => {
            let mut spec = describe(config)?;
            let shared = Shared::read(config, &spec)?;
            let shared = shared.ok_or_else(|| invalid(SHARED_SIZE, "is missing".to_owned()))?;
            for (idx, layer) in spec.layers.iter_mut().enumerate() {
                layer.ffn = Ffn::Dense(shared.mlp(idx));
            }
            spec
        }
        _ => describe_moe(config)?,
    };
    if config.text(&["position_embedding_type"])? != Some("rope") {
        each_attention(&mut spec, |_, attention| attention.rope = None);
    }
    Ok(spec)
}

const SHARED_SIZE: &str = "shared_intermediate_size";

/// The feed-forward part of every token.
struct Shared {
    width: usize,
    hidden_size: usize,
    activation: Activation,
}

impl Shared {
    /// `None` if the model has none.
    fn read(config: &Fields, spec: &ModelSpec) -> Result<Option<Shared>, ModelError> {
        let activation = activation(config, Activation::Silu)?;
        let width = config.count(SHARED_SIZE)?.filter(|width| *width > 0);
        Ok(width.map(|width| Shared {
            width,
            hidden_size: spec.hidden_size,
            activation,
        }))
    }

    fn mlp(&self, layer: usize) -> Mlp<Matrix> {
        let name = |part: &str| format!("model.layers.{layer}.shared_mlp.{part}");
        Mlp {
            activation: self.activation,
            width: self.width,
            is_gated: true,
            up: linear(&name("input_linear"), 2 * self.width, self.hidden_size, false),
            down: linear(&name("output_linear"), self.hidden_size, self.width, false),
        }
    }
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
