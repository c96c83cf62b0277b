//! Products of many rows by cuBLASLt, where it is installed.

use half::{bf16, f16};

use super::ProductThen;
use super::operands::{Linear, Prepared};
use super::scratch::{PRODUCT_FLOATS, row_len};
use crate::activation::cuda::{ActivateGated, activate, activate_gated};
use crate::cuda::{Element, Gpu, Lt, LtElement, LtProduct, LtShape, LtStrides, View};
use crate::error::{Contract, KernelError};
use crate::weight::DType;

/// Whether the library computes `op`: 16 bits, and results where its fast kernels can write them.
pub(super) fn can(op: &Linear<'_>) -> bool {
    let n = op.weight.n_rows;
    let (out, columns) = (op.out, op.out_columns);
    let is_aligned = |at: usize| (at * size_of::<f32>()).is_multiple_of(16);
    let are_whole_rows = columns.row_stride == op.then.n_out(n);
    let does_then = match op.then {
        ProductThen::Store => true,
        // The library adds a bias as it is.
        ProductThen::AddTo { scale } => op.bias.is_none() || scale == 1.0,
        ProductThen::Act(_) => are_whole_rows,
        ProductThen::Gated(_) => are_whole_rows && is_aligned(n),
    };
    op.weight.dtype != DType::F32
        && does_then
        && out.address().is_multiple_of(16)
        && is_aligned(columns.first)
        && is_aligned(columns.row_stride)
}

/// Computes `op` of the prepared rows.
pub(super) fn run(gpu: &Gpu, lt: &Lt, op: &Linear<'_>, prepared: Prepared) -> Result<(), KernelError> {
    let Prepared { m, rows } = prepared;
    match op.weight.dtype {
        DType::F16 => typed(
            gpu,
            &Product {
                lt,
                op,
                x: rows.cast::<f16>(),
            },
            m,
        ),
        _ => typed(
            gpu,
            &Product {
                lt,
                op,
                x: rows.cast::<bf16>(),
            },
            m,
        ),
    }
}

/// A product whose activations have a type.
struct Product<'a, T> {
    lt: &'a Lt,
    op: &'a Linear<'a>,
    x: View<T>,
}

fn typed<T: LtElement>(gpu: &Gpu, product: &Product<'_, T>, m: usize) -> Result<(), KernelError> {
    let op = product.op;
    let out = op.out.range(op.out_columns.first..op.out.len());
    match op.then {
        ProductThen::Store => product.run((0, m), out, (1.0, 0.0)),
        ProductThen::AddTo { scale } => product.run((0, m), out, (scale, 1.0)),
        ProductThen::Act(activation) => {
            product.run((0, m), out, (1.0, 0.0))?;
            activate(gpu, activation, out)
        }
        ProductThen::Gated(activation) => {
            let n = op.weight.n_rows;
            // As many rows at a time as there is room for gates and ups.
            let n_rows = (PRODUCT_FLOATS / n).clamp(1, m);
            for first in (0..m).step_by(n_rows) {
                let end = m.min(first + n_rows);
                let size_bytes = (end - first) * n * size_of::<f32>();
                let gate_up = op.scratch.between(Contract("linear"), size_bytes)?.cast::<f32>();
                product.run((first, end), gate_up, (1.0, 0.0))?;
                activate_gated(
                    gpu,
                    ActivateGated {
                        activation,
                        gate_up,
                        width: n / 2,
                        out: out.range(first * n / 2..end * n / 2),
                    },
                )?;
            }
            Ok(())
        }
    }
}

impl<T: LtElement + Element> Product<'_, T> {
    /// `out = scale * rows first..end of the product + keep * out`
    fn run(
        &self,
        (first, end): (usize, usize),
        out: View<f32>,
        (scale, keep): (f32, f32),
    ) -> Result<(), KernelError> {
        let weight = &self.op.weight;
        let x_stride = row_len(weight.dtype, weight.n_cols);
        let n_out = match self.op.then {
            ProductThen::Gated(_) => weight.n_rows,
            _ => self.op.out_columns.row_stride,
        };
        let product = LtProduct {
            x: self.x.range(first * x_stride..self.x.len()),
            w: weight.data.cast::<T>(),
            out,
            bias: self.op.bias,
            shape: LtShape {
                strides: LtStrides {
                    x: x_stride,
                    w: weight.row_stride,
                    out: n_out,
                },
                ..LtShape::dense(end - first, weight.n_rows, weight.n_cols)
            },
            scale,
            keep,
        };
        Ok(self.lt.product(&product)?)
    }
}
