//! Copies between the host and the device, and on the device.

use std::ops::Range;
use std::sync::atomic::Ordering;

use cudarc::driver::sys;

use super::element::Element;
use super::error::{CudaError, check};
use super::gpu::Gpu;
use super::pinned::PinnedBuffer;
use super::view::View;

/// Rows of bytes that lie at equal distances, on the device or in pinned memory.
#[derive(Clone, Copy, Debug)]
pub struct Copy2d {
    /// Bytes of a row.
    pub row_bytes: usize,
    /// Rows.
    pub n_rows: usize,
    /// Bytes from one row of the source to the next.
    pub from_stride: usize,
    /// Bytes from one row of the destination to the next.
    pub to_stride: usize,
}

impl Copy2d {
    /// Bytes from the first to the last byte of rows at this distance.
    fn span(self, stride: usize) -> usize {
        match self.n_rows {
            0 => 0,
            n_rows => (n_rows - 1) * stride + self.row_bytes,
        }
    }

    fn check(self, from_bytes: usize, to_bytes: usize) -> Result<(), CudaError> {
        lengths(
            "copy_2d",
            self.span(self.from_stride).max(1),
            from_bytes.max(1),
            Fit::Within,
        )?;
        lengths(
            "copy_2d",
            self.span(self.to_stride).max(1),
            to_bytes.max(1),
            Fit::Within,
        )?;
        let is_apart = self.row_bytes <= self.from_stride && self.row_bytes <= self.to_stride;
        if !is_apart && self.n_rows > 1 {
            return Err(invalid("copy_2d", "rows overlap".to_owned()));
        }
        Ok(())
    }
}

