//! The host's blocks: which of them are free.

use crate::batch::HostBlockId;

/// The host's blocks.
#[derive(Debug)]
pub(super) struct HostPool {
    pub(super) free: Vec<HostBlockId>,
}

impl HostPool {
    pub(super) fn new(n_blocks: usize) -> HostPool {
        let n_blocks = u32::try_from(n_blocks).expect("block indices fit 32 bits");
        HostPool {
            free: (0..n_blocks).rev().map(HostBlockId).collect(),
        }
    }

    pub(super) fn n_free(&self) -> usize {
        self.free.len()
    }

    pub(super) fn release(&mut self, blocks: Vec<HostBlockId>) {
        self.free.extend(blocks);
    }
}
