//! A product of all columns with one weight, and the choice of the kernels that compute it.

use super::input::{self, Input};
use super::operands::{Linear, Prepared};
use super::scratch::{LIBRARY_ROWS_MIN, rows_bytes};
use super::tile::{self, Rows, TileProduct, Tiles, Weights};
use super::{K_MAX, gemv, library, stream};
use crate::cuda::Gpu;
use crate::error::{Contract, KernelError};
use crate::weight::{DType, Matrix};

/// `out = then(norm(x) · Wᵀ + bias)`; `m` follows from the length of `x` and may be zero.
///
/// A weight of 16 bits is multiplied with activations rounded to its type, except that a product of few rows may keep
/// them in f32; sums are in f32, in an order that depends on the shapes and the device only.
///
/// # Errors
/// The lengths of the operands do not agree with the weight, the scratch is too small, or the device fails.
pub fn linear(gpu: &Gpu, op: &Linear<'_>) -> Result<(), KernelError> {
    let contract = Contract("linear");
    let Matrix {
        n_rows: n, n_cols: k, ..
    } = op.weight;
    op.then.check(contract, n)?;
    let m = op.x_columns.check(contract, "x", op.x.len(), k)?;
    op.out_columns
        .check(contract, "out", op.out.len(), op.then.n_out(n))?;
    contract.len("out", op.out.len(), m * op.out_columns.row_stride)?;
    let of_norm = op.norm.as_ref().map(|norm| [norm.weight, norm.bias]);
    for vector in of_norm.iter().flatten().flatten() {
        contract.len("norm", vector.len(), k)?;
    }
    if let Some(bias) = op.bias {
        contract.len("bias", bias.len(), n)?;
    }
    contract.range(k <= K_MAX, "k", k, "at most 2^24")?;
    if m == 0 {
        return Ok(());
    }
    run(gpu, op, (m, way(gpu.capability(), op, m)))
}

/// Which kernels compute a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// A warp for two rows of the weight, the norm fused.
    Gemv,
    /// Hopper's copy engine and matrix units.
    Stream,
    /// cuBLASLt.
    Library,
    /// Tiles, on any card and for any type.
    Tiles,
}

/// The choice, in one place. Of few rows the weight's bytes decide, and each kernel reads these once; of many rows the
/// arithmetic does, at which the library is best.
pub(super) fn way(capability: (u32, u32), op: &Linear<'_>, m: usize) -> Way {
    let can_stream = stream::can(capability, &op.weight, op.then);
    let has_library = op.scratch.library().is_some();
    match m {
        m if m <= gemv::rows_max(capability) => Way::Gemv,
        m if m >= LIBRARY_ROWS_MIN && has_library && library::can(op) => Way::Library,
        _ if can_stream => Way::Stream,
        _ => Way::Tiles,
    }
}

/// Computes `op` for `m` rows.
pub(super) fn run(gpu: &Gpu, op: &Linear<'_>, (m, way): (usize, Way)) -> Result<(), KernelError> {
    if way == Way::Gemv {
        return gemv::run(gpu, op, m);
    }
    let contract = Contract("linear");
    let input = input_of(op, m)?;
    input::prepare(gpu, &input)?;
    let prepared = Prepared { m, rows: input.out };
    match (way, op.scratch.library()) {
        (Way::Stream, _) => stream::run(gpu, op, prepared),
        (Way::Library, Some(lt)) => library::run(gpu, lt, op, prepared),
        _ => {
            let tiles = Tiles::of_linear(m, &op.weight);
            let product = TileProduct {
                weights: Weights::One(op.weight, op.bias),
                x: input.prepared(),
                m,
                out: Rows {
                    address: op.out.range(op.out_columns.first..op.out.len()).address(),
                    row_stride: op.out_columns.row_stride,
                    step: 0,
                },
                out_dtype: DType::F32,
                then: op.then,
                tiles,
                working: op.scratch.of_tiles(contract, gpu, &tiles)?,
            };
            tile::run(gpu, &product)
        }
    }
}

/// The rows of `op` as a product reads them.
fn input_of(op: &Linear<'_>, m: usize) -> Result<Input, KernelError> {
    let Matrix { n_cols: k, dtype, .. } = op.weight;
    Ok(Input {
        x: op.x.range(op.x_columns.first..op.x.len()).address(),
        row_stride: op.x_columns.row_stride,
        heads: (1, 0),
        n_rows: m,
        k,
        taken: None,
        factors: None,
        norm: op.norm,
        dtype,
        out: op.scratch.rows(Contract("linear"), rows_bytes(dtype, m, k))?,
    })
}
