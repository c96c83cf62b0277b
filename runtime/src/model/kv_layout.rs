//! Which layers share block tables, and where each layer keeps its blocks.
//!
//! Layers that see the same part of a context form a group, whose block tables are its own. All groups have
//! equally many layers (the last of a kind may lack some), so that one page, a block of every layer of a
//! group, has the same size in all of them and one pool of blocks serves all. A page is a block of each of
//! the slots; a group's `i`-th layer keeps its blocks in slot `i`.

use kernels::{KvDType, KvShape, KvValues};

use super::spec::{Attention, Layer, Network};
use crate::batch::KvGroup;

/// Where layers keep keys and values.
#[derive(Debug, Clone)]
pub(super) struct KvLayout {
    groups: Vec<KvGroup>,
    /// The place of each layer.
    places: Vec<Place>,
    /// What a slot keeps of a token.
    shapes: Vec<KvShape>,
}

/// Where a layer keeps its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Its group, whose block tables it uses.
    pub(super) group: usize,
    /// Its slot of a page.
    pub(super) slot: usize,
}

/// Slots that no layer of a group fills, at most this part of all: what grouping may cost.
const PADDING_MAX: f64 = 0.125;

impl KvLayout {
    /// The layout of a model.
    pub(super) fn of<M, V>(model: &Network<M, V>) -> KvLayout {
        let shapes: Vec<KvShape> = model.layers.iter().map(shape).collect();
        // A layer that also looks forward needs the whole prompt, so its window saves no block.
        let window = |layer| window(layer).filter(|_| model.is_causal);
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
            return KvLayout {
                groups: vec![KvGroup { window }],
                places: (0..shapes.len()).map(|slot| Place { group: 0, slot }).collect(),
                shapes,
            };
        }
        let counts: Vec<usize> = kinds
            .iter()
            .map(|kind| windows.iter().filter(|window| *window == kind).count())
            .collect();
        let n_slots = group_size(&counts);
        let mut layout = KvLayout {
            groups: Vec::new(),
            places: vec![Place { group: 0, slot: 0 }; shapes.len()],
            shapes: shapes.into_iter().take(n_slots).collect(),
        };
        for window in kinds {
            let layers = (0..windows.len()).filter(|&layer| windows[layer] == window);
            for (idx, layer) in layers.enumerate() {
                if idx % n_slots == 0 {
                    layout.groups.push(KvGroup { window });
                }
                layout.places[layer] = Place {
                    group: layout.groups.len() - 1,
                    slot: idx % n_slots,
                };
            }
        }
        layout
    }

    /// Groups of layers.
    pub(super) fn groups(&self) -> &[KvGroup] {
        &self.groups
    }

    /// The place of each layer.
    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    /// What each slot keeps of a token.
    pub(super) fn shapes(&self) -> &[KvShape] {
        &self.shapes
    }

    /// Bytes that a token takes in all groups together, in a cache of such numbers.
    pub(super) fn token_bytes(&self, dtype: KvDType) -> usize {
        self.groups.len() * self.slot_bytes(dtype)
    }

    /// Bytes that a token takes in one group.
    pub(super) fn slot_bytes(&self, dtype: KvDType) -> usize {
        self.shapes.iter().map(|shape| shape.slot_bytes(dtype)).sum()
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
fn shape<M, V>(layer: &Layer<M, V>) -> KvShape {
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
fn window<M, V>(layer: &Layer<M, V>) -> Option<usize> {
    match &layer.attention {
        Attention::Grouped(grouped) => grouped.window,
        Attention::Latent(_) => None,
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
