//! Blocks of the KV cache: which are free, and which sequence holds which.
//!
//! Owns the accounting only: free + used = total, and no block has two owners. Must not know sequences,
//! tokens or the memory behind a block.

use super::batch::BlockId;

/// All blocks of the cache.
#[derive(Debug)]
pub struct BlockPool {
    block_size: usize,
    /// A stack: the block freed last is the one most likely still in a processor cache.
    free: Vec<BlockId>,
    is_used: Vec<bool>,
}

/// One sequence's blocks, in the order of its tokens. Only a [`BlockPool`] fills and empties it.
#[derive(Debug, Default)]
pub struct BlockTable {
    blocks: Vec<BlockId>,
}

/// The pool has too few free blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{n_wanted} cache blocks wanted, {n_free} are free")]
pub struct PoolExhausted {
    /// Blocks that were asked for.
    pub n_wanted: usize,
    /// Blocks that are free.
    pub n_free: usize,
}

impl BlockPool {
    /// A pool of `n_blocks` free blocks of `block_size` tokens each.
    ///
    /// # Panics
    /// If `block_size` is 0 or a block's index does not fit [`BlockId`].
    pub fn new(n_blocks: usize, block_size: usize) -> BlockPool {
        assert!(block_size > 0, "a block holds at least one token");
        let n_blocks_u32 = u32::try_from(n_blocks).expect("block indices fit 32 bits");
        let free = (0..n_blocks_u32).rev().map(BlockId).collect();
        BlockPool {
            block_size,
            free,
            is_used: vec![false; n_blocks],
        }
    }

    /// Makes room in `table` for `n_tokens` tokens in all; takes every block it lacks, or none.
    ///
    /// # Errors
    /// [`PoolExhausted`] if too few blocks are free; nothing changed then.
    pub fn grow(&mut self, table: &mut BlockTable, n_tokens: usize) -> Result<(), PoolExhausted> {
        let n_wanted = n_tokens
            .div_ceil(self.block_size)
            .saturating_sub(table.blocks.len());
        if n_wanted > self.free.len() {
            return Err(PoolExhausted {
                n_wanted,
                n_free: self.free.len(),
            });
        }
        for _ in 0..n_wanted {
            let block = self.free.pop().expect("as many are free as were counted");
            let is_used = &mut self.is_used[block.0 as usize];
            assert!(!*is_used, "block {} was free and owned at once", block.0);
            *is_used = true;
            table.blocks.push(block);
        }
        Ok(())
    }

    /// Takes all blocks of `table` back.
    ///
    /// # Panics
    /// If a block of it is already free: two tables held it.
    pub fn release(&mut self, table: &mut BlockTable) {
        for block in table.blocks.drain(..).rev() {
            let is_used = &mut self.is_used[block.0 as usize];
            assert!(*is_used, "block {} freed twice", block.0);
            *is_used = false;
            self.free.push(block);
        }
    }

    /// Tokens per block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Blocks in all.
    pub fn n_blocks(&self) -> usize {
        self.is_used.len()
    }

    /// Blocks nobody owns.
    pub fn n_free(&self) -> usize {
        self.free.len()
    }

    /// Blocks somebody owns.
    pub fn n_used(&self) -> usize {
        self.n_blocks() - self.n_free()
    }
}

impl BlockTable {
    /// The blocks, in the order of the sequence's tokens.
    pub fn blocks(&self) -> &[BlockId] {
        &self.blocks
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn grow_takes_only_what_is_missing() {
        let mut pool = BlockPool::new(4, 16);
        let mut table = BlockTable::default();
        pool.grow(&mut table, 17).unwrap();
        assert_eq!(table.blocks(), [BlockId(0), BlockId(1)]);
        pool.grow(&mut table, 32).unwrap();
        assert_eq!(pool.n_used(), 2);
        pool.release(&mut table);
        assert_eq!((pool.n_free(), table.blocks().len()), (4, 0));
    }

    #[test]
    fn grow_takes_all_or_nothing() {
        let mut pool = BlockPool::new(2, 4);
        let mut table = BlockTable::default();
        let refusal = pool.grow(&mut table, 9).unwrap_err();
        assert_eq!(
            refusal,
            PoolExhausted {
                n_wanted: 3,
                n_free: 2
            }
        );
        assert_eq!((pool.n_free(), table.blocks().len()), (2, 0));
    }

    #[test]
    #[should_panic(expected = "freed twice")]
    fn a_block_in_two_tables_is_caught_when_freed() {
        let mut pool = BlockPool::new(2, 4);
        let mut table = BlockTable::default();
        pool.grow(&mut table, 4).unwrap();
        let mut thief = BlockTable {
            blocks: table.blocks.clone(),
        };
        pool.release(&mut table);
        pool.release(&mut thief);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Grow { table_idx: usize, n_tokens: usize },
        Release { table_idx: usize },
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (0..6usize, 0..60usize).prop_map(|(table_idx, n_tokens)| Op::Grow { table_idx, n_tokens }),
            1 => (0..6usize).prop_map(|table_idx| Op::Release { table_idx }),
        ]
    }

    proptest! {
        #[test]
        fn no_block_has_two_owners(
            n_blocks in 0..20usize,
            block_size in 1..9usize,
            ops in prop::collection::vec(op(), 0..200),
        ) {
            let mut pool = BlockPool::new(n_blocks, block_size);
            let mut tables: Vec<BlockTable> = (0..6).map(|_| BlockTable::default()).collect();
            for op in ops {
                match op {
                    Op::Grow { table_idx, n_tokens } => {
                        let before = tables[table_idx].blocks().len();
                        let missing = n_tokens.div_ceil(block_size).saturating_sub(before);
                        let fits = missing <= pool.n_free();
                        prop_assert_eq!(pool.grow(&mut tables[table_idx], n_tokens).is_ok(), fits);
                        let grown = if fits { missing } else { 0 };
                        prop_assert_eq!(tables[table_idx].blocks().len(), before + grown);
                    }
                    Op::Release { table_idx } => pool.release(&mut tables[table_idx]),
                }
                let owned: Vec<BlockId> = tables.iter().flat_map(|t| t.blocks().iter().copied()).collect();
                let distinct: HashSet<BlockId> = owned.iter().copied().collect();
                prop_assert_eq!(owned.len(), distinct.len());
                prop_assert_eq!(owned.len(), pool.n_used());
                prop_assert_eq!(pool.n_free() + pool.n_used(), n_blocks);
            }
        }
    }
}
