//! Keys and values of a layer on the device, in pages that attention copies as they are, and moves of blocks.
//!
//! A block of a layer is `[kv head][keys, then values][group][row][128 bytes]`: a key or value is cut into groups of 128
//! bytes, its last one filled up with zeros, and the 16-byte piece `p` of row `r` of a group is stored at piece
//! `p ^ (r % 8)`, which is the order that `ldmatrix` and the tensor cores read without conflicts. `kv_at` in `kernel.cuh`
//! computes the same addresses.

use super::{KvShape, KvValues};
use crate::cuda::{Arg, Copy2d, Gpu, PinnedBuffer, View};
use crate::error::{Contract, KernelError};
use crate::weight::DType;

/// The paged cache of one layer on a device.
#[derive(Clone, Copy, Debug)]
pub struct KvPages {
    /// The blocks. `[n_blocks * block_bytes()]`
    pub view: View<u8>,
    /// Blocks.
    pub n_blocks: usize,
    /// Tokens per block.
    pub block_size: usize,
    /// What a token takes.
    pub shape: KvShape,
    /// How its elements are stored.
    pub dtype: DType,
}

/// Bytes of a group: a row of a tile.
const GROUP_BYTES: usize = 128;

impl KvPages {
    /// Bytes of a block of a layer.
    pub fn block_bytes_of(shape: KvShape, block_size: usize, dtype: DType) -> usize {
        let groups = |dim: usize| (dim * dtype.size_bytes()).div_ceil(GROUP_BYTES);
        let own = match shape.values {
            KvValues::Own { value_dim } => groups(value_dim),
            KvValues::InKeys { .. } => 0,
        };
        shape.n_heads * (groups(shape.key_dim) + own) * block_size * GROUP_BYTES
    }

    /// Bytes of a block.
    pub fn block_bytes(&self) -> usize {
        KvPages::block_bytes_of(self.shape, self.block_size, self.dtype)
    }

    /// Groups of a key.
    pub fn key_groups(&self) -> usize {
        (self.shape.key_dim * self.dtype.size_bytes()).div_ceil(GROUP_BYTES)
    }

    /// Groups of a value; none if values are in the keys.
    pub fn value_groups(&self) -> usize {
        (self.own_value_dim() * self.dtype.size_bytes()).div_ceil(GROUP_BYTES)
    }

    /// Elements of a value beside the keys; none if values are in the keys.
    pub(crate) fn own_value_dim(&self) -> usize {
        match self.shape.values {
            KvValues::Own { value_dim } => value_dim,
            KvValues::InKeys { .. } => 0,
        }
    }

    /// How kernels read it: the blocks, their number, `block_size`, heads, groups of a key and of a value.
    pub(crate) fn args(&self) -> [Arg<'static>; 6] {
        [
            self.view.into(),
            Arg::size(self.n_blocks),
            Arg::size(self.block_size),
            Arg::size(self.shape.n_heads),
            Arg::size(self.key_groups()),
            Arg::size(self.value_groups()),
        ]
    }
}

/// Sizes of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvSizes {
    /// Blocks.
    pub n_blocks: usize,
    /// Tokens per block.
    pub block_size: usize,
    /// How elements are stored.
    pub dtype: DType,
}

/// The paged caches of all layers (of one group of them), one after the other in one allocation. A block of the cache is
/// a block of each layer.
#[derive(Clone, Debug)]
pub struct KvBlocks {
    all: View<u8>,
    pages: Vec<KvPages>,
}

impl KvSizes {
    /// Bytes of a block of all layers.
    pub fn block_bytes(self, shapes: &[KvShape]) -> usize {
        let bytes = |shape: &KvShape| KvPages::block_bytes_of(*shape, self.block_size, self.dtype);
        shapes.iter().map(bytes).sum()
    }
}

