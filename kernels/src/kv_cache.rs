//! Keys and values of one layer in fixed blocks, and the op that writes them.

#[cfg(feature = "cuda")]
pub(crate) mod cuda;

use crate::cpu::buffer::Buffer;
use crate::cpu::simd::LANES_MAX;
use crate::error::{Contract, KernelError};

#[cfg(feature = "cuda")]
pub(crate) use cuda::KvPages;

/// The paged cache of one layer, in f32: the scores of a long context are compared with each other, and
/// a 16-bit cache would move them by more than the tolerance that the engine promises.
///
/// Keys and values each are `[n_blocks, n_heads, block_size, stride]`, where the stride is the length of a
/// key or value rounded up to full vectors; zeros follow it.
#[derive(Debug)]
pub struct KvCache {
    keys: Buffer,
    /// Absent if values are in the keys.
    values: Option<Buffer>,
    n_blocks: usize,
    block_size: usize,
    shape: KvShape,
}

/// What a layer keeps of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Heads of keys and of values.
    pub n_heads: usize,
    /// Elements of a key.
    pub key_dim: usize,
    /// Where values are.
    pub values: KvValues,
}

/// Where a layer's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvValues {
    /// Beside the keys, each of this many elements.
    Own {
        /// Elements of a value.
        value_dim: usize,
    },
    /// A value is the first elements of its key: the compressed cache of multi-head latent attention
    /// (DeepSeek-V2 2024, section 2.1).
    InKeys {
        /// Elements of a value, at most those of a key.
        value_dim: usize,
    },
}

/// Where a token's keys and values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The block.
    pub(crate) block: usize,
    /// The token's place in the block.
    pub(crate) offset: usize,
}

impl KvShape {
    /// Keys and values of `head_dim` elements.
    pub fn of_heads(n_heads: usize, head_dim: usize) -> KvShape {
        KvShape {
            n_heads,
            key_dim: head_dim,
            values: KvValues::Own { value_dim: head_dim },
        }
    }

    /// Bytes that a token takes in one layer.
    pub fn slot_bytes(self) -> usize {
        let own = match self.values {
            KvValues::Own { value_dim } => stride(value_dim),
            KvValues::InKeys { .. } => 0,
        };
        self.n_heads * (stride(self.key_dim) + own) * size_of::<f32>()
    }

    /// Elements of a value.
    pub fn value_dim(self) -> usize {
        match self.values {
            KvValues::Own { value_dim } | KvValues::InKeys { value_dim } => value_dim,
        }
    }
}

/// Elements from one vector to the next.
fn stride(dim: usize) -> usize {
    dim.next_multiple_of(LANES_MAX)
}

