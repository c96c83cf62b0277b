//! Downloads one file: repeats attempts until its content is complete and verified.
//!
//! Owns the loop that writes the bytes of the network to the disk.

use std::io::ErrorKind;

use reqwest::{Response, StatusCode};

use super::destination::Destination;
use super::error::FetchError;
use super::hub::{FileRequest, HubRepo, header_text};
use super::manifest::Manifest;
use super::options::{FetchOptions, Verify};
use super::partial::{self, Partial, Verified, WRITE_BUFFER_BYTES};
use super::progress::Meter;
use super::remote_file::RemoteFile;
use super::retry::Retries;

/// Complete downloads of a file with wrong content, at most. The first may be an error of the transfer.
const N_MISMATCHES_MAX: u32 = 2;

/// The state that the downloads of one repository share.
pub(super) struct Downloads {
    pub(super) options: FetchOptions,
    pub(super) hub: HubRepo,
    pub(super) destination: Destination,
    pub(super) commit: String,
    /// The manifest of the earlier download; its unchanged files need no verification.
    pub(super) before: Option<Manifest>,
    pub(super) meter: Meter,
}

impl Downloads {
    /// Bytes of `file` that are already on the disk, judged without reading them.
    pub(super) fn bytes_present(&self, file: &RemoteFile) -> u64 {
        let place = self.destination.place(&file.path);
        match place {
            _ if self.destination.has(file) => file.size,
            Some(place) => partial::resumable_bytes(&place, file),
            None => 0,
        }
    }

    /// Downloads and verifies a file; `None` if it is already in its place.
    pub(super) async fn fetch(&self, file: &RemoteFile) -> Result<Option<Verified>, FetchError> {
        self.try_fetch(file).await.map_err(|error| self.explained(error))
    }

    async fn try_fetch(&self, file: &RemoteFile) -> Result<Option<Verified>, FetchError> {
        if self.is_in_place(file).await? {
            return Ok(None);
        }
        self.meter.enter(&file.path);
        let mut partial = Partial::open(&self.destination, file, self.meter.clone()).await?;
        let mut retries = Retries::new(self.options.retry, self.meter.clone());
        let (mut length_max, mut n_mismatches) = (partial.length(), 0);
        loop {
            match self.attempt(file, &mut partial).await {
                Ok(()) => return Ok(Some(partial.into_verified())),
                Err(error @ FetchError::ChecksumMismatch { .. }) => {
                    n_mismatches += 1;
                    if n_mismatches == N_MISMATCHES_MAX {
                        partial.discard()?;
                        return Err(error);
                    }
                    tracing::warn!(error = error.to_string(), "downloading the file again");
                }
                Err(error) => {
                    // Only new bytes count as progress. Otherwise a server that always starts over is tried forever.
                    if partial.length() > length_max {
                        length_max = partial.length();
                        retries.progressed();
                    }
                    retries.after(error).await?;
                }
            }
        }
    }

    /// Whether the file is already in its place with the right content. The earlier manifest proves this if nobody else
    /// writes to the volume; else the file is read.
    async fn is_in_place(&self, file: &RemoteFile) -> Result<bool, FetchError> {
        let Some(place) = self
            .destination
            .place(&file.path)
            .filter(|_| self.destination.has(file))
        else {
            return Ok(false);
        };
        let before = self
            .before
            .as_ref()
            .filter(|_| self.options.verify == Verify::Sizes);
        if before.is_some_and(|manifest| manifest.contains(file)) {
            return Ok(true);
        }
        let bytes_resumable = partial::resumable_bytes(&place, file);
        let is_intact = partial::has_content_of(place, file).await?;
        if !is_intact {
            self.meter.retract(file.size - bytes_resumable);
        }
        Ok(is_intact)
    }

    /// Requests the missing bytes, writes them, and verifies the content.
    async fn attempt(&self, file: &RemoteFile, partial: &mut Partial) -> Result<(), FetchError> {
        if partial.length() < file.size {
            let request = FileRequest {
                commit: &self.commit,
                path: &file.path,
                offset: partial.length(),
                etag: partial.etag(),
            };
            let response = self.hub.open(request).await?;
            align(file, &response, partial).await?;
            self.receive(file, response, partial).await?;
        }
        partial.check().await
    }

    /// Writes the bytes of a response to the disk, including those that arrived before an error.
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
                return Err(wrong(file, "is longer than its size in the listing"));
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

    /// Turns the write error of a full disk into [`FetchError::DiskFull`].
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

/// Makes the partial file end where the response begins, or rejects the response.
async fn align(file: &RemoteFile, response: &Response, partial: &mut Partial) -> Result<(), FetchError> {
    let header = |name| header_text(response.headers(), name);
    let starts_right = match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            let expected = format!("bytes {}-{}/{}", partial.length(), file.size - 1, file.size);
            header("content-range").is_some_and(|range| range == expected)
        }
        // The server does not support ranges, or its file now has another ETag.
        StatusCode::OK => {
            partial.restart().await?;
            true
        }
        _not_satisfiable => false,
    };
    if !starts_right {
        partial.restart().await?;
        return Err(wrong(file, "is not the requested range"));
    }
    // A weak ETag does not guarantee the same bytes (RFC 9110 §13.1.5).
    partial.set_etag(header("etag").filter(|etag| etag.starts_with('"')))
}

fn wrong(file: &RemoteFile, problem: &'static str) -> FetchError {
    FetchError::WrongResponse {
        what: file.path.clone(),
        problem,
    }
}
