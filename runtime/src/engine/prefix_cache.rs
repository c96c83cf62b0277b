//! The prefix cache: which blocks hold the keys and values of which beginnings of texts.
//!
//! A tree whose edges are the contents of one full block: a node is a text, its parent the text without its last
//! block. Owns the way from contents to blocks and back. Must not know sequences, or who owns a block.
//!
//! The content of a token is its id, or the digest of an image or a sound and the token's index in it. A child is found
//! by a hash of its parent and its contents, and counts as found only if both are equal: a hash alone is never trusted. Every group keeps its own block of a node, and a node stays while anything needs
//! it: a block, a child, or a sequence whose text it is. So a window may lose the blocks before it and still
//! know which text they belong to.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use super::philox::halves;
use crate::batch::{BlockId, MediaPiece};

/// A text of full blocks that the cache knows. Valid as long as something holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId(u32);

/// The contents of one full block: its tokens, and the pieces of media that some of them stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockKey<'a> {
    /// Token ids.
    pub tokens: &'a [u32],
    /// Pieces of media, counted from the first token.
    pub media: &'a [MediaPiece],
}

/// The tree.
#[derive(Debug)]
pub struct PrefixCache<S = RandomState> {
    n_groups: usize,
    nodes: Vec<Node>,
    unused: Vec<NodeId>,
    n_nodes_max: usize,
    children: HashMap<u64, NodeId, S>,
    /// The node of each block, `None` where it is not cached. `[n_blocks]`
    texts: Vec<Option<NodeId>>,
}

#[derive(Debug, Default)]
struct Node {
    parent: Option<NodeId>,
    tokens: Box<[u32]>,
    media: Box<[MediaPiece]>,
    /// One per group.
    blocks: Box<[Option<BlockId>]>,
    /// Children, blocks and sequences that hold it.
    n_holders: u32,
}

/// Nodes per block of the cache at most: those without a block exist for windows, which need few.
const NODES_PER_BLOCK_MAX: usize = 8;

impl PrefixCache {
    /// An empty tree over `n_blocks` blocks in `n_groups` groups.
    pub fn new(n_blocks: usize, n_groups: usize) -> PrefixCache {
        PrefixCache::with_hasher(n_blocks, n_groups, RandomState::new())
    }
}

impl<S: BuildHasher> PrefixCache<S> {
    fn with_hasher(n_blocks: usize, n_groups: usize, hasher: S) -> PrefixCache<S> {
        PrefixCache {
            n_groups,
            nodes: Vec::new(),
            unused: Vec::new(),
            n_nodes_max: n_blocks
                .saturating_mul(NODES_PER_BLOCK_MAX)
                .min(u32::MAX as usize),
            children: HashMap::with_hasher(hasher),
            texts: vec![None; n_blocks],
        }
    }

    /// The empty text of those that share `salt`, if any of them is known.
    pub fn root(&self, salt: u64) -> Option<NodeId> {
        self.find(None, BlockKey::from(&halves(salt)[..]))
    }

    /// `parent`'s text and one more block, if it is known.
    pub fn child(&self, parent: NodeId, key: BlockKey<'_>) -> Option<NodeId> {
        self.find(Some(parent), key)
    }

    /// The block in which `group` keeps the last block of a text.
    pub fn block(&self, node: NodeId, group: usize) -> Option<BlockId> {
        self.node(node).blocks[group]
    }

    /// Makes the empty text of `salt` known and holds it; `None` if there is no room.
    pub fn hold_root(&mut self, salt: u64) -> Option<NodeId> {
        self.hold_child_of(None, BlockKey::from(&halves(salt)[..]))
    }

    /// Makes `parent`'s text and one more block known and holds it; `None` if there is no room, or if another text
    /// has the same hash.
    pub fn hold_child(&mut self, parent: NodeId, key: BlockKey<'_>) -> Option<NodeId> {
        self.hold_child_of(Some(parent), key)
    }

    /// Holds a known text, so that it stays known.
    pub fn hold(&mut self, node: NodeId) {
        self.nodes[node.0 as usize].n_holders += 1;
    }

    /// Takes one hold back; forgets the text if nothing else holds it.
    pub fn release(&mut self, node: NodeId) {
        let mut next = Some(node);
        while let Some(node) = next {
            let entry = &mut self.nodes[node.0 as usize];
            entry.n_holders -= 1;
            if entry.n_holders > 0 {
                return;
            }
            let entry = std::mem::take(entry);
            let parent = entry.parent;
            self.children.remove(&self.hash(parent, entry.key()));
            self.unused.push(node);
            next = parent;
        }
    }

    /// Lets `block` be where `group` keeps the last block of a text; false if it keeps it elsewhere already.
    ///
    /// # Panics
    /// If the block belongs to another text.
    pub fn keep(&mut self, node: NodeId, group: usize, block: BlockId) -> bool {
        let entry = &mut self.nodes[node.0 as usize];
        if entry.blocks[group].is_some() {
            return false;
        }
        let text = &mut self.texts[block.0 as usize];
        assert_eq!(*text, None, "block {} holds two texts", block.0);
        *text = Some(node);
        entry.blocks[group] = Some(block);
        entry.n_holders += 1;
        true
    }

