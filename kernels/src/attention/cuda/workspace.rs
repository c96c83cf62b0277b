//! Working memory of attention on the device: parts of results, and how many of them have arrived.

use super::card::Card;
use crate::cuda::{Arg, DeviceBuffer, Gpu};
use crate::error::{Contract, KernelError};

/// Working memory of [`super::attention`], made once, so that a step allocates nothing. One is enough for all layers.
pub struct AttentionWorkspace {
    /// Weighted values of all items, then the largest score and total weight of each.
    partials: DeviceBuffer<f32>,
    /// Chunks of a row and its heads that are done. All are 0 between launches.
    arrivals: DeviceBuffer<u32>,
}

/// The sizes of a model's attention that its working memory depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionSizes {
    /// Query heads.
    pub n_heads: usize,
    /// Heads of the cache, which divide the query heads.
    pub n_kv_heads: usize,
    /// Elements of a value.
    pub value_dim: usize,
}

impl AttentionWorkspace {
    /// Memory for steps of at most `n_rows_max` rows, in layers of any of these sizes.
    ///
    /// # Errors
    /// There is no memory on the device.
    pub fn new(
        gpu: &Gpu,
        sizes: &[AttentionSizes],
        n_rows_max: usize,
    ) -> Result<AttentionWorkspace, KernelError> {
        let (mut n_floats, mut n_counters) = (0, 0);
        for size in sizes {
            let group = size.n_heads / size.n_kv_heads.max(1);
            let work = Work {
                n_blocks: Card::of(gpu).n_resident,
                n_rows: n_rows_max,
                value_dim: size.value_dim,
            };
            for heads in HEADS {
                let needs = work.needs(Items::of(size.n_kv_heads, group, heads));
                n_floats = needs.0.max(n_floats);
                n_counters = needs.1.max(n_counters);
            }
        }
        Ok(AttentionWorkspace {
            partials: gpu.alloc(n_floats)?,
            arrivals: gpu.alloc_zeroed(n_counters)?,
        })
    }

    /// Bytes on the device.
    pub fn size_bytes(&self) -> usize {
        self.partials.view().size_bytes() + self.arrivals.view().size_bytes()
    }

    /// Checks that it is large enough for a launch.
    pub(super) fn check(&self, work: Work, items: Items) -> Result<(), KernelError> {
        let (n_floats, n_counters) = work.needs(items);
        let contract = Contract("attention");
        let rule = "large enough for the rows and heads of the step";
        let len = self.partials.len();
        contract.range(n_floats <= len, "workspace", len, rule)?;
        let len = self.arrivals.len();
        contract.range(n_counters <= len, "workspace", len, rule)
    }

    pub(super) fn arguments(&self) -> Vec<Arg<'static>> {
        vec![self.partials.view().into(), self.arrivals.view().into()]
    }
}

/// Most query heads of an item, in the kernels that split contexts.
const HEADS: [usize; 2] = [16, 64];

/// How a kernel divides the query heads.
#[derive(Clone, Copy)]
pub(super) struct Items {
    /// Query heads of an item.
    n_heads: usize,
    /// Items of a chunk: heads of the cache times parts of their group.
    pub(super) per_chunk: usize,
}

impl Items {
    /// For a kernel with at most `heads` query heads in an item.
    pub(super) fn of(n_kv_heads: usize, group: usize, heads: usize) -> Items {
        let n_heads = group.clamp(1, heads);
        Items {
            n_heads,
            per_chunk: n_kv_heads * group.div_ceil(n_heads),
        }
    }
}

/// The sizes of a launch that its working memory depends on.
#[derive(Clone, Copy)]
pub(super) struct Work {
    pub(super) n_blocks: usize,
    pub(super) n_rows: usize,
    pub(super) value_dim: usize,
}

impl Work {
    /// Floats and counters: with many rows, the plan (`split.cuh`) makes at most four items for each block, and one more for
    /// each row and part.
    fn needs(self, items: Items) -> (usize, usize) {
        let n_ends = self.n_rows * items.per_chunk;
        let n_items = 4 * self.n_blocks + n_ends;
        // One more where the statistics need an even place.
        (n_items * items.n_heads * (self.value_dim + 2) + 1, n_ends)
    }
}