impl KvBlocks {
    /// The caches of layers of these shapes, in the memory `all` of `n_blocks * sizes.block_bytes(shapes)` bytes.
    ///
    /// # Errors
    /// A size is zero, the slots are more than 2³¹ - 1, or `all` has another length or does not start on 128 bytes.
    pub fn new(all: View<u8>, shapes: &[KvShape], sizes: KvSizes) -> Result<KvBlocks, KernelError> {
        let op = Contract("kv_blocks");
        let KvSizes {
            n_blocks,
            block_size,
            dtype,
        } = sizes;
        op.range(n_blocks > 0, "n_blocks", n_blocks, "at least 1")?;
        op.range(block_size > 0, "block_size", block_size, "at least 1")?;
        let n_slots = n_blocks.saturating_mul(block_size);
        op.range(
            n_slots <= i32::MAX as usize,
            "n_blocks * block_size",
            n_slots,
            "below 2^31 slots",
        )?;
        op.range(!shapes.is_empty(), "shapes", 0, "at least 1")?;
        op.len(
            "all",
            all.len(),
            n_blocks.saturating_mul(sizes.block_bytes(shapes)),
        )?;
        op.range(
            all.is_aligned(GROUP_BYTES as u64),
            "all",
            0,
            "at a multiple of 128 bytes",
        )?;
        let mut at = 0;
        let mut pages = Vec::with_capacity(shapes.len());
        for &shape in shapes {
            for (operand, got) in [
                ("n_heads", shape.n_heads),
                ("key_dim", shape.key_dim),
                ("value_dim", shape.value_dim()),
            ] {
                op.range(got > 0, operand, got, "at least 1")?;
            }
            let len = n_blocks * KvPages::block_bytes_of(shape, block_size, dtype);
            pages.push(KvPages {
                view: all.range(at..at + len),
                n_blocks,
                block_size,
                shape,
                dtype,
            });
            at += len;
        }
        Ok(KvBlocks { all, pages })
    }

    /// The cache of a layer.
    ///
    /// # Panics
    /// There is no such layer.
    pub fn pages(&self, layer: usize) -> KvPages {
        self.pages[layer]
    }

    /// Blocks.
    pub fn n_blocks(&self) -> usize {
        self.pages.first().map_or(0, |pages| pages.n_blocks)
    }

    /// Bytes of a block of all layers.
    pub fn block_bytes(&self) -> usize {
        self.pages.iter().map(KvPages::block_bytes).sum()
    }

    /// Runs of neighbouring layers whose blocks have the same size: a block of all layers of a run is rows at equal
    /// distances. For each run its memory, the number of layers, and the bytes of a block of one layer.
    fn runs(&self) -> impl Iterator<Item = Run> {
        let mut at = 0;
        self.pages
            .chunk_by(|a, b| a.block_bytes() == b.block_bytes())
            .map(move |layers| {
                let block_bytes = layers[0].block_bytes();
                let layer_bytes = layers[0].n_blocks * block_bytes;
                let from = at;
                at += layers.len() * layer_bytes;
                Run {
                    memory: self.all.range(from..at),
                    n_layers: layers.len(),
                    layer_bytes,
                    block_bytes,
                }
            })
    }

    fn check(&self, op: &'static str, operand: &'static str, block: u32) -> Result<(), KernelError> {
        let block = block as usize;
        Contract(op).range(block < self.n_blocks(), operand, block, "within the cache")
    }
}

/// Neighbouring layers whose blocks have the same size.
struct Run {
    memory: View<u8>,
    n_layers: usize,
    layer_bytes: usize,
    block_bytes: usize,
}

impl Run {
    /// The memory from a block of the first layer on.
    fn at_block(&self, block: u32) -> View<u8> {
        self.memory
            .range(block as usize * self.block_bytes..self.memory.len())
    }

    /// A block of each layer, between places where they are so many bytes apart.
    fn rows(&self, from_stride: usize, to_stride: usize) -> Copy2d {
        Copy2d {
            row_bytes: self.block_bytes,
            n_rows: self.n_layers,
            from_stride,
            to_stride,
        }
    }
}

