//! A request's body, read within bounds of size and time.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use futures::StreamExt;

use crate::api::error::ApiError;
use crate::preparation::Client;
use crate::telemetry::request_log::RequestLog;

/// Longest time in which a body must arrive: 8 MiB at 140 KB/s.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// A body that is too large is read on to this size and thrown away. A client that sends everything before it reads
/// Largest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 8 << 20;
/// would otherwise see a broken connection instead of the answer.
const DISCARDED_BYTES_MAX: usize = 8 * BODY_BYTES_MAX;

/// The bytes of a body whose media type is JSON, and the client that sent it.
#[derive(Debug)]
pub(super) struct JsonBytes(pub(super) Vec<u8>, pub(super) Client);

impl<S: Sync> FromRequest<S> for JsonBytes {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        check_media_type(request.headers())?;
        check_declared_size(&request)?;
        let log = request.extensions().get::<RequestLog>().copied();
        let client = request.extensions().get::<Client>().copied().unwrap_or_default();
        match tokio::time::timeout(BODY_TIMEOUT, read(request.into_body())).await {
            Ok(read) => {
                let bytes = read?;
                log.inspect(|log| log.write(&bytes));
                Ok(Self(bytes, client))
            }
            Err(_) => Err(ApiError::BodyTimeout {
                timeout_s: BODY_TIMEOUT.as_secs(),
            }),
        }
    }
}

/// A body of no declared type is taken for JSON. A form is not: any page a browser shows can send one.
fn check_media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
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

async fn read(body: Body) -> Result<Vec<u8>, ApiError> {
    let mut chunks = body.into_data_stream();
    let (mut bytes, mut n_bytes) = (Vec::new(), 0_usize);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| ApiError::BodyCut)?;
        n_bytes += chunk.len();
        if n_bytes <= BODY_BYTES_MAX {
            bytes.extend_from_slice(&chunk);
        } else {
            bytes = Vec::new();
        }
        if n_bytes > DISCARDED_BYTES_MAX {
            break;
        }
    }
    if n_bytes > BODY_BYTES_MAX {
        return Err(too_large());
    }
    Ok(bytes)
}
