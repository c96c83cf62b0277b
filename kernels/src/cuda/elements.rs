//! Launches of kernels whose threads take elements in turn, and what decides whether they take four at a time.

use super::element::Element;
use super::error::CudaError;
use super::gpu::Gpu;
use super::launch::{Arg, Launch, Overlap};
use super::view::View;

/// Threads of a block.
const N_THREADS: usize = 256;
/// Elements that a thread takes at a time.
const PIECE: usize = 4;
/// Blocks that a multiprocessor runs at the same time at most: 2048 threads.
const N_BLOCKS_PER_SM: usize = 8;

impl Gpu {
    /// Enqueues a kernel over `n` elements; nothing if there are none.
    ///
    /// # Errors
    /// `n` is above 2³¹ - 1, or as [`Gpu::launch`].
    pub(crate) fn launch_elements(
        &self,
        kernel: &'static str,
        n: usize,
        args: &[Arg<'_>],
    ) -> Result<(), CudaError> {
        if n == 0 {
            return Ok(());
        }
        if i32::try_from(n).is_err() {
            return Err(CudaError::Driver {
                operation: kernel,
                status: format!("{n} elements are more than 2^31 - 1"),
            });
        }
        let n_blocks = n.div_ceil(N_THREADS * PIECE).min(N_BLOCKS_PER_SM * self.n_sms());
        let launch = Launch {
            kernel,
            grid: [n_blocks as u32, 1, 1],
            block: N_THREADS as u32,
            shared_bytes: 0,
            overlap: Overlap::Previous,
        };
        self.launch(&launch, args)
    }
}

impl<T: Element> View<T> {
    /// Whether its first element lies at a multiple of so many bytes.
    pub(crate) fn is_aligned(self, bytes: u64) -> bool {
        self.address().is_multiple_of(bytes)
    }
}