/// Copies block `from` of all layers to block `to`.
///
/// # Errors
/// A block is beyond the cache, or the device fails.
pub fn copy_block(gpu: &Gpu, blocks: &KvBlocks, from: u32, to: u32) -> Result<(), KernelError> {
    blocks.check("copy_block", "from", from)?;
    blocks.check("copy_block", "to", to)?;
    if from == to {
        return Ok(());
    }
    for run in blocks.runs() {
        let rows = run.rows(run.layer_bytes, run.layer_bytes);
        gpu.copy_2d(run.at_block(from), run.at_block(to), rows)?;
    }
    Ok(())
}

/// Blocks of all layers in pinned memory of the host, for those that are swapped out.
pub struct HostBlocks {
    memory: PinnedBuffer<u8>,
    block_bytes: usize,
}

impl HostBlocks {
    /// Memory for `n_blocks` blocks of `blocks`.
    ///
    /// # Errors
    /// The system has not so much memory that can be pinned.
    pub fn new(gpu: &Gpu, blocks: &KvBlocks, n_blocks: usize) -> Result<HostBlocks, KernelError> {
        let block_bytes = blocks.block_bytes();
        Ok(HostBlocks {
            memory: gpu.alloc_pinned(n_blocks.saturating_mul(block_bytes))?,
            block_bytes,
        })
    }

    /// Blocks.
    pub fn n_blocks(&self) -> usize {
        self.memory.len() / self.block_bytes
    }

    /// Where a block starts.
    fn start(&self, op: &'static str, operand: &'static str, block: u32) -> Result<usize, KernelError> {
        let block = block as usize;
        Contract(op).range(
            block < self.n_blocks(),
            operand,
            block,
            "within the host's blocks",
        )?;
        Ok(block * self.block_bytes)
    }
}

/// Enqueues a copy of block `from` of all layers to block `to.1` of the host.
///
/// # Errors
/// A block is beyond its memory, or the device fails.
pub fn swap_out(
    gpu: &Gpu,
    blocks: &KvBlocks,
    from: u32,
    to: (&mut HostBlocks, u32),
) -> Result<(), KernelError> {
    let (host, to) = to;
    Contract("swap_out").len("block", host.block_bytes, blocks.block_bytes())?;
    blocks.check("swap_out", "from", from)?;
    let mut at = host.start("swap_out", "to", to)?;
    for run in blocks.runs() {
        let rows = run.rows(run.layer_bytes, run.block_bytes);
        gpu.download_2d(run.at_block(from), (&mut host.memory, at), rows)?;
        at += run.n_layers * run.block_bytes;
    }
    Ok(())
}

