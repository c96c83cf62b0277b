//! A partly downloaded file, `<name>.partial`, with a note that identifies its content.
//!
//! Owns appending, resuming after an interruption, the verification of the content, and the final name. Must not know
//! the network.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::destination::Destination;
use super::error::{FetchError, cannot};
use super::folder::{NOTE_SUFFIX, PARTIAL_SUFFIX, Place};
use super::progress::Meter;
use super::remote_file::{Identity, RemoteFile};

/// Bytes that are hashed and written at once. The download of one file takes this much memory, and one chunk of the
/// HTTP client.
pub(super) const WRITE_BUFFER_BYTES: usize = 256 << 10;

/// Largest note, bytes.
const NOTE_BYTES_MAX: u64 = 64 << 10;

/// A partial file, open for appending.
#[derive(Debug)]
pub(super) struct Partial {
    wanted: RemoteFile,
    place: Place,
    length: u64,
    note: Note,
    disk: Arc<Mutex<Disk>>,
    meter: Meter,
}

/// What identifies the content of a partial file. A part of other content is never continued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    #[serde(flatten)]
    identity: Identity,
    /// Strong ETag with which the server sent the bytes.
    etag: Option<String>,
}

/// The open file and the hash of its bytes. The destination keeps its lock until the last write ends, even if the
/// download is cancelled.
#[derive(Debug)]
struct Disk {
    file: File,
    hasher: Hasher,
    _destination: Destination,
}

/// An incremental hash of the kind of an [`Identity`].
#[derive(Clone, Debug)]
enum Hasher {
    Sha256(Sha256),
    GitBlob(Sha1),
}

impl Partial {
    /// Opens the partial file of an earlier attempt, or a new one.
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
            .expect("the plan contains only files that have a place");
        let at = place.with_suffix(PARTIAL_SUFFIX);
        place
            .create_parents()
            .map_err(cannot("create the folder of", &place.shown()))?;
        let (length, etag) = match resumable(&place, &wanted) {
            Some((length, note)) => (length, note.etag),
            None => (0, None),
        };
        let open = || {
            let mut file = at.open(OFlags::RDWR | OFlags::CREATE)?;
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
        let disk = Arc::new(Mutex::new(open().map_err(cannot("open", &at.shown()))?));
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

    /// Bytes on the disk.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// ETag of these bytes.
    pub(super) fn etag(&self) -> Option<&str> {
        self.note.etag.as_deref()
    }

    /// Stores the ETag of the following bytes, so that a later process can request the rest of the same file.
    pub(super) fn set_etag(&mut self, etag: Option<String>) -> Result<(), FetchError> {
        if self.note.etag == etag {
            return Ok(());
        }
        self.note.etag = etag;
        self.write_note()
    }

    /// Appends `bytes` and returns the empty buffer.
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

    /// Empties the file.
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

    /// Verifies length and hash. If they are wrong, empties the file.
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

    /// Ends the download of a file after [`Partial::check`].
    pub(super) fn into_verified(self) -> Verified {
        Verified { place: self.place }
    }

    /// Deletes the partial file and its note.
    pub(super) fn discard(self) -> Result<(), FetchError> {
        self.place.with_suffix(NOTE_SUFFIX).remove()?;
        self.place.with_suffix(PARTIAL_SUFFIX).remove()
    }

    fn write_note(&self) -> Result<(), FetchError> {
        let note = self.place.with_suffix(NOTE_SUFFIX);
        let text = serde_json::to_vec(&self.note).expect("a note is strings");
        let write = || {
            note.open(OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC)?
                .write_all(&text)
        };
        write().map_err(cannot("write", &note.shown()))
    }

    async fn with_disk<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&mut Disk) -> io::Result<T> + Send + 'static,
    ) -> Result<T, FetchError> {
        let disk = Arc::clone(&self.disk);
        let done = blocking(move || work(&mut disk.lock().unwrap_or_else(PoisonError::into_inner))).await;
        done.map_err(cannot(operation, &self.place.with_suffix(PARTIAL_SUFFIX).shown()))
    }
}

/// A file with verified content, which still has its partial name.
#[derive(Debug)]
pub(super) struct Verified {
    place: Place,
}

impl Verified {
    /// Its path in the repository.
    pub(super) fn path(&self) -> &str {
        self.place.path()
    }

    /// Gives the file its final name, and replaces an older file.
    pub(super) fn put_in_place(self) -> Result<(), FetchError> {
        let at = self.place.with_suffix(PARTIAL_SUFFIX);
        at.rename(&self.place).map_err(cannot("rename", &at.shown()))?;
        self.place.with_suffix(NOTE_SUFFIX).remove()
    }
}

/// Bytes of `wanted` in the partial file of an earlier attempt.
pub(super) fn resumable_bytes(place: &Place, wanted: &RemoteFile) -> u64 {
    resumable(place, wanted).map_or(0, |(length, _note)| length)
}

/// Whether the file at `place` has the content of `wanted`. Reads the complete file.
pub(super) async fn has_content_of(place: Place, wanted: &RemoteFile) -> Result<bool, FetchError> {
    let wanted = wanted.clone();
    blocking(move || {
        let mut hasher = Hasher::new(&wanted);
        let read = place.open(OFlags::RDONLY);
        let read = read.and_then(|mut file| hasher.update_from(&mut file));
        read.map_err(cannot("read", &place.shown()))?;
        Ok(hasher.identity() == wanted.identity)
    })
    .await
}

fn resumable(place: &Place, wanted: &RemoteFile) -> Option<(u64, Note)> {
    let note = place.with_suffix(NOTE_SUFFIX).read(NOTE_BYTES_MAX).ok()?;
    let note: Note = serde_json::from_slice(&note).ok()?;
    let length = place.with_suffix(PARTIAL_SUFFIX).size()?;
    (note.identity == wanted.identity && length <= wanted.size).then_some((length, note))
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
