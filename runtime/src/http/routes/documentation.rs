//! `GET /openapi.json`, and `GET /docs`: the same as a page to read and to try.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{Html, IntoResponse};
use axum::routing::get;

use crate::api::openapi::{Access, RouteDoc};
use crate::http::route::{Dialect, Route};

/// The OpenAPI document.
pub(super) const OPENAPI: Route = Route {
    doc: RouteDoc {
        path: "/openapi.json",
        methods: &["get"],
        summary: "The OpenAPI document",
        access: Access::Open,
        operation: None,
    },
    handler: || get(openapi),
    dialect: Dialect::Openai,
};

/// The page.
pub(super) const PAGE: Route = Route {
    doc: RouteDoc {
        path: "/docs",
        methods: &["get"],
        summary: "The document as a page to try",
        access: Access::Open,
        operation: None,
    },
    handler: || get(page),
    dialect: Dialect::Openai,
};

/// Written once: it depends on nothing.
static DOCUMENT: LazyLock<String> =
    LazyLock::new(|| crate::api::openapi::document(&super::docs()).to_string());

/// The OpenAPI document.
pub(super) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
}

/// The page.
pub(super) async fn page() -> Html<&'static str> {
    Html(include_str!("documentation.html"))
}
