//! Blocks of the KV cache: which are free, how many owners the others have, and which is taken next.
//!
//! Owns the accounting only: free + used = total. Must not know sequences, tokens, what a cached block holds,
//! or the memory behind it.

use crate::batch::BlockId;

/// All blocks of the cache. A block is free when it has no owner; what it holds may still be worth keeping
/// (then it is *cached*), so free blocks are taken in the order: never used or not worth keeping, then cached
/// ones, the one freed longest ago first. All operations take constant time.
#[derive(Debug)]
pub struct BlockPool {
    /// One entry per block, and one more: the head of the ring of free blocks.
    blocks: Vec<Block>,
    n_free: usize,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    n_owners: u32,
    is_cached: bool,
    /// Neighbours in the ring of free blocks, while it is free.
    prev: u32,
    next: u32,
}

/// A block that was free and has one owner now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The block.
    pub block: BlockId,
    /// It was cached; what it held is lost.
    pub was_cached: bool,
}

impl BlockPool {
    /// A pool of `n_blocks` free blocks.
    ///
    /// # Panics
    /// If a block's index does not fit [`BlockId`].
    pub fn new(n_blocks: usize) -> BlockPool {
        let head = u32::try_from(n_blocks).expect("block indices fit 32 bits");
        assert!(head < BlockId::FREED.0, "an index means a freed block");
        let n_entries = head + 1;
        let entry = |idx: u32| Block {
            n_owners: 0,
            is_cached: false,
            prev: if idx == 0 { head } else { idx - 1 },
            next: (idx + 1) % n_entries,
        };
        BlockPool {
            blocks: (0..n_entries).map(entry).collect(),
            n_free: n_blocks,
        }
    }

    /// Takes a free block; `None` if there is none.
    pub fn take(&mut self) -> Option<Taken> {
        let first = self.blocks[self.head() as usize].next;
        if first == self.head() {
            return None;
        }
        self.unlink(first);
        let block = &mut self.blocks[first as usize];
        block.n_owners = 1;
        Some(Taken {
            block: BlockId(first),
            was_cached: std::mem::replace(&mut block.is_cached, false),
        })
    }

    /// Adds an owner to a block that has some, or that is free and cached.
    ///
    /// # Panics
    /// If it holds nothing that could be shared.
    pub fn share(&mut self, block: BlockId) {
        let entry = &mut self.blocks[block.0 as usize];
        assert!(
            entry.n_owners > 0 || entry.is_cached,
            "block {} holds nothing to share",
            block.0
        );
        entry.n_owners += 1;
        if entry.n_owners == 1 {
            self.unlink(block.0);
        }
    }

    /// One owner less; without any the block is free.
    ///
    /// # Panics
    /// If it is free already.
    pub fn release(&mut self, block: BlockId) {
        let entry = &mut self.blocks[block.0 as usize];
        assert!(entry.n_owners > 0, "block {} freed twice", block.0);
        entry.n_owners -= 1;
        if entry.n_owners > 0 {
            return;
        }
        let (head, is_cached) = (self.head(), self.blocks[block.0 as usize].is_cached);
        let before = if is_cached {
            head
        } else {
            self.blocks[head as usize].next
        };
        self.link(block.0, before);
    }

    /// What the block holds is worth keeping once it is free.
    ///
    /// # Panics
    /// If it is free.
    pub fn set_cached(&mut self, block: BlockId) {
        let entry = &mut self.blocks[block.0 as usize];
        assert!(
            entry.n_owners > 0,
            "block {} is free and is to be cached",
            block.0
        );
        entry.is_cached = true;
    }

    /// Owners of a block.
    pub fn n_owners(&self, block: BlockId) -> usize {
        self.blocks[block.0 as usize].n_owners as usize
    }

    /// Blocks in all.
    pub fn n_blocks(&self) -> usize {
        self.blocks.len() - 1
    }

    /// Blocks without an owner.
    pub fn n_free(&self) -> usize {
        self.n_free
    }

    /// Blocks with an owner.
    pub fn n_used(&self) -> usize {
        self.n_blocks() - self.n_free
    }

    fn head(&self) -> u32 {
        self.blocks.len() as u32 - 1
    }

    fn link(&mut self, block: u32, before: u32) {
        let prev = std::mem::replace(&mut self.blocks[before as usize].prev, block);
        self.blocks[prev as usize].next = block;
        let entry = &mut self.blocks[block as usize];
        (entry.prev, entry.next) = (prev, before);
        self.n_free += 1;
    }

