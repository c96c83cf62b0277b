//! Working memory of products: what an op computes on its way to the result. Ops run one after the other, so that all
//! share it.

use super::tile::{self, Tiles};
use crate::cuda::{DeviceBuffer, Gpu, Lt, View};
use crate::error::{Contract, KernelError};
use crate::weight::{DType, Matrix, MatrixList};

/// Working memory of products.
pub struct ProductScratch {
    /// Activations as a product reads them.
    rows: DeviceBuffer<u8>,
    /// Activations between two products, or gates and ups.
    between: DeviceBuffer<u8>,
    /// Results of experts, a row for each choice.
    computed: DeviceBuffer<f32>,
    /// Sums of a tile that several blocks compute.
    partial: DeviceBuffer<f32>,
    /// Blocks that are done with a tile. All are zero between two kernels.
    counters: DeviceBuffer<u32>,
    library: Option<Lt>,
}

/// The most that a list of products needs. Its methods take the largest number of rows of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScratchSizes {
    rows: usize,
    between: usize,
    computed: usize,
    /// Tokens of the widest tile.
    tile_tokens: usize,
    counters: usize,
    /// Whether there are products that cuBLASLt computes where it is installed.
    has_library_rows: bool,
}

impl ScratchSizes {
    /// Also enough for [`linear`](super::linear) of `m` rows.
    pub fn linear(self, m: usize, weight: &Matrix) -> ScratchSizes {
        let n = weight.n_rows;
        let has_library_rows = m >= LIBRARY_ROWS_MIN && weight.dtype != DType::F32;
        let needs = ScratchSizes {
            rows: rows_bytes(weight.dtype, m, weight.n_cols),
            between: if has_library_rows {
                (m * n).min(PRODUCT_FLOATS.max(n)) * size_of::<f32>()
            } else {
                0
            },
            has_library_rows,
            ..ScratchSizes::of_tiles(&Tiles::of_linear(m, weight))
        };
        self.or(needs)
    }

    /// Also enough for [`per_head`](super::per_head) of `m` rows.
    pub fn per_head(self, m: usize, weights: &MatrixList) -> ScratchSizes {
        let needs = ScratchSizes {
            rows: rows_bytes(weights.dtype(), m * weights.len(), weights.n_cols()),
            ..ScratchSizes::of_tiles(&Tiles::of_heads(m, weights))
        };
        self.or(needs)
    }

    /// Also enough for [`experts`](crate::gpu::experts) of `m` rows, of which each goes to `n_chosen`.
    pub fn experts(self, m: usize, n_chosen: usize, [up, down]: [&MatrixList; 2]) -> ScratchSizes {
        let n = m * n_chosen;
        let [up_tiles, down_tiles] =
            [up, down].map(|list| ScratchSizes::of_tiles(&Tiles::of_experts(n, list)));
        let needs = ScratchSizes {
            rows: rows_bytes(up.dtype(), n, up.n_cols()),
            between: rows_bytes(down.dtype(), n, down.n_cols()),
            computed: n * down.n_rows(),
            ..ScratchSizes::default()
        };
        self.or(needs).or(up_tiles).or(down_tiles)
    }

    fn of_tiles(tiles: &Tiles) -> ScratchSizes {
        ScratchSizes {
            tile_tokens: tiles.n_tokens,
            counters: tiles.n_tiles_max,
            ..ScratchSizes::default()
        }
    }

    /// The larger of each size.
    fn or(self, other: ScratchSizes) -> ScratchSizes {
        ScratchSizes {
            rows: self.rows.max(other.rows),
            between: self.between.max(other.between),
            computed: self.computed.max(other.computed),
            tile_tokens: self.tile_tokens.max(other.tile_tokens),
            counters: self.counters.max(other.counters),
            has_library_rows: self.has_library_rows || other.has_library_rows,
        }
    }

    /// Bytes of a [`ProductScratch`] of these sizes.
    pub fn size_bytes(&self, gpu: &Gpu) -> usize {
        let floats = self.computed + self.counters + partial_len(gpu, self.tile_tokens);
        let library = if self.has_library_rows {
            Lt::WORKSPACE_BYTES
        } else {
            0
        };
        self.rows + self.between + floats * size_of::<f32>() + library
    }
}

impl ProductScratch {
    /// Working memory of `sizes`.
    ///
    /// # Errors
    /// There is no device memory.
    pub fn new(gpu: &Gpu, sizes: &ScratchSizes) -> Result<ProductScratch, KernelError> {
        Ok(ProductScratch {
            rows: gpu.alloc(sizes.rows)?,
            between: gpu.alloc(sizes.between)?,
            computed: gpu.alloc(sizes.computed)?,
            partial: gpu.alloc(partial_len(gpu, sizes.tile_tokens))?,
            counters: gpu.alloc_zeroed(sizes.counters)?,
            library: if sizes.has_library_rows {
                Lt::open(gpu)?
            } else {
                None
            },
        })
    }

    /// cuBLASLt, if it is installed and has products to compute.
    pub(super) fn library(&self) -> Option<&Lt> {
        self.library.as_ref()
    }

    /// Room for `len` activations as a product reads them.
    pub(super) fn rows(&self, op: Contract, size_bytes: usize) -> Result<View<u8>, KernelError> {
        first(op, self.rows.view(), size_bytes)
    }

    /// Room between two products.
    pub(super) fn between(&self, op: Contract, size_bytes: usize) -> Result<View<u8>, KernelError> {
        first(op, self.between.view(), size_bytes)
    }

    /// Room for the results of experts.
    pub(super) fn computed(&self, op: Contract, len: usize) -> Result<View<f32>, KernelError> {
        op.range(
            len <= self.computed.len(),
            "scratch",
            self.computed.len(),
            "as large as the op needs",
        )?;
        Ok(self.computed.view().range(0..len))
    }

    /// Partial sums and counters for tiles.
    pub(super) fn of_tiles(
        &self,
        op: Contract,
        gpu: &Gpu,
        tiles: &Tiles,
    ) -> Result<(View<f32>, View<u32>), KernelError> {
        let fits = tiles.n_tiles_max <= self.counters.len()
            && partial_len(gpu, tiles.n_tokens) <= self.partial.len();
        op.range(fits, "scratch", self.counters.len(), "as large as the op needs")?;
        Ok((self.partial.view(), self.counters.view()))
    }
}

fn first(op: Contract, view: View<u8>, size_bytes: usize) -> Result<View<u8>, KernelError> {
    op.range(
        size_bytes <= view.len(),
        "scratch",
        view.len(),
        "as large as the op needs",
    )?;
    Ok(view.range(0..size_bytes))
}

/// Fewest rows of a product that cuBLASLt computes.
pub(super) const LIBRARY_ROWS_MIN: usize = 65;

/// Most floats of gates and ups that are computed at a time: 64 MiB, enough rows to use a weight well.
pub(super) const PRODUCT_FLOATS: usize = 16 << 20;

/// Bytes of `m` rows of `k` activations of a dtype, which start on 16 bytes each.
pub(super) fn rows_bytes(dtype: DType, m: usize, k: usize) -> usize {
    m * row_len(dtype, k) * dtype.size_bytes()
}

/// Elements from one row of activations to the next.
pub(super) fn row_len(dtype: DType, k: usize) -> usize {
    k.next_multiple_of(16 / dtype.size_bytes())
}

/// Floats of partial sums: each block of a launch has at most two tiles that it shares.
fn partial_len(gpu: &Gpu, tile_tokens: usize) -> usize {
    2 * tile::n_blocks_max(gpu) * tile::ROWS * tile_tokens
}
