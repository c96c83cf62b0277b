//! A file on its way to being whole: `<name>.partial`, and beside it a note of what it is a part of.
//!
//! Owns appending, going on after an interruption, the check of the content, and the change of name. Must not know the network.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::destination::{Destination, remove, size_of};
use super::error::{FetchError, cannot};
use super::hub::{Identity, RemoteFile};
use super::progress::Meter;

/// Bytes gathered before they are hashed and written in one go. With the chunk that the HTTP client holds, this is
/// all the memory that one file's download takes.
pub(super) const WRITE_BUFFER_BYTES: usize = 256 << 10;

/// A partial file, open for appending.
#[derive(Debug)]
pub(super) struct Partial {
    wanted: RemoteFile,
    place: PathBuf,
    length: u64,
    note: Note,
    disk: Arc<Mutex<Disk>>,
    meter: Meter,
}

/// What a partial file is a part of. A part of other content is never continued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    #[serde(flatten)]
    identity: Identity,
    /// Strong validator under which the server sent the bytes.
    etag: Option<String>,
}

/// The open file and the hash of what it holds. The destination keeps its lock until the last write is over, even
/// when the download around it is cancelled.
#[derive(Debug)]
struct Disk {
    file: File,
    hasher: Hasher,
    _destination: Destination,
}

/// A running hash of the kind an [`Identity`] asks for.
#[derive(Clone, Debug)]
enum Hasher {
    Sha256(Sha256),
    GitBlob(Sha1),
}

impl Partial {
    /// Opens what an earlier attempt left of `wanted`, or begins anew.
    pub(super) async fn open(
        destination: &Destination,
        wanted: &RemoteFile,
        meter: Meter,
    ) -> Result<Self, FetchError> {
        let (destination, wanted) = (destination.clone(), wanted.clone());
        blocking(move || Self::open_now(destination, wanted, meter)).await
    }

    fn open_now(destination: Destination, wanted: RemoteFile, meter: Meter) -> Result<Self, FetchError> {
        let place = destination
            .place(&wanted.path)
            .expect("the plan holds only files that have a place");
        let (at, folder) = (partial_path(&place), place.parent().unwrap_or(destination.root()));
        fs::create_dir_all(folder).map_err(cannot("create", folder))?;
        let (length, etag) = match resumable(&place, &wanted) {
            Some((length, note)) => (length, note.etag),
            None => (0, None),
        };
        let open = || {
            let mut file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&at)?;
            file.set_len(length)?;
            let mut hasher = Hasher::new(&wanted);
            hasher.update_from(&mut file)?;
            file.seek(SeekFrom::Start(length))?;
            Ok(Disk {
                file,
                hasher,
                _destination: destination,
            })
        };
        let disk = Arc::new(Mutex::new(open().map_err(cannot("open", &at))?));
        let note = Note {
            identity: wanted.identity.clone(),
            etag,
        };
        let partial = Self {
            wanted,
            place,
            length,
            note,
            disk,
            meter,
        };
        partial.write_note()?;
        Ok(partial)
    }

    /// Bytes that are there.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Validator under which they came.
    pub(super) fn etag(&self) -> Option<&str> {
        self.note.etag.as_deref()
    }

    /// Notes the validator of the bytes that follow, so that a later process can ask for the rest of the same.
    pub(super) fn set_etag(&mut self, etag: Option<String>) -> Result<(), FetchError> {
        if self.note.etag == etag {
            return Ok(());
        }
        self.note.etag = etag;
        self.write_note()
    }

    /// Adds `bytes` at the end and gives the buffer back, emptied.
    pub(super) async fn append(&mut self, mut bytes: Vec<u8>) -> Result<Vec<u8>, FetchError> {
        let n_bytes = bytes.len() as u64;
        if n_bytes == 0 {
            return Ok(bytes);
        }
        let bytes = self
            .with_disk("write", move |disk| {
                disk.file.write_all(&bytes)?;
                disk.hasher.update(&bytes);
                bytes.clear();
                Ok(bytes)
            })
            .await?;
        self.length += n_bytes;
        self.meter.add(n_bytes);
        Ok(bytes)
    }

    /// Throws away what is there.
    pub(super) async fn restart(&mut self) -> Result<(), FetchError> {
        let hasher = Hasher::new(&self.wanted);
        self.meter.retract(self.length);
        self.length = 0;
        self.with_disk("empty", move |disk| {
            disk.hasher = hasher;
            disk.file.set_len(0)?;
            disk.file.rewind()
        })
        .await
    }

    /// Checks that the content is all there and right. If it is wrong, it is thrown away and the partial file is empty
    /// again.
    pub(super) async fn check(&mut self) -> Result<(), FetchError> {
        let actual = self
            .with_disk("read", |disk| Ok(disk.hasher.clone().identity()))
            .await?;
        if self.length == self.wanted.size && actual == self.wanted.identity {
            return self.with_disk("sync", |disk| disk.file.sync_all()).await;
        }
        let expected = format!("{} bytes, {}", self.wanted.size, self.wanted.identity);
        let actual = format!("{} bytes, {actual}", self.length);
        let file = self.wanted.path.clone();
        self.restart().await?;
        Err(FetchError::ChecksumMismatch {
            file,
            expected,
            actual,
        })
    }

    /// Ends the download of a file whose check has passed.
    pub(super) fn into_whole(self) -> Whole {
        Whole { place: self.place }
    }

    /// Deletes the partial file and its note.
    pub(super) fn discard(self) -> Result<(), FetchError> {
        remove(&note_path(&self.place))?;
        remove(&partial_path(&self.place))
    }

    fn write_note(&self) -> Result<(), FetchError> {
        let path = note_path(&self.place);
        let text = serde_json::to_vec(&self.note).expect("a note is strings");
        fs::write(&path, text).map_err(cannot("write", &path))
    }

    async fn with_disk<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&mut Disk) -> io::Result<T> + Send + 'static,
    ) -> Result<T, FetchError> {
        let disk = Arc::clone(&self.disk);
        let done = blocking(move || work(&mut disk.lock().unwrap_or_else(PoisonError::into_inner))).await;
        done.map_err(cannot(operation, &partial_path(&self.place)))
    }
}

