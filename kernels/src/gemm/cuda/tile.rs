//! Products in tiles of 128 rows of a weight and some tokens. Blocks share the work evenly along the columns: a tile
//! that several compute is added up by the last of them, in the order of the columns ("stream-K", Osama et al. 2023).

use super::{ProductThen, then_args};
use crate::cuda::{Arg, Gpu, Launch, Overlap, View};
use crate::error::KernelError;
use crate::weight::{DType, Matrix, MatrixList};

/// Rows of a weight in a tile. With gates and ups, half of each.
pub(super) const ROWS: usize = 128;
/// Bytes of a row that a block takes at a time.
const STEP_BYTES: usize = 128;
/// Steps that are worth a block of their own.
const STEPS_MIN: usize = 4;

/// How a product is divided into tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tiles {
    /// Tokens of a tile: 16, 64 or 128.
    pub(super) n_tokens: usize,
    /// Tiles, at most.
    pub(super) n_tiles_max: usize,
    /// Steps along the columns of each tile.
    n_steps: usize,
}

impl Tiles {
    /// Of `m` rows that are all multiplied with `weight`.
    pub(super) fn of_linear(m: usize, weight: &Matrix) -> Tiles {
        Tiles::of(tile_tokens(m), m.div_ceil(tile_tokens(m)), weight)
    }

    /// Of `m` rows that are multiplied with a matrix for each head.
    pub(super) fn of_heads(m: usize, weights: &MatrixList) -> Tiles {
        let n_tokens = tile_tokens(m);
        Tiles::of(n_tokens, weights.len() * m.div_ceil(n_tokens), &weights.first())
    }

    /// Of `n` rows, each of which is multiplied with one of the matrices. Fewer rows have no more tiles.
    pub(super) fn of_experts(n: usize, weights: &MatrixList) -> Tiles {
        // Each expert begins a tile of its own, and narrower tiles are taken up to twice the rows of an expert that fill
        // half of them.
        let n_experts = weights.len();
        let n_token_tiles = n.min(n_experts) + n.div_ceil(16).min(n_experts.div_ceil(2)) + n.div_ceil(128);
        Tiles::of(tile_tokens(2 * n / n_experts), n_token_tiles, &weights.first())
    }

    fn of(n_tokens: usize, n_token_tiles: usize, weight: &Matrix) -> Tiles {
        Tiles {
            n_tokens,
            n_tiles_max: n_token_tiles * weight.n_rows.div_ceil(ROWS),
            n_steps: (weight.n_cols * weight.dtype.size_bytes()).div_ceil(STEP_BYTES),
        }
    }
}

fn tile_tokens(m: usize) -> usize {
    match m {
        0..=16 => 16,
        17..=64 => 64,
        _ => 128,
    }
}

/// Most blocks of a launch.
pub(super) fn n_blocks_max(gpu: &Gpu) -> usize {
    2 * gpu.n_sms()
}

/// Operands of [`run`].
pub(super) struct TileProduct<'a> {
    /// What the rows are multiplied with.
    pub(super) weights: Weights<'a>,
    /// Activations in the type of the weights.
    pub(super) x: Rows,
    /// Rows of activations: of each head, or of all experts together.
    pub(super) m: usize,
    /// Results.
    pub(super) out: Rows,
    /// Type of the results.
    pub(super) out_dtype: DType,
    /// What becomes of the products.
    pub(super) then: ProductThen,
    /// How they are divided.
    pub(super) tiles: Tiles,
    /// Working memory for `tiles`.
    pub(super) working: (View<f32>, View<u32>),
}

/// What rows are multiplied with.
#[derive(Clone, Copy)]
pub(super) enum Weights<'a> {
    /// All with the same matrix, and a vector is added.
    One(Matrix, Option<View<f32>>),
    /// Each head with its matrix.
    OfHeads(&'a MatrixList),
    /// The rows of each expert with its matrix, from the first row of each expert on.
    OfExperts(&'a MatrixList, View<u32>),
}

/// Where rows are.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    /// First element.
    pub(super) address: u64,
    /// Elements from one row to the next.
    pub(super) row_stride: usize,
    /// Elements from one head to the next.
    pub(super) step: usize,
}

/// Computes `op`, whose activations start on 16 bytes in each row.
pub(super) fn run(gpu: &Gpu, op: &TileProduct<'_>) -> Result<(), KernelError> {
    let (matrix, bias, list, starts) = match op.weights {
        Weights::One(matrix, bias) => (matrix, bias, None, None),
        Weights::OfHeads(list) => (list.first(), None, Some(list), None),
        Weights::OfExperts(list, starts) => (list.first(), None, Some(list), Some(starts)),
    };
    let launch = Launch {
        kernel: kernel(matrix.dtype, op.tiles.n_tokens),
        grid: [n_blocks(gpu, &op.tiles) as u32, 1, 1],
        block: 256,
        shared_bytes: shared_bytes(op.tiles.n_tokens, starts.map_or(0, |starts| starts.len())),
        overlap: Overlap::Previous,
    };
    let [then, scale, act, a, b, c] = then_args(op.then);
    let args = [
        matrix.data.into(),
        Arg::optional(list.map(MatrixList::addresses)),
        Arg::size(matrix.row_stride),
        Arg::size(matrix.n_rows),
        Arg::size(matrix.n_cols),
        Arg::optional(bias),
        Arg::optional(list.and_then(MatrixList::bias_addresses)),
        Arg::Address(op.x.address),
        Arg::size(op.x.row_stride),
        Arg::U64(op.x.step as u64),
        Arg::optional(starts),
        Arg::size(list.map_or(1, MatrixList::len)),
        Arg::size(op.m),
        Arg::Address(op.out.address),
        Arg::size(op.out.row_stride),
        Arg::size(op.out.step),
        Arg::I32(i32::from(op.out_dtype != DType::F32)),
        then,
        scale,
        act,
        a,
        b,
        c,
        op.working.0.into(),
        op.working.1.into(),
    ];
    Ok(gpu.launch(&launch, &args)?)
}

/// Blocks that share the tiles: constant for the same shapes on the same device.
pub(super) fn n_blocks(gpu: &Gpu, tiles: &Tiles) -> usize {
    let n_useful = (tiles.n_tiles_max * tiles.n_steps).div_ceil(STEPS_MIN);
    let n_resident = if tiles.n_tokens == 128 {
        gpu.n_sms()
    } else {
        n_blocks_max(gpu)
    };
    n_useful.clamp(1, n_resident)
}

/// Shared memory of a block: some steps of a tile, and the end of each expert's tiles.
fn shared_bytes(n_tokens: usize, n_experts: usize) -> usize {
    let n_stages = if n_tokens == 128 { 3 } else { 4 };
    n_stages * (ROWS + n_tokens) * STEP_BYTES + n_experts * size_of::<u32>()
}

fn kernel(dtype: DType, n_tokens: usize) -> &'static str {
    match (dtype, n_tokens) {
        (DType::F32, 16) => "tile_16_f32",
        (DType::F32, 64) => "tile_64_f32",
        (DType::F32, _) => "tile_128_f32",
        (DType::F16, 16) => "tile_16_f16",
        (DType::F16, 64) => "tile_64_f16",
        (DType::F16, _) => "tile_128_f16",
        (DType::BF16, 16) => "tile_16_bf16",
        (DType::BF16, 64) => "tile_64_bf16",
        (DType::BF16, _) => "tile_128_bf16",
    }
}
