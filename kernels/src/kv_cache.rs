//! Keys and values of one layer in fixed blocks, and the op that writes them.

use std::ops::Range;

use crate::buffer::Buffer;
use crate::error::{check_len, check_range};
use crate::simd::LANES_MAX;
use crate::{CpuContext, KernelError};

/// The paged cache of one layer, in f32: the scores of a long context are compared with each other, and
/// a 16-bit cache would move them by more than the tolerance that the engine promises.
///
/// Keys and values each are `[n_blocks, n_kv_heads, block_size, head_stride]`, where `head_stride` is
/// `head_dim` rounded up to whole vectors, with zeros behind.
#[derive(Debug)]
pub struct KvCache {
    keys: Buffer,
    values: Buffer,
    n_blocks: usize,
    block_size: usize,
    n_kv_heads: usize,
    head_dim: usize,
}

/// Operands of [`kv_write`].
pub struct KvWrite<'a> {
    /// Activations whose rows hold the keys at `keys_at` and the values behind them, each
    /// `n_kv_heads * head_dim` long. `[n_tokens, row_stride]`
    pub x: &'a [f32],
    /// Elements of a row.
    pub row_stride: usize,
    /// Where in a row the keys start.
    pub keys_at: usize,
    /// Slot of each token: `block * block_size + offset`. `[n_tokens]`
    pub slots: &'a [u32],
}

impl KvCache {
    /// An empty cache; memory is taken as blocks are first written.
    ///
    /// # Errors
    /// A size is zero, or there is no memory for it.
    pub fn new(
        (n_blocks, block_size): (usize, usize),
        (n_kv_heads, head_dim): (usize, usize),
    ) -> Result<KvCache, KernelError> {
        let sizes = [
            ("n_blocks", n_blocks),
            ("block_size", block_size),
            ("n_kv_heads", n_kv_heads),
            ("head_dim", head_dim),
        ];
        for (operand, got) in sizes {
            check_range(
                got > 0 && got <= SIZE_MAX,
                "kv_cache",
                (operand, got),
                "1 to 2^31",
            )?;
        }
        check_range(
            n_blocks * block_size <= SIZE_MAX,
            "kv_cache",
            ("n_blocks * block_size", n_blocks * block_size),
            "at most 2^31 slots",
        )?;
        let size_bytes =
            (n_blocks * block_size) as u128 * KvCache::slot_bytes(n_kv_heads, head_dim) as u128 / 2;
        let size = usize::try_from(size_bytes)
            .ok()
            .filter(|size| isize::try_from(*size).is_ok());
        let size = size.ok_or(KernelError::Memory {
            what: "KV cache",
            size_bytes,
        })?;
        let (keys, values) = (
            Buffer::zeroed("KV cache", size)?,
            Buffer::zeroed("KV cache", size)?,
        );
        Ok(KvCache {
            keys,
            values,
            n_blocks,
            block_size,
            n_kv_heads,
            head_dim,
        })
    }

    /// Copies all keys and values of block `from` to block `to`.
    ///
    /// # Errors
    /// A block is beyond the cache; nothing was copied then.
    pub fn copy_block(&mut self, from: u32, to: u32) -> Result<(), KernelError> {
        let source = self.block("copy_block", ("from", from))?;
        let target = self.block("copy_block", ("to", to))?.start;
        self.keys
            .as_mut_slice::<f32>()
            .copy_within(source.clone(), target);
        self.values.as_mut_slice::<f32>().copy_within(source, target);
        Ok(())
    }

    /// Copies all keys and values of block `from` of `other` to block `to` of this cache.
    ///
    /// # Errors
    /// The blocks are of different sizes, or one is beyond its cache; nothing was copied then.
    pub fn copy_block_from(&mut self, other: &KvCache, from: u32, to: u32) -> Result<(), KernelError> {
        let shape = |cache: &KvCache| [cache.n_kv_heads, cache.block_size, cache.head_dim];
        check_range(
            shape(self) == shape(other),
            "copy_block_from",
            ("block_size", other.block_size),
            "of blocks of the same shape",
        )?;
        let source = other.block("copy_block_from", ("from", from))?;
        let target = self.block("copy_block_from", ("to", to))?;
        self.keys.as_mut_slice()[target.clone()].copy_from_slice(&other.keys()[source.clone()]);
        self.values.as_mut_slice()[target].copy_from_slice(&other.values()[source]);
        Ok(())
    }

