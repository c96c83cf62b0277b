//! The products of chosen experts and their weighted sums: all experts of a layer in one launch for each product. Blocks
//! read the choice on the device.

use super::input::{self, Input};
use super::scratch::{row_len, rows_bytes};
use super::tile::{self, Rows, TileProduct, Tiles, Weights};
use super::{ProductScratch, ProductThen};
use crate::cuda::{Arg, Gpu, Launch, Overlap, View};
use crate::error::{Contract, KernelError};
use crate::route::cuda::{Choices, Routing};
use crate::weight::{DType, MatrixList};

/// Operands of [`experts`].
pub struct Experts<'a> {
    /// Activations. `[m, k]`
    pub x: View<f32>,
    /// Which experts the `m` tokens go to: of the last call of [`route`](crate::gpu::route).
    pub routing: &'a Routing,
    /// Experts that each token goes to, as in that call.
    pub n_chosen: usize,
    /// First matrix of each expert. `[n_experts][n, k]`
    pub up: &'a MatrixList,
    /// What becomes of its products: [`ProductThen::Act`] or [`ProductThen::Gated`].
    pub then: ProductThen,
    /// Second matrix of each expert; its columns are the outputs of the first. `[n_experts][d, width]`
    pub down: &'a MatrixList,
    /// Whether a token's weight is a factor of the expert's input, not of its output.
    pub weighs_input: bool,
    /// Result. `[m, d]`
    pub out: View<f32>,
    /// Working memory, at least of the sizes of [`ScratchSizes::experts`](super::ScratchSizes::experts).
    pub scratch: &'a ProductScratch,
}

/// `out[i] = Σ weight[i, e] · down[e] · then(up[e] · x[i])` over the experts `e` of token `i` in ascending order; `m`
/// follows from the length of `out` and may be zero. Matrices of experts that no token goes to are not read.
///
/// # Errors
/// The shapes do not agree, the scratch or the routing is too small, or the device fails.
pub fn experts(gpu: &Gpu, op: &Experts<'_>) -> Result<(), KernelError> {
    let contract = Contract("experts");
    let (n, k, d) = (op.up.n_rows(), op.up.n_cols(), op.down.n_rows());
    op.then.check(contract, n)?;
    let is_between = matches!(op.then, ProductThen::Act(_) | ProductThen::Gated(_));
    contract.range(is_between, "then", n, "an activation")?;
    contract.len("down", op.down.len(), op.up.len())?;
    contract.len("width", op.down.n_cols(), op.then.n_out(n))?;
    let is_same = op.down.dtype() == op.up.dtype();
    contract.range(is_same, "down", op.down.dtype().size_bytes(), "of the type of up")?;
    let m = op.out.len() / d;
    contract.len("out", op.out.len(), m * d)?;
    contract.len("x", op.x.len(), m * k)?;
    let choices = op.routing.choices(contract, op.up.len(), m * op.n_chosen)?;
    if m == 0 {
        return Ok(());
    }
    run(gpu, op, choices)
}

/// The inputs of all choices by expert, two products, and the sums.
fn run(gpu: &Gpu, op: &Experts<'_>, choices: Choices) -> Result<(), KernelError> {
    let contract = Contract("experts");
    let (dtype, n) = (op.up.dtype(), choices.tokens.len());
    let (k, width, d) = (op.up.n_cols(), op.down.n_cols(), op.down.n_rows());
    let input = Input {
        x: op.x.address(),
        row_stride: k,
        heads: (1, 0),
        n_rows: n,
        k,
        taken: Some(choices.tokens),
        factors: op.weighs_input.then_some(choices.weights),
        norm: None,
        dtype,
        out: op.scratch.rows(contract, rows_bytes(dtype, n, k))?,
    };
    input::prepare(gpu, &input)?;
    let between = Rows {
        address: op
            .scratch
            .between(contract, rows_bytes(dtype, n, width))?
            .address(),
        row_stride: row_len(dtype, width),
        step: 0,
    };
    let computed = op.scratch.computed(contract, n * d)?;
    let tiles = Tiles::of_experts(n, op.up);
    let up = TileProduct {
        weights: Weights::OfExperts(op.up, choices.starts),
        // Rows of all experts follow each other.
        x: Rows {
            step: 0,
            ..input.prepared()
        },
        m: n,
        out: between,
        out_dtype: dtype,
        then: op.then,
        tiles,
        working: op.scratch.of_tiles(contract, gpu, &tiles)?,
    };
    tile::run(gpu, &up)?;
    let tiles = Tiles::of_experts(n, op.down);
    let down = TileProduct {
        weights: Weights::OfExperts(op.down, choices.starts),
        x: between,
        m: n,
        out: Rows {
            address: computed.address(),
            row_stride: d,
            step: 0,
        },
        out_dtype: DType::F32,
        then: ProductThen::Store,
        tiles,
        working: op.scratch.of_tiles(contract, gpu, &tiles)?,
    };
    tile::run(gpu, &down)?;
    combine(gpu, op, choices, computed)
}

/// Adds the results of each token's experts, in ascending order of the experts.
fn combine(gpu: &Gpu, op: &Experts<'_>, choices: Choices, computed: View<f32>) -> Result<(), KernelError> {
    let d = op.down.n_rows();
    let m = op.out.len() / d;
    let launch = Launch {
        kernel: "combine_experts",
        grid: [m as u32, d.div_ceil(COMBINED_COLUMNS) as u32, 1],
        block: 256,
        shared_bytes: 0,
        overlap: Overlap::Previous,
    };
    let args = [
        computed.into(),
        choices.places.into(),
        Arg::optional((!op.weighs_input).then_some(choices.weights)),
        op.out.into(),
        Arg::size(op.n_chosen),
        Arg::size(d),
    ];
    Ok(gpu.launch(&launch, &args)?)
}

/// Columns that a block of `combine_experts` takes.
const COMBINED_COLUMNS: usize = 1024;
