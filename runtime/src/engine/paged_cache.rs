//! The paged cache: the blocks of every sequence, in every group of layers.
//!
//! Owns the tables: how they grow, share, give back the blocks before a window, and begin with blocks of the
//! prefix cache. Must not know sequences beyond their tokens, nor the order in which they run.

mod host_pool;
mod swap;

use std::ops::Range;

use super::blocks::BlockPool;
use super::config::Limits;
use super::prefix_cache::{BlockKey, NodeId, PrefixCache};
use super::prompt::Content;
use crate::batch::{BlockId, BlockMove, HostBlockId, KvGroup, MediaPiece};

use host_pool::HostPool;

/// All blocks, on the device and on the host, and what is known of their contents.
#[derive(Debug)]
pub struct PagedCache {
    block_size: usize,
    n_step_tokens_max: usize,
    groups: Vec<KvGroup>,
    pool: BlockPool,
    host: HostPool,
    prefixes: Option<PrefixCache>,
    n_releases: u64,
}

/// One sequence's blocks. Only a [`PagedCache`] fills and empties it.
#[derive(Debug, Default)]
pub struct BlockTables {
    /// One per group, all of the same length; none before the sequence was first placed.
    tables: Vec<Table>,
    /// The text of its first full blocks, if the prefix cache knows it.
    text: Option<NodeId>,
    /// Blocks of that text.
    n_known: usize,
}

#[derive(Clone, Debug, Default)]
struct Table {
    blocks: Vec<BlockId>,
    /// Blocks at the beginning that were given back, because the window has passed them.
    n_freed: usize,
    /// Where the blocks after those are, while they are swapped out.
    swapped: Vec<HostBlockId>,
}

/// The beginning of a text that the prefix cache has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hit {
    /// The texts of the first block, the first two, and so on.
    nodes: Vec<NodeId>,
    root: Option<NodeId>,
}

impl PagedCache {
    /// An empty cache of the sizes in `limits`.
    pub fn new(limits: &Limits) -> PagedCache {
        let Limits { config, groups, .. } = limits;
        PagedCache {
            block_size: config.block_size,
            n_step_tokens_max: config.max_num_batched_tokens,
            groups: groups.clone(),
            pool: BlockPool::new(config.n_blocks),
            host: HostPool::new(config.n_host_blocks),
            prefixes: limits
                .caches_prefixes()
                .then(|| PrefixCache::new(config.n_blocks, groups.len())),
            n_releases: 0,
        }
    }

    /// The longest beginning of `content`, in full blocks, that needs not be computed again. At least one
    /// token is left to compute, because its logits are wanted.
    pub fn lookup(&self, salt: u64, content: Content<'_>) -> Hit {
        let Some((prefixes, root)) = self.prefixes.as_ref().and_then(|p| Some((p, p.root(salt)?))) else {
            return Hit::default();
        };
        let n_blocks_max = (content.tokens.len() - 1) / self.block_size;
        let mut hit = Hit {
            nodes: Vec::new(),
            root: Some(root),
        };
        // Blocks in a row, up to the latest, that each group still has.
        let mut n_in_a_row = vec![0; self.groups.len()];
        let (mut node, mut n_usable) = (root, 0);
        for idx in 0..n_blocks_max {
            let range = idx * self.block_size..(idx + 1) * self.block_size;
            let media: Vec<MediaPiece> = content.media_in(range.clone()).collect();
            let key = BlockKey {
                tokens: &content.tokens[range],
                media: &media,
            };
            let Some(next) = prefixes.child(node, key) else {
                break;
            };
            node = next;
            for (group, n_in_a_row) in n_in_a_row.iter_mut().enumerate() {
                let is_here = prefixes.block(node, group).is_some();
                *n_in_a_row = if is_here { *n_in_a_row + 1 } else { 0 };
            }
            hit.nodes.push(node);
            let n_blocks = hit.nodes.len();
            let has_all =
                |(group, &n_here): (&KvGroup, &usize)| n_here + self.first_seen(*group, n_blocks) >= n_blocks;
            if self.groups.iter().zip(&n_in_a_row).all(has_all) {
                n_usable = n_blocks;
            }
        }
        hit.nodes.truncate(n_usable);
        hit
    }

    /// Tokens of a hit.
    pub fn n_tokens(&self, hit: &Hit) -> usize {
        hit.nodes.len() * self.block_size
    }

    /// Blocks of a hit that have no owner now: taking them makes them used.
    pub fn n_idle(&self, hit: &Hit) -> usize {
        let is_idle =
            |&(_, block): &(usize, BlockId)| block != BlockId::FREED && self.pool.n_owners(block) == 0;
        self.blocks_of(hit).filter(is_idle).count()
    }

    /// Blocks that a sequence lacks at most while its first `n_tokens` tokens are computed.
    pub fn n_missing(&self, tables: &BlockTables, n_computed: usize, n_tokens: usize) -> usize {
        self.n_live_max(n_computed, n_tokens)
            .saturating_sub(tables.n_live())
    }

