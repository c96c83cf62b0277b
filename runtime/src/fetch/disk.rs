//! Questions to the file system.

use std::io;
use std::path::Path;

/// Free bytes of the file system of `path`, for an unprivileged user.
///
/// # Errors
/// The error of `statvfs`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let volume = rustix::fs::statvfs(path)?;
    Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_has_free_bytes() {
        assert!(free_bytes(Path::new("/")).unwrap() > 0);
    }
}
