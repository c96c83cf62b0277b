//! `POST /invocations`: SageMaker's only route; the fields of the body select another route.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use serde_json::{Map, Value};

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
    let fields: Map<String, Value> = serde_json::from_slice(&body.0).unwrap_or_default();
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
