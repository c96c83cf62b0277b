//! Which kernels compute an attention, and their launches.

use super::card::Card;
use super::operands::{Attention, BiasValues, RelativeBias, Step};
use super::workspace::{Items, Work};
use crate::cuda::{Arg, Launch, Overlap};
use crate::error::KernelError;
use crate::weight::DType;

/// The kernels for a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// Every shape and option, with sums and products in f32.
    General,
    /// 16-bit keys and values of up to 256 elements, on tensor cores.
    Tensor {
        /// Groups of 128 bytes of a key, and of a value.
        groups: usize,
        /// The decode kernels of this card and block size.
        decodes: &'static [Decode; 4],
    },
    /// 16-bit keys of 9 groups whose beginnings are the values, on tensor cores.
    Latent {
        /// Rows of a tile, a token and a head each, for which shared memory suffices.
        rows_max: usize,
    },
}

/// A launch, and its arguments beside those that all kernels have.
pub(super) struct PathLaunch {
    pub(super) launch: Launch,
    pub(super) more: Vec<Arg<'static>>,
}

/// A kernel for rows with one new token, whose resident blocks share chunks of contexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decode {
    /// Its names for f16 and bf16.
    names: [&'static str; 2],
    threads: usize,
    /// Positions of a tile.
    tile: usize,
    /// Most query heads of an item.
    heads: usize,
    /// Shared memory beside the plan.
    shared_bytes: usize,
}