/// Enqueues a copy of block `from.1` of the host to block `to` of all layers.
///
/// # Errors
/// A block is beyond its memory, or the device fails.
pub fn swap_in(gpu: &Gpu, blocks: &KvBlocks, from: (&HostBlocks, u32), to: u32) -> Result<(), KernelError> {
    let (host, from) = from;
    Contract("swap_in").len("block", host.block_bytes, blocks.block_bytes())?;
    blocks.check("swap_in", "to", to)?;
    let mut at = host.start("swap_in", "from", from)?;
    for run in blocks.runs() {
        let rows = run.rows(run.block_bytes, run.layer_bytes);
        gpu.upload_2d((&host.memory, at), run.at_block(to), rows)?;
        at += run.n_layers * run.block_bytes;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::testing::{downloaded, each_order, uploaded};

    const SIZES: KvSizes = KvSizes {
        n_blocks: 4,
        block_size: 3,
        dtype: DType::BF16,
    };

    /// Two layers of one size, then one of another.
    fn shapes() -> [KvShape; 3] {
        let latent = KvShape {
            n_heads: 1,
            key_dim: 70,
            values: KvValues::InKeys { value_dim: 64 },
        };
        [KvShape::of_heads(2, 20), KvShape::of_heads(2, 20), latent]
    }

    /// The bytes of a block of each layer, one after the other.
    fn block(memory: &[u8], blocks: &KvBlocks, idx: usize) -> Vec<u8> {
        let mut at = 0;
        let mut found = Vec::new();
        for pages in &blocks.pages {
            let len = pages.block_bytes();
            found.extend_from_slice(&memory[at + idx * len..][..len]);
            at += pages.n_blocks * len;
        }
        found
    }

    #[test]
    fn pages_have_whole_groups() {
        let [two_heads, _, latent] = shapes();
        assert_eq!(
            KvPages::block_bytes_of(two_heads, 3, DType::BF16),
            2 * 2 * 3 * 128
        );
        assert_eq!(KvPages::block_bytes_of(two_heads, 3, DType::F32), 2 * 2 * 3 * 128);
        assert_eq!(KvPages::block_bytes_of(latent, 3, DType::BF16), 2 * 3 * 128);
        assert_eq!(KvPages::block_bytes_of(latent, 3, DType::F32), 3 * 3 * 128);
    }

    #[test]
    fn blocks_move_whole_and_nothing_else_changes() {
        each_order(|gpu| {
            let n_bytes = SIZES.n_blocks * SIZES.block_bytes(&shapes());
            let before: Vec<u8> = (0..n_bytes).map(|i| (i * 7 + i / 251) as u8).collect();
            let memory = uploaded(gpu, &before);
            let blocks = KvBlocks::new(memory.view(), &shapes(), SIZES).unwrap();
            let is = |want: [usize; 4]| {
                let got = downloaded(gpu, memory.view());
                for (idx, from) in want.into_iter().enumerate() {
                    assert_eq!(
                        block(&got, &blocks, idx),
                        block(&before, &blocks, from),
                        "block {idx}"
                    );
                }
            };
            copy_block(gpu, &blocks, 2, 0).unwrap();
            is([2, 1, 2, 3]);
            copy_block(gpu, &blocks, 1, 1).unwrap();
            let mut host = HostBlocks::new(gpu, &blocks, 2).unwrap();
            assert_eq!(host.n_blocks(), 2);
            swap_out(gpu, &blocks, 3, (&mut host, 1)).unwrap();
            swap_out(gpu, &blocks, 1, (&mut host, 0)).unwrap();
            copy_block(gpu, &blocks, 0, 3).unwrap();
            is([2, 1, 2, 2]);
            swap_in(gpu, &blocks, (&host, 1), 1).unwrap();
            swap_in(gpu, &blocks, (&host, 0), 2).unwrap();
            is([2, 3, 1, 2]);
            assert!(copy_block(gpu, &blocks, 4, 0).is_err() && copy_block(gpu, &blocks, 0, 4).is_err());
            assert!(swap_out(gpu, &blocks, 0, (&mut host, 2)).is_err());
            assert!(swap_in(gpu, &blocks, (&host, 2), 0).is_err());
        });
    }

    #[test]
    fn memory_that_makes_no_cache_is_refused() {
        each_order(|gpu| {
            let memory = gpu
                .alloc::<u8>(SIZES.n_blocks * SIZES.block_bytes(&shapes()))
                .unwrap();
            let refused = |len: usize, shapes: &[KvShape], sizes| {
                KvBlocks::new(memory.view().range(0..len), shapes, sizes).is_err()
            };
            assert!(refused(memory.len() - 1, &shapes(), SIZES));
            assert!(refused(0, &[], SIZES));
            assert!(refused(0, &shapes(), KvSizes { n_blocks: 0, ..SIZES }));
            assert!(refused(
                0,
                &shapes(),
                KvSizes {
                    block_size: 0,
                    ..SIZES
                }
            ));
        });
    }
}
