//! Refusals as the Hub sends them.

use std::io;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

const X_ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");
const X_ERROR_MESSAGE: HeaderName = HeaderName::from_static("x-error-message");

/// A refusal as the Hub sends it: a status, `X-Error-Code` and a JSON body.
#[derive(Debug)]
pub(super) struct HubError {
    status: StatusCode,
    code: Option<&'static str>,
    message: String,
}

impl HubError {
    /// The Hub does not reveal to a client without rights whether a repository is missing or private.
    pub(super) fn repo_not_found(token: Option<&str>) -> Self {
        let (status, message) = match token {
            None => (StatusCode::UNAUTHORIZED, "Invalid username or password."),
            Some(_) => (StatusCode::NOT_FOUND, "Repository not found"),
        };
        Self {
            status,
            code: Some("RepoNotFound"),
            message: message.to_owned(),
        }
    }

    pub(super) fn gated(id: &str, token: Option<&str>) -> Self {
        let (status, why) = match token {
            None => (StatusCode::UNAUTHORIZED, "You must be authenticated to access it"),
            Some(_) => (StatusCode::FORBIDDEN, "You are not in the authorized list"),
        };
        let message = format!("Access to model {id} is restricted. {why}.");
        Self {
            status,
            code: Some("GatedRepo"),
            message,
        }
    }

    pub(super) fn revision_not_found(revision: &str) -> Self {
        let message = format!("Invalid rev id: {revision}");
        Self {
            status: StatusCode::NOT_FOUND,
            code: Some("RevisionNotFound"),
            message,
        }
    }

    pub(super) fn entry_not_found() -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            code: Some("EntryNotFound"),
            message: "Entry not found".to_owned(),
        }
    }
}

impl From<io::Error> for HubError {
    fn from(error: io::Error) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code: None,
            message: error.to_string(),
        }
    }
}

impl IntoResponse for HubError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(serde_json::json!({ "error": self.message }))).into_response();
        if let Some(code) = self.code {
            response
                .headers_mut()
                .insert(X_ERROR_CODE, HeaderValue::from_static(code));
        }
        response
            .headers_mut()
            .insert(X_ERROR_MESSAGE, header_value(&self.message));
        response
    }
}

pub(super) fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("unprintable"))
}
