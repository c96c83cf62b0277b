//! Which kernels compute an attention, and their launches.

use super::{Attention, Step};
use crate::cuda::{Arg, Gpu, Launch, Overlap};
use crate::error::KernelError;
use crate::weight::DType;

/// The kernels for a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// Every shape and option, with sums and products in f32.
    General,
    /// 16-bit keys and values of up to 256 elements: `decode` for rows with one new token, `prefill` for
    /// the others.
    Tensor {
        /// Groups of 128 bytes of a key, and of a value.
        groups: usize,
    },
}

/// A launch, and its arguments beside those that all kernels have.
pub(super) struct PathLaunch {
    pub(super) launch: Launch,
    pub(super) more: Vec<Arg<'static>>,
}

/// Threads, and positions of a tile, of the general kernel.
const GENERAL_THREADS: usize = 128;

/// Positions of a tile of keys in prefill.
const PREFILL_TILE: usize = 64;

const GROUP_BYTES: usize = 128;

/// A prefill kernel.
struct Prefill {
    /// The longest head.
    dim: usize,
    /// Queries of a tile: a token and one of the heads that share keys.
    rows: usize,
    /// Its names for f16 and bf16.
    names: [&'static str; 2],
}

/// The prefill kernels, those for shorter heads first.
const PREFILLS: [Prefill; 6] = [
    prefill(64, 128, ["attend_prefill_64_f16", "attend_prefill_64_bf16"]),
    prefill(80, 128, ["attend_prefill_80_f16", "attend_prefill_80_bf16"]),
    prefill(96, 128, ["attend_prefill_96_f16", "attend_prefill_96_bf16"]),
    prefill(128, 128, ["attend_prefill_128_f16", "attend_prefill_128_bf16"]),
    prefill(192, 64, ["attend_prefill_192_f16", "attend_prefill_192_bf16"]),
    prefill(256, 64, ["attend_prefill_256_f16", "attend_prefill_256_bf16"]),
];

const fn prefill(dim: usize, rows: usize, names: [&'static str; 2]) -> Prefill {
    Prefill { dim, rows, names }
}

/// A decode kernel; `kernel.cu` has the same table as `DecodeShape`.
pub(super) struct Decode {
    warps: usize,
    stages: usize,
    /// Its names for f16 and bf16.
    names: [&'static str; 2],
}

/// The decode kernels for heads of 1 to 4 groups.
const DECODES: [Decode; 4] = [
    decode(4, 4, ["attend_decode_1_f16", "attend_decode_1_bf16"]),
    decode(4, 2, ["attend_decode_2_f16", "attend_decode_2_bf16"]),
    decode(2, 3, ["attend_decode_3_f16", "attend_decode_3_bf16"]),
    decode(2, 2, ["attend_decode_4_f16", "attend_decode_4_bf16"]),
];

const fn decode(warps: usize, stages: usize, names: [&'static str; 2]) -> Decode {
    Decode { warps, stages, names }
}

/// Query heads that an item of `decode` has at most: the rows of a product on the tensor cores.
const HEADS_PER_ITEM: usize = 16;

/// The work of `decode` for heads in groups.
#[derive(Clone, Copy)]
pub(super) struct Items {
    /// Query heads of an item.
    pub(super) n_heads: usize,
    /// Items of a chunk: heads of the cache times parts of their group.
    pub(super) per_chunk: usize,
}

impl Items {
    pub(super) fn of(n_kv_heads: usize, group: usize) -> Items {
        let n_heads = group.min(HEADS_PER_ITEM);
        Items {
            n_heads,
            per_chunk: n_kv_heads * group.div_ceil(n_heads),
        }
    }
}

/// Blocks of `decode` that stay on the device: two for each multiprocessor, one on cards with little shared memory.
pub(super) fn resident_blocks(gpu: &Gpu) -> usize {
    let per_sm = if gpu.shared_bytes_max() < 128 << 10 { 1 } else { 2 };
    gpu.n_sms() * per_sm
}

impl Path {
    /// The fastest path that computes the operation: tensor cores need 16-bit pages, and Ampere or later.
    pub(super) fn of(gpu: &Gpu, op: &Attention<'_>) -> Path {
        let groups = op.cache.key_groups();
        let fits = groups == op.cache.value_groups() && groups <= DECODES.len();
        if op.cache.dtype != DType::F32 && fits && gpu.capability() >= (8, 0) {
            Path::Tensor { groups }
        } else {
            Path::General
        }
    }

    /// The launches, in their order.
    pub(super) fn launches(
        self,
        op: &Attention<'_>,
        step: Step,
        n_resident: usize,
    ) -> Result<Vec<PathLaunch>, KernelError> {
        let Path::Tensor { groups } = self else {
            return Ok(vec![general(op, step)]);
        };
        let mut launches = Vec::new();
        if op.n_single_rows < step.n_rows {
            launches.push(prefill_launch(op, step));
        }
        if op.n_single_rows > 0 {
            launches.push(decode_launch(op, step, Grid::of(n_resident, op, step, groups))?);
        }
        Ok(launches)
    }
}

/// One block for each token and head.
fn general(op: &Attention<'_>, step: Step) -> PathLaunch {
    let shape = op.cache.shape;
    let elements_of_piece = 16 / op.cache.dtype.size_bytes();
    let n_floats = GENERAL_THREADS + shape.key_dim.next_multiple_of(elements_of_piece) + shape.value_dim();
    let place_bytes = 16;
    PathLaunch {
        launch: Launch {
            kernel: match op.cache.dtype {
                DType::F32 => "attend_general_f32",
                DType::F16 => "attend_general_f16",
                DType::BF16 => "attend_general_bf16",
            },
            grid: [(step.n_tokens * op.n_heads) as u32, 1, 1],
            block: GENERAL_THREADS as u32,
            shared_bytes: GENERAL_THREADS * place_bytes + n_floats * 4,
            overlap: Overlap::Previous,
        },
        more: Vec::new(),
    }
}

/// Which of two names is for 16-bit elements of this type.
fn of_dtype(names: [&'static str; 2], dtype: DType) -> &'static str {
    names[usize::from(dtype == DType::BF16)]
}

/// One block for each tile of a row's queries; a bound of their number is known.
fn prefill_launch(op: &Attention<'_>, step: Step) -> PathLaunch {
    let shape = op.cache.shape;
    let longest = shape.key_dim.max(shape.value_dim());
    let last = &PREFILLS[PREFILLS.len() - 1];
    let kernel = PREFILLS
        .iter()
        .find(|kernel| longest <= kernel.dim)
        .unwrap_or(last);
    let n_tiles = step.n_tokens * step.group / kernel.rows + step.n_rows - op.n_single_rows;
    PathLaunch {
        launch: Launch {
            kernel: of_dtype(kernel.names, op.cache.dtype),
            grid: [n_tiles as u32, shape.n_heads as u32, 1],
            block: 2 * kernel.rows as u32,
            shared_bytes: kernel.dim.div_ceil(64) * GROUP_BYTES * (kernel.rows + 2 * PREFILL_TILE),
            overlap: Overlap::Previous,
        },
        more: Vec::new(),
    }
}

/// Resident blocks that share the items of a launch.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    groups: usize,
    n_blocks: usize,
}

impl Grid {
    /// No more blocks than there can be items.
    pub(super) fn of(n_resident: usize, op: &Attention<'_>, step: Step, groups: usize) -> Grid {
        let tile = DECODES[groups - 1].warps * 16;
        let n_tiles = (op.cache.n_blocks * op.cache.block_size).div_ceil(tile) + step.n_rows;
        let items = Items::of(op.cache.shape.n_heads, step.group);
        Grid {
            groups,
            n_blocks: n_resident.min(n_tiles * items.per_chunk),
        }
    }
}

/// Resident blocks, which share chunks of the rows' contexts.
fn decode_launch(op: &Attention<'_>, step: Step, grid: Grid) -> Result<PathLaunch, KernelError> {
    let kernel = &DECODES[grid.groups - 1];
    let items = Items::of(op.cache.shape.n_heads, step.group);
    op.workspace
        .check(grid.n_blocks, step.n_rows, items, op.cache.shape.value_dim())?;
    let stage_bytes = 2 * grid.groups * kernel.warps * 16 * GROUP_BYTES;
    Ok(PathLaunch {
        launch: Launch {
            kernel: of_dtype(kernel.names, op.cache.dtype),
            grid: [grid.n_blocks as u32, 1, 1],
            block: 32 * kernel.warps as u32,
            shared_bytes: kernel.stages * stage_bytes + (step.n_rows + 1) * 4,
            overlap: Overlap::Previous,
        },
        more: op.workspace.arguments(),
    })
}
