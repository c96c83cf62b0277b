//! Swapping: a sequence's blocks go to the host and come back.
//!
//! Must not know why a sequence has to go.

use super::{BlockTables, PagedCache};
use crate::batch::{BlockId, BlockMove};

impl PagedCache {
    /// Moves what is computed of a sequence to the host; false, and nothing happened, if the host has no room
    /// or there is nothing to move.
    pub fn swap_out(
        &mut self,
        tables: &mut BlockTables,
        n_computed: usize,
        moves: &mut Vec<BlockMove>,
    ) -> bool {
        let n_blocks = n_computed.div_ceil(self.block_size);
        let n_wanted: usize = tables.tables.iter().map(|table| n_blocks - table.n_freed).sum();
        if n_wanted == 0 || n_wanted > self.host.n_free() {
            return false;
        }
        for table in &mut tables.tables {
            for idx in table.n_freed..n_blocks {
                let to = self.host.free.pop().expect("as many are free as were counted");
                let from = table.blocks[idx];
                moves.push(BlockMove::SwapOut { from, to });
                table.swapped.push(to);
            }
            for block in table.blocks.drain(table.n_freed..).rev() {
                self.pool.release(block);
            }
        }
        self.n_releases += 1;
        true
    }

    /// Brings a sequence back.
    ///
    /// # Panics
    /// If fewer blocks are free than it has on the host.
    pub fn swap_in(&mut self, tables: &mut BlockTables, moves: &mut Vec<BlockMove>) {
        for table in &mut tables.tables {
            for from in std::mem::take(&mut table.swapped) {
                let to: BlockId = self.take();
                moves.push(BlockMove::SwapIn { from, to });
                table.blocks.push(to);
                self.host.free.push(from);
            }
        }
    }
}
