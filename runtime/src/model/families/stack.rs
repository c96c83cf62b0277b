//! Experts whose matrices are in two tensors of a layer, those of all experts one after another.

use kernels::Activation;

use crate::model::spec::{Layout, Matrix, Mlp, Part, Rows, TensorSpec};

/// The experts of a layer: `[n_experts, 2 width, hidden_size]`, gates and then ups, and
/// `[n_experts, hidden_size, width]`; with columns, the last two dimensions change places.
#[derive(Debug)]
pub(super) struct Stack {
    /// Experts.
    pub(super) n_experts: usize,
    /// Elements between up and down.
    pub(super) width: usize,
    /// Width of the residual stream.
    pub(super) hidden_size: usize,
    /// How a matrix is stored, rows or columns.
    pub(super) layout: Layout,
    /// The activation function.
    pub(super) activation: Activation,
}

impl Stack {
    /// One expert of the tensors of these names.
    pub(super) fn expert(&self, [gate_up, down]: [String; 2], expert: usize) -> Mlp<Matrix> {
        Mlp {
            activation: self.activation,
            width: self.width,
            is_gated: true,
            up: self.matrix(gate_up, expert, [2 * self.width, self.hidden_size]),
            down: self.matrix(down, expert, [self.hidden_size, self.width]),
        }
    }

    /// One expert's `[n_rows, n_cols]`.
    fn matrix(&self, name: String, expert: usize, [n_rows, n_cols]: [usize; 2]) -> Matrix {
        let [outer, inner] = match self.layout {
            Layout::Columns => [n_cols, n_rows],
            Layout::Rows | Layout::Mxfp4 { .. } | Layout::Projected(_) => [n_rows, n_cols],
        };
        let part = Part {
            tensor: TensorSpec {
                name,
                shape: vec![self.n_experts, outer, inner],
            },
            first: expert.saturating_mul(n_rows.saturating_mul(n_cols)),
            n_rows,
            layout: self.layout.clone(),
            taken: vec![Rows::block(0, n_rows)],
            bias: None,
        };
        Matrix {
            n_cols,
            parts: vec![part],
        }
    }
}
