//! `GET /v1/models`, `GET /v1/models/{name}`: the names under which the model is served.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::routing::get;

use crate::api::error::{ApiError, shortened};
use crate::api::openapi::{Access, Operation, RouteDoc, schema};
use crate::api::response::models::{Model, Models};
use crate::clock::unix_time_s;
use crate::http::app::App;
use crate::http::extract::InPath;
use crate::http::route::{Dialect, Route};
use crate::serving::Serving;

/// The list.
pub(super) const LIST: Route = Route {
    doc: RouteDoc {
        path: "/v1/models",
        methods: &["get"],
        summary: "The served names",
        access: Access::Key,
        operation: Some(Operation::Reading(schema::<Models>)),
    },
    handler: || get(list),
    dialect: Dialect::Openai,
};

/// One of them.
pub(super) const ONE: Route = Route {
    doc: RouteDoc {
        path: "/v1/models/{*name}",
        methods: &["get"],
        summary: "One of the served names",
        access: Access::Key,
        operation: Some(Operation::Reading(schema::<Model>)),
    },
    handler: || get(one),
    dialect: Dialect::Openai,
};

/// Every name.
pub(super) async fn list(State(app): State<Arc<App>>) -> Result<Json<Models>, ApiError> {
    let serving = app.ready()?;
    let names = app.config.served_names.iter();
    Ok(Json(Models {
        object: "list",
        data: names.map(|name| model(&app, &serving, name)).collect(),
    }))
}

/// One of them.
pub(super) async fn one(
    State(app): State<Arc<App>>,
    InPath(name): InPath<String>,
) -> Result<Json<Model>, ApiError> {
    let serving = app.ready()?;
    if app.config.served_names.contains(&name) {
        return Ok(Json(model(&app, &serving, &name)));
    }
    Err(ApiError::UnknownModel {
        model: shortened(&name),
        served: app.config.served_names.to_vec(),
    })
}

fn model(app: &App, serving: &Serving, name: &str) -> Model {
    Model {
        id: name.to_string(),
        object: "model",
        created: unix_time_s(),
        owned_by: "slipway",
        root: app.config.served_names.first.clone(),
        parent: None,
        max_model_len: serving.max_model_len,
    }
}
