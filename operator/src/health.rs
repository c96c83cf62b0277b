//! `/livez`, `/readyz` and `/metrics` of the operator itself.

use std::sync::Arc;

use axum::{Router, extract::State, http::StatusCode, routing::get};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::metrics;

/// How far the operator is. A standby is ready: it waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The API server has not answered yet.
    Connecting,
    /// Another one leads.
    Standby,
    /// It leads and reads what there is.
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
    async fn ready_when_it_leads_or_waits_for_its_turn() {
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
