//! The probes of the kubelet: liveness, readiness and startup.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use crate::api::openapi::{Access, RouteDoc};
use crate::engine::Phase;
use crate::http::app::App;
use crate::http::route::{Dialect, Route};
use crate::startup::{self, ModelFacts};

/// Liveness.
pub(super) const LIVE: Route = Route {
    doc: RouteDoc {
        path: "/livez",
        methods: &["get"],
        summary: "200 while the process can still make progress",
        access: Access::Probe,
        operation: None,
    },
    handler: || get(live),
    dialect: Dialect::Openai,
};

/// Readiness.
pub(super) const READY: Route = Route {
    doc: RouteDoc {
        path: "/readyz",
        methods: &["get"],
        summary: "200 while a request would be accepted",
        access: Access::Probe,
        operation: None,
    },
    handler: || get(ready),
    dialect: Dialect::Openai,
};

/// Startup.
pub(super) const STARTUP: Route = Route {
    doc: RouteDoc {
        path: "/startupz",
        methods: &["get"],
        summary: "How far the start is; 503 until it is complete",
        access: Access::Control,
        operation: None,
    },
    handler: || get(startup),
    dialect: Dialect::Openai,
};

/// RunPod's and vLLM's health.
pub(super) const HEALTH: Route = Route {
    doc: RouteDoc {
        path: "/health",
        methods: &["get"],
        summary: "As `/readyz`, with RunPod's counts of jobs and workers",
        access: Access::Open,
        operation: None,
    },
    handler: || get(health),
    dialect: Dialect::Openai,
};

/// SageMaker's and RunPod's ping.
pub(super) const PING: Route = Route {
    doc: RouteDoc {
        path: "/ping",
        methods: &["get", "post"],
        summary: "As `/readyz`",
        access: Access::Open,
        operation: None,
    },
    handler: || get(ready).post(ready),
    dialect: Dialect::Openai,
};

/// Silence of the engine's loop after which it counts as stuck. A step of a large model on few cores takes tens of
/// seconds; a process that is restarted for being slow gets nothing done at all.
const TURN_SILENCE_MAX: Duration = Duration::from_secs(300);

/// 200 while the process can still get somewhere: it loads, or the engine's loop turns.
pub(super) async fn live(State(app): State<Arc<App>>) -> Response {
    let Some(serving) = app.serving.get() else {
        return plain(StatusCode::OK, "loading");
    };
    let liveness = serving.engine.liveness();
    match liveness.phase {
        Phase::Dead => plain(StatusCode::SERVICE_UNAVAILABLE, "the engine is dead"),
        Phase::Serving | Phase::Draining if liveness.turned_ago > TURN_SILENCE_MAX => {
            plain(StatusCode::SERVICE_UNAVAILABLE, "the engine is stuck")
        }
        // Without SIGTERM, a process whose engine has stopped is useless: the kubelet restarts it.
        Phase::Stopped if !app.is_draining() => {
            plain(StatusCode::SERVICE_UNAVAILABLE, "the engine has stopped")
        }
        Phase::Serving | Phase::Draining | Phase::Stopped => plain(StatusCode::OK, "ok"),
    }
}

/// 200 while a request would be accepted.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    let Some(serving) = app.serving.get() else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "loading");
    };
    match serving.engine.liveness().phase {
        Phase::Serving if !app.is_draining() => plain(StatusCode::OK, "ok"),
        Phase::Serving | Phase::Draining | Phase::Stopped => {
            plain(StatusCode::SERVICE_UNAVAILABLE, "draining")
        }
        Phase::Dead => plain(StatusCode::SERVICE_UNAVAILABLE, "the engine is dead"),
    }
}

/// As [`ready`] to a probe, and in RunPod's shape to those who read it: this process is the one worker.
pub(super) async fn health(State(app): State<Arc<App>>) -> Response {
    let code = ready(State(Arc::clone(&app))).await.status();
    let counts = app.jobs.counts();
    let is_ready = code == StatusCode::OK;
    let engine = app.serving.get().map(|serving| &serving.engine);
    let is_running = counts.n_running > 0 || engine.is_some_and(|engine| engine.load().n_running > 0);
    let body = json!({
        "jobs": {
            "completed": counts.n_completed,
            "failed": counts.n_failed,
            "inProgress": counts.n_running,
            "inQueue": counts.n_queued,
            "retried": counts.n_retried,
        },
        "workers": {
            "idle": u8::from(is_ready && !is_running),
            "initializing": u8::from(engine.is_none()),
            "ready": u8::from(is_ready),
            "running": u8::from(is_running),
            "throttled": 0,
            "unhealthy": u8::from(engine.is_some_and(|engine| engine.liveness().phase == Phase::Dead)),
        },
    });
    (code, Json(body)).into_response()
}

/// How far the start is, with the facts of the model once it is loaded; 503 until the start is done.
pub(super) async fn startup(State(app): State<Arc<App>>) -> Response {
    let mut status = app.startup.status();
    if let Some(serving) = app.serving.get() {
        status.model = Some(ModelFacts {
            revision: serving.revision.clone(),
            architecture: Some(serving.info.architecture.clone()),
            bytes: Some(serving.info.weights_bytes),
            device: Some(serving.info.device.clone()),
            max_model_len: Some(serving.max_model_len as u64),
            memory_bytes: serving.memory_bytes,
        });
    }
    startup::response(status)
}

fn plain(code: StatusCode, text: &'static str) -> Response {
    (code, text).into_response()
}
