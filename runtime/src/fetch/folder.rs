//! Files below one folder, reached without following links.
//!
//! Other processes may write to the volume of a model. A link that they put there must not lead a write, a read or a
//! deletion out of the folder, so every component of a path is opened relative to its parent, and a link is an error.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::error::{FetchError, cannot};

/// What the name of a file that is not complete ends with.
pub(super) const PARTIAL_SUFFIX: &str = ".partial";
/// What the name of the note on it ends with.
pub(super) const NOTE_SUFFIX: &str = ".partial.note";
/// Longest name of a file or folder, bytes: the limit of the usual file systems.
const NAME_BYTES_MAX: usize = 255;
/// Mode of new folders and files, before the process's mask.
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o777);
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);

/// An open folder.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    root: PathBuf,
    handle: Arc<OwnedFd>,
}

/// A path below a folder, of which every component is a plain name.
#[derive(Clone, Debug)]
pub(super) struct Place {
    folder: Folder,
    path: String,
}

impl Folder {
    /// Creates the folder if it does not exist, and opens it. The folder itself must not be a link.
    pub(super) fn create(root: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(root)?;
        let handle = rustix::fs::open(root, folder_flags(), Mode::empty())?;
        Ok(Self {
            root: root.to_owned(),
            handle: Arc::new(handle),
        })
    }

    /// Its path.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The place of a relative path; `None` if a component is not a plain name.
    pub(super) fn place(&self, path: &str) -> Option<Place> {
        let is_plain = |name: &str| {
            !matches!(name, "" | "." | "..") && name.len() <= NAME_BYTES_MAX && !name.contains(['\\', '\0'])
        };
        path.split('/').all(is_plain).then(|| Place {
            folder: self.clone(),
            path: path.to_owned(),
        })
    }

    /// Makes the names of the folder's own files durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&*self.handle)?)
    }
}

impl Place {
    /// The whole path, for messages.
    pub(super) fn shown(&self) -> PathBuf {
        self.folder.root.join(&self.path)
    }

    /// Its path below the folder.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The place whose name has this suffix.
    pub(super) fn with_suffix(&self, suffix: &str) -> Place {
        Place {
            folder: self.folder.clone(),
            path: format!("{}{suffix}", self.path),
        }
    }

    /// Creates the folders above the file.
    pub(super) fn create_parents(&self) -> io::Result<()> {
        self.parent(
            |folder, name| match rustix::fs::mkdirat(folder, name, FOLDER_MODE) {
                Err(error) if error != rustix::io::Errno::EXIST => Err(error.into()),
                _exists => Ok(()),
            },
        )
        .map(drop)
    }

