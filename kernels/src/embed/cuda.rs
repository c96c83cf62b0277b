//! Rows of a table on the device.

use crate::cuda::{Arg, Gpu, Launch, Overlap, View};
use crate::error::{Contract, KernelError};
use crate::then::Then;
use crate::weight::{DType, Matrix};

/// Operands of [`embed`], as the CPU's.
#[derive(Clone, Copy, Debug)]
pub struct Embed {
    /// The table.
    pub table: Matrix,
    /// Rows of it. `[n]`
    pub ids: View<u32>,
    /// Result. `[n, table.n_cols]`
    pub out: View<f32>,
    /// What becomes of the rows.
    pub then: Then,
}

/// `out[i] = table[ids[i]]`, widened to f32 (exact). The host does not know the ids: one that is not below the table's
/// rows makes its row NaN.
///
/// # Errors
/// `out` has another length, or the device fails.
pub fn embed(gpu: &Gpu, op: Embed) -> Result<(), KernelError> {
    let Embed { table, ids, out, .. } = op;
    Contract("embed").len("out", out.len(), ids.len() * table.n_cols)?;
    if out.is_empty() {
        return Ok(());
    }
    let in_pieces = table.n_cols.is_multiple_of(4) && out.is_aligned(16);
    let kernel = match (table.dtype, in_pieces) {
        (DType::F32, true) => "embed_f32_pieces",
        (DType::F32, false) => "embed_f32",
        (DType::F16, true) => "embed_f16_pieces",
        (DType::F16, false) => "embed_f16",
        (DType::BF16, true) => "embed_bf16_pieces",
        (DType::BF16, false) => "embed_bf16",
    };
    let (adds, scale) = match op.then {
        Then::Store => (0, 1.0),
        Then::AddTo { scale } => (1, scale),
    };
    let launch = Launch {
        kernel,
        grid: [ids.len() as u32, 1, 1],
        block: 128,
        shared_bytes: 0,
        overlap: Overlap::Previous,
    };
    let args = [
        table.data.into(),
        ids.into(),
        out.into(),
        Arg::size(table.n_rows),
        Arg::size(table.n_cols),
        Arg::size(table.row_stride),
        Arg::I32(adds),
        Arg::F32(scale),
    ];
    Ok(gpu.launch(&launch, &args)?)
}

/// Operands of [`resolve_ids`].
#[derive(Clone, Copy, Debug)]
pub struct ResolveIds {
    /// The ids of a step's tokens, changed in place. `[n]`
    pub ids: View<u32>,
    /// For each of them the index of the draw that decides it; what is not an index (so -1) leaves the id. `[n]`
    pub previous: View<i32>,
    /// What the step before drew.
    pub drawn: View<u32>,
}

/// `ids[i] = drawn[previous[i]]` where `previous[i]` is an index. It is the first kernel of a step and begins after all
/// earlier work, so that those after it may read the step's inputs before they wait for each other.
///
/// # Errors
/// The lengths differ, or the device fails.
pub fn resolve_ids(gpu: &Gpu, op: ResolveIds) -> Result<(), KernelError> {
    let ResolveIds { ids, previous, drawn } = op;
    Contract("resolve_ids").len("previous", previous.len(), ids.len())?;
    if ids.is_empty() {
        return Ok(());
    }
    let launch = Launch {
        kernel: "resolve_ids",
        grid: [ids.len().div_ceil(256) as u32, 1, 1],
        block: 256,
        shared_bytes: 0,
        overlap: Overlap::None,
    };
    let args = [
        ids.into(),
        previous.into(),
        drawn.into(),
        Arg::size(ids.len()),
        Arg::size(drawn.len()),
    ];
    Ok(gpu.launch(&launch, &args)?)
}
