//! The id of a request, which log lines and answers carry.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::api::request::is_request_id;

/// The header that carries it, in requests and in answers.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request, for routes that repeat it in their answers.
#[derive(Clone, Debug)]
pub(super) struct RequestId(pub(super) HeaderValue);

/// The name that a client gives its request in the header `X-Request-Id`.
#[derive(Clone, Debug)]
pub(super) struct RequestName(Option<String>);

impl RequestName {
    /// A prefix with the name in the header, or else the name in the body, or else a new name.
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
        let given = given_request_id(&parts.headers);
        Ok(Self(given.and_then(|id| Some(id.to_str().ok()?.to_owned()))))
    }
}

/// The client's own id, if it is accepted.
fn given_request_id(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(REQUEST_ID).filter(|id| is_request_id(id.as_bytes()))
}

/// The client's id, else a new one.
pub(super) fn request_id(headers: &HeaderMap) -> HeaderValue {
    given_request_id(headers).cloned().unwrap_or_else(|| {
        HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).expect("an id is printable")
    })
}
