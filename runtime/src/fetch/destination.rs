//! The folder that a model is downloaded into.
//!
//! Owns the lock, the writing of `manifest.json`, and the rule that no file is written outside the folder. Must not
//! know the network.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::OFlags;

use super::error::{FetchError, cannot};
use super::folder::{Folder, NOTE_SUFFIX, PARTIAL_SUFFIX, Place};
use super::manifest::{MANIFEST_BYTES_MAX, MANIFEST_FILE, Manifest};
use super::remote_file::RemoteFile;

const LOCK_FILE: &str = ".fetch.lock";
/// The manifest before it is complete.
const FRESH_MANIFEST_FILE: &str = ".manifest.json.new";
/// Time between two attempts to take the lock. `flock` can wait itself, but such a wait cannot be cancelled.
const LOCK_POLL: Duration = Duration::from_millis(250);
/// Longest wait for the lock: longer than any download.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(12 * 3600);

/// The folder, locked for this process. The last clone releases the lock, or the end of the process.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    folder: Folder,
    _lock: Arc<File>,
}

impl Destination {
    /// Creates the folder and waits until no other process writes to it.
    pub(super) async fn lock(root: &Path) -> Result<Self, FetchError> {
        let folder = Folder::create(root).map_err(cannot("create", root))?;
        let path = root.join(LOCK_FILE);
        let file = own(&folder, LOCK_FILE).open(OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND);
        let file = file.map_err(cannot("open", &path))?;
        let mut waited = Duration::ZERO;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {
                    tracing::warn!(path = %path.display(), "the file system has no locks: no other process may write to this folder");
                    break;
                }
                Err(TryLockError::Error(error)) => return Err(cannot("lock", &path)(error)),
            }
            if waited >= LOCK_WAIT_MAX {
                return Err(FetchError::Locked { path, waited });
            }
            if waited.is_zero() {
                tracing::info!(path = %path.display(), "waiting for another process that downloads into this folder");
            }
            tokio::time::sleep(LOCK_POLL).await;
            waited += LOCK_POLL;
        }
        Ok(Self {
            folder,
            _lock: Arc::new(file),
        })
    }

    pub(super) fn root(&self) -> &Path {
        self.folder.root()
    }

    /// The place of a file of the repository; `None` if its path is not one below the folder, or [is the download's
    /// own](Destination::is_own).
    pub(super) fn place(&self, path: &str) -> Option<Place> {
        self.folder.place(path).filter(|_| !Self::is_own(path))
    }

    /// Whether the download has files of this name itself.
    pub(super) fn is_own(path: &str) -> bool {
        let is_own_suffix = [PARTIAL_SUFFIX, NOTE_SUFFIX]
            .iter()
            .any(|suffix| path.ends_with(suffix));
        [MANIFEST_FILE, FRESH_MANIFEST_FILE, LOCK_FILE].contains(&path) || is_own_suffix
    }

    /// Whether the folder contains a file of this size.
    pub(super) fn has(&self, file: &RemoteFile) -> bool {
        self.place(&file.path)
            .is_some_and(|at| at.size() == Some(file.size))
    }

    /// The manifest of an earlier download. A damaged one counts as absent; the files are then verified.
    pub(super) fn manifest(&self) -> Option<Manifest> {
        let text = own(&self.folder, MANIFEST_FILE).read(MANIFEST_BYTES_MAX).ok()?;
        Manifest::parse(&text)
    }

    /// Deletes the manifest, before any of its files changes.
    pub(super) fn remove_manifest(&self) -> Result<(), FetchError> {
        own(&self.folder, MANIFEST_FILE).remove()
    }

    /// Deletes a file of an earlier download that the new one does not contain.
    pub(super) fn remove(&self, path: &str) -> Result<(), FetchError> {
        self.place(path).map_or(Ok(()), |at| at.remove())
    }

    /// Writes the manifest. From here on the folder is complete, even if the machine loses power: the contents of the
    /// files were synced before they got their names, and this syncs the names.
    pub(super) fn write_manifest(&self, manifest: &Manifest) -> Result<(), FetchError> {
        let place = own(&self.folder, MANIFEST_FILE);
        let fresh = own(&self.folder, FRESH_MANIFEST_FILE);
        let text = serde_json::to_vec_pretty(manifest).expect("a manifest is strings and numbers");
        fresh.remove()?;
        let write = || {
            let mut file = fresh.open(OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
            file.write_all(&text)?;
            file.sync_all()?;
            let mut places = manifest.files.iter().filter_map(|file| self.place(&file.path));
            places.try_for_each(|at| at.sync_parent())?;
            fresh.rename(&place)?;
            self.folder.sync()
        };
        write().map_err(cannot("write", &place.shown()))
    }
}

/// The place of a file that the download itself has.
fn own(folder: &Folder, name: &str) -> Place {
    folder.place(name).expect("the names are plain")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_file_is_placed_outside_the_folder_or_over_its_own_files() {
        let folder = tempfile::tempdir().unwrap();
        let destination = Destination::lock(folder.path()).await.unwrap();
        let inside = destination.place("a/b.json").unwrap();
        assert_eq!(inside.shown(), folder.path().join("a/b.json"));
        for path in [
            "../a",
            "/etc/passwd",
            "a/../../b",
            "",
            ".",
            "manifest.json",
            ".fetch.lock",
            "a\\..\\b",
            "a.json.partial",
            "b/a.json.partial.note",
            ".manifest.json.new",
        ] {
            assert!(destination.place(path).is_none(), "{path}");
        }
    }

    #[tokio::test]
    async fn a_damaged_manifest_counts_as_absent() {
        let folder = tempfile::tempdir().unwrap();
        let destination = Destination::lock(folder.path()).await.unwrap();
        std::fs::write(folder.path().join(MANIFEST_FILE), "{\"repo\":").unwrap();
        assert_eq!(destination.manifest(), None);
        destination.remove_manifest().unwrap();
        destination.remove_manifest().unwrap();
    }
}
