//! One file from the Hub to the disk: attempts, until its content is there and checked.
//!
//! Owns the loop that joins the network to the disk. Knows both, and neither's protocol.

use std::io::ErrorKind;

use reqwest::{Response, StatusCode};

use super::FetchOptions;
use super::destination::Destination;
use super::error::FetchError;
use super::hub::{HubRepo, RemoteFile, header_text};
use super::manifest::Manifest;
use super::partial::{self, Partial, WRITE_BUFFER_BYTES, Whole};
use super::progress::Meter;
use super::retry::Retries;

/// How often a file may arrive whole and wrong: once may be bad luck on the way.
const N_MISMATCHES_MAX: u32 = 2;

/// What the downloads of one repository share.
pub(super) struct Downloads {
    pub(super) options: FetchOptions,
    pub(super) hub: HubRepo,
    pub(super) destination: Destination,
    pub(super) commit: String,
    /// The download that was here before, whose unchanged files need no check.
    pub(super) before: Option<Manifest>,
    pub(super) meter: Meter,
}

impl Downloads {
    /// Bytes of `file` that need not be downloaded, as far as that can be told without reading them.
    pub(super) fn bytes_present(&self, file: &RemoteFile) -> u64 {
        let place = self.destination.place(&file.path);
        match place {
            _ if self.destination.has(file) => file.size,
            Some(place) => partial::resumable_bytes(&place, file),
            None => 0,
        }
    }

    /// Makes one file whole, unless it lies in its place already.
    pub(super) async fn fetch(&self, file: &RemoteFile) -> Result<Option<Whole>, FetchError> {
        self.try_fetch(file).await.map_err(|error| self.explained(error))
    }

    async fn try_fetch(&self, file: &RemoteFile) -> Result<Option<Whole>, FetchError> {
        if self.is_there(file).await? {
            return Ok(None);
        }
        self.meter.enter(&file.path);
        let mut partial = Partial::open(&self.destination, file, self.meter.clone()).await?;
        let mut retries = Retries::new(self.options.retry, self.meter.clone());
        let (mut length_max, mut n_mismatches) = (partial.length(), 0);
        loop {
            match self.attempt(file, &mut partial).await {
                Ok(()) => return Ok(Some(partial.into_whole())),
                Err(error @ FetchError::ChecksumMismatch { .. }) => {
                    n_mismatches += 1;
                    if n_mismatches == N_MISMATCHES_MAX {
                        partial.discard()?;
                        return Err(error);
                    }
                    tracing::warn!(error = error.to_string(), "the file is downloaded once more");
                }
                Err(error) => {
                    // Only new ground counts, or a server that always starts over would be asked for ever.
                    if partial.length() > length_max {
                        length_max = partial.length();
                        retries.progressed();
                    }
                    retries.after(error).await?;
                }
            }
        }
    }

    /// Whether the file is whole already: known from the manifest of before, or read and checked now.
    async fn is_there(&self, file: &RemoteFile) -> Result<bool, FetchError> {
        let Some(place) = self
            .destination
            .place(&file.path)
            .filter(|_| self.destination.has(file))
        else {
            return Ok(false);
        };
        if self
            .before
            .as_ref()
            .is_some_and(|manifest| manifest.vouches_for(file))
        {
            return Ok(true);
        }
        let bytes_resumable = partial::resumable_bytes(&place, file);
        let whole = partial::is_whole(place, file).await?;
        if !whole {
            self.meter.retract(file.size - bytes_resumable);
        }
        Ok(whole)
    }

    /// One request, its bytes, and the check at their end.
    async fn attempt(&self, file: &RemoteFile, partial: &mut Partial) -> Result<(), FetchError> {
        if partial.length() < file.size {
            let (offset, etag) = (partial.length(), partial.etag());
            let response = self.hub.open(&self.commit, &file.path, offset, etag).await?;
            align(file, &response, partial).await?;
            self.receive(file, response, partial).await?;
        }
        partial.check().await
    }

    /// Moves an answer's bytes to the disk. What has arrived is written also when the rest does not come.
    async fn receive(
        &self,
        file: &RemoteFile,
        mut response: Response,
        partial: &mut Partial,
    ) -> Result<(), FetchError> {
        let mut buffer = Vec::with_capacity(WRITE_BUFFER_BYTES);
        let ended = loop {
            let chunk = match self.hub.chunk(&mut response, &file.path).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            if partial.length() + (buffer.len() + chunk.len()) as u64 > file.size {
                partial.restart().await?;
                return Err(wrong(file, "is longer than the listing says"));
            }
            let mut rest = &chunk[..];
            while !rest.is_empty() {
                let (fits, later) = rest.split_at(rest.len().min(WRITE_BUFFER_BYTES - buffer.len()));
                buffer.extend_from_slice(fits);
                rest = later;
                if buffer.len() == WRITE_BUFFER_BYTES {
                    buffer = partial.append(buffer).await?;
                }
            }
        };
        partial.append(buffer).await?;
        if ended.is_ok() && partial.length() < file.size {
            return Err(wrong(file, "ended early"));
        }
        ended
    }

    /// A full disk is named as such, with the numbers.
    fn explained(&self, error: FetchError) -> FetchError {
        let root = self.destination.root();
        match error {
            FetchError::Io { source, .. }
                if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) =>
            {
                FetchError::DiskFull {
                    path: root.to_owned(),
                    needed_bytes: self.meter.bytes_left(),
                    free_bytes: (self.options.free_bytes)(root).unwrap_or(0),
                }
            }
            other => other,
        }
    }
}

/// Makes the partial file end where the answer begins, or rejects the answer.
async fn align(file: &RemoteFile, response: &Response, partial: &mut Partial) -> Result<(), FetchError> {
    let header = |name| header_text(response.headers(), name);
    let starts_right = match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            let expected = format!("bytes {}-{}/{}", partial.length(), file.size - 1, file.size);
            header("content-range").is_some_and(|range| range == expected)
        }
        // The server knows no ranges, or its content has another validator by now.
        StatusCode::OK => {
            partial.restart().await?;
            true
        }
        _not_satisfiable => false,
    };
    if !starts_right {
        partial.restart().await?;
        return Err(wrong(file, "is not the range asked for"));
    }
    // A weak validator does not promise the same bytes (RFC 9110 §13.1.5).
    partial.set_etag(header("etag").filter(|etag| etag.starts_with('"')))
}

fn wrong(file: &RemoteFile, problem: &'static str) -> FetchError {
    FetchError::WrongAnswer {
        what: file.path.clone(),
        problem,
    }
}
