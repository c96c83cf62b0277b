//! What the choice of a kernel depends on beside the operation.

use crate::cuda::Gpu;

/// A card as the choice of a kernel sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Card {
    pub(crate) capability: (u32, u32),
    /// Most shared memory of a block.
    pub(crate) shared_bytes_max: usize,
    /// Blocks of a decode kernel that stay on the device.
    pub(crate) n_resident: usize,
}

impl Card {
    /// Two resident blocks for each multiprocessor, or one where there is little shared memory.
    pub(super) fn of(gpu: &Gpu) -> Card {
        let shared_bytes_max = gpu.shared_bytes_max();
        let per_sm = if shared_bytes_max < 128 << 10 { 1 } else { 2 };
        Card {
            capability: gpu.capability(),
            shared_bytes_max,
            n_resident: gpu.n_sms() * per_sm,
        }
    }
}