/// A file whose content is checked and on the disk, still under its partial name.
#[derive(Debug)]
pub(super) struct Whole {
    place: PathBuf,
}

impl Whole {
    /// Gives the file its name, in place of an older one.
    pub(super) fn put_in_place(self) -> Result<(), FetchError> {
        let at = partial_path(&self.place);
        fs::rename(&at, &self.place).map_err(cannot("rename", &at))?;
        remove(&note_path(&self.place))
    }
}

/// Bytes of `wanted` that an earlier attempt left at `place`.
pub(super) fn resumable_bytes(place: &Path, wanted: &RemoteFile) -> u64 {
    resumable(place, wanted).map_or(0, |(length, _note)| length)
}

/// Whether the whole file at `place` has the content of `wanted`. Reads it all.
pub(super) async fn is_whole(place: PathBuf, wanted: &RemoteFile) -> Result<bool, FetchError> {
    let wanted = wanted.clone();
    blocking(move || {
        let mut hasher = Hasher::new(&wanted);
        let read = File::open(&place).and_then(|mut file| hasher.update_from(&mut file));
        read.map_err(cannot("read", &place))?;
        Ok(hasher.identity() == wanted.identity)
    })
    .await
}

fn resumable(place: &Path, wanted: &RemoteFile) -> Option<(u64, Note)> {
    let note: Note = serde_json::from_slice(&fs::read(note_path(place)).ok()?).ok()?;
    let length = size_of(&partial_path(place))?;
    (note.identity == wanted.identity && length <= wanted.size).then_some((length, note))
}

fn partial_path(place: &Path) -> PathBuf {
    with_suffix(place, ".partial")
}

fn note_path(place: &Path) -> PathBuf {
    with_suffix(place, ".partial.note")
}

fn with_suffix(place: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(place);
    name.push(suffix);
    name.into()
}

impl Hasher {
    fn new(wanted: &RemoteFile) -> Self {
        match wanted.identity {
            Identity::Sha256(_) => Self::Sha256(Sha256::new()),
            Identity::GitBlob(_) => Self::GitBlob(Sha1::new_with_prefix(format!("blob {}\0", wanted.size))),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::GitBlob(hasher) => hasher.update(bytes),
        }
    }

    fn update_from(&mut self, file: &mut File) -> io::Result<()> {
        let mut buffer = vec![0; WRITE_BUFFER_BYTES];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(()),
                n_bytes => self.update(&buffer[..n_bytes]),
            }
        }
    }

    fn identity(self) -> Identity {
        match self {
            Self::Sha256(hasher) => Identity::Sha256(hex::encode(hasher.finalize())),
            Self::GitBlob(hasher) => Identity::GitBlob(hex::encode(hasher.finalize())),
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
