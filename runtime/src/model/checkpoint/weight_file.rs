//! A weight file, read piece by piece.
//!
//! Files are read and not mapped: a mapped file that somebody cuts short ends the process when its missing part is
//! touched, and a read of it is an error.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::model::error::ModelError;

/// An open weight file.
#[derive(Debug)]
pub(super) struct WeightFile {
    file: File,
    path: PathBuf,
    n_bytes: usize,
}

impl WeightFile {
    /// Opens a file.
    ///
    /// # Errors
    /// It is missing, cannot be opened, or is not a regular file.
    pub(super) fn open(path: &Path) -> Result<WeightFile, ModelError> {
        // Read before opening: opening a named pipe would wait for its writer.
        let open = || {
            let metadata = std::fs::metadata(path)?;
            if !metadata.is_file() {
                return Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file"));
            }
            Ok((File::open(path)?, metadata.len()))
        };
        let (file, n_bytes) = open().map_err(|source| match source.kind() {
            ErrorKind::NotFound => ModelError::MissingFile {
                path: path.to_owned(),
            },
            _ => ModelError::Read {
                path: path.to_owned(),
                source,
            },
        })?;
        Ok(WeightFile {
            file,
            path: path.to_owned(),
            n_bytes: usize::try_from(n_bytes).unwrap_or(usize::MAX),
        })
    }

    /// Its size when it was opened.
    pub(super) fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// The bytes of a range within its size.
    ///
    /// # Errors
    /// They cannot be read, or the file is shorter now.
    pub(super) fn read(&self, range: Range<usize>) -> Result<Vec<u8>, ModelError> {
        let mut bytes = vec![0; range.len()];
        self.read_into(range.start, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `bytes` with those of the file from `at` on.
    ///
    /// # Errors
    /// As of [`WeightFile::read`].
    pub(super) fn read_into(&self, at: usize, bytes: &mut [u8]) -> Result<(), ModelError> {
        let read = self.file.read_exact_at(bytes, at as u64);
        read.map_err(|source| match source.kind() {
            ErrorKind::UnexpectedEof => ModelError::WeightFile {
                path: self.path.clone(),
                reason: "it became shorter while it was read".to_owned(),
            },
            _ => ModelError::Read {
                path: self.path.clone(),
                source,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_cut_short_is_an_error_and_not_a_signal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        std::fs::write(&path, [7; 20_000]).unwrap();
        let file = WeightFile::open(&path).unwrap();
        assert_eq!(file.read(5..20_000).unwrap(), [7; 19_995]);
        std::fs::write(&path, [7; 10]).unwrap();
        assert_eq!(file.read(0..10).unwrap(), [7; 10]);
        let refused = file.read(0..20_000).unwrap_err().to_string();
        assert!(
            refused.contains("it became shorter while it was read"),
            "{refused}"
        );
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refused = WeightFile::open(dir.path()).unwrap_err();
        assert!(matches!(refused, ModelError::Read { .. }), "{refused}");
        let refused = WeightFile::open(&dir.path().join("absent")).unwrap_err();
        assert!(matches!(refused, ModelError::MissingFile { .. }), "{refused}");
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        assert!(WeightFile::open(&pipe).is_err());
    }
}
