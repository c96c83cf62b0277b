//! `GET /v1/models`, `GET /v1/models/{name}`: the names under which the model is served.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::generation::unix_time_s;
use crate::error::{ApiError, shortened};
use crate::server::{App, Serving};

/// Every name.
pub(super) async fn list(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let serving = app.serving.get().ok_or(ApiError::Loading)?;
    let models: Vec<Value> = app
        .config
        .served_names
        .iter()
        .map(|name| model(&app, serving, name))
        .collect();
    Ok(Json(json!({"object": "list", "data": models})))
}

/// One of them.
pub(super) async fn one(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let serving = app.serving.get().ok_or(ApiError::Loading)?;
    if app.config.served_names.contains(&name) {
        return Ok(Json(model(&app, serving, &name)));
    }
    Err(ApiError::UnknownModel {
        model: shortened(&name),
        served: app.config.served_names.clone(),
    })
}

fn model(app: &App, serving: &Serving, name: &str) -> Value {
    json!({
        "id": name,
        "object": "model",
        "created": unix_time_s(),
        "owned_by": "slipway",
        "root": app.config.served_names[0],
        "parent": null,
        "max_model_len": serving.max_model_len,
    })
}