/// Operands of [`kv_write`].
pub struct KvWrite<'a> {
    /// Activations whose rows hold the keys at `keys_at`, head after head, and the values, if the cache keeps
    /// any beside the keys, right after them. `[n_tokens, row_stride]`
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
    pub fn new(n_blocks: usize, block_size: usize, shape: KvShape) -> Result<KvCache, KernelError> {
        let sizes = [
            ("n_blocks", n_blocks),
            ("block_size", block_size),
            ("n_heads", shape.n_heads),
            ("key_dim", shape.key_dim),
            ("value_dim", shape.value_dim()),
        ];
        for (operand, got) in sizes {
            Contract("kv_cache").range(got > 0 && got <= SIZE_MAX, operand, got, "1 to 2^31")?;
        }
        let n_slots = n_blocks * block_size;
        Contract("kv_cache").range(
            n_slots <= SIZE_MAX,
            "n_blocks * block_size",
            n_slots,
            "at most 2^31 slots",
        )?;
        if let KvValues::InKeys { value_dim } = shape.values {
            Contract("kv_cache").range(
                value_dim <= shape.key_dim,
                "value_dim",
                value_dim,
                "at most key_dim",
            )?;
        }
        let buffer = |dim: usize| {
            let size_bytes = n_slots as u128 * shape.n_heads as u128 * stride(dim) as u128 * 4;
            let size = usize::try_from(size_bytes)
                .ok()
                .filter(|size| isize::try_from(*size).is_ok());
            let no_memory = KernelError::Memory {
                what: "KV cache",
                size_bytes,
            };
            Buffer::zeroed("KV cache", size.ok_or(no_memory)?)
        };
        Ok(KvCache {
            keys: buffer(shape.key_dim)?,
            values: match shape.values {
                KvValues::Own { value_dim } => Some(buffer(value_dim)?),
                KvValues::InKeys { .. } => None,
            },
            n_blocks,
            block_size,
            shape,
        })
    }

    /// Copies all keys and values of block `from` to block `to`.
    ///
    /// # Errors
    /// A block is beyond the cache; nothing was copied then.
    pub fn copy_block(&mut self, from: u32, to: u32) -> Result<(), KernelError> {
        let (from, to) = (from as usize, to as usize);
        self.check_block("copy_block", "from", from)?;
        self.check_block("copy_block", "to", to)?;
        for buffer in std::iter::once(&mut self.keys).chain(&mut self.values) {
            let all = buffer.as_mut_slice::<f32>();
            let len = all.len() / self.n_blocks;
            all.copy_within(from * len..(from + 1) * len, to * len);
        }
        Ok(())
    }

    /// Copies all keys and values of block `from` of `other` to block `to` of this cache.
    ///
    /// # Errors
    /// The blocks are of different shapes, or one is beyond its cache; nothing was copied then.
    pub fn copy_block_from(&mut self, other: &KvCache, from: u32, to: u32) -> Result<(), KernelError> {
        let (from, to) = (from as usize, to as usize);
        Contract("copy_block_from").range(
            (self.shape, self.block_size) == (other.shape, other.block_size),
            "block_size",
            other.block_size,
            "of blocks of the same shape",
        )?;
        other.check_block("copy_block_from", "from", from)?;
        self.check_block("copy_block_from", "to", to)?;
        let own = std::iter::once(&mut self.keys).chain(&mut self.values);
        let others = std::iter::once(&other.keys).chain(&other.values);
        for (buffer, source) in own.zip(others) {
            let source = source.as_slice::<f32>();
            let len = source.len() / other.n_blocks;
            buffer.as_mut_slice()[to * len..(to + 1) * len]
                .copy_from_slice(&source[from * len..(from + 1) * len]);
        }
        Ok(())
    }

    fn check_block(&self, op: &'static str, operand: &'static str, block: usize) -> Result<(), KernelError> {
        Contract(op).range(block < self.n_blocks, operand, block, "within the cache")
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
        self.shape.n_heads
    }

    /// Elements of a key.
    pub fn key_dim(&self) -> usize {
        self.shape.key_dim
    }

    /// Elements of a value.
    pub fn value_dim(&self) -> usize {
        self.shape.value_dim()
    }

    /// Elements of a key with the zeros that follow it.
    pub(crate) fn key_stride(&self) -> usize {
        stride(self.shape.key_dim)
    }

    /// Elements of a value with the space that follows it.
    pub(crate) fn value_stride(&self) -> usize {
        stride(self.shape.value_dim())
    }

    /// The number of the vector of `head` in a slot.
    fn vector(&self, slot: Slot, head: usize) -> usize {
        (slot.block * self.shape.n_heads + head) * self.block_size + slot.offset
    }

    /// The key of `head` in a slot. `[key_stride]`
    pub(crate) fn key(&self, slot: Slot, head: usize) -> &[f32] {
        &self.all_keys()[self.vector(slot, head) * self.key_stride()..][..self.key_stride()]
    }

    /// The value of `head` in a slot; what follows its `value_dim` elements is undefined.
    /// `[value_stride]`
    pub(crate) fn value(&self, slot: Slot, head: usize) -> &[f32] {
        let vector = self.vector(slot, head);
        match &self.values {
            Some(values) => &values.as_slice()[vector * self.value_stride()..][..self.value_stride()],
            None => &self.all_keys()[vector * self.key_stride()..][..self.value_stride()],
        }
    }

    fn all_keys(&self) -> &[f32] {
        self.keys.as_slice()
    }
}

/// Most of any size of a cache: products of two stay far from overflow.
const SIZE_MAX: usize = 1 << 31;

