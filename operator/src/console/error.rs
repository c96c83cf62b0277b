//! What the console itself answers when it cannot do what a page requests. The shape is Kubernetes' `Status`, so that
//! pages read one shape.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

/// Why a request has no answer of the API server.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Nobody says who is asking.
    #[error("no token: sign in with a token of your own, as from 'kubectl create token NAME'")]
    NoToken,
    /// Another page asks.
    #[error("the request does not come from a page of this console")]
    OtherPage,
    /// The console passes only on what its pages need.
    #[error("the console does not pass {method} {path} on")]
    NotPassedOn { method: String, path: String },
    /// Too many at once.
    #[error("too many requests are in progress; try again")]
    Busy,
    /// The body cannot be read.
    #[error("the body of the request: {reason}")]
    Body { reason: String },
    /// The text is no YAML.
    #[error("{reason}")]
    Yaml { reason: String },
    /// The API server does not answer.
    #[error("the API server does not answer: {0}")]
    ApiServer(#[from] kube::Error),
}

impl Error {
    fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Error::NoToken => (StatusCode::UNAUTHORIZED, "Unauthorized"),
            Error::OtherPage | Error::NotPassedOn { .. } => (StatusCode::FORBIDDEN, "Forbidden"),
            Error::Busy => (StatusCode::TOO_MANY_REQUESTS, "TooManyRequests"),
            Error::Body { .. } | Error::Yaml { .. } => (StatusCode::BAD_REQUEST, "BadRequest"),
            Error::ApiServer(_) => (StatusCode::BAD_GATEWAY, "ServiceUnavailable"),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (code, reason) = self.status();
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(), "reason": reason,
            "message": self.to_string(),
        });
        (code, Json(status)).into_response()
    }
}
