//! The operator's own routes: `/livez`, `/readyz` and `/metrics`.

use std::sync::Arc;

use axum::{Router, extract::State, http::StatusCode, routing::get};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::metrics;

/// The stage that the operator has reached. A standby counts as ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The API server has not answered yet.
    Connecting,
    /// Another process leads.
    Standby,
    /// It leads and lists the existing objects.
    Syncing,
    /// It leads and reconciles.
    Leading,
}

#[derive(Clone)]
struct Served {
    stage: watch::Receiver<Stage>,
    registry: Arc<Registry>,
}

/// The routes.
pub fn routes(stage: watch::Receiver<Stage>, registry: Registry) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .with_state(Served {
            stage,
            registry: Arc::new(registry),
        })
}

async fn readyz(State(served): State<Served>) -> (StatusCode, String) {
    let stage = *served.stage.borrow();
    let code = match stage {
        Stage::Connecting | Stage::Syncing => StatusCode::SERVICE_UNAVAILABLE,
        Stage::Standby | Stage::Leading => StatusCode::OK,
    };
    (code, format!("{stage:?}\n"))
}

async fn scrape(State(served): State<Served>) -> ([(&'static str, &'static str); 1], String) {
    let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([("content-type", openmetrics)], metrics::text(&served.registry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{body::Body, http::Request};
    use tower::ServiceExt;

    #[tokio::test]
    async fn a_leader_and_a_standby_are_ready() {
        let (sender, receiver) = watch::channel(Stage::Connecting);
        let app = routes(receiver, Registry::default());
        for (stage, code) in [
            (Stage::Connecting, 503),
            (Stage::Standby, 200),
            (Stage::Syncing, 503),
            (Stage::Leading, 200),
        ] {
            sender.send_replace(stage);
            let request = Request::get("/readyz").body(Body::empty()).unwrap();
            assert_eq!(
                app.clone().oneshot(request).await.unwrap().status(),
                code,
                "{stage:?}"
            );
        }
        for path in ["/livez", "/metrics"] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            assert_eq!(
                app.clone().oneshot(request).await.unwrap().status(),
                200,
                "{path}"
            );
        }
    }
}
