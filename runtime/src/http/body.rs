//! A request's body, read within bounds of size, memory and time.

mod memory;
mod weight;

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRef, FromRequest, Request};
use axum::http::{HeaderMap, header};
use futures::StreamExt;
use tokio::time::{Instant, timeout_at};

use crate::api::error::ApiError;
use crate::client::Client;
use crate::telemetry::request_log::RequestLog;
use memory::Arrival;
pub(super) use memory::{BodyMemory, CountedBytes};
use weight::Weight;

/// How fast a body must arrive: 8 MiB at 140 KB/s.
const PACE: Pace = Pace {
    grace: Duration::from_secs(10),
    bytes_per_second_min: 16 << 10,
    timeout: Duration::from_secs(60),
};

/// Largest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 8 << 20;
/// A body that is refused is read on to this size and thrown away. A client that sends everything before it reads
/// would otherwise see a broken connection instead of the answer.
const DISCARDED_BYTES_MAX: usize = 8 * BODY_BYTES_MAX;

/// The bytes of a body whose media type is JSON, and the client that sent it.
#[derive(Debug)]
pub(super) struct JsonBytes(pub(super) CountedBytes, pub(super) Client);

impl<S: Sync> FromRequest<S> for JsonBytes
where
    BodyMemory: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        check_media_type(request.headers())?;
        check_encoding(request.headers())?;
        check_declared_size(&request)?;
        let log = request.extensions().get::<RequestLog>().copied();
        let client = request.extensions().get::<Client>().copied().unwrap_or_default();
        let memory = BodyMemory::from_ref(state);
        let bytes = read(request.into_body(), &memory, PACE).await?;
        log.inspect(|log| log.write(&bytes));
        Ok(Self(bytes, client))
    }
}

/// Bytes that the values of a JSON text take once it is parsed.
pub(super) fn weight(json: &[u8]) -> usize {
    let mut weight = Weight::default();
    weight.push(json);
    weight.n_bytes()
}

/// A body of no declared type is taken for JSON, but not from a web page: a page of any origin can send such a body, as
/// it can send a form, without asking first.
fn check_media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        let is_from_page = headers.contains_key(header::ORIGIN);
        return if is_from_page {
            Err(ApiError::MediaType)
        } else {
            Ok(())
        };
    };
    let essence = value
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    let is_json =
        essence.eq_ignore_ascii_case("application/json") || essence.to_ascii_lowercase().ends_with("+json");
    if is_json { Ok(()) } else { Err(ApiError::MediaType) }
}

fn check_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    let is_plain = encodings.all(|value| value.as_bytes().eq_ignore_ascii_case(b"identity"));
    if is_plain {
        Ok(())
    } else {
        Err(ApiError::ContentEncoding)
    }
}

/// A body whose announced length is too large is not read at all if that helps nobody: it is longer than what is
/// discarded, or the client waits for the permission to send it.
fn check_declared_size(request: &Request) -> Result<(), ApiError> {
    let bytes_max = if request.headers().contains_key(header::EXPECT) {
        BODY_BYTES_MAX
    } else {
        DISCARDED_BYTES_MAX
    };
    if request.body().size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    Ok(())
}

fn too_large() -> ApiError {
    ApiError::BodyTooLarge {
        bytes_max: BODY_BYTES_MAX,
    }
}

/// How fast a body must arrive.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Time that a body has whatever its length.
    grace: Duration,
    /// Least rate, from the beginning to each of its pieces. The grace comes on top.
    bytes_per_second_min: usize,
    /// Longest time for a body.
    timeout: Duration,
}

impl Pace {
    /// The time in which the next piece after `n_bytes` must arrive, from the beginning on.
    fn time_for(self, n_bytes: usize) -> Duration {
        let at_least_rate = Duration::from_secs((n_bytes / self.bytes_per_second_min) as u64);
        (self.grace + at_least_rate).min(self.timeout)
    }
}

async fn read(body: Body, memory: &BodyMemory, pace: Pace) -> Result<CountedBytes, ApiError> {
    let mut chunks = body.into_data_stream();
    let started_at = Instant::now();
    let mut arrival = Ok(Arrival::new(memory).await);
    let mut n_bytes = 0;
    while n_bytes <= DISCARDED_BYTES_MAX {
        let time = pace.time_for(n_bytes);
        let chunk = tokio::select! {
            chunk = timeout_at(started_at + time, chunks.next()) => chunk,
            () = gives_way(&arrival) => return Err(memory::busy()),
        };
        let too_slow = |_| ApiError::BodyTimeout {
            timeout_s: time.as_secs(),
        };
        let Some(chunk) = chunk.map_err(too_slow)? else {
            break;
        };
        let chunk = chunk.map_err(|_| ApiError::BodyCut)?;
        n_bytes += chunk.len();
        arrival = arrival.and_then(|mut arrival| {
            if n_bytes > BODY_BYTES_MAX {
                return Err(too_large());
            }
            arrival.push(&chunk)?;
            Ok(arrival)
        });
    }
    arrival?.complete().await
}

async fn gives_way(arrival: &Result<Arrival<'_>, ApiError>) {
    match arrival {
        Ok(arrival) => arrival.gives_way().await,
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    /// Whether a body of pieces of this length arrives to its end, one piece per interval.
    fn arrives(n_bytes_all: usize, n_bytes: usize, interval: Duration) -> bool {
        let mut pieces = (1..=n_bytes_all.div_ceil(n_bytes) as u32).zip((0..).step_by(n_bytes));
        pieces.all(|(n_pieces, n_before)| interval * n_pieces <= PACE.time_for(n_before))
    }

    #[test]
    fn a_body_that_drips_is_too_slow_and_a_slow_line_is_not() {
        let seconds = Duration::from_secs;
        assert!(!arrives(100, 1, seconds(1)));
        assert!(!arrives(100, 1, seconds(59)));
        assert!(!arrives(8 << 20, 8 << 10, seconds(1)));
        assert!(arrives(1 << 20, 20 << 10, seconds(1)));
        assert!(arrives(8 << 20, 14 << 10, Duration::from_millis(100)));
        assert!(arrives(100, 100, seconds(9)));
    }

    #[tokio::test]
    async fn a_body_that_never_ends_is_given_up() {
        let pace = Pace {
            grace: Duration::from_millis(50),
            ..PACE
        };
        let begun = stream::iter([Ok::<_, std::io::Error>(vec![b' '; 9])]).chain(stream::pending());
        let refused = read(Body::from_stream(begun), &BodyMemory::default(), pace).await;
        assert!(matches!(refused, Err(ApiError::BodyTimeout { .. })));
    }
}