    /// The same for a sequence that begins with `hit`.
    pub fn n_missing_after(&self, hit: &Hit, n_tokens: usize) -> usize {
        let n_live = self
            .blocks_of(hit)
            .filter(|&(_, block)| block != BlockId::FREED)
            .count();
        self.n_live_max(self.n_tokens(hit), n_tokens)
            .saturating_sub(n_live)
    }

    /// Lets empty tables begin with `hit`.
    pub fn adopt(&mut self, tables: &mut BlockTables, hit: &Hit) {
        assert!(
            tables.tables.is_empty(),
            "a sequence that has blocks needs no others"
        );
        tables.tables = vec![Table::default(); self.groups.len()];
        for (group, block) in self.blocks_of(hit).collect::<Vec<_>>() {
            let table = &mut tables.tables[group];
            if block == BlockId::FREED {
                table.n_freed += 1;
            } else {
                self.pool.share(block);
            }
            table.blocks.push(block);
        }
        tables.n_known = hit.nodes.len();
        tables.text = hit.nodes.last().copied().or(hit.root);
        if let (Some(prefixes), Some(text)) = (&mut self.prefixes, tables.text) {
            prefixes.hold(text);
        }
    }

    /// How many tokens after the first `n_computed` the free blocks have room for.
    pub fn n_tokens_fitting(&self, tables: &BlockTables, n_computed: usize) -> usize {
        let n_copies = self.shared_tails(tables, n_computed).count();
        let Some(n_free) = self.pool.n_free().checked_sub(n_copies) else {
            return 0;
        };
        let n_blocks = tables.n_blocks() + n_free / self.groups.len();
        n_blocks * self.block_size - n_computed
    }

    /// Makes room for the tokens of `range`, which come after all that are computed. A block that others share is not
    /// written: a copy of it is.
    ///
    /// # Panics
    /// If more tokens are wanted than fit.
    pub fn grow(&mut self, tables: &mut BlockTables, range: Range<usize>, moves: &mut Vec<BlockMove>) {
        let tail = range.start / self.block_size;
        for group in self.shared_tails(tables, range.start).collect::<Vec<_>>() {
            let to = self.take();
            let from = std::mem::replace(&mut tables.tables[group].blocks[tail], to);
            self.pool.release(from);
            moves.push(BlockMove::Copy { from, to });
        }
        for _ in tables.n_blocks()..range.end.div_ceil(self.block_size) {
            for table in &mut tables.tables {
                table.blocks.push(self.take());
            }
        }
    }

    /// Makes the full blocks of `computed` known to the prefix cache.
    pub fn publish(&mut self, tables: &mut BlockTables, salt: u64, computed: Content<'_>) {
        let Some(prefixes) = &mut self.prefixes else {
            return;
        };
        if tables.text.is_none() && tables.n_known == 0 {
            tables.text = prefixes.hold_root(salt);
        }
        for idx in tables.n_known..computed.tokens.len() / self.block_size {
            // The text before it found no room, so what follows finds none either.
            let Some(parent) = tables.text else { return };
            let range = idx * self.block_size..(idx + 1) * self.block_size;
            let media: Vec<MediaPiece> = computed.media_in(range.clone()).collect();
            let key = BlockKey {
                tokens: &computed.tokens[range],
                media: &media,
            };
            tables.text = prefixes.hold_child(parent, key);
            prefixes.release(parent);
            tables.n_known += 1;
            let Some(text) = tables.text else { return };
            for (group, table) in tables.tables.iter().enumerate() {
                let block = table.blocks[idx];
                if block != BlockId::FREED && prefixes.keep(text, group, block) {
                    self.pool.set_cached(block);
                }
            }
        }
    }

    /// Gives back the blocks that no token after the first `n_computed` sees.
    pub fn free_unseen(&mut self, tables: &mut BlockTables, n_computed: usize) {
        for (table, group) in tables.tables.iter_mut().zip(&self.groups) {
            let Some(window) = group.window else { continue };
            let first_seen = (n_computed + 1).saturating_sub(window) / self.block_size;
            for idx in table.n_freed..first_seen.min(table.blocks.len()) {
                let block = std::mem::replace(&mut table.blocks[idx], BlockId::FREED);
                self.pool.release(block);
                table.n_freed += 1;
                self.n_releases += 1;
            }
        }
    }

    /// Tables of a branch that goes on from where `tables` is; both share what is there.
    pub fn fork(&mut self, tables: &BlockTables) -> BlockTables {
        for table in &tables.tables {
            for &block in &table.blocks[table.n_freed..] {
                self.pool.share(block);
            }
        }
        if let (Some(prefixes), Some(text)) = (&mut self.prefixes, tables.text) {
            prefixes.hold(text);
        }
        BlockTables {
            tables: tables.tables.clone(),
            text: tables.text,
            n_known: tables.n_known,
        }
    }

