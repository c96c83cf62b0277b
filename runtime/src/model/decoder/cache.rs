//! The KV cache of a model: which layers share block tables, and where each keeps its blocks.
//!
//! Layers that see the same part of a context form a group, whose block tables are its own. All groups have
//! equally many layers (the last of a kind may lack some), so that one page, a block of every layer of a
//! group, has the same size in all of them and one pool of blocks serves all. A page is a block of each of
//! the slots; a group's `i`-th layer keeps its blocks in slot `i`.

use kernels::{KvCache, KvShape, KvValues};

use crate::batch::{BlockMove, KvGroup, StepError};
use crate::model::ModelError;
use crate::model::checkpoint::{Loaded, LoadedLayer};
use crate::model::spec::Attention;

/// Where layers keep keys and values.
#[derive(Debug)]
pub(super) struct Layout {
    groups: Vec<KvGroup>,
    /// Group and slot of each layer.
    places: Vec<(usize, usize)>,
    /// What a slot keeps of a token.
    shapes: Vec<KvShape>,
}

/// The memory.
#[derive(Debug)]
pub(super) struct Cache {
    layout: Layout,
    block_size: usize,
    /// One per slot.
    slots: Vec<KvCache>,
    /// The same on the host, for blocks that are swapped out; empty if there is no room for any.
    host: Vec<KvCache>,
}

/// Slots that no layer of a group fills, at most this part of all: what grouping may cost.
const PADDING_MAX: f64 = 0.125;

impl Layout {
    /// The layout of a model.
    pub(super) fn of(model: &Loaded) -> Layout {
        let shapes: Vec<KvShape> = model.layers.iter().map(shape).collect();
        let windows: Vec<Option<usize>> = model.layers.iter().map(window).collect();
        let mut kinds = windows.clone();
        kinds.sort_unstable();
        kinds.dedup();
        let is_uniform = shapes.windows(2).all(|pair| pair[0] == pair[1]);
        if kinds.len() == 1 || !is_uniform {
            // Pages of layers of different sizes cannot serve two groups: all layers keep everything that
            // the one which looks back furthest needs.
            let window = if kinds.contains(&None) {
                None
            } else {
                kinds.last().copied().flatten()
            };
            return Layout {
                groups: vec![KvGroup { window }],
                places: (0..shapes.len()).map(|layer| (0, layer)).collect(),
                shapes,
            };
        }
        let counts: Vec<usize> = kinds
            .iter()
            .map(|kind| windows.iter().filter(|window| *window == kind).count())
            .collect();
        let n_slots = group_size(&counts);
        let mut layout = Layout {
            groups: Vec::new(),
            places: vec![(0, 0); shapes.len()],
            shapes: shapes.into_iter().take(n_slots).collect(),
        };
        for window in kinds {
            let layers = (0..windows.len()).filter(|&layer| windows[layer] == window);
            for (idx, layer) in layers.enumerate() {
                if idx % n_slots == 0 {
                    layout.groups.push(KvGroup { window });
                }
                layout.places[layer] = (layout.groups.len() - 1, idx % n_slots);
            }
        }
        layout
    }

    /// Groups of layers.
    pub(super) fn groups(&self) -> &[KvGroup] {
        &self.groups
    }

    /// Bytes that a token takes in one group.
    pub(super) fn slot_bytes(&self) -> usize {
        self.shapes.iter().map(|shape| shape.slot_bytes()).sum()
    }
}

/// Layers of a group, for kinds with so many layers: as many as the rarest kind has, or fewer where that
/// would leave too many slots empty.
fn group_size(counts: &[usize]) -> usize {
    let n_layers: usize = counts.iter().sum();
    let n_empty = |size: usize| counts.iter().map(|n| n.next_multiple_of(size)).sum::<usize>() - n_layers;
    let rarest = counts.iter().copied().min().unwrap_or(1);
    let fits = |size: &usize| n_empty(*size) as f64 <= PADDING_MAX * n_layers as f64;
    (1..=rarest).rev().find(fits).unwrap_or(1)
}

/// What a layer keeps of a token.
fn shape(layer: &LoadedLayer) -> KvShape {
    match &layer.attention {
        Attention::Grouped(grouped) => KvShape::of_heads(grouped.n_kv_heads, grouped.head_dim),
        Attention::Latent(latent) => KvShape {
            n_heads: 1,
            key_dim: latent.rank + latent.rope_dim,
            values: KvValues::InKeys {
                value_dim: latent.rank,
            },
        },
    }
}

/// How far a layer looks back.
fn window(layer: &LoadedLayer) -> Option<usize> {
    match &layer.attention {
        Attention::Grouped(grouped) => grouped.window,
        Attention::Latent(_) => None,
    }
}

impl Cache {
    /// A cache without blocks.
    pub(super) fn empty(layout: Layout) -> Cache {
        Cache {
            layout,
            block_size: 0,
            slots: Vec::new(),
            host: Vec::new(),
        }
    }

    /// Takes memory for so many blocks; what was there is gone.
    ///
    /// # Errors
    /// [`ModelError::Cache`] if there is no room or a size is zero.
    pub(super) fn allocate(
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
        let kv_bytes = n_slots.saturating_mul(self.layout.slot_bytes() as u128);
        let no_room = || ModelError::Cache {
            n_blocks,
            block_size,
            kv_bytes,
        };
        if kv_bytes == 0 || kv_bytes > isize::MAX as u128 {
            return Err(no_room());
        }
        let slot = |shape: &KvShape| KvCache::new(n_blocks, block_size, *shape).map_err(|_| no_room());
        self.layout.shapes.iter().map(slot).collect()
    }

    /// Does checked moves, one after the other.
    pub(super) fn move_blocks(&mut self, moves: &[BlockMove]) -> Result<(), StepError> {
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

    /// Groups of layers.
    pub(super) fn groups(&self) -> &[KvGroup] {
        self.layout.groups()
    }

    /// The group of a layer, and its memory.
    pub(super) fn of_layer(&mut self, layer: usize) -> (usize, &mut KvCache) {
        let (group, slot) = self.layout.places[layer];
        (group, &mut self.slots[slot])
    }

    /// Tokens per block; zero before memory was taken.
    pub(super) fn block_size(&self) -> usize {
        self.block_size
    }

    /// Blocks.
    pub(super) fn n_blocks(&self) -> usize {
        self.slots.first().map_or(0, KvCache::n_blocks)
    }

    /// Blocks on the host.
    pub(super) fn n_host_blocks(&self) -> usize {
        self.host.first().map_or(0, KvCache::n_blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_as_large_as_the_rarest_kind_unless_that_wastes_slots() {
        assert_eq!(group_size(&[12, 12]), 12);
        assert_eq!(group_size(&[5, 25]), 5);
        assert_eq!(group_size(&[4, 22]), 4);
        assert_eq!(group_size(&[10, 52]), 6);
        assert_eq!(group_size(&[1, 2]), 1);
    }
}
