//! Keys and values of one layer in fixed blocks, and the op that writes them.

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod element;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::cpu::buffer::Buffer;
use crate::cpu::simd::LANES_MAX;
use crate::error::{Contract, KernelError};

#[cfg(feature = "cuda")]
pub(crate) use cuda::KvPages;
pub use element::KvDType;
pub(crate) use element::{KvElement, with_element};

/// The paged cache of one layer.
///
/// Keys are `[n_blocks, n_heads, key_dim, block_size]`, so that an element of neighbouring positions is one vector, and
/// values `[n_blocks, n_heads, block_size, value_stride]`, where the stride is the length of a value rounded up to full
/// vectors; zeros follow it. Keys that are values too are stored as values are.
#[derive(Debug)]
pub struct KvCache {
    keys: Buffer,
    /// Absent if values are in the keys.
    values: Option<Buffer>,
    n_blocks: usize,
    block_size: usize,
    shape: KvShape,
    dtype: KvDType,
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

impl KvShape {
    /// Keys and values of `head_dim` elements.
    pub fn of_heads(n_heads: usize, head_dim: usize) -> KvShape {
        KvShape {
            n_heads,
            key_dim: head_dim,
            values: KvValues::Own { value_dim: head_dim },
        }
    }

    /// Bytes that a token takes in one layer, in a cache of such numbers.
    pub fn slot_bytes(self, dtype: KvDType) -> usize {
        let own = match self.values {
            KvValues::Own { value_dim } => stride(value_dim),
            KvValues::InKeys { .. } => 0,
        };
        self.n_heads * (self.key_len() + own) * dtype.size_bytes()
    }

    /// Numbers that a key takes.
    fn key_len(self) -> usize {
        match self.values {
            KvValues::Own { .. } => self.key_dim,
            KvValues::InKeys { .. } => stride(self.key_dim),
        }
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
    pub fn new(
        n_blocks: usize,
        block_size: usize,
        shape: KvShape,
        dtype: KvDType,
    ) -> Result<KvCache, KernelError> {
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
        let buffer = |len: usize| {
            let n_numbers = n_slots as u128 * shape.n_heads as u128 * len as u128;
            let size_bytes = n_numbers * dtype.size_bytes() as u128;
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
            keys: buffer(shape.key_len())?,
            values: match shape.values {
                KvValues::Own { value_dim } => Some(buffer(stride(value_dim))?),
                KvValues::InKeys { .. } => None,
            },
            n_blocks,
            block_size,
            shape,
            dtype,
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
            let all = buffer.as_mut_slice::<u8>();
            let len = all.len() / self.n_blocks;
            all.copy_within(from * len..(from + 1) * len, to * len);
        }
        Ok(())
    }

    /// Copies all keys and values of block `from` of `other` to block `to` of this cache.
    ///
    /// # Errors
    /// The blocks are of different shapes or dtypes, or one is beyond its cache; nothing was copied then.
    pub fn copy_block_from(&mut self, other: &KvCache, from: u32, to: u32) -> Result<(), KernelError> {
        let (from, to) = (from as usize, to as usize);
        Contract("copy_block_from").range(
            (self.shape, self.block_size, self.dtype) == (other.shape, other.block_size, other.dtype),
            "block_size",
            other.block_size,
            "of blocks of the same shape and dtype",
        )?;
        other.check_block("copy_block_from", "from", from)?;
        self.check_block("copy_block_from", "to", to)?;
        let own = std::iter::once(&mut self.keys).chain(&mut self.values);
        let others = std::iter::once(&other.keys).chain(&other.values);
        for (buffer, source) in own.zip(others) {
            let source = source.as_slice::<u8>();
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

    /// How its numbers are stored.
    pub fn dtype(&self) -> KvDType {
        self.dtype
    }

    /// Elements of a value with the space that follows it.
    pub(crate) fn value_stride(&self) -> usize {
        stride(self.shape.value_dim())
    }

    /// The keys and values as numbers of the type that the cache has.
    pub(crate) fn numbers<E: KvElement>(&self) -> KvNumbers<'_, E> {
        assert_eq!(self.dtype, E::DTYPE, "the type of the cache's numbers");
        KvNumbers {
            keys: self.keys.as_slice(),
            values: self.values.as_ref().map(Buffer::as_slice),
            cache: self,
        }
    }

    /// How far apart the numbers of keys are.
    fn key_steps(&self) -> KeySteps {
        match self.shape.values {
            KvValues::Own { .. } => KeySteps {
                element: self.block_size,
                position: 1,
            },
            KvValues::InKeys { .. } => KeySteps {
                element: 1,
                position: self.shape.key_len(),
            },
        }
    }

    /// Numbers from a value to that of the next position.
    fn value_step(&self) -> usize {
        match self.shape.values {
            KvValues::Own { .. } => self.value_stride(),
            KvValues::InKeys { .. } => self.shape.key_len(),
        }
    }

    /// Which part of the heads and blocks `head` of `block` is, among those of `len` numbers a slot.
    fn part(&self, block: usize, head: usize, len: usize) -> Range<usize> {
        let len = len * self.block_size;
        let first = (block * self.shape.n_heads + head) * len;
        first..first + len
    }
}

/// How far apart numbers are in the keys of a block and a head.
#[derive(Clone, Copy)]
pub(crate) struct KeySteps {
    /// From an element of a key to the next.
    pub(crate) element: usize,
    /// From a position to the next.
    pub(crate) position: usize,
}

/// The numbers of a cache.
#[derive(Clone, Copy)]
pub(crate) struct KvNumbers<'a, E> {
    keys: &'a [E],
    /// Absent if values are in the keys.
    values: Option<&'a [E]>,
    cache: &'a KvCache,
}

impl<'a, E> KvNumbers<'a, E> {
    /// The keys of a head in a block.
    pub(crate) fn keys(&self, block: usize, head: usize) -> &'a [E] {
        &self.keys[self.cache.part(block, head, self.cache.shape.key_len())]
    }

