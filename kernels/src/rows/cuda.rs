//! Rows on the device, moved or averaged.

use crate::columns::HeadColumns;
use crate::cuda::{Arg, Gpu, Launch, Overlap, View};
use crate::error::{Contract, KernelError};

/// Operands of [`gather_rows`].
#[derive(Clone, Copy, Debug)]
pub struct GatherRows {
    /// Rows that are read. `[m, d]`
    pub x: View<f32>,
    /// Which rows. `[n]`
    pub rows: View<u32>,
    /// Result. `[n, d]`
    pub out: View<f32>,
}

/// `out[i] = x[rows[i]]`. The host does not know the rows: one that is beyond `x` makes its row NaN.
///
/// # Errors
/// The shapes do not agree, or the device fails.
pub fn gather_rows(gpu: &Gpu, op: GatherRows) -> Result<(), KernelError> {
    let GatherRows { x, rows, out } = op;
    let Some(d) = out.len().checked_div(rows.len()) else {
        return Contract("gather_rows").len("out", out.len(), 0);
    };
    Contract("gather_rows").range(d > 0, "d", d, "at least 1")?;
    Contract("gather_rows").len("out", out.len(), rows.len() * d)?;
    Contract("gather_rows").len("x", x.len(), x.len() / d * d)?;
    let args = [
        x.into(),
        rows.into(),
        out.into(),
        Arg::size(x.len() / d),
        Arg::size(d),
    ];
    Ok(gpu.launch(&a_block_per_row("gather_rows", rows.len()), &args)?)
}

/// Operands of [`copy_heads`].
#[derive(Clone, Copy, Debug)]
pub struct CopyHeads {
    /// Rows that are read. `[m, x_at.row_stride]`
    pub x: View<f32>,
    /// Where the heads of `x` are.
    pub x_at: HeadColumns,
    /// Heads, at least 1.
    pub n_heads: usize,
    /// Elements of a head that are copied.
    pub width: usize,
    /// Rows that are written. `[m, out_at.row_stride]`
    pub out: View<f32>,
    /// Where the heads of `out` are.
    pub out_at: HeadColumns,
}

/// Copies `width` columns of each head of each row; the other columns of `out` stay as they are.
///
/// # Errors
/// The shapes do not agree, or the device fails.
pub fn copy_heads(gpu: &Gpu, op: CopyHeads) -> Result<(), KernelError> {
    let CopyHeads {
        x,
        out,
        n_heads,
        width,
        ..
    } = op;
    let contract = Contract("copy_heads");
    let m = op.x_at.check(contract, "x", x.len(), (n_heads, width))?;
    op.out_at.check(contract, "out", out.len(), (n_heads, width))?;
    contract.len("out", out.len(), m * op.out_at.row_stride)?;
    if m * width == 0 {
        return Ok(());
    }
    let args = [
        x.into(),
        out.into(),
        Arg::size(n_heads),
        Arg::size(width),
        Arg::size(op.x_at.row_stride),
        Arg::size(op.x_at.first),
        Arg::size(op.x_at.step),
        Arg::size(op.out_at.row_stride),
        Arg::size(op.out_at.first),
        Arg::size(op.out_at.step),
    ];
    Ok(gpu.launch(&a_block_per_row("copy_heads", m), &args)?)
}

/// Operands of [`mean_of_rows`].
#[derive(Clone, Copy, Debug)]
pub struct MeanOfRows {
    /// Rows that are read. `[m, d]`
    pub x: View<f32>,
    /// First of the rows of each mean. `[n]`
    pub first: View<u32>,
    /// How many rows each mean is of. `[n]`
    pub n_rows: View<u32>,
    /// Result. `[n, d]`
    pub out: View<f32>,
}

/// `out[i] = mean of x[first[i] .. first[i] + n_rows[i]]`, added up from zero in their order. The host does not know the
/// rows: none, or some that are beyond `x`, make their mean NaN.
///
/// # Errors
/// The shapes do not agree, or the device fails.
pub fn mean_of_rows(gpu: &Gpu, op: MeanOfRows) -> Result<(), KernelError> {
    let MeanOfRows {
        x,
        first,
        n_rows,
        out,
    } = op;
    Contract("mean_of_rows").len("n_rows", n_rows.len(), first.len())?;
    let Some(d) = out.len().checked_div(first.len()) else {
        return Contract("mean_of_rows").len("out", out.len(), 0);
    };
    Contract("mean_of_rows").range(d > 0, "d", d, "at least 1")?;
    Contract("mean_of_rows").len("out", out.len(), first.len() * d)?;
    Contract("mean_of_rows").len("x", x.len(), x.len() / d * d)?;
    let args = [
        x.into(),
        first.into(),
        n_rows.into(),
        out.into(),
        Arg::size(x.len() / d),
        Arg::size(d),
    ];
    let launch = Launch {
        grid: [first.len() as u32, d.div_ceil(128) as u32, 1],
        ..a_block_per_row("mean_of_rows", first.len())
    };
    Ok(gpu.launch(&launch, &args)?)
}

fn a_block_per_row(kernel: &'static str, n_rows: usize) -> Launch {
    Launch {
        kernel,
        grid: [n_rows as u32, 1, 1],
        block: 128,
        shared_bytes: 0,
        overlap: Overlap::Previous,
    }
}
