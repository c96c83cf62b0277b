//! `POST /invocations`: SageMaker's only route; the fields of the body select another route.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use serde::de::IgnoredAny;

use super::{chat_completions, completions, embeddings, rerank, score};
use crate::api::error::ApiError;
use crate::api::openapi::{Access, RouteDoc};
use crate::http::app::App;
use crate::http::body::JsonBytes;
use crate::http::request_id::RequestName;
use crate::http::route::{Dialect, Route};
use crate::model::Task;

/// The route.
pub(super) const CREATE: Route = Route {
    doc: RouteDoc {
        path: "/invocations",
        methods: &["post"],
        summary: "SageMaker's route: the fields of the body select another route",
        access: Access::Key,
        operation: None,
    },
    handler: || post(create),
    dialect: Dialect::Openai,
};

/// Answers as the route whose body has these fields.
pub(super) async fn create(
    app: State<Arc<App>>,
    name: RequestName,
    body: JsonBytes,
) -> Result<Response, ApiError> {
    let (fields, body) = fields(body).await?;
    let has = |field: &str| fields.contains_key(field);
    let serving = app.ready()?;
    let embeds = matches!(serving.info.task, Task::Embed { .. });
    if has("input") || (has("messages") && embeds) {
        embeddings::create(app, name, body).await
    } else if has("messages") {
        chat_completions::create(app, name, body).await
    } else if has("query") {
        rerank::create(app, name, body).await
    } else if has("text_1") || has("queries") || has("data_1") {
        score::create(app, name, body).await
    } else {
        completions::create(app, name, body).await
    }
}

/// The names of a body's fields, none if it is no object; and the body.
async fn fields(body: JsonBytes) -> Result<(BTreeMap<String, IgnoredAny>, JsonBytes), ApiError> {
    let read = tokio::task::spawn_blocking(move || {
        let fields = serde_json::from_slice(&body.0).unwrap_or_default();
        (fields, body)
    });
    read.await.map_err(|_| ApiError::Internal)
}
