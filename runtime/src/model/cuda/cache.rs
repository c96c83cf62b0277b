//! The KV cache on the device, and the blocks that are swapped out to pinned memory of the host.

use kernels::cuda::{DeviceBuffer, Gpu};
use kernels::gpu::{HostBlocks, KvBlocks, KvPages, KvSizes, copy_block, swap_in, swap_out};
use kernels::{DType, KernelError};

use crate::batch::{BlockMove, StepError};
use crate::model::kv_layout::{KvLayout, Place};

/// The memory of every slot of a layout.
pub(super) struct Cache {
    layout: KvLayout,
    dtype: DType,
    block_size: usize,
    blocks: Option<KvBlocks>,
    /// `None` where none is swapped.
    host: Option<HostBlocks>,
    /// What the blocks are views of.
    _memory: Option<DeviceBuffer<u8>>,
}

/// How much a cache holds.
#[derive(Clone, Copy)]
pub(super) struct CacheSizes {
    pub(super) n_blocks: usize,
    pub(super) block_size: usize,
    pub(super) n_host_blocks: usize,
}

impl Cache {
    /// A cache without blocks, which will keep numbers in `dtype`.
    pub(super) fn empty(layout: KvLayout, dtype: DType) -> Cache {
        Cache {
            layout,
            dtype,
            block_size: 0,
            blocks: None,
            host: None,
            _memory: None,
        }
    }

    /// Takes memory; what was there is gone.
    ///
    /// # Errors
    /// The device or the host has not so much, or a size is zero.
    pub(super) fn allocate(&mut self, gpu: &Gpu, sizes: CacheSizes) -> Result<(), KernelError> {
        *self = Cache::empty(self.layout.clone(), self.dtype);
        let kv_sizes = KvSizes {
            n_blocks: sizes.n_blocks,
            block_size: sizes.block_size,
            dtype: self.dtype,
        };
        let shapes = self.layout.shapes();
        let memory = gpu.alloc(kv_sizes.block_bytes(shapes).saturating_mul(sizes.n_blocks))?;
        let blocks = KvBlocks::new(memory.view(), shapes, kv_sizes)?;
        if sizes.n_host_blocks > 0 {
            self.host = Some(HostBlocks::new(gpu, &blocks, sizes.n_host_blocks)?);
        }
        self.block_size = sizes.block_size;
        self.blocks = Some(blocks);
        self._memory = Some(memory);
        Ok(())
    }

    /// Enqueues checked moves, one after the other.
    pub(super) fn move_blocks(&mut self, gpu: &Gpu, moves: &[BlockMove]) -> Result<(), StepError> {
        let Some(blocks) = &self.blocks else {
            return Ok(());
        };
        for &block_move in moves {
            match (block_move, &mut self.host) {
                (BlockMove::Copy { from, to }, _) => copy_block(gpu, blocks, from.0, to.0)?,
                (BlockMove::SwapOut { from, to }, Some(host)) => {
                    swap_out(gpu, blocks, from.0, (host, to.0))?;
                }
                (BlockMove::SwapIn { from, to }, Some(host)) => {
                    swap_in(gpu, blocks, (host, from.0), to.0)?;
                }
                // A checked batch moves no block of a host that has none.
                (BlockMove::SwapOut { .. } | BlockMove::SwapIn { .. }, None) => {}
            }
        }
        Ok(())
    }

    /// Bytes of a block in all slots.
    pub(super) fn block_bytes(&self, block_size: usize) -> usize {
        let sizes = KvSizes {
            n_blocks: 1,
            block_size,
            dtype: self.dtype,
        };
        sizes.block_bytes(self.layout.shapes())
    }

    /// How its numbers are stored.
    pub(super) fn dtype(&self) -> DType {
        self.dtype
    }

    /// The layers' groups and places.
    pub(super) fn layout(&self) -> &KvLayout {
        &self.layout
    }

    /// The memory of a layer's place; `None` before memory was taken.
    pub(super) fn at(&self, place: Place) -> Option<KvPages> {
        self.blocks.as_ref().map(|blocks| blocks.pages(place.slot))
    }

    /// Tokens per block; zero before memory was taken.
    pub(super) fn block_size(&self) -> usize {
        self.block_size
    }

    /// Blocks.
    pub(super) fn n_blocks(&self) -> usize {
        self.blocks.as_ref().map_or(0, KvBlocks::n_blocks)
    }

    /// Blocks on the host.
    pub(super) fn n_host_blocks(&self) -> usize {
        self.host.as_ref().map_or(0, HostBlocks::n_blocks)
    }
}
