//! Errors as HTTP answers.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::api::error::{ApiError, Facts};

/// The label of an error, left on its response for the middleware that counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct ErrorLabel(pub(super) &'static str);
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Facts { status, label, .. } = self.facts();
        let status = StatusCode::from_u16(status).expect("every status of the table exists");
        let mut response = (status, Json(self.body())).into_response();
        if let Some(seconds) = self.retry_after_s() {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response.extensions_mut().insert(ErrorLabel(label));
        response
    }
}
