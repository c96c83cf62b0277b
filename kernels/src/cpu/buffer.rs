//! Zeroed, page-aligned memory for the big arrays: weights and the KV cache.

use memmap2::MmapMut;

use crate::error::KernelError;

/// Zeroed memory that starts on a page and is taken from the operating system page by page as it is
/// written. Large buffers ask for huge pages, which spares misses of the address cache.
#[derive(Debug)]
pub struct Buffer {
    map: MmapMut,
}

impl Buffer {
    /// `size_bytes` zeros for `what`.
    ///
    /// # Errors
    /// The operating system refuses, or `size_bytes` is zero.
    pub fn zeroed(what: &'static str, size_bytes: usize) -> Result<Buffer, KernelError> {
        let map = MmapMut::map_anon(size_bytes).map_err(|_| KernelError::Memory {
            what,
            size_bytes: size_bytes as u128,
        })?;
        #[cfg(target_os = "linux")]
        if size_bytes >= HUGE_PAGE_BYTES {
            // Only a hint: a kernel without huge pages returns an error that changes nothing.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        Ok(Buffer { map })
    }

    /// The memory as f32, to write. Its size must be a multiple of theirs.
    pub fn floats_mut(&mut self) -> &mut [f32] {
        self.as_mut_slice()
    }

    /// The memory as numbers.
    pub(crate) fn as_slice<T: bytemuck::Pod>(&self) -> &[T] {
        bytemuck::cast_slice(&self.map)
    }

    /// The memory as numbers, to write.
    pub(crate) fn as_mut_slice<T: bytemuck::Pod>(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.map)
    }
}

/// A huge page of x86-64 and of most aarch64 systems.
#[cfg(target_os = "linux")]
const HUGE_PAGE_BYTES: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_zero_and_aligned() {
        let mut buffer = Buffer::zeroed("test", 3 << 20).unwrap();
        assert!(buffer.as_slice::<u64>().iter().all(|&v| v == 0));
        assert!(buffer.as_slice::<f32>().as_ptr().addr().is_multiple_of(4096));
        buffer.as_mut_slice::<f32>()[7] = 1.0;
        assert_eq!(buffer.as_slice::<f32>()[7], 1.0);
    }

    #[test]
    fn refuses_more_than_there_is() {
        let refused = Buffer::zeroed("test", isize::MAX as usize).unwrap_err();
        assert!(matches!(refused, KernelError::Memory { what: "test", .. }));
    }
}
