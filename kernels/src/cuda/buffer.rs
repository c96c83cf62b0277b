//! Memory of the device.

use std::sync::atomic::Ordering;

use cudarc::driver::sys;

use super::element::Element;
use super::error::{CudaError, check};
use super::gpu::Gpu;
use super::view::View;

/// Memory of the device, aligned to 256 bytes. It is freed after the work that was enqueued before.
pub struct DeviceBuffer<T: Element> {
    view: View<T>,
    gpu: Gpu,
}

impl Gpu {
    /// Memory for `len` elements, which hold anything. `len` may be 0.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn alloc<T: Element>(&self, len: usize) -> Result<DeviceBuffer<T>, CudaError> {
        self.bind()?;
        let mut address = 0;
        let size_bytes = allocation_bytes::<T>("cuMemAlloc", len)?;
        if len > 0 {
            self.shared.n_allocations.fetch_add(1, Ordering::Relaxed);
            // SAFETY: the pointer is valid for the call.
            let status = unsafe { sys::cuMemAlloc_v2(&mut address, size_bytes) };
            check("cuMemAlloc", status).map_err(|error| with_size(error, size_bytes))?;
        }
        Ok(DeviceBuffer {
            view: View::new(address, len),
            gpu: self.clone(),
        })
    }

    /// Memory for `len` zeros. The zeros are enqueued.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn alloc_zeroed<T: Element>(&self, len: usize) -> Result<DeviceBuffer<T>, CudaError> {
        let buffer = self.alloc(len)?;
        self.fill(buffer.view(), 0)?;
        Ok(buffer)
    }
}

impl<T: Element> DeviceBuffer<T> {
    /// All of it.
    pub fn view(&self) -> View<T> {
        self.view
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.view.len()
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.view.is_empty()
    }
}

impl<T: Element> Drop for DeviceBuffer<T> {
    fn drop(&mut self) {
        if !self.is_empty() && self.gpu.bind().is_ok() {
            // SAFETY: `alloc` has made it; the driver waits for the work that uses it.
            let _ = unsafe { sys::cuMemFree_v2(self.view.address()) };
        }
    }
}

/// Bytes of `len` elements.
pub(super) fn allocation_bytes<T>(operation: &'static str, len: usize) -> Result<usize, CudaError> {
    len.checked_mul(size_of::<T>()).ok_or(CudaError::OutOfMemory {
        operation,
        size_bytes: usize::MAX,
    })
}

/// The error with the bytes that were requested.
pub(super) fn with_size(error: CudaError, size_bytes: usize) -> CudaError {
    match error {
        CudaError::OutOfMemory { operation, .. } => CudaError::OutOfMemory {
            operation,
            size_bytes,
        },
        error => error,
    }
}
