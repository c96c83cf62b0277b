//! The id of a request, which log lines and answers carry.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// Longest id that is accepted from a client, in bytes.
pub(super) const REQUEST_ID_BYTES_MAX: usize = 128;

/// The header that carries it, in requests and in answers.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request, for routes that repeat it in their answers.
#[derive(Clone, Debug)]
pub(super) struct RequestId(pub(super) HeaderValue);

/// The name that a client gives its request in the header `X-Request-Id`.
#[derive(Clone, Debug)]
pub(super) struct RequestName(Option<String>);

impl RequestName {
    /// A prefix, and the name of the header, else of the body, else a new one.
    pub(super) fn id(&self, prefix: &str, in_body: Option<&str>) -> String {
        match self.0.as_deref().or(in_body) {
            Some(name) => format!("{prefix}{name}"),
            None => format!("{prefix}{}", uuid::Uuid::new_v4().simple()),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for RequestName {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let given = sane_request_id(&parts.headers);
        Ok(Self(given.and_then(|id| Some(id.to_str().ok()?.to_owned()))))
    }
}

/// The client's own id, if it is short and printable.
fn sane_request_id(headers: &HeaderMap) -> Option<&HeaderValue> {
    let is_sane = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        (1..=REQUEST_ID_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    };
    headers.get(REQUEST_ID).filter(is_sane)
}

/// The client's id, else a new one.
pub(super) fn request_id(headers: &HeaderMap) -> HeaderValue {
    sane_request_id(headers).cloned().unwrap_or_else(|| {
        HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).expect("an id is printable")
    })
}
