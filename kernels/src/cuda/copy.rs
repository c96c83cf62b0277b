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
        self.enqueue_2d(rows, |copy| {
            copy.srcDevice = from.address();
            copy.dstDevice = to.address();
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
        let mut copy = sys::CUDA_MEMCPY2D {
            srcXInBytes: 0,
            srcY: 0,
            srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
            srcHost: std::ptr::null(),
            srcDevice: 0,
            srcArray: std::ptr::null_mut(),
            srcPitch: rows.from_stride,
            dstXInBytes: 0,
            dstY: 0,
            dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
            dstHost: std::ptr::null_mut(),
            dstDevice: 0,
            dstArray: std::ptr::null_mut(),
            dstPitch: rows.to_stride,
            WidthInBytes: rows.row_bytes,
            Height: rows.n_rows,
        };
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

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    fn numbers(n: u32) -> Vec<u32> {
        (0..n).map(|i| i.wrapping_mul(2_654_435_761)).collect()
    }

    #[test]
    fn what_is_copied_comes_back() {
        testing::each_order(|gpu| {
            let values = numbers(1000);
            let (a, b) = (gpu.alloc(1000).unwrap(), gpu.alloc_zeroed(1000).unwrap());
            gpu.upload(&values, a.view()).unwrap();
            gpu.copy(a.view().range(10..500), b.view().range(0..490)).unwrap();
            let mut got = vec![7; 1000];
            gpu.download(b.view(), &mut got).unwrap();
            assert_eq!((&got[..490], &got[490..]), (&values[10..500], &[0; 510][..]));
            gpu.fill(b.view().range(5..7), 0xff).unwrap();
            gpu.download(b.view().range(4..8), &mut got[..4]).unwrap();
            assert_eq!(got[..4], [values[14], u32::MAX, u32::MAX, values[17]]);
        });
    }

    #[test]
    fn a_pinned_buffer_waits_for_its_copies() {
        testing::each_order(|gpu| {
            let values = numbers(256);
            let buffer = gpu.alloc(256).unwrap();
            let (mut up, mut down) = (gpu.alloc_pinned(256).unwrap(), gpu.alloc_pinned(256).unwrap());
            assert!(down.as_slice().unwrap().iter().all(|&v: &u32| v == 0));
            up.as_mut_slice().unwrap().copy_from_slice(&values);
            gpu.upload_pinned(&up, 0..256, buffer.view()).unwrap();
            // Were this written before the copy ran, the device would get zeros.
            up.as_mut_slice().unwrap().fill(0);
            gpu.download_pinned(buffer.view().range(0..100), &mut down, 100..200)
                .unwrap();
            assert_eq!(down.as_slice().unwrap()[100..200], values[..100]);
        });
    }

    #[test]
    fn rows_are_copied_at_their_distances() {
        testing::each_order(|gpu| {
            let bytes: Vec<u8> = (0..200).collect();
            let (a, b) = (gpu.alloc(200).unwrap(), gpu.alloc_zeroed(40).unwrap());
            gpu.upload(&bytes, a.view()).unwrap();
            let rows = Copy2d {
                row_bytes: 4,
                n_rows: 3,
                from_stride: 50,
                to_stride: 10,
            };
            let from = a.view().range(20..200);
            gpu.copy_2d(from, b.view(), rows).unwrap();
            let mut host = gpu.alloc_pinned(60).unwrap();
            let back = Copy2d {
                from_stride: 10,
                to_stride: 20,
                ..rows
            };
            gpu.download_2d(b.view(), (&mut host, 10), back).unwrap();
            let got = host.as_slice().unwrap().to_vec();
            let want = |row: usize| &bytes[20 + row * 50..][..4];
            assert_eq!(
                [0, 1, 2].map(|row| &got[10 + row * 20..][..4]),
                [0, 1, 2].map(want)
            );
            gpu.fill(a.view(), 0).unwrap();
            let up = Copy2d {
                from_stride: 20,
                to_stride: 50,
                ..rows
            };
            gpu.upload_2d((&host, 10), a.view(), up).unwrap();
            let mut again = vec![0; 200];
            gpu.download(a.view(), &mut again).unwrap();
            assert_eq!([0, 1, 2].map(|row| &again[row * 50..][..4]), [0, 1, 2].map(want));
            let too_long = Copy2d { n_rows: 5, ..rows };
            assert!(gpu.copy_2d(from, b.view(), too_long).is_err());
        });
    }

    #[test]
    fn lengths_must_agree() {
        let Some(gpu) = testing::gpu(0) else { return };
        let buffer = gpu.alloc::<u32>(4).unwrap();
        let pinned = gpu.alloc_pinned::<u32>(4).unwrap();
        let error = gpu.upload(&[1, 2, 3], buffer.view()).unwrap_err();
        assert_eq!(error.to_string(), "upload failed: 3 elements do not fit 4");
        assert!(gpu.download(buffer.view(), &mut [0; 5]).is_err());
        assert!(
            gpu.upload_pinned(&pinned, 2..5, buffer.view().range(0..3))
                .is_err()
        );
        assert!(gpu.copy(buffer.view(), buffer.view().range(0..2)).is_err());
        gpu.upload::<u32>(&[], buffer.view().range(1..1)).unwrap();
    }
}
