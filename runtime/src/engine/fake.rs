//! Doubles for the engine's tests: a model whose next token is a function of the whole context, and dice.
//!
//! The model keeps a paged cache of tokens. It reads every context back through the block tables, so a
//! wrong slot, a stale block or a lost token changes the text or fails a check.

use std::collections::HashSet;

use super::batch::{Batch, BatchRow, KvGroup, Logits, StepOutput};
use super::philox::{halves, philox4x32};
use crate::model::{Forward, ModelError};

/// A model that hashes its context.
pub(super) struct HashModel {
    vocab_size: usize,
    block_size: usize,
    /// Position and token in each slot.
    slots: Vec<Option<(u32, u32)>>,
}

/// Seeded random numbers.
pub(super) struct Dice {
    seed: u64,
    n_thrown: u64,
}

/// Hash of a context, to be extended token by token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ContextHash(u64);

impl HashModel {
    pub(super) fn new(vocab_size: usize, n_blocks: usize, block_size: usize) -> HashModel {
        HashModel {
            vocab_size,
            block_size,
            slots: vec![None; n_blocks * block_size],
        }
    }

    /// Computes `batch`, and returns the hash of the context of every row that wants logits.
    pub(super) fn contexts(&mut self, batch: &Batch) -> Vec<ContextHash> {
        self.check_and_write(batch);
        let mut wanted = batch.logits_at.iter().copied().peekable();
        let mut hashes = Vec::new();
        for row in &batch.rows {
            let hash = self.read_context(row);
            let last_idx = (row.query_start + row.query_len - 1) as u32;
            if wanted.next_if_eq(&last_idx).is_some() {
                hashes.push(hash);
            }
        }
        assert_eq!(
            wanted.next(),
            None,
            "logits wanted elsewhere than at a row's end, or out of order"
        );
        hashes
    }

    fn check_and_write(&mut self, batch: &Batch) {
        let mut owned = HashSet::new();
        let mut query_start = 0;
        for row in &batch.rows {
            assert_eq!(row.query_start, query_start, "rows do not tile the tokens");
            assert!(row.query_len >= 1, "a row with no tokens");
            assert!(
                row.block_tables[0].iter().all(|&block| owned.insert(block)),
                "a block in two places"
            );
            for idx in query_start..query_start + row.query_len {
                let position = row.context_len - row.query_len + (idx - query_start);
                let block = row.block_tables[0][position / self.block_size];
                let slot = block.0 as usize * self.block_size + position % self.block_size;
                assert_eq!(batch.positions[idx] as usize, position);
                self.slots[slot] = Some((position as u32, batch.tokens[idx]));
            }
            query_start += row.query_len;
        }
        let lengths = [batch.tokens.len(), batch.positions.len()];
        assert_eq!(lengths, [query_start; 2], "arrays of different lengths");
    }

    fn read_context(&self, row: &BatchRow) -> ContextHash {
        let mut hash = ContextHash::default();
        for position in 0..row.context_len {
            let block = row.block_tables[0][position / self.block_size];
            let slot = block.0 as usize * self.block_size + position % self.block_size;
            let (written_position, token) = self.slots[slot].expect("a slot read before it was written");
            assert_eq!(
                written_position as usize, position,
                "a slot holds another position's token"
            );
            hash = hash.then(token);
        }
        hash
    }
}

impl Forward for HashModel {
    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn kv_groups(&self) -> Vec<KvGroup> {
        vec![KvGroup::default()]
    }

    fn whole_prompts(&self) -> bool {
        false
    }

    fn forward(&mut self, batch: &Batch) -> Result<StepOutput, ModelError> {
        let vocab_size = self.vocab_size;
        let values = self
            .contexts(batch)
            .into_iter()
            .flat_map(|hash| hash.logits(vocab_size))
            .collect();
        Ok(StepOutput {
            logits: Logits { values, vocab_size },
            pooled: Vec::new(),
        })
    }
}

impl ContextHash {
    pub(super) fn of(tokens: &[u32]) -> ContextHash {
        tokens
            .iter()
            .fold(ContextHash::default(), |hash, &token| hash.then(token))
    }

    pub(super) fn then(self, token: u32) -> ContextHash {
        let mixed = (self.0 ^ u64::from(token)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ContextHash(mixed ^ (mixed >> 29))
    }

    pub(super) fn token(self, vocab_size: usize) -> u32 {
        (self.0 >> 8) as u32 % vocab_size as u32
    }

    /// Logits between 0 and 4, different in every context.
    pub(super) fn logits(self, vocab_size: usize) -> Vec<f32> {
        let logit = |token| philox4x32(halves(self.0), [token, 0, 0, 0])[0] as f32 / u32::MAX as f32 * 4.0;
        (0..vocab_size as u32).map(logit).collect()
    }
}

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice { seed, n_thrown: 0 }
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let [low, high] = halves(self.n_thrown);
        self.n_thrown += 1;
        philox4x32(halves(self.seed), [low, high, 0, 0])[0] as usize % bound
    }

    /// A number of `range`.
    pub(super) fn within(&mut self, range: std::ops::RangeInclusive<usize>) -> usize {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    /// True once in `n` throws.
    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}