    /// Forgets what `block` held, because it will be overwritten.
    ///
    /// # Panics
    /// If it held nothing.
    pub fn forget(&mut self, block: BlockId) {
        let node = self.texts[block.0 as usize].take();
        let node = node.expect("a cached block has a text");
        let blocks = &mut self.nodes[node.0 as usize].blocks;
        let kept = blocks.iter_mut().find(|kept| **kept == Some(block));
        *kept.expect("a text knows its blocks") = None;
        self.release(node);
    }

    /// Texts that are known.
    pub fn n_nodes(&self) -> usize {
        self.nodes.len() - self.unused.len()
    }

    fn find(&self, parent: Option<NodeId>, key: BlockKey<'_>) -> Option<NodeId> {
        let node = *self.children.get(&self.hash(parent, key))?;
        let entry = self.node(node);
        (entry.parent == parent && entry.key() == key).then_some(node)
    }

    fn hold_child_of(&mut self, parent: Option<NodeId>, key: BlockKey<'_>) -> Option<NodeId> {
        if let Some(node) = self.find(parent, key) {
            self.hold(node);
            return Some(node);
        }
        let hash = self.hash(parent, key);
        if self.n_nodes() >= self.n_nodes_max || self.children.contains_key(&hash) {
            return None;
        }
        let entry = Node {
            parent,
            tokens: key.tokens.into(),
            media: key.media.into(),
            blocks: vec![None; self.n_groups].into(),
            n_holders: 1,
        };
        let node = self.insert(entry);
        self.children.insert(hash, node);
        if let Some(parent) = parent {
            self.hold(parent);
        }
        Some(node)
    }

    fn insert(&mut self, entry: Node) -> NodeId {
        if let Some(node) = self.unused.pop() {
            self.nodes[node.0 as usize] = entry;
            return node;
        }
        self.nodes.push(entry);
        NodeId(self.nodes.len() as u32 - 1)
    }

    fn hash(&self, parent: Option<NodeId>, key: BlockKey<'_>) -> u64 {
        self.children.hasher().hash_one((parent, key))
    }

    fn node(&self, node: NodeId) -> &Node {
        &self.nodes[node.0 as usize]
    }
}

impl Node {
    fn key(&self) -> BlockKey<'_> {
        BlockKey {
            tokens: &self.tokens,
            media: &self.media,
        }
    }
}

impl<'a> From<&'a [u32]> for BlockKey<'a> {
    /// A block of text.
    fn from(tokens: &'a [u32]) -> BlockKey<'a> {
        BlockKey { tokens, media: &[] }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasherDefault, Hasher};

    use super::*;

    fn text(tokens: &[u32]) -> BlockKey<'_> {
        BlockKey::from(tokens)
    }

    /// Every text has the same hash.
    #[derive(Default)]
    struct Constant;

    impl Hasher for Constant {
        fn finish(&self) -> u64 {
            7
        }

        fn write(&mut self, _: &[u8]) {}
    }

    #[test]
    fn a_text_is_known_by_its_tokens_its_parent_and_its_salt() {
        let mut cache = PrefixCache::new(8, 1);
        let roots = [1, 2].map(|salt| cache.hold_root(salt).unwrap());
        let ab = cache.hold_child(roots[0], text(&[10, 11])).unwrap();
        let abcd = cache.hold_child(ab, text(&[12, 13])).unwrap();
        assert_eq!(cache.child(roots[0], text(&[10, 11])), Some(ab));
        assert_eq!(cache.child(ab, text(&[12, 13])), Some(abcd));
        assert_eq!(cache.child(roots[1], text(&[10, 11])), None, "another salt");
        assert_eq!(cache.child(roots[0], text(&[12, 13])), None, "another beginning");
        assert_eq!(cache.child(ab, text(&[12, 14])), None);
        assert_eq!(cache.root(3), None);
    }

    #[test]
    fn a_text_is_forgotten_when_nothing_holds_it() {
        let mut cache = PrefixCache::new(8, 2);
        let root = cache.hold_root(0).unwrap();
        let first = cache.hold_child(root, text(&[1])).unwrap();
        let second = cache.hold_child(first, text(&[2])).unwrap();
        assert!(cache.keep(second, 1, BlockId(5)));
        assert!(!cache.keep(second, 1, BlockId(6)), "one block is enough");
        for node in [root, first, second] {
            cache.release(node);
        }
        // The block of the second still needs it, and with it the first.
        assert_eq!(
            (cache.block(second, 0), cache.block(second, 1)),
            (None, Some(BlockId(5)))
        );
        assert_eq!(cache.n_nodes(), 3);
        cache.forget(BlockId(5));
        assert_eq!((cache.n_nodes(), cache.root(0)), (0, None));
    }

    #[test]
    fn a_hash_is_never_trusted() {
        let mut cache = PrefixCache::with_hasher(8, 1, BuildHasherDefault::<Constant>::default());
        let root = cache.hold_root(0).unwrap();
        assert_eq!(cache.root(1), None);
        assert_eq!(cache.hold_root(1), None, "the place is taken");
        assert_eq!(cache.child(root, text(&[1])), None);
        cache.release(root);
        assert!(cache.hold_root(1).is_some());
    }

    #[test]
    fn the_tree_is_bounded() {
        let mut cache = PrefixCache::new(2, 1);
        let root = cache.hold_root(0).unwrap();
        let held = (0..100).filter_map(|token| cache.hold_child(root, text(&[token])));
        assert_eq!(held.count(), 2 * NODES_PER_BLOCK_MAX - 1);
    }
}