    /// Takes all blocks back, the last ones first: the beginning of a text is worth the most.
    pub fn release(&mut self, tables: &mut BlockTables) {
        let BlockTables { tables, text, .. } = std::mem::take(tables);
        let n_blocks = tables.iter().map(|table| table.blocks.len()).max();
        for idx in (0..n_blocks.unwrap_or(0)).rev() {
            let held = tables.iter().filter_map(|table| table.blocks.get(idx));
            for &block in held.filter(|&&block| block != BlockId::FREED) {
                self.pool.release(block);
            }
        }
        for table in tables {
            self.host.release(table.swapped);
        }
        if let (Some(prefixes), Some(text)) = (&mut self.prefixes, text) {
            prefixes.release(text);
        }
        self.n_releases += 1;
    }

    /// Blocks of computed texts are kept for those that begin alike.
    pub fn is_caching(&self) -> bool {
        self.prefixes.is_some()
    }

    /// The blocks on the device.
    pub fn pool(&self) -> &BlockPool {
        &self.pool
    }

    /// Free blocks on the host.
    #[cfg(test)]
    pub(super) fn n_host_free(&self) -> usize {
        self.host.n_free()
    }

    /// A number that changes whenever blocks may have become free.
    pub fn n_releases(&self) -> u64 {
        self.n_releases
    }

    /// Groups in which the block that the next token goes to has other owners too.
    fn shared_tails(&self, tables: &BlockTables, n_computed: usize) -> impl Iterator<Item = usize> {
        let tail = (!n_computed.is_multiple_of(self.block_size)).then_some(n_computed / self.block_size);
        let is_shared =
            move |table: &Table| tail.is_some_and(|tail| self.pool.n_owners(table.blocks[tail]) > 1);
        let groups = tables.tables.iter().enumerate();
        groups
            .filter(move |(_, table)| is_shared(table))
            .map(|(group, _)| group)
    }

    /// The first of `n_blocks` full blocks that a token after them sees.
    fn first_seen(&self, group: KvGroup, n_blocks: usize) -> usize {
        group.window.map_or(0, |window| {
            let first = (n_blocks * self.block_size + 1).saturating_sub(window);
            (first / self.block_size).min(n_blocks)
        })
    }

    /// `(group, block)` of every entry that tables beginning with `hit` have, in order.
    fn blocks_of(&self, hit: &Hit) -> impl Iterator<Item = (usize, BlockId)> {
        let n_blocks = hit.nodes.len();
        let of_group = move |(group, kv_group): (usize, &KvGroup)| {
            let first_seen = self.first_seen(*kv_group, n_blocks);
            let nodes = hit.nodes.iter().enumerate();
            nodes.map(move |(idx, &node)| {
                let known = self
                    .prefixes
                    .as_ref()
                    .and_then(|prefixes| prefixes.block(node, group));
                (
                    group,
                    known.filter(|_| idx >= first_seen).unwrap_or(BlockId::FREED),
                )
            })
        };
        self.groups.iter().enumerate().flat_map(of_group)
    }

    /// Blocks that a sequence has at most at once while its tokens from `n_computed` to `n_tokens` are
    /// computed in chunks.
    fn n_live_max(&self, n_computed: usize, n_tokens: usize) -> usize {
        let n_all = n_tokens.div_ceil(self.block_size);
        let chunk = (n_tokens - n_computed).min(self.n_step_tokens_max);
        let n_live = |group: &KvGroup| match group.window {
            Some(window) => n_all.min((window - 1 + chunk).div_ceil(self.block_size) + 1),
            None => n_all,
        };
        self.groups.iter().map(n_live).sum()
    }

    /// A free block; the caller made sure that there is one.
    fn take(&mut self) -> BlockId {
        let taken = self.pool.take().expect("as many blocks are free as were counted");
        if let (true, Some(prefixes)) = (taken.was_cached, &mut self.prefixes) {
            prefixes.forget(taken.block);
        }
        taken.block
    }
}

impl BlockTables {
    /// The table of every group, in the order of the sequence's tokens.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = &[BlockId]> {
        self.tables.iter().map(|table| &table.blocks[..])
    }

    /// Blocks of its text that the prefix cache knows.
    #[cfg(test)]
    pub(super) fn n_published(&self) -> usize {
        self.n_known
    }

    /// Its blocks are on the host.
    pub fn is_swapped(&self) -> bool {
        self.tables.iter().any(|table| !table.swapped.is_empty())
    }

    /// Its blocks on the host.
    #[cfg(test)]
    pub(super) fn host_blocks(&self) -> impl Iterator<Item = HostBlockId> {
        self.tables.iter().flat_map(|table| table.swapped.iter().copied())
    }

    /// Entries of each table.
    fn n_blocks(&self) -> usize {
        self.tables.first().map_or(0, |table| table.blocks.len())
    }

    /// Blocks that it owns, shared ones included.
    fn n_live(&self) -> usize {
        self.tables
            .iter()
            .map(|table| table.blocks.len() - table.n_freed)
            .sum()
    }
}

#[cfg(test)]
mod tests;
