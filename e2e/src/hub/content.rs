//! One file's bytes on the wire: ranges, validators, and the faults that spoil them.
//!
//! Owns RFC 9110's `Range` and `If-Range` as far as the Hub's content servers honour them. Must not know
//! repositories.

use std::future;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, SeekFrom};

use super::FaultKind;

const CHUNK_BYTES: u64 = 64 << 10;
/// A slow answer is cut into this many pieces a second.
const SLOW_CHUNKS_PER_SECOND: u64 = 10;

/// A file about to be served.
pub(super) struct Content {
    pub(super) file: PathBuf,
    pub(super) size: u64,
    /// Strong validator, quotes included.
    pub(super) etag: String,
    pub(super) fault: Option<FaultKind>,
}

impl Content {
    /// 200 with everything, 206 with the range asked for, or 416.
    pub(super) async fn response(self, headers: &HeaderMap) -> io::Result<Response> {
        let ranged = self.fault != Some(FaultKind::NoRange);
        let accept = if ranged { "bytes" } else { "none" };
        let common = [
            (header::ETAG, self.etag.clone()),
            (header::ACCEPT_RANGES, accept.to_owned()),
        ];
        let size = self.size;
        let asked = asked_range(headers, &self.etag, size).filter(|_| ranged);
        if asked.as_ref().is_some_and(Range::is_empty) {
            let content_range = [(header::CONTENT_RANGE, format!("bytes */{size}"))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, common, content_range).into_response());
        }
        let range = asked.clone().unwrap_or(0..size);
        let length = [(header::CONTENT_LENGTH, (range.end - range.start).to_string())];
        let body = Sending::open(self.file, range.clone(), self.fault)
            .await?
            .into_body();
        Ok(match asked {
            None => (StatusCode::OK, common, length, body).into_response(),
            Some(_) => {
                let content_range = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                let content_range = [(header::CONTENT_RANGE, content_range)];
                (StatusCode::PARTIAL_CONTENT, common, length, content_range, body).into_response()
            }
        })
    }
}

/// The half-open range that the request may have, `None` for the whole file, empty where it cannot be satisfied.
/// One `bytes=first-` or `bytes=first-last` range is understood; anything else may be ignored (RFC 9110 §14.2).
fn asked_range(headers: &HeaderMap, etag: &str, size: u64) -> Option<Range<u64>> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::IF_RANGE).is_some_and(|validator| validator != etag) {
        return None;
    }
    let (first, last) = text(header::RANGE)?.strip_prefix("bytes=")?.split_once('-')?;
    let first: u64 = first.parse().ok()?;
    let end = if last.is_empty() {
        size
    } else {
        last.parse::<u64>().ok()?.saturating_add(1).min(size)
    };
    Some(first.min(end)..end)
}

/// An answer's body under way.
struct Sending {
    file: File,
    left: u64,
    sent: u64,
    fault: Option<FaultKind>,
}

impl Sending {
    async fn open(path: PathBuf, range: Range<u64>, fault: Option<FaultKind>) -> io::Result<Self> {
        let mut file = File::open(path).await?;
        file.seek(SeekFrom::Start(range.start)).await?;
        Ok(Self {
            file,
            left: range.end - range.start,
            sent: 0,
            fault,
        })
    }

    fn into_body(self) -> Body {
        Body::from_stream(stream::try_unfold(self, |mut sending| async {
            let chunk = sending.next().await?;
            Ok::<_, io::Error>(chunk.map(|chunk| (chunk, sending)))
        }))
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let n_bytes_max = match &self.fault {
            Some(FaultKind::Cut { after_bytes }) if self.sent >= *after_bytes => {
                // Being pending once lets the server flush what was sent before the connection breaks.
                tokio::task::yield_now().await;
                return Err(io::Error::other("cut on purpose"));
            }
            Some(FaultKind::Stall { after_bytes }) if self.sent >= *after_bytes => future::pending().await,
            Some(FaultKind::Cut { after_bytes } | FaultKind::Stall { after_bytes }) => {
                after_bytes - self.sent
            }
            Some(FaultKind::Slow { bytes_per_second }) => {
                tokio::time::sleep(Duration::from_secs(1) / SLOW_CHUNKS_PER_SECOND as u32).await;
                (bytes_per_second / SLOW_CHUNKS_PER_SECOND).max(1)
            }
            Some(FaultKind::Corrupt | FaultKind::NoRange | FaultKind::Status { .. }) | None => CHUNK_BYTES,
        };
        let n_bytes = self.left.min(n_bytes_max).min(CHUNK_BYTES);
        if n_bytes == 0 {
            return Ok(None);
        }
        let mut chunk = vec![0; n_bytes as usize];
        self.file.read_exact(&mut chunk).await?;
        if self.sent == 0 && self.fault == Some(FaultKind::Corrupt) {
            chunk[0] ^= 0xFF;
        }
        self.left -= n_bytes;
        self.sent += n_bytes;
        Ok(Some(chunk.into()))
    }
}