/// Copies each token's keys and values to its slot.
///
/// # Errors
/// The shapes do not agree, or a slot is beyond the cache; nothing was written then.
pub fn kv_write(cache: &mut KvCache, op: KvWrite<'_>) -> Result<(), KernelError> {
    let KvWrite {
        x,
        row_stride,
        keys_at,
        slots,
    } = op;
    let KvShape {
        n_heads,
        key_dim,
        values,
    } = cache.shape;
    let value_dim = match values {
        KvValues::Own { value_dim } => value_dim,
        KvValues::InKeys { .. } => 0,
    };
    let end = keys_at.checked_add(n_heads * (key_dim + value_dim));
    Contract("kv_write").range(
        end.is_some_and(|end| end <= row_stride),
        "row_stride",
        row_stride,
        "at least keys_at + keys + values",
    )?;
    Contract("kv_write").len("x", x.len(), slots.len() * row_stride)?;
    let n_slots = cache.n_blocks * cache.block_size;
    for &slot in slots {
        Contract("kv_write").range(
            (slot as usize) < n_slots,
            "slot",
            slot as usize,
            "within the cache",
        )?;
    }
    let (key_stride, value_stride) = (cache.key_stride(), cache.value_stride());
    for (row, &slot) in x.chunks_exact(row_stride).zip(slots) {
        let (keys, values) = row[keys_at..].split_at(n_heads * key_dim);
        let slot = Slot {
            block: slot as usize / cache.block_size,
            offset: slot as usize % cache.block_size,
        };
        for head in 0..n_heads {
            let vector = cache.vector(slot, head);
            cache.keys.as_mut_slice()[vector * key_stride..][..key_dim]
                .copy_from_slice(&keys[head * key_dim..][..key_dim]);
            if let Some(own) = &mut cache.values {
                own.as_mut_slice()[vector * value_stride..][..value_dim]
                    .copy_from_slice(&values[head * value_dim..][..value_dim]);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(block: usize, offset: usize) -> Slot {
        Slot { block, offset }
    }

    #[test]
    fn writes_each_head_to_its_slot() {
        let mut cache = KvCache::new(3, 2, KvShape::of_heads(2, 3)).unwrap();
        let x: Vec<f32> = (1..=26).map(|i| i as f32).collect();
        let op = KvWrite {
            x: &x,
            row_stride: 13,
            keys_at: 1,
            slots: &[5, 0],
        };
        kv_write(&mut cache, op).unwrap();
        assert_eq!(cache.key(slot(2, 1), 1)[..3], [5.0, 6.0, 7.0]);
        assert_eq!(cache.value(slot(2, 1), 1)[..3], [11.0, 12.0, 13.0]);
        assert_eq!(cache.key(slot(0, 0), 0)[..3], [15.0, 16.0, 17.0]);
        assert_eq!(cache.key(slot(0, 0), 0)[3..], [0.0; 13]);
        assert_eq!(
            cache.all_keys().iter().filter(|&&v| v != 0.0).count(),
            12,
            "nothing else was written"
        );
    }

    #[test]
    fn refuses_a_slot_beyond_the_cache_and_writes_nothing() {
        let mut cache = KvCache::new(1, 2, KvShape::of_heads(1, 2)).unwrap();
        let op = KvWrite {
            x: &[1.0; 8],
            row_stride: 4,
            keys_at: 0,
            slots: &[0, 2],
        };
        assert!(matches!(
            kv_write(&mut cache, op),
            Err(KernelError::Range { got: 2, .. })
        ));
        assert!(cache.all_keys().iter().all(|&v| v == 0.0));
        let op = KvWrite {
            x: &[1.0; 4],
            row_stride: 4,
            keys_at: 1,
            slots: &[0],
        };
        assert!(kv_write(&mut cache, op).is_err());
    }

    /// A cache in which every number of every slot is different.
    fn filled(n_blocks: usize, first: f32) -> KvCache {
        let mut cache = KvCache::new(n_blocks, 2, KvShape::of_heads(2, 3)).unwrap();
        let n_slots = 2 * n_blocks;
        let x: Vec<f32> = (0..12 * n_slots).map(|i| first + i as f32).collect();
        let slots: Vec<u32> = (0..n_slots as u32).collect();
        let op = KvWrite {
            x: &x,
            row_stride: 12,
            keys_at: 0,
            slots: &slots,
        };
        kv_write(&mut cache, op).unwrap();
        cache
    }

    #[test]
    fn copies_whole_blocks_and_nothing_else() {
        let (before, mut cache, other) = (filled(3, 1.0), filled(3, 1.0), filled(2, 1000.0));
        let block = |cache: &KvCache, block: usize| {
            let vectors = (0..4).map(|i| (slot(block, i / 2), i % 2));
            let both = vectors.map(|(slot, head)| (cache.key(slot, head), cache.value(slot, head)));
            both.map(|(key, value)| [key, value].concat()).collect::<Vec<_>>()
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
        let wider = KvCache::new(3, 2, KvShape::of_heads(2, 4)).unwrap();
        assert!(cache.copy_block_from(&wider, 0, 0).is_err());
    }

    #[test]
    fn refuses_sizes_that_make_no_cache() {
        let one = KvShape::of_heads(1, 1);
        assert!(KvCache::new(0, 1, one).is_err());
        assert!(KvCache::new(usize::MAX, 1, one).is_err());
        assert!(KvCache::new(1 << 31, 1 << 31, one).is_err());
        assert!(matches!(
            KvCache::new(1 << 31, 1, KvShape::of_heads(1 << 30, 1 << 4)),
            Err(KernelError::Memory { .. })
        ));
        let longer_than_its_key = KvShape {
            values: KvValues::InKeys { value_dim: 2 },
            ..one
        };
        assert!(KvCache::new(1, 1, longer_than_its_key).is_err());
    }

    #[test]
    fn a_value_may_be_the_start_of_its_key() {
        let shape = KvShape {
            n_heads: 1,
            key_dim: 5,
            values: KvValues::InKeys { value_dim: 3 },
        };
        let mut cache = KvCache::new(2, 2, shape).unwrap();
        let op = KvWrite {
            x: &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
            row_stride: 6,
            keys_at: 1,
            slots: &[3],
        };
        kv_write(&mut cache, op).unwrap();
        assert_eq!(cache.key(slot(1, 1), 0)[..5], [1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(cache.value(slot(1, 1), 0)[..3], [1.0, 2.0, 3.0]);
        cache.copy_block(1, 0).unwrap();
        assert_eq!(cache.value(slot(0, 1), 0)[..3], [1.0, 2.0, 3.0]);
        assert_eq!(
            (shape.slot_bytes(), KvShape::of_heads(2, 5).slot_bytes()),
            (64, 256)
        );
    }
}
