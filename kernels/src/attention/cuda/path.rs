//! Which kernels compute an attention, and their launches.

use super::{Attention, Step};
use crate::cuda::{Arg, Gpu, Launch, Overlap};
use crate::error::KernelError;
use crate::weight::DType;

/// The kernels for a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// Every shape and option, in f32.
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

/// The prefill kernels: the longest head, and rows of a tile. Their shared memory is three tiles.
const PREFILLS: [(usize, usize); 6] = [(64, 128), (80, 128), (96, 128), (128, 128), (192, 64), (256, 64)];

/// Positions of a tile of keys in prefill.
const PREFILL_TILE: usize = 64;

const GROUP_BYTES: usize = 128;

impl Path {
    /// The fastest path that computes the operation: tensor cores need 16-bit pages, and Ampere or later.
    pub(super) fn of(gpu: &Gpu, op: &Attention<'_>) -> Path {
        let groups = op.cache.key_groups();
        let fits = groups == op.cache.value_groups() && groups <= 4;
        if op.cache.dtype != DType::F32 && fits && gpu.capability() >= (8, 0) {
            Path::Tensor { groups }
        } else {
            Path::General
        }
    }
}
