//! Products with weights on the device: of all columns, head by head, or expert by expert.

mod experts;
mod gemv;
mod input;
mod library;
mod linear;
mod operands;
mod per_head;
mod scratch;
mod stream;
#[cfg(test)]
mod tests;
mod tile;

use super::K_MAX;
use crate::activation::Activation;
use crate::cuda::{Arg, View};
use crate::error::{Contract, KernelError};
use crate::norm::NormKind;

pub use experts::{Experts, experts};
pub use linear::linear;
pub use operands::Linear;
pub use per_head::{PerHead, per_head};
pub use scratch::{ProductScratch, ScratchSizes};

/// A norm of each row before a product.
#[derive(Clone, Copy, Debug)]
pub struct RowNorm {
    /// What is taken out.
    pub kind: NormKind,
    /// Factor of each element. `[k]`
    pub weight: Option<View<f32>>,
    /// Added to each element in the end. `[k]`
    pub bias: Option<View<f32>>,
    /// Added to the mean square, so that zeros have a norm.
    pub eps: f32,
}

/// What becomes of a product and its bias.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ProductThen {
    /// It replaces the output.
    Store,
    /// `scale` times it is added to the output.
    AddTo {
        /// Factor.
        scale: f32,
    },
    /// An activation function of it replaces the output.
    Act(Activation),
    /// Its first half is gates and its second half ups: `act(gate) · up` replaces the output.
    Gated(Activation),
}

impl ProductThen {
    /// Elements of a row of the output of a product with a matrix of `n` rows.
    fn n_out(self, n: usize) -> usize {
        match self {
            ProductThen::Gated(_) => n / 2,
            _ => n,
        }
    }

    /// Checks that the rows of the matrix can be halved where they are.
    fn check(self, op: Contract, n: usize) -> Result<(), KernelError> {
        let can = !matches!(self, ProductThen::Gated(_)) || n.is_multiple_of(2);
        op.range(can, "n", n, "even for gates and ups")
    }
}

/// How kernels read what becomes of a product: its number, a factor, and an activation function with its parameters.
fn then_args(then: ProductThen) -> [Arg<'static>; 6] {
    let (code, scale, activation) = match then {
        ProductThen::Store => (0, 1.0, None),
        ProductThen::AddTo { scale } => (1, scale, None),
        ProductThen::Act(activation) => (2, 1.0, Some(activation)),
        ProductThen::Gated(activation) => (3, 1.0, Some(activation)),
    };
    let (kind, parameters) = activation
        .map(Activation::args)
        .map_or((0, [0.0; 3]), |args| (args.kind, args.parameters));
    let [a, b, c] = parameters.map(Arg::F32);
    [Arg::I32(code), Arg::F32(scale), Arg::I32(kind), a, b, c]
}