    /// Opens the file. Something that is not a regular file is an error, and never waited for. A file with several
    /// names is not opened for writing: another name may be outside the folder.
    pub(super) fn open(&self, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let (parent, name) = (self.existing_parent()?, self.name());
        let file = File::from(rustix::fs::openat(parent, name, flags, FILE_MODE)?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "it is not a regular file",
            ));
        }
        if metadata.nlink() > 1 && flags.intersects(OFlags::WRONLY | OFlags::RDWR) {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "the file has other names",
            ));
        }
        Ok(file)
    }

    /// The content of a file of at most `bytes_max` bytes.
    pub(super) fn read(&self, bytes_max: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = self.open(OFlags::RDONLY)?;
        file.take(bytes_max + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > bytes_max {
            return Err(io::Error::new(ErrorKind::InvalidData, "it is too long"));
        }
        Ok(bytes)
    }

    /// Size of a regular file; `None` if there is none.
    pub(super) fn size(&self) -> Option<u64> {
        let parent = self.existing_parent().ok()?;
        let found = rustix::fs::statat(parent, self.name(), AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let is_file = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
        is_file.then_some(u64::try_from(found.st_size).ok()?)
    }

    /// Gives the file the name of another place, and replaces what has that name.
    pub(super) fn rename(&self, to: &Place) -> io::Result<()> {
        let (from_parent, to_parent) = (self.existing_parent()?, to.existing_parent()?);
        Ok(rustix::fs::renameat(
            from_parent,
            self.name(),
            to_parent,
            to.name(),
        )?)
    }

    /// Deletes the file, if it exists.
    pub(super) fn remove(&self) -> Result<(), FetchError> {
        let unlink = || -> io::Result<()> {
            Ok(rustix::fs::unlinkat(
                self.existing_parent()?,
                self.name(),
                AtFlags::empty(),
            )?)
        };
        match unlink() {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(cannot("remove", &self.shown())(error)),
            _gone => Ok(()),
        }
    }

    /// Makes the file's name durable.
    pub(super) fn sync_parent(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(self.existing_parent()?)?)
    }

    fn name(&self) -> &OsStr {
        let name = self.path.rsplit('/').next();
        OsStr::new(name.unwrap_or_default())
    }

    fn existing_parent(&self) -> io::Result<OwnedFd> {
        self.parent(|_, _| Ok(()))
    }

    /// Opens the folder of the file. Calls `before` with each folder and the name in it that is opened next.
    fn parent(&self, before: impl Fn(&OwnedFd, &str) -> io::Result<()>) -> io::Result<OwnedFd> {
        let mut folder = self.folder.handle.as_fd().try_clone_to_owned()?;
        let mut names: Vec<&str> = self.path.split('/').collect();
        names.pop();
        for name in names {
            before(&folder, name)?;
            folder = rustix::fs::openat(&folder, name, folder_flags(), Mode::empty())?;
        }
        Ok(folder)
    }
}

fn folder_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_plain_names_have_a_place() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::create(root.path()).unwrap();
        assert_eq!(
            folder.place("a/b.json").unwrap().shown(),
            root.path().join("a/b.json")
        );
        let long = "x".repeat(256);
        for path in [
            "../a",
            "/etc/passwd",
            "a/../b",
            "",
            ".",
            "a//b",
            "a/./b",
            "a/",
            "a\\b",
            "a\0b",
            &long,
        ] {
            assert!(folder.place(path).is_none(), "{path:?}");
        }
    }

    #[test]
    fn no_operation_follows_a_link() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let victim = outside.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        symlink(outside.path(), root.path().join("sub")).unwrap();
        symlink(&victim, root.path().join("link")).unwrap();
        let folder = Folder::create(root.path()).unwrap();
        let write = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        for path in ["sub/victim", "sub/new", "link"] {
            let place = folder.place(path).unwrap();
            assert!(place.open(write).is_err(), "{path}");
            assert!(place.read(100).is_err(), "{path}");
            assert_eq!(place.size(), None, "{path}");
        }
        assert!(folder.place("sub/deep/new").unwrap().create_parents().is_err());
        folder.place("link").unwrap().remove().unwrap();
        fs::hard_link(&victim, root.path().join("hard")).unwrap();
        assert!(folder.place("hard").unwrap().open(OFlags::WRONLY).is_err());
        assert!(folder.place("sub/victim").unwrap().remove().is_err());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        symlink(outside.path(), root.path().join("root")).unwrap();
        assert!(Folder::create(&root.path().join("root")).is_err());
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::create(root.path()).unwrap();
        let pipe = root.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let place = folder.place("pipe").unwrap();
        assert!(place.read(10).is_err());
        assert!(place.open(OFlags::WRONLY | OFlags::APPEND).is_err());
    }

    #[test]
    fn files_are_written_renamed_and_removed_in_new_folders() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::create(root.path()).unwrap();
        let place = folder.place("a/b/c").unwrap();
        place.create_parents().unwrap();
        let fresh = place.with_suffix(".new");
        let mut file = fresh.open(OFlags::WRONLY | OFlags::CREATE).unwrap();
        file.write_all(b"abc").unwrap();
        fresh.rename(&place).unwrap();
        place.sync_parent().unwrap();
        assert_eq!((place.size(), fresh.size()), (Some(3), None));
        assert_eq!(place.read(3).unwrap(), b"abc");
        assert!(place.read(2).is_err());
        place.remove().unwrap();
        place.remove().unwrap();
        assert_eq!(place.size(), None);
    }
}