impl Gpu {
    /// Copies from any memory of the host; returns when it is done.
    ///
    /// # Errors
    /// The lengths differ, a graph is recorded, or the driver fails.
    pub fn upload<T: Element>(&self, from: &[T], to: View<T>) -> Result<(), CudaError> {
        self.not_capturing("upload")?;
        lengths("upload", from.len(), to.len(), Fit::Exact)?;
        if from.is_empty() {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: the source has as many bytes, and it is borrowed until the copy is done.
        check("cuMemcpyHtoDAsync", unsafe {
            sys::cuMemcpyHtoDAsync_v2(
                to.address(),
                from.as_ptr().cast(),
                to.size_bytes(),
                self.shared.stream,
            )
        })?;
        self.synchronize()
    }

    /// Enqueues a copy of a range of pinned memory.
    ///
    /// # Errors
    /// The lengths differ, a graph is recorded, or the driver fails.
    pub fn upload_pinned<T: Element>(
        &self,
        from: &PinnedBuffer<T>,
        range: Range<usize>,
        to: View<T>,
    ) -> Result<(), CudaError> {
        self.not_capturing("upload_pinned")?;
        inside("upload_pinned", &range, from.len())?;
        lengths("upload_pinned", range.len(), to.len(), Fit::Exact)?;
        if range.is_empty() {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: the range lies inside; the buffer waits for the copy before it is written or freed.
        check("cuMemcpyHtoDAsync", unsafe {
            sys::cuMemcpyHtoDAsync_v2(
                to.address(),
                from.pointer(range.start).cast(),
                to.size_bytes(),
                self.shared.stream,
            )
        })?;
        from.copied()
    }

    /// Copies to any memory of the host; returns when it is done.
    ///
    /// # Errors
    /// The lengths differ, a graph is recorded, or work that was enqueued has failed.
    pub fn download<T: Element>(&self, from: View<T>, to: &mut [T]) -> Result<(), CudaError> {
        self.not_capturing("download")?;
        lengths("download", from.len(), to.len(), Fit::Exact)?;
        if to.is_empty() {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: the destination has as many bytes, and it is borrowed until the copy is done.
        check("cuMemcpyDtoHAsync", unsafe {
            sys::cuMemcpyDtoHAsync_v2(
                to.as_mut_ptr().cast(),
                from.address(),
                from.size_bytes(),
                self.shared.stream,
            )
        })?;
        self.synchronize()
    }

    /// Enqueues a copy to a range of pinned memory.
    ///
    /// # Errors
    /// The lengths differ, a graph is recorded, or the driver fails.
    pub fn download_pinned<T: Element>(
        &self,
        from: View<T>,
        to: &mut PinnedBuffer<T>,
        range: Range<usize>,
    ) -> Result<(), CudaError> {
        self.not_capturing("download_pinned")?;
        inside("download_pinned", &range, to.len())?;
        lengths("download_pinned", from.len(), range.len(), Fit::Exact)?;
        if range.is_empty() {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: the range lies inside; the buffer waits for the copy before it is read or freed.
        check("cuMemcpyDtoHAsync", unsafe {
            sys::cuMemcpyDtoHAsync_v2(
                to.pointer(range.start).cast(),
                from.address(),
                from.size_bytes(),
                self.shared.stream,
            )
        })?;
        to.copied()
    }

    /// Enqueues a copy on the device. The two must not overlap.
    ///
    /// # Errors
    /// The lengths differ, or the driver fails.
    pub fn copy<T: Element>(&self, from: View<T>, to: View<T>) -> Result<(), CudaError> {
        lengths("copy", from.len(), to.len(), Fit::Exact)?;
        if from.is_empty() {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: both are addresses of the device; it reports those that are not.
        check("cuMemcpyDtoDAsync", unsafe {
            sys::cuMemcpyDtoDAsync_v2(
                to.address(),
                from.address(),
                from.size_bytes(),
                self.shared.stream,
            )
        })
    }

    /// Enqueues a copy of rows on the device.
    ///
    /// # Errors
    /// The rows do not lie inside, or the driver fails.
    pub fn copy_2d(&self, from: View<u8>, to: View<u8>, rows: Copy2d) -> Result<(), CudaError> {
        rows.check(from.len(), to.len())?;
        let device = sys::CUmemorytype::CU_MEMORYTYPE_DEVICE;
        self.enqueue_2d(rows, |copy| {
            (copy.srcMemoryType, copy.srcDevice) = (device, from.address());
            (copy.dstMemoryType, copy.dstDevice) = (device, to.address());
        })
    }

    /// Enqueues a copy of rows from pinned memory, beginning at byte `at`.
    ///
    /// # Errors
    /// The rows do not lie inside, a graph is recorded, or the driver fails.
    pub fn upload_2d(
        &self,
        from: (&PinnedBuffer<u8>, usize),
        to: View<u8>,
        rows: Copy2d,
    ) -> Result<(), CudaError> {
        self.not_capturing("upload_2d")?;
        let (from, at) = from;
        rows.check(from.len().saturating_sub(at), to.len())?;
        self.enqueue_2d(rows, |copy| {
            copy.srcMemoryType = sys::CUmemorytype::CU_MEMORYTYPE_HOST;
            copy.srcHost = from.pointer(at).cast();
            copy.dstMemoryType = sys::CUmemorytype::CU_MEMORYTYPE_DEVICE;
            copy.dstDevice = to.address();
        })?;
        from.copied()
    }

    /// Enqueues a copy of rows to pinned memory, beginning at byte `at`.
    ///
    /// # Errors
    /// The rows do not lie inside, a graph is recorded, or the driver fails.
    pub fn download_2d(
        &self,
        from: View<u8>,
        to: (&mut PinnedBuffer<u8>, usize),
        rows: Copy2d,
    ) -> Result<(), CudaError> {
        self.not_capturing("download_2d")?;
        let (to, at) = to;
        rows.check(from.len(), to.len().saturating_sub(at))?;
        self.enqueue_2d(rows, |copy| {
            copy.srcMemoryType = sys::CUmemorytype::CU_MEMORYTYPE_DEVICE;
            copy.srcDevice = from.address();
            copy.dstMemoryType = sys::CUmemorytype::CU_MEMORYTYPE_HOST;
            copy.dstHost = to.pointer(at).cast();
        })?;
        to.copied()
    }

    /// Enqueues a write of `byte` to every byte.
    ///
    /// # Errors
    /// The driver fails.
    pub fn fill<T: Element>(&self, to: View<T>, byte: u8) -> Result<(), CudaError> {
        if to.is_empty() {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: it is an address of the device; the device reports one that is not.
        check("cuMemsetD8Async", unsafe {
            sys::cuMemsetD8Async(to.address(), byte, to.size_bytes(), self.shared.stream)
        })
    }

    /// Enqueues a copy of rows between the places that `places` sets.
    fn enqueue_2d(
        &self,
        rows: Copy2d,
        places: impl FnOnce(&mut sys::CUDA_MEMCPY2D),
    ) -> Result<(), CudaError> {
        if rows.n_rows == 0 || rows.row_bytes == 0 {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: it is a plain structure of numbers and pointers, for which zero is valid.
        let mut copy: sys::CUDA_MEMCPY2D = unsafe { std::mem::zeroed() };
        copy.WidthInBytes = rows.row_bytes;
        copy.Height = rows.n_rows;
        copy.srcPitch = rows.from_stride;
        copy.dstPitch = rows.to_stride;
        places(&mut copy);
        // SAFETY: the rows lie inside both places, and a pinned buffer waits for its copies.
        check("cuMemcpy2DAsync", unsafe {
            sys::cuMemcpy2DAsync_v2(&copy, self.shared.stream)
        })
    }

    /// Copies of the host's memory belong to one moment: a graph would repeat them.
    fn not_capturing(&self, operation: &'static str) -> Result<(), CudaError> {
        if self.shared.is_capturing.load(Ordering::Relaxed) {
            return Err(invalid(operation, "a graph is being recorded".to_owned()));
        }
        Ok(())
    }
}

/// How two lengths must agree.
#[derive(PartialEq)]
enum Fit {
    Exact,
    Within,
}

fn lengths(operation: &'static str, from: usize, to: usize, fit: Fit) -> Result<(), CudaError> {
    if from == to || fit == Fit::Within && from < to {
        return Ok(());
    }
    Err(invalid(operation, format!("{from} elements do not fit {to}")))
}

fn inside(operation: &'static str, range: &Range<usize>, len: usize) -> Result<(), CudaError> {
    if range.start <= range.end && range.end <= len {
        return Ok(());
    }
    Err(invalid(operation, format!("range {range:?} of {len} elements")))
}

fn invalid(operation: &'static str, status: String) -> CudaError {
    CudaError::Driver { operation, status }
}