    /// How far apart their numbers are.
    pub(crate) fn key_steps(&self) -> KeySteps {
        self.cache.key_steps()
    }

    /// The values of a head in a block; what follows the `value_dim` elements of each is undefined.
    pub(crate) fn values(&self, block: usize, head: usize) -> &'a [E] {
        match self.values {
            Some(values) => &values[self.cache.part(block, head, self.cache.value_stride())],
            None => self.keys(block, head),
        }
    }

    /// Numbers from a value to that of the next position.
    pub(crate) fn value_step(&self) -> usize {
        self.cache.value_step()
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
    with_element!(cache.dtype, E => write::<E>(cache, &op));
    Ok(())
}

/// The same for checked operands and numbers of one type.
fn write<E: KvElement>(cache: &mut KvCache, op: &KvWrite<'_>) {
    let KvShape {
        n_heads,
        key_dim,
        values,
    } = cache.shape;
    let (key_steps, value_step) = (cache.key_steps(), cache.value_step());
    for (row, &slot) in op.x.chunks_exact(op.row_stride).zip(op.slots) {
        let (keys, own_values) = row[op.keys_at..].split_at(n_heads * key_dim);
        let (block, offset) = (slot as usize / cache.block_size, slot as usize % cache.block_size);
        for head in 0..n_heads {
            let part = cache.part(block, head, cache.shape.key_len());
            let to = &mut cache.keys.as_mut_slice::<E>()[part][offset * key_steps.position..];
            let to = to.iter_mut().step_by(key_steps.element);
            round_into(&keys[head * key_dim..][..key_dim], to);
            let part = cache.part(block, head, value_step);
            if let (Some(own), KvValues::Own { value_dim }) = (&mut cache.values, values) {
                let to = &mut own.as_mut_slice::<E>()[part][offset * value_step..];
                round_into(&own_values[head * value_dim..][..value_dim], to.iter_mut());
            }
        }
    }
}

/// Writes numbers to their places.
fn round_into<'a, E: KvElement>(from: &[f32], to: impl Iterator<Item = &'a mut E>) {
    for (from, to) in from.iter().zip(to) {
        *to = E::nearest(*from);
    }
}
