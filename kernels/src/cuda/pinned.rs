//! Memory of the host that the device reads and writes by itself.

use std::sync::atomic::{AtomicBool, Ordering};

use cudarc::driver::sys;

use super::buffer::{allocation_bytes, with_size};
use super::element::Element;
use super::error::{CudaError, check};
use super::event::Event;
use super::gpu::Gpu;

/// Memory of the host with a fixed place, for copies that run while the host goes on.
///
/// Each access by the host first waits for the copies that were enqueued with it, so that nothing is read too early or
/// overwritten too early. Who wants to go on meanwhile has several buffers and uses them in turn.
pub struct PinnedBuffer<T: Element> {
    data: *mut T,
    len: usize,
    /// Behind the last copy.
    last_copy: Event,
    is_recorded: AtomicBool,
    gpu: Gpu,
}

// SAFETY: it owns its memory, as a `Vec` does; the event may be used from any thread.
unsafe impl<T: Element> Send for PinnedBuffer<T> {}
// SAFETY: shared access only reads.
unsafe impl<T: Element> Sync for PinnedBuffer<T> {}

impl Gpu {
    /// Pinned memory for `len` elements, all zero.
    ///
    /// # Errors
    /// The system has not so much memory that can be pinned.
    pub fn alloc_pinned<T: Element>(&self, len: usize) -> Result<PinnedBuffer<T>, CudaError> {
        let last_copy = self.event()?;
        let size_bytes = allocation_bytes::<T>("cuMemHostAlloc", len)?;
        let mut data = std::ptr::null_mut();
        if len > 0 {
            self.shared.n_allocations.fetch_add(1, Ordering::Relaxed);
            // SAFETY: the pointer is valid for the call.
            let status = unsafe { sys::cuMemHostAlloc(&mut data, size_bytes, 0) };
            check("cuMemHostAlloc", status).map_err(|error| with_size(error, size_bytes))?;
            // SAFETY: the driver has returned `size_bytes` bytes.
            unsafe { data.cast::<u8>().write_bytes(0, size_bytes) };
        }
        Ok(PinnedBuffer {
            data: data.cast(),
            len,
            last_copy,
            is_recorded: AtomicBool::new(false),
            gpu: self.clone(),
        })
    }
}

impl<T: Element> PinnedBuffer<T> {
    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its elements, after the copies into it.
    ///
    /// # Errors
    /// Work that was enqueued has failed.
    pub fn as_slice(&self) -> Result<&[T], CudaError> {
        self.settle()?;
        Ok(match self.len {
            0 => &[],
            // SAFETY: the memory holds `len` elements, and a copy into it needs `&mut self`.
            len => unsafe { std::slice::from_raw_parts(self.data, len) },
        })
    }

    /// Its elements to write, after the copies from it and into it.
    ///
    /// # Errors
    /// Work that was enqueued has failed.
    pub fn as_mut_slice(&mut self) -> Result<&mut [T], CudaError> {
        self.settle()?;
        Ok(match self.len {
            0 => &mut [],
            // SAFETY: the memory holds `len` elements, no copy runs, and a new one needs `self`.
            len => unsafe { std::slice::from_raw_parts_mut(self.data, len) },
        })
    }

    /// Where element `at` is.
    pub(super) fn pointer(&self, at: usize) -> *mut T {
        self.data.wrapping_add(at)
    }

    /// Notes that a copy was enqueued.
    pub(super) fn copied(&self) -> Result<(), CudaError> {
        self.gpu.record(&self.last_copy)?;
        self.is_recorded.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Waits for the last copy.
    fn settle(&self) -> Result<(), CudaError> {
        if self.is_recorded.load(Ordering::Relaxed) {
            self.last_copy.wait()?;
            self.is_recorded.store(false, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl<T: Element> Drop for PinnedBuffer<T> {
    fn drop(&mut self) {
        // After a failure of the device no copy runs any more.
        let _ = self.settle();
        if self.len > 0 && self.gpu.bind().is_ok() {
            // SAFETY: `alloc_pinned` has made it, and its copies are done.
            let _ = unsafe { sys::cuMemFreeHost(self.data.cast()) };
        }
    }
}
