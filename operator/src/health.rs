//! The operator's own routes: `/livez`, `/readyz` and `/metrics`.

use std::sync::Arc;

use axum::{Router, extract::State, http::StatusCode, routing::get};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::metrics;

/// Whether this process leads. A standby counts as ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
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
    leadership: watch::Receiver<Leadership>,
    registry: Arc<Registry>,
}

/// The routes.
pub fn routes(leadership: watch::Receiver<Leadership>, registry: Registry) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .with_state(Served {
            leadership,
            registry: Arc::new(registry),
        })
}

async fn readyz(State(served): State<Served>) -> (StatusCode, String) {
    let leadership = *served.leadership.borrow();
    let code = match leadership {
        Leadership::Connecting | Leadership::Syncing => StatusCode::SERVICE_UNAVAILABLE,
        Leadership::Standby | Leadership::Leading => StatusCode::OK,
    };
    (code, format!("{leadership:?}\n"))
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
        let (sender, receiver) = watch::channel(Leadership::Connecting);
        let app = routes(receiver, Registry::default());
        for (leadership, code) in [
            (Leadership::Connecting, 503),
            (Leadership::Standby, 200),
            (Leadership::Syncing, 503),
            (Leadership::Leading, 200),
        ] {
            sender.send_replace(leadership);
            let request = Request::get("/readyz").body(Body::empty()).unwrap();
            assert_eq!(
                app.clone().oneshot(request).await.unwrap().status(),
                code,
                "{leadership:?}"
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
