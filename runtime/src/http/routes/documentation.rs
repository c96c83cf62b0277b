//! `GET /openapi.json`, and `GET /docs`: the same as a page to read and to try.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{Html, IntoResponse};

/// Written once: it depends on nothing.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| crate::api::openapi::document().to_string());

/// The OpenAPI document.
pub(super) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
}

/// The page.
pub(super) async fn page() -> Html<&'static str> {
    Html(include_str!("documentation.html"))
}
