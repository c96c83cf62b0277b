//! A read-only view of a file's bytes without reading it.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

/// A file mapped into memory, read-only.
///
/// The file must not be changed while it is mapped: model files are written once, under another name, and
/// renamed when complete. A file that is truncated by someone else meanwhile ends the process (SIGBUS).
#[derive(Debug)]
pub struct MappedFile {
    map: Option<memmap2::Mmap>,
}

impl MappedFile {
    /// Maps the file at `path`; an empty file is an empty slice.
    ///
    /// # Errors
    /// The file cannot be opened or mapped, or is not a regular file.
    pub fn open(path: &Path) -> io::Result<MappedFile> {
        // Read before opening: opening a named pipe would wait for its writer.
        let metadata = std::fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let file = File::open(path)?;
        if metadata.len() == 0 {
            return Ok(MappedFile { map: None });
        }
        // SAFETY: the mapping is private and read-only; that nobody changes the file is the documented
        // condition of this type, kept by the fetch step, which renames files only when complete.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(MappedFile { map: Some(map) })
    }
}

impl MappedFile {
    /// Gives back the memory of the full pages within `bytes`, which stay readable: the next read fetches
    /// them from the file again. What is outside the file is ignored.
    pub fn release(&self, bytes: Range<usize>) {
        let Some(map) = &self.map else {
            return;
        };
        let start = bytes.start.next_multiple_of(PAGE_BYTES);
        let end = bytes.end.min(map.len()) / PAGE_BYTES * PAGE_BYTES;
        #[cfg(target_os = "linux")]
        if start < end {
            // SAFETY: the mapping is private, read-only and of a file, so that pages that are dropped are
            // read again with the same bytes. Only a hint, so its failure changes nothing.
            let _ =
                unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
        }
    }
}

/// At least a page on the systems that have `madvise`, so that no part of one is given back.
const PAGE_BYTES: usize = 64 << 10;

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_bytes_of_a_file() {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let map = MappedFile::open(&manifest).unwrap();
        assert_eq!(&*map, std::fs::read(&manifest).unwrap());
    }

    #[test]
    fn what_was_released_can_be_read_again() {
        let dir = std::env::temp_dir();
        let path = dir.join(format!("slipway-mapped-file-{}", std::process::id()));
        let bytes: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let map = MappedFile::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(&*map, bytes);
        map.release(1..299_999);
        map.release(200_000..usize::MAX);
        map.release(5..5);
        assert_eq!(&*map, bytes);
    }

    #[test]
    fn refuses_a_folder_and_a_missing_file() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(MappedFile::open(folder).is_err());
        assert!(MappedFile::open(&folder.join("absent")).is_err());
    }
}