    fn unlink(&mut self, block: u32) {
        let Block { prev, next, .. } = self.blocks[block as usize];
        self.blocks[prev as usize].next = next;
        self.blocks[next as usize].prev = prev;
        self.n_free -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn take(pool: &mut BlockPool) -> u32 {
        pool.take().unwrap().block.0
    }

    #[test]
    fn the_uncached_go_first_then_the_cached_freed_longest_ago() {
        let mut pool = BlockPool::new(4);
        assert_eq!([0; 4].map(|_| take(&mut pool)), [0, 1, 2, 3]);
        assert_eq!(pool.take(), None);
        [0, 1, 3]
            .into_iter()
            .for_each(|block| pool.set_cached(BlockId(block)));
        [3, 2, 0, 1]
            .into_iter()
            .for_each(|block| pool.release(BlockId(block)));
        // A cached block that is used again is the youngest when it is freed again.
        pool.share(BlockId(3));
        pool.release(BlockId(3));
        let order = [0; 4].map(|_| pool.take().map(|taken| (taken.block.0, taken.was_cached)));
        assert_eq!(
            order.map(Option::unwrap),
            [(2, false), (0, true), (1, true), (3, true)]
        );
    }

    #[test]
    fn a_block_is_free_when_its_last_owner_is_gone() {
        let mut pool = BlockPool::new(1);
        let block = pool.take().unwrap().block;
        pool.share(block);
        pool.release(block);
        assert_eq!((pool.n_used(), pool.n_owners(block)), (1, 1));
        pool.release(block);
        assert_eq!((pool.n_used(), pool.n_free()), (0, 1));
    }

    #[test]
    #[should_panic(expected = "block 0 freed twice")]
    fn freeing_twice_is_a_bug() {
        let mut pool = BlockPool::new(2);
        pool.release(BlockId(0));
    }

    #[derive(Clone, Debug)]
    enum Op {
        Take,
        Share(usize),
        Release(usize),
        Cache(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => Just(Op::Take),
            1 => (0..30usize).prop_map(Op::Share),
            3 => (0..30usize).prop_map(Op::Release),
            1 => (0..30usize).prop_map(Op::Cache),
        ]
    }

    proptest! {
        /// Against two plain queues and a list of owners.
        #[test]
        fn agrees_with_plain_queues(n_blocks in 0..20u32, ops in prop::collection::vec(op(), 0..300)) {
            let mut pool = BlockPool::new(n_blocks as usize);
            let (mut fresh, mut cached): (VecDeque<u32>, VecDeque<u32>) = ((0..n_blocks).collect(), VecDeque::new());
            let mut owned: Vec<u32> = Vec::new();
            let mut is_cached = vec![false; n_blocks as usize];
            for op in ops {
                let pick = |idx: usize| owned.get(idx % owned.len().max(1)).copied();
                match op {
                    Op::Take => {
                        let expected = fresh.pop_front().map(|block| (block, false));
                        let expected = expected.or_else(|| cached.pop_front().map(|block| (block, true)));
                        let taken = pool.take().map(|taken| (taken.block.0, taken.was_cached));
                        prop_assert_eq!(taken, expected);
                        owned.extend(taken.map(|(block, _)| block));
                        if let Some((block, _)) = taken {
                            is_cached[block as usize] = false;
                        }
                    }
                    Op::Share(idx) => {
                        let free = cached.get(idx % 3).copied();
                        if let Some(block) = free.or_else(|| pick(idx)) {
                            pool.share(BlockId(block));
                            cached.retain(|&free| free != block);
                            owned.push(block);
                        }
                    }
                    Op::Release(idx) => if let Some(block) = pick(idx) {
                        pool.release(BlockId(block));
                        owned.remove(idx % owned.len());
                        match (owned.contains(&block), is_cached[block as usize]) {
                            (true, _) => {}
                            (false, true) => cached.push_back(block),
                            (false, false) => fresh.push_front(block),
                        }
                    },
                    Op::Cache(idx) => if let Some(block) = pick(idx) {
                        pool.set_cached(BlockId(block));
                        is_cached[block as usize] = true;
                    },
                }
                prop_assert_eq!(pool.n_free(), fresh.len() + cached.len());
                prop_assert_eq!(pool.n_free() + pool.n_used(), n_blocks as usize);
            }
        }
    }
}
