//! An allocator that counts, for tests which show that a step allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

/// The system's allocator, with a count of how often memory was taken from it by any thread.
#[derive(Debug, Default)]
pub struct CountingAllocator {
    n_allocations: AtomicU64,
}

impl CountingAllocator {
    /// An allocator that has counted nothing.
    pub const fn new() -> CountingAllocator {
        CountingAllocator {
            n_allocations: AtomicU64::new(0),
        }
    }

    /// How often memory was taken.
    pub fn n_allocations(&self) -> u64 {
        self.n_allocations.load(Ordering::SeqCst)
    }

    fn count(&self) {
        self.n_allocations.fetch_add(1, Ordering::SeqCst);
    }
}

// SAFETY: every call is the same call of the system's allocator.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.count();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.count();
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        self.count();
        // SAFETY: the caller's promise.
        unsafe { System.realloc(memory, layout, new_size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_taken_and_not_what_is_given_back() {
        let allocator = CountingAllocator::new();
        let layout = Layout::from_size_align(64, 8).unwrap();
        // SAFETY: the layouts are those that the memory was taken with, and their size is not zero.
        unsafe {
            let memory = allocator.alloc_zeroed(layout);
            let memory = allocator.realloc(memory, layout, 128);
            allocator.dealloc(memory, Layout::from_size_align(128, 8).unwrap());
        }
        assert_eq!(allocator.n_allocations(), 2);
    }
}
