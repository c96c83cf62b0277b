//! The folder that a model is downloaded into: who may write it, what is complete in it, how much fits.
//!
//! Owns the lock, `manifest.json`, free space, and that nothing is written outside the folder. Must not know the
//! network.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::error::{FetchError, cannot};
use super::hub::RemoteFile;
use super::manifest::Manifest;

/// Name of the record of a complete download. A repository's own file of this name is not downloaded.
pub const MANIFEST_FILE: &str = "manifest.json";
const LOCK_FILE: &str = ".fetch.lock";
/// How often a waiting process looks whether the lock is free. `flock` itself can wait, but not be cancelled.
const LOCK_POLL: Duration = Duration::from_millis(250);
/// Longer than any download; a process that holds the lock for longer hangs.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(12 * 3600);

/// The folder, locked for this process. The lock goes with the last clone, or with the process.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    root: PathBuf,
    _lock: Arc<File>,
}

impl Destination {
    /// Makes the folder and waits until no other process writes it.
    pub(super) async fn lock(root: &Path) -> Result<Self, FetchError> {
        fs::create_dir_all(root).map_err(cannot("create", root))?;
        let path = root.join(LOCK_FILE);
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(cannot("open", &path))?;
        let mut waited = Duration::ZERO;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {
                    tracing::warn!(path = %path.display(), "the file system has no locks: another process must not write here");
                    break;
                }
                Err(TryLockError::Error(error)) => return Err(cannot("lock", &path)(error)),
            }
            if waited >= LOCK_WAIT_MAX {
                return Err(FetchError::Locked { path, waited });
            }
            if waited.is_zero() {
                tracing::info!(path = %path.display(), "waiting for another process that downloads to the same folder");
            }
            tokio::time::sleep(LOCK_POLL).await;
            waited += LOCK_POLL;
        }
        Ok(Self {
            root: root.to_owned(),
            _lock: Arc::new(file),
        })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where a file of the repository goes; `None` if that is outside the folder or one of the folder's own files.
    pub(super) fn place(&self, path: &str) -> Option<PathBuf> {
        let inside = Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        let own = path.is_empty() || path == MANIFEST_FILE || path == LOCK_FILE;
        (inside && !own && !path.contains('\\')).then(|| self.root.join(path))
    }

    /// Whether a file of the right size is there.
    pub(super) fn has(&self, file: &RemoteFile) -> bool {
        self.place(&file.path)
            .is_some_and(|at| size_of(&at) == Some(file.size))
    }

    /// The record of an earlier download. One that cannot be read counts as none: the files are then checked.
    pub(super) fn manifest(&self) -> Option<Manifest> {
        Manifest::read(&self.root)
    }

    /// Forgets the record, before anything that it vouches for is changed.
    pub(super) fn remove_manifest(&self) -> Result<(), FetchError> {
        remove(&self.root.join(MANIFEST_FILE))
    }

    /// Deletes a file of an earlier download that the present one does not have.
    pub(super) fn remove(&self, path: &str) -> Result<(), FetchError> {
        self.place(path).map_or(Ok(()), |at| remove(&at))
    }

    /// Records that everything is there. From here on the folder is complete, even if the machine loses power: the
    /// files' content is synced before they are put in place, their names are here.
    pub(super) fn write_manifest(&self, manifest: &Manifest) -> Result<(), FetchError> {
        let (path, fresh) = (
            self.root.join(MANIFEST_FILE),
            self.root.join(".manifest.json.new"),
        );
        let text = serde_json::to_vec_pretty(manifest).expect("a manifest is strings and numbers");
        let write = || {
            let mut file = File::create(&fresh)?;
            file.write_all(&text)?;
            file.sync_all()?;
            self.sync_folders(manifest)?;
            fs::rename(&fresh, &path)?;
            File::open(&self.root)?.sync_all()
        };
        write().map_err(cannot("write", &path))
    }

    fn sync_folders(&self, manifest: &Manifest) -> io::Result<()> {
        let places = manifest.files.iter().filter_map(|file| self.place(&file.path));
        let folders: BTreeSet<PathBuf> = places.filter_map(|at| at.parent().map(Path::to_owned)).collect();
        folders
            .iter()
            .try_for_each(|folder| File::open(folder)?.sync_all())
    }
}

/// Bytes that an ordinary user may still write to the file system of `path`.
///
/// # Errors
/// When the file system cannot be asked.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let volume = rustix::fs::statvfs(path)?;
    Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
}

/// Size of a regular file, `None` where there is none.
pub(super) fn size_of(path: &Path) -> Option<u64> {
    fs::metadata(path)
        .ok()
        .filter(fs::Metadata::is_file)
        .map(|metadata| metadata.len())
}

/// Deletes a file; that it is not there is fine.
pub(super) fn remove(path: &Path) -> Result<(), FetchError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(cannot("remove", path)(error)),
        _gone => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_placed_outside_or_over_the_own_files() {
        let folder = tempfile::tempdir().unwrap();
        let destination = Destination::lock(folder.path()).await.unwrap();
        assert_eq!(
            destination.place("a/b.json"),
            Some(folder.path().join("a/b.json"))
        );
        for path in [
            "../a",
            "/etc/passwd",
            "a/../../b",
            "",
            ".",
            "manifest.json",
            ".fetch.lock",
            "a\\..\\b",
        ] {
            assert_eq!(destination.place(path), None, "{path}");
        }
    }

    #[tokio::test]
    async fn a_damaged_manifest_is_no_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let destination = Destination::lock(folder.path()).await.unwrap();
        fs::write(folder.path().join(MANIFEST_FILE), "{\"repo\":").unwrap();
        assert_eq!(destination.manifest(), None);
        destination.remove_manifest().unwrap();
        destination.remove_manifest().unwrap();
    }

    #[test]
    fn a_file_system_has_some_room() {
        assert!(free_bytes(Path::new("/")).unwrap() > 0);
    }
}
