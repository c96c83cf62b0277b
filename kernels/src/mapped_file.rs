//! A read-only view of a file's bytes without reading it.

use std::fs::File;
use std::io;
use std::ops::Deref;
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
    fn refuses_a_folder_and_a_missing_file() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(MappedFile::open(folder).is_err());
        assert!(MappedFile::open(&folder.join("absent")).is_err());
    }
}