/// A kernel for rows with several new tokens: a block for each tile of queries.
#[derive(Clone, Copy)]
struct Prefill {
    /// Its names for f16 and bf16.
    names: [&'static str; 2],
    threads: usize,
    /// Rows of a tile: a token and one of the heads that share keys.
    rows: usize,
    shared_bytes: usize,
}

/// Threads, and positions of a tile, of the general kernel.
const GENERAL_THREADS: usize = 128;

/// Bytes of a row of a group.
const GROUP_BYTES: usize = 128;

/// The decode kernels for heads of 1 to 4 groups, as `DecodeShape` of `decode.cuh`.
const DECODES: [Decode; 4] = [
    decode(1, 64, 4, ["attend_decode_1_f16", "attend_decode_1_bf16"]),
    decode(2, 64, 2, ["attend_decode_2_f16", "attend_decode_2_bf16"]),
    decode(3, 32, 3, ["attend_decode_3_f16", "attend_decode_3_bf16"]),
    decode(4, 32, 2, ["attend_decode_4_f16", "attend_decode_4_bf16"]),
];

/// Those with bulk copies, as `decode_bulk.cuh`; the sums of the warps are beside the ring.
const BULK_DECODES: [Decode; 4] = [
    bulk(1, ["attend_decode_bulk_1_f16", "attend_decode_bulk_1_bf16"]),
    bulk(2, ["attend_decode_bulk_2_f16", "attend_decode_bulk_2_bf16"]),
    bulk(3, ["attend_decode_bulk_3_f16", "attend_decode_bulk_3_bf16"]),
    bulk(4, ["attend_decode_bulk_4_f16", "attend_decode_bulk_4_bf16"]),
];

const fn bulk(groups: usize, names: [&'static str; 2]) -> Decode {
    let copied = DECODES[groups - 1];
    Decode {
        names,
        threads: 160,
        shared_bytes: copied.shared_bytes + copied.tile * (groups * 64 + 8) * 4,
        ..copied
    }
}

const fn decode(groups: usize, tile: usize, stages: usize, names: [&'static str; 2]) -> Decode {
    Decode {
        names,
        threads: 128,
        tile,
        heads: 16,
        shared_bytes: stages * 2 * groups * tile * GROUP_BYTES,
    }
}

/// The prefill kernels and their longest heads, as `PrefillShape` of `prefill.cuh`.
const PREFILLS: [(usize, Prefill); 6] = [
    prefill(64, 128, ["attend_prefill_64_f16", "attend_prefill_64_bf16"]),
    prefill(80, 128, ["attend_prefill_80_f16", "attend_prefill_80_bf16"]),
    prefill(96, 128, ["attend_prefill_96_f16", "attend_prefill_96_bf16"]),
    prefill(128, 128, ["attend_prefill_128_f16", "attend_prefill_128_bf16"]),
    prefill(192, 64, ["attend_prefill_192_f16", "attend_prefill_192_bf16"]),
    prefill(256, 64, ["attend_prefill_256_f16", "attend_prefill_256_bf16"]),
];

const fn prefill(dim: usize, rows: usize, names: [&'static str; 2]) -> (usize, Prefill) {
    let positions = 64;
    let kernel = Prefill {
        names,
        threads: 2 * rows,
        rows,
        shared_bytes: dim.div_ceil(64) * GROUP_BYTES * (rows + 2 * positions),
    };
    (dim, kernel)
}

/// Rows of a tile of the latent kernels, most first.
const LATENT_ROWS: [usize; 2] = [64, 16];

/// Shared memory of a latent kernel beside the plan, as `LatentShape` of `latent.cuh`.
const fn latent_bytes(rows: usize) -> usize {
    let (groups, tile, stages) = (9, 32, 2);
    let parts = if rows == 16 { 2 } else { 1 };
    let scores = parts * rows * (tile + 8) * 4;
    let weights = rows * (tile * 2 + 16);
    groups * GROUP_BYTES * (rows + stages * tile) + scores + weights
}

/// Shared memory that a plan and a kernel's own variables may take beside what its shape takes.
const PLAN_BYTES: usize = 2 << 10;

impl Path {
    /// The fastest path that computes the operation: tensor cores need 16-bit pages, and Ampere or later.
    pub(super) fn of(card: Card, op: &Attention<'_>) -> Path {
        let (key_groups, own_groups) = (op.cache.key_groups(), op.cache.value_groups());
        let of_tokens = matches!(
            op.scores.relative,
            Some(RelativeBias {
                values: BiasValues::OfTokens { .. },
                ..
            })
        );
        if op.cache.dtype == DType::F32 || card.capability < (8, 0) || of_tokens {
            return Path::General;
        }
        if key_groups == own_groups && key_groups <= DECODES.len() {
            // The images for later cards than Hopper have no bulk copies.
            let has_bulk = card.capability == (9, 0) && op.cache.block_size.is_multiple_of(8);
            return Path::Tensor {
                groups: key_groups,
                decodes: if has_bulk { &BULK_DECODES } else { &DECODES },
            };
        }
        let is_latent = key_groups == 9 && own_groups == 0 && op.cache.shape.value_dim() <= 512;
        let fits = |rows: &&usize| latent_bytes(**rows) + PLAN_BYTES <= card.shared_bytes_max;
        match LATENT_ROWS.iter().find(fits) {
            Some(&rows_max) if is_latent => Path::Latent { rows_max },
            _ => Path::General,
        }
    }

    /// The launches, in their order.
    pub(super) fn launches(
        self,
        op: &Attention<'_>,
        step: Step,
        n_resident: usize,
    ) -> Result<Vec<PathLaunch>, KernelError> {
        let Some((prefill, decode)) = self.kernels(op, step) else {
            return Ok(vec![general(op, step)]);
        };
        let mut launches = Vec::new();
        if op.n_single_rows < step.n_rows {
            launches.push(prefill_launch(&prefill, op, step));
        }
        if op.n_single_rows > 0 {
            launches.push(decode_launch(&decode, op, step, n_resident)?);
        }
        Ok(launches)
    }

    /// The kernels for rows with several new tokens, and with one.
    fn kernels(self, op: &Attention<'_>, step: Step) -> Option<(Prefill, Decode)> {
        match self {
            Path::General => None,
            Path::Tensor { groups, decodes } => {
                let longest = op.cache.shape.key_dim.max(op.cache.shape.value_dim());
                let prefill = PREFILLS.iter().find(|(dim, _)| longest <= *dim)?.1;
                Some((prefill, *decodes.get(groups - 1)?))
            }
            Path::Latent { rows_max } => {
                let decode_rows = if step.group <= 16 { 16 } else { rows_max };
                Some((latent_prefill(rows_max), latent_decode(decode_rows)))
            }
        }
    }
}

fn latent_prefill(rows: usize) -> Prefill {
    let names = match rows {
        64 => ["attend_latent_prefill_64_f16", "attend_latent_prefill_64_bf16"],
        _ => ["attend_latent_prefill_16_f16", "attend_latent_prefill_16_bf16"],
    };
    Prefill {
        names,
        threads: 256,
        rows,
        shared_bytes: latent_bytes(rows),
    }
}

fn latent_decode(rows: usize) -> Decode {
    let names = match rows {
        64 => ["attend_latent_decode_64_f16", "attend_latent_decode_64_bf16"],
        _ => ["attend_latent_decode_16_f16", "attend_latent_decode_16_bf16"],
    };
    Decode {
        names,
        threads: 256,
        tile: 32,
        heads: rows,
        shared_bytes: latent_bytes(rows),
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
fn prefill_launch(kernel: &Prefill, op: &Attention<'_>, step: Step) -> PathLaunch {
    let n_tiles = step.n_tokens * step.group / kernel.rows + step.n_rows - op.n_single_rows;
    PathLaunch {
        launch: Launch {
            kernel: of_dtype(kernel.names, op.cache.dtype),
            grid: [n_tiles as u32, op.cache.shape.n_heads as u32, 1],
            block: kernel.threads as u32,
            shared_bytes: kernel.shared_bytes,
            overlap: Overlap::Previous,
        },
        more: Vec::new(),
    }
}

/// Resident blocks, but no more than there can be items.
fn decode_launch(
    kernel: &Decode,
    op: &Attention<'_>,
    step: Step,
    n_resident: usize,
) -> Result<PathLaunch, KernelError> {
    let shape = op.cache.shape;
    let items = Items::of(shape.n_heads, step.group, kernel.heads);
    let n_tiles = (op.cache.n_blocks * op.cache.block_size).div_ceil(kernel.tile) + step.n_rows;
    let n_blocks = n_resident.min(n_tiles * items.per_chunk);
    let work = Work {
        n_blocks,
        n_rows: step.n_rows,
        value_dim: shape.value_dim(),
    };
    op.workspace.check(work, items)?;
    Ok(PathLaunch {
        launch: Launch {
            kernel: of_dtype(kernel.names, op.cache.dtype),
            grid: [n_blocks as u32, 1, 1],
            block: kernel.threads as u32,
            shared_bytes: kernel.shared_bytes + (step.n_rows + 1) * 4,
            overlap: Overlap::Previous,
        },
        more: op.workspace.arguments(),
    })
}
