//! GPT-OSS: attention sinks, and experts whose gates and ups alternate, in bf16 or MXFP4.

use kernels::Activation;

use super::llama;
use super::parts::{each_attention, experts, linear, vector, windows};
use crate::model::config::{FFN_SIZE, Fields, N_EXPERTS, invalid};
use crate::model::error::ModelError;
use crate::model::spec::{Ffn, Layout, Matrix, Mlp, ModelSpec, Part, PartBias, Rows, TensorSpec};

/// GPT-OSS 20B, 120B.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let mut spec = llama::describe(config)?;
    let windows = windows(config, spec.layers.len(), |idx| idx % 2 == 0)?;
    each_attention(&mut spec, |idx, attention| {
        let name = format!("model.layers.{idx}.self_attn.sinks");
        attention.sinks = Some(vector(name, attention.n_heads));
        attention.window = windows[idx];
    });
    let stack = Stack {
        n_experts: config.required_size(N_EXPERTS)?,
        width: config.required_size(FFN_SIZE)?,
        hidden_size: spec.hidden_size,
        limit: config.positive(&["swiglu_limit"])?.unwrap_or(7.0) as f32,
        is_mxfp4: config.object("quantization_config")?.is_some(),
    };
    stack.check()?;
    for (idx, layer) in spec.layers.iter_mut().enumerate() {
        let name = format!("model.layers.{idx}.mlp");
        let router = format!("{name}.router");
        let expert = |expert| stack.expert(&format!("{name}.experts"), expert);
        let mut moe = experts(config, &router, stack.hidden_size, expert)?;
        moe.router = linear(&router, stack.n_experts, stack.hidden_size, true);
        layer.ffn = Ffn::Experts(Box::new(moe));
    }
    Ok(spec)
}

/// Numbers that share a scale.
const MXFP4_BLOCK: usize = 32;

/// A matrix of every expert.
struct Stacked {
    /// What the names of its tensors start with.
    name: String,
    n_rows: usize,
    n_cols: usize,
    /// The rows that are taken, in this order.
    taken: Vec<Rows>,
}

/// Tensors that hold all experts of a layer, one after another.
struct Stack {
    n_experts: usize,
    width: usize,
    hidden_size: usize,
    limit: f32,
    is_mxfp4: bool,
}

impl Stack {
    fn check(&self) -> Result<(), ModelError> {
        for (field, size) in [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.width),
        ] {
            if self.is_mxfp4 && !size.is_multiple_of(MXFP4_BLOCK) {
                return Err(invalid(
                    field,
                    format!("is {size}, must be a multiple of {MXFP4_BLOCK}"),
                ));
            }
        }
        Ok(())
    }

    fn expert(&self, name: &str, expert: usize) -> Mlp<Matrix> {
        let alternate = |first| Rows {
            first,
            n: self.width,
            step: 2,
        };
        let gate_up = Stacked {
            name: format!("{name}.gate_up_proj"),
            n_rows: 2 * self.width,
            n_cols: self.hidden_size,
            taken: vec![alternate(0), alternate(1)],
        };
        let down = Stacked {
            name: format!("{name}.down_proj"),
            n_rows: self.hidden_size,
            n_cols: self.width,
            taken: vec![Rows::block(0, self.hidden_size)],
        };
        Mlp {
            activation: Activation::ClampedSwiglu { limit: self.limit },
            width: self.width,
            is_gated: true,
            up: self.matrix(expert, gate_up),
            down: self.matrix(expert, down),
        }
    }

    /// One expert's `[n_rows, n_cols]`: stored transposed in bf16, and by rows in MXFP4.
    fn matrix(&self, expert: usize, stacked: Stacked) -> Matrix {
        let Stacked {
            name,
            n_rows,
            n_cols,
            taken,
        } = stacked;
        let tensor = |suffix: &str, shape: Vec<usize>| TensorSpec {
            name: format!("{name}{suffix}"),
            shape: [vec![self.n_experts], shape].concat(),
        };
        let (weight, layout) = if self.is_mxfp4 {
            let n_blocks = n_cols / MXFP4_BLOCK;
            let blocks = tensor("_blocks", vec![n_rows, n_blocks, MXFP4_BLOCK / 2]);
            let scales = tensor("_scales", vec![n_rows, n_blocks]);
            (blocks, Layout::Mxfp4 { scales })
        } else {
            (tensor("", vec![n_cols, n_rows]), Layout::Columns)
        };
        let part = Part {
            tensor: weight,
            first: expert * n_rows * n_cols,
            n_rows,
            layout,
            taken,
            bias: Some(PartBias {
                tensor: tensor("_bias", vec![n_rows]),
                first: expert * n_rows,
            }),
        };
        Matrix {
            n_cols,
            parts: vec![part],
        }
    }
}
