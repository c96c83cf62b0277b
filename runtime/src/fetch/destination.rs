//! The folder that a model is downloaded into.
//!
//! Owns the lock, the writing of `manifest.json`, and the rule that no file is written outside the folder. Must not
//! know the network.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::disk::{remove, size_of};
use super::error::{FetchError, cannot};
use super::manifest::{MANIFEST_FILE, Manifest};
use super::remote_file::RemoteFile;

const LOCK_FILE: &str = ".fetch.lock";
/// Time between two attempts to take the lock. `flock` can wait itself, but such a wait cannot be cancelled.
const LOCK_POLL: Duration = Duration::from_millis(250);
/// Longest wait for the lock: longer than any download.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(12 * 3600);

/// The folder, locked for this process. The last clone releases the lock, or the end of the process.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    root: PathBuf,
    _lock: Arc<File>,
}

impl Destination {
    /// Creates the folder and waits until no other process writes to it.
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
            root: root.to_owned(),
            _lock: Arc::new(file),
        })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The place of a file of the repository; `None` if it is outside the folder, or has the name of the folder's own
    /// files.
    pub(super) fn place(&self, path: &str) -> Option<PathBuf> {
        let inside = Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        let own = path.is_empty() || path == MANIFEST_FILE || path == LOCK_FILE;
        (inside && !own && !path.contains('\\')).then(|| self.root.join(path))
    }

    /// Whether the folder contains a file of this size.
    pub(super) fn has(&self, file: &RemoteFile) -> bool {
        self.place(&file.path)
            .is_some_and(|at| size_of(&at) == Some(file.size))
    }

    /// The manifest of an earlier download. A damaged one counts as absent; the files are then verified.
    pub(super) fn manifest(&self) -> Option<Manifest> {
        Manifest::read(&self.root)
    }

    /// Deletes the manifest, before any of its files changes.
    pub(super) fn remove_manifest(&self) -> Result<(), FetchError> {
        remove(&self.root.join(MANIFEST_FILE))
    }

    /// Deletes a file of an earlier download that the new one does not contain.
    pub(super) fn remove(&self, path: &str) -> Result<(), FetchError> {
        self.place(path).map_or(Ok(()), |at| remove(&at))
    }

    /// Writes the manifest. From here on the folder is complete, even if the machine loses power: the contents of the
    /// files were synced before they got their names, and this syncs the names.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_file_is_placed_outside_the_folder_or_over_its_own_files() {
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
    async fn a_damaged_manifest_counts_as_absent() {
        let folder = tempfile::tempdir().unwrap();
        let destination = Destination::lock(folder.path()).await.unwrap();
        fs::write(folder.path().join(MANIFEST_FILE), "{\"repo\":").unwrap();
        assert_eq!(destination.manifest(), None);
        destination.remove_manifest().unwrap();
        destination.remove_manifest().unwrap();
    }
}
