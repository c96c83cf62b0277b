//! Questions to the file system, and the deletion of files.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::error::{FetchError, cannot};

/// Free bytes of the file system of `path`, for an unprivileged user.
///
/// # Errors
/// The error of `statvfs`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let volume = rustix::fs::statvfs(path)?;
    Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
}

/// Size of a regular file; `None` if there is none.
pub(super) fn size_of(path: &Path) -> Option<u64> {
    fs::metadata(path)
        .ok()
        .filter(fs::Metadata::is_file)
        .map(|metadata| metadata.len())
}

/// Deletes a file, if it exists.
pub(super) fn remove(path: &Path) -> Result<(), FetchError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(cannot("remove", path)(error)),
        _gone => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_has_free_bytes() {
        assert!(free_bytes(Path::new("/")).unwrap() > 0);
    }
}
