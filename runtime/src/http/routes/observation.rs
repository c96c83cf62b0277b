//! What Prometheus and the autoscaler read, and the version.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use crds::{keys::KeyHashes, load::LoadStatus};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::error::ApiError;
use crate::api::openapi::{Access, Operation, RouteDoc};
use crate::http::app::App;
use crate::http::extract::InQuery;
use crate::http::route::{Dialect, Route};

/// The version.
pub(super) const VERSION: Route = Route {
    doc: RouteDoc {
        path: "/version",
        methods: &["get"],
        summary: "The version of this program",
        access: Access::Open,
        operation: Some(Operation::Reading(
            |_| json!({"type": "object", "properties": {"version": {"type": "string"}}, "required": ["version"]}),
        )),
    },
    handler: || get(version),
    dialect: Dialect::Openai,
};

/// The metrics.
pub(super) const METRICS: Route = Route {
    doc: RouteDoc {
        path: "/metrics",
        methods: &["get"],
        summary: "Metrics for Prometheus",
        access: Access::Control,
        operation: None,
    },
    handler: || get(metrics),
    dialect: Dialect::Openai,
};

/// vLLM's load.
pub(super) const SERVER_LOAD: Route = Route {
    doc: RouteDoc {
        path: "/load",
        methods: &["get"],
        summary: "Requests that run or wait",
        access: Access::Control,
        operation: None,
    },
    handler: || get(server_load),
    dialect: Dialect::Openai,
};

/// The load.
pub(super) const LOAD: Route = Route {
    doc: RouteDoc {
        path: crds::load::PATH,
        methods: &["get"],
        summary: "The load in numbers, for the autoscaler",
        access: Access::Control,
        operation: None,
    },
    handler: || get(load),
    dialect: Dialect::Openai,
};

/// The salted hashes of the API keys. It is at a control port only.
pub(super) const KEYS: Route = Route {
    doc: RouteDoc {
        path: crds::keys::PATH,
        methods: &["get"],
        summary: "Salted hashes of the API keys, for the operator; only with CONTROL_PORT",
        access: Access::Control,
        operation: None,
    },
    handler: || get(keys),
    dialect: Dialect::Openai,
};

/// Longest salt, in bytes.
const SALT_BYTES_MAX: usize = 128;

/// Media type of the text format that the metrics are written in.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics as text.
pub(super) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let engine = app
        .serving
        .get()
        .map(|serving| (serving.engine.load(), serving.engine.counters()));
    ([(header::CONTENT_TYPE, OPEN_METRICS)], app.metrics.encode(engine))
}

/// The load in numbers: what an autoscaler needs and nothing else. Before the model is loaded everything is zero.
pub(super) async fn load(State(app): State<Arc<App>>) -> Json<LoadStatus> {
    let load = app
        .serving
        .get()
        .map(|serving| serving.engine.load())
        .unwrap_or_default();
    let queue_full = ApiError::QueueFull { retry_after_s: 0 }.facts().label;
    Json(LoadStatus {
        running: load.n_running as u64,
        waiting: load.n_waiting as u64,
        capacity: load.n_running_max as u64,
        kv_usage: load.n_blocks_used as f64 / load.n_blocks.max(1) as f64,
        arrivals_total: app.metrics.n_arrived(),
        rejected_total: app.metrics.n_failed(queue_full),
        service_time_seconds: app.metrics.service_seconds(),
        draining: app.is_draining(),
    })
}

/// The caller chooses the salt.
#[derive(Debug, Deserialize)]
pub(super) struct Salt {
    #[serde(default)]
    salt: String,
}

/// The hashes of the keys that are valid now.
pub(super) async fn keys(
    State(app): State<Arc<App>>,
    InQuery(Salt { salt }): InQuery<Salt>,
) -> Result<Json<KeyHashes>, ApiError> {
    let is_salt = (1..=SALT_BYTES_MAX).contains(&salt.len());
    if app.config.control_port.is_none() || !is_salt {
        return Err(ApiError::UnknownRoute {
            path: crds::keys::PATH.into(),
        });
    }
    let hashes = app.api_keys.salted(&salt);
    Ok(Json(KeyHashes { hashes }))
}

/// vLLM's `/load`: requests that run or wait.
pub(super) async fn server_load(State(app): State<Arc<App>>) -> Json<Value> {
    let load = app
        .serving
        .get()
        .map(|serving| serving.engine.load())
        .unwrap_or_default();
    Json(json!({"server_load": load.n_running + load.n_waiting}))
}

/// The version of this program.
pub(super) async fn version() -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}