    /// Where all vectors of a block lie.
    fn block(
        &self,
        op: &'static str,
        (operand, block): (&'static str, u32),
    ) -> Result<Range<usize>, KernelError> {
        let block = block as usize;
        check_range(block < self.n_blocks, op, (operand, block), "within the cache")?;
        Ok(self.index(block, 0, 0)..self.index(block + 1, 0, 0))
    }

    /// Bytes that one token takes in one layer.
    pub fn slot_bytes(n_kv_heads: usize, head_dim: usize) -> usize {
        2 * n_kv_heads * head_dim.next_multiple_of(LANES_MAX) * size_of::<f32>()
    }

    /// Blocks.
    pub fn n_blocks(&self) -> usize {
        self.n_blocks
    }

    /// Tokens per block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Heads of keys and of values.
    pub fn n_kv_heads(&self) -> usize {
        self.n_kv_heads
    }

    /// Elements of a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Elements between two tokens of a head in a block.
    pub(crate) fn head_stride(&self) -> usize {
        self.head_dim.next_multiple_of(LANES_MAX)
    }

    /// Where the vectors of `head` and slot `offset` of `block` start.
    pub(crate) fn index(&self, block: usize, head: usize, offset: usize) -> usize {
        ((block * self.n_kv_heads + head) * self.block_size + offset) * self.head_stride()
    }

    /// All keys.
    pub(crate) fn keys(&self) -> &[f32] {
        self.keys.as_slice()
    }

    /// All values.
    pub(crate) fn values(&self) -> &[f32] {
        self.values.as_slice()
    }
}

/// Most of any size of a cache: products of two stay far from overflow.
const SIZE_MAX: usize = 1 << 31;

/// Copies each token's keys and values to its slot.
///
/// # Errors
/// The shapes do not agree, or a slot is beyond the cache; nothing was written then.
pub fn kv_write(_context: &CpuContext, cache: &mut KvCache, op: KvWrite<'_>) -> Result<(), KernelError> {
    let KvWrite {
        x,
        row_stride,
        keys_at,
        slots,
    } = op;
    let (head_dim, n_kv_heads) = (cache.head_dim, cache.n_kv_heads);
    let width = n_kv_heads * head_dim;
    let fits = keys_at
        .checked_add(2 * width)
        .is_some_and(|end| end <= row_stride);
    check_range(
        fits,
        "kv_write",
        ("row_stride", row_stride),
        "at least keys_at + keys + values",
    )?;
    check_len("kv_write", "x", x.len(), slots.len() * row_stride)?;
    let n_slots = cache.n_blocks * cache.block_size;
    for &slot in slots {
        check_range(
            (slot as usize) < n_slots,
            "kv_write",
            ("slot", slot as usize),
            "within the cache",
        )?;
    }
    for (row, &slot) in x.chunks_exact(row_stride).zip(slots) {
        let (keys, values) = row[keys_at..keys_at + 2 * width].split_at(width);
        let (block, offset) = (slot as usize / cache.block_size, slot as usize % cache.block_size);
        for head in 0..n_kv_heads {
            let (from, to) = (head * head_dim, cache.index(block, head, offset));
            cache.keys.as_mut_slice()[to..to + head_dim].copy_from_slice(&keys[from..from + head_dim]);
            cache.values.as_mut_slice()[to..to + head_dim].copy_from_slice(&values[from..from + head_dim]);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_each_head_to_its_slot() {
        let context = CpuContext::new(1).unwrap();
        let mut cache = KvCache::new((3, 2), (2, 3)).unwrap();
        let x: Vec<f32> = (1..=26).map(|i| i as f32).collect();
        let op = KvWrite {
            x: &x,
            row_stride: 13,
            keys_at: 1,
            slots: &[5, 0],
        };
        kv_write(&context, &mut cache, op).unwrap();
        let at = cache.index(2, 1, 1);
        assert_eq!(cache.keys()[at..at + 3], [5.0, 6.0, 7.0]);
        assert_eq!(cache.values()[at..at + 3], [11.0, 12.0, 13.0]);
        let at = cache.index(0, 0, 0);
        assert_eq!(cache.keys()[at..at + 3], [15.0, 16.0, 17.0]);
        assert_eq!(cache.keys()[at + 3..at + cache.head_stride()], [0.0; 13]);
        assert_eq!(
            cache.keys().iter().filter(|&&v| v != 0.0).count(),
            12,
            "nothing else was written"
        );
    }

    #[test]
    fn refuses_a_slot_beyond_the_cache_and_writes_nothing() {
        let context = CpuContext::new(1).unwrap();
        let mut cache = KvCache::new((1, 2), (1, 2)).unwrap();
        let op = KvWrite {
            x: &[1.0; 8],
            row_stride: 4,
            keys_at: 0,
            slots: &[0, 2],
        };
        assert!(matches!(
            kv_write(&context, &mut cache, op),
            Err(KernelError::Range { got: 2, .. })
        ));
        assert!(cache.keys().iter().all(|&v| v == 0.0));
        let op = KvWrite {
            x: &[1.0; 4],
            row_stride: 4,
            keys_at: 1,
            slots: &[0],
        };
        assert!(kv_write(&context, &mut cache, op).is_err());
    }

    /// A cache in which every number of every slot is different.
    fn filled(n_blocks: usize, first: f32) -> KvCache {
        let context = CpuContext::new(1).unwrap();
        let mut cache = KvCache::new((n_blocks, 2), (2, 3)).unwrap();
        let n_slots = 2 * n_blocks;
        let x: Vec<f32> = (0..12 * n_slots).map(|i| first + i as f32).collect();
        let slots: Vec<u32> = (0..n_slots as u32).collect();
        let op = KvWrite {
            x: &x,
            row_stride: 12,
            keys_at: 0,
            slots: &slots,
        };
        kv_write(&context, &mut cache, op).unwrap();
        cache
    }

    #[test]
    fn copies_whole_blocks_and_nothing_else() {
        let (before, mut cache, other) = (filled(3, 1.0), filled(3, 1.0), filled(2, 1000.0));
        let block = |cache: &KvCache, block| {
            let range = cache.block("test", ("block", block)).unwrap();
            (
                cache.keys()[range.clone()].to_vec(),
                cache.values()[range].to_vec(),
            )
        };
        cache.copy_block(2, 0).unwrap();
        assert_eq!(
            [0, 1, 2].map(|b| block(&cache, b)),
            [2, 1, 2].map(|b| block(&before, b))
        );
        cache.copy_block_from(&other, 1, 2).unwrap();
        assert_eq!(block(&cache, 2), block(&other, 1));
        assert_eq!(
            [0, 1].map(|b| block(&cache, b)),
            [2, 1].map(|b| block(&before, b))
        );
        assert!(cache.copy_block(3, 0).is_err() && cache.copy_block(0, 3).is_err());
        assert!(cache.copy_block_from(&other, 2, 0).is_err());
        let wider = KvCache::new((3, 2), (2, 4)).unwrap();
        assert!(cache.copy_block_from(&wider, 0, 0).is_err());
    }

    #[test]
    fn refuses_sizes_that_make_no_cache() {
        assert!(KvCache::new((0, 1), (1, 1)).is_err());
        assert!(KvCache::new((usize::MAX, 1), (1, 1)).is_err());
        assert!(KvCache::new((1 << 31, 1 << 31), (1, 1)).is_err());
        assert!(matches!(
            KvCache::new((1 << 31, 1), (1 << 30, 1 << 4)),
            Err(KernelError::Memory { .. })
        ));
    }
}
