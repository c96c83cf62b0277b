//! Products on Hopper, whose copy engine streams the weight past its matrix units.

use super::operands::{Linear, Prepared};
use super::scratch::row_len;
use super::tile::{self, Tiles};
use super::{ProductThen, then_args};
use crate::cuda::{Arg, Boxes, Gpu, Launch, Overlap, TensorMap, TensorType};
use crate::error::{Contract, KernelError};
use crate::weight::{DType, Matrix};

/// Most tokens of a tile.
const TOKENS_MAX: usize = 128;
/// Columns of a step.
const STEP: u32 = 64;
/// Rows of a weight in a tile.
const TILE_ROWS: u32 = 128;

/// Whether this computes products with `weight` on a card of this capability.
pub(super) fn can((major, _): (u32, u32), weight: &Matrix, then: ProductThen) -> bool {
    // Boxes of gates and ups hold 8 of each.
    let divides = !matches!(then, ProductThen::Gated(_)) || weight.n_rows.is_multiple_of(16);
    major == 9 && weight.dtype != DType::F32 && divides
}

/// Computes `op` of the prepared rows.
pub(super) fn run(gpu: &Gpu, op: &Linear<'_>, prepared: Prepared) -> Result<(), KernelError> {
    let Prepared { m, rows } = prepared;
    let tiles = Tiles::of_linear(m, &op.weight);
    let (partial, counters) = op.scratch.of_tiles(Contract("linear"), gpu, &tiles)?;
    let Matrix {
        dtype,
        n_rows: n,
        n_cols: k,
        ..
    } = op.weight;
    let n_tokens = m.next_power_of_two().clamp(8, TOKENS_MAX);
    let launch = Launch {
        kernel: kernel(dtype, n_tokens),
        grid: [tile::n_blocks(gpu, &tiles) as u32, 1, 1],
        block: 288,
        shared_bytes: shared_bytes(n_tokens),
        overlap: Overlap::Previous,
    };
    let x = TensorMap::new(&Boxes {
        address: rows.address(),
        dtype: tensor_type(dtype),
        sizes: &[k, m],
        strides: &[row_len(dtype, k) * dtype.size_bytes()],
        sides: &[STEP, n_tokens as u32],
    })?;
    let weight = weight_map(&op.weight, op.then)?;
    let [then, scale, act, a, b, c] = then_args(op.then);
    let args = [
        Arg::Bytes(weight.bytes()),
        Arg::Bytes(x.bytes()),
        Arg::size(n),
        Arg::size(k),
        Arg::size(m),
        Arg::optional(op.bias),
        Arg::Address(op.out.range(op.out_columns.first..op.out.len()).address()),
        Arg::size(op.out_columns.row_stride),
        then,
        scale,
        act,
        a,
        b,
        c,
        partial.into(),
        counters.into(),
    ];
    Ok(gpu.launch(&launch, &args)?)
}

/// Boxes of 128 rows; with gates and ups, 8 gates and their 8 ups in turn.
fn weight_map(weight: &Matrix, then: ProductThen) -> Result<TensorMap, KernelError> {
    let row_bytes = weight.row_stride * weight.dtype.size_bytes();
    let half = weight.n_rows / 2;
    let boxes = Boxes {
        address: weight.data.address(),
        dtype: tensor_type(weight.dtype),
        sizes: &[weight.n_cols, weight.n_rows],
        strides: &[row_bytes],
        sides: &[STEP, TILE_ROWS],
    };
    let map = match then {
        ProductThen::Gated(_) => TensorMap::new(&Boxes {
            sizes: &[weight.n_cols, 8, 2, half / 8],
            strides: &[row_bytes, half * row_bytes, 8 * row_bytes],
            sides: &[STEP, 8, 2, TILE_ROWS / 16],
            ..boxes
        }),
        _ => TensorMap::new(&boxes),
    };
    Ok(map?)
}

/// Shared memory of a block: the ring, and 16 tokens' sums.
fn shared_bytes(n_tokens: usize) -> usize {
    let n_stages = if n_tokens == 64 { 4 } else { 5 };
    let token_bytes = (TILE_ROWS as usize + 4) * size_of::<f32>();
    n_stages * (TILE_ROWS as usize + n_tokens) * 2 * STEP as usize + n_tokens.min(16) * token_bytes
}

fn tensor_type(dtype: DType) -> TensorType {
    match dtype {
        DType::F16 => TensorType::F16,
        _ => TensorType::BF16,
    }
}

fn kernel(dtype: DType, n_tokens: usize) -> &'static str {
    match (dtype, n_tokens) {
        (DType::F16, 8) => "stream_8_f16",
        (DType::F16, 16) => "stream_16_f16",
        (DType::F16, 32) => "stream_32_f16",
        (DType::F16, 64) => "stream_64_f16",
        (DType::F16, _) => "stream_128_f16",
        (_, 8) => "stream_8_bf16",
        (_, 16) => "stream_16_bf16",
        (_, 32) => "stream_32_bf16",
        (_, 64) => "stream_64_bf16",
        _ => "stream_128_bf16",
    }
}
