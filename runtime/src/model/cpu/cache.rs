//! The KV cache of a model: the memory of every slot of its layout, in the cache and on the host.

use kernels::{KvCache, KvDType, KvShape};

use crate::batch::{BlockMove, KvGroup, StepError};
use crate::model::error::ModelError;
use crate::model::kv_layout::{KvLayout, Place};

/// The memory.
#[derive(Debug)]
pub(in crate::model) struct Cache {
    layout: KvLayout,
    dtype: KvDType,
    block_size: usize,
    /// One per slot.
    slots: Vec<KvCache>,
    /// The same on the host, for blocks that are swapped out; empty if there is no room for any.
    host: Vec<KvCache>,
}

impl Cache {
    /// A cache without blocks, which will keep numbers in `dtype`.
    pub(in crate::model) fn empty(layout: KvLayout, dtype: KvDType) -> Cache {
        Cache {
            layout,
            dtype,
            block_size: 0,
            slots: Vec::new(),
            host: Vec::new(),
        }
    }

    /// Takes memory for so many blocks; what was there is gone.
    ///
    /// # Errors
    /// [`ModelError::Cache`] if there is no room or a size is zero.
    pub(in crate::model) fn allocate(
        &mut self,
        n_blocks: usize,
        block_size: usize,
        n_host_blocks: usize,
    ) -> Result<(), ModelError> {
        self.slots.clear();
        self.host.clear();
        self.block_size = block_size;
        self.slots = self.slots_of(n_blocks)?;
        if n_host_blocks > 0 {
            self.host = self.slots_of(n_host_blocks)?;
        }
        Ok(())
    }

    fn slots_of(&self, n_blocks: usize) -> Result<Vec<KvCache>, ModelError> {
        let block_size = self.block_size;
        let n_slots = n_blocks as u128 * block_size as u128;
        let kv_bytes = n_slots.saturating_mul(self.layout.slot_bytes(self.dtype) as u128);
        let no_room = || ModelError::Cache {
            n_blocks,
            block_size,
            kv_bytes,
        };
        if kv_bytes == 0 || kv_bytes > isize::MAX as u128 {
            return Err(no_room());
        }
        let slot =
            |shape: &KvShape| KvCache::new(n_blocks, block_size, *shape, self.dtype).map_err(|_| no_room());
        self.layout.shapes().iter().map(slot).collect()
    }

    /// Does checked moves, one after the other.
    pub(in crate::model) fn move_blocks(&mut self, moves: &[BlockMove]) -> Result<(), StepError> {
        for &block_move in moves {
            for (idx, slot) in self.slots.iter_mut().enumerate() {
                match block_move {
                    BlockMove::Copy { from, to } => slot.copy_block(from.0, to.0)?,
                    BlockMove::SwapOut { from, to } => {
                        self.host[idx].copy_block_from(slot, from.0, to.0)?;
                    }
                    BlockMove::SwapIn { from, to } => {
                        slot.copy_block_from(&self.host[idx], from.0, to.0)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Bytes that a token takes in all groups together.
    pub(in crate::model) fn token_bytes(&self) -> usize {
        self.layout.token_bytes(self.dtype)
    }

    /// How its numbers are stored.
    pub(in crate::model) fn dtype(&self) -> KvDType {
        self.dtype
    }

    /// Groups of layers.
    pub(in crate::model) fn groups(&self) -> &[KvGroup] {
        self.layout.groups()
    }

    /// The memory of a layer's place.
    pub(in crate::model) fn at(&self, place: Place) -> &KvCache {
        &self.slots[place.slot]
    }

    /// The memory of a layer's place, to write.
    pub(in crate::model) fn at_mut(&mut self, place: Place) -> &mut KvCache {
        &mut self.slots[place.slot]
    }

    /// Tokens per block; zero before memory was taken.
    pub(in crate::model) fn block_size(&self) -> usize {
        self.block_size
    }

    /// Blocks.
    pub(in crate::model) fn n_blocks(&self) -> usize {
        self.slots.first().map_or(0, KvCache::n_blocks)
    }

    /// Blocks on the host.
    pub(in crate::model) fn n_host_blocks(&self) -> usize {
        self.host.first().map_or(0, KvCache::n_blocks)
    }
}
