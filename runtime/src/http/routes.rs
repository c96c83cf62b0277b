//! The HTTP surface: one line per route, and what all of them have in common.
//!
//! Owns request ids, API keys, counting of errors, and that even a panic has an answer in OpenAI's shape. Each file
//! below is one route with its whole life. Must not know how requests are checked or run.

mod anthropic;
mod chat_completions;
mod completions;
mod documentation;
mod embeddings;
mod invocations;
mod jobs;
mod models;
mod observation;
mod probes;
mod rerank;
mod responses;
mod score;
mod tokens;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::FutureExt;
use tracing::Instrument;

use crate::api::error::{ApiError, shortened};
use crate::http::app::App;
use crate::http::auth::ApiKeys;
use crate::http::cors;
use crate::http::error::ErrorLabel;
use crate::http::prefix;
use crate::http::request_id::{REQUEST_ID, RequestId, request_id};
use crate::telemetry::request_log::RequestLog;

/// Largest body of a request, in bytes.
pub const BODY_BYTES_MAX: usize = 8 << 20;

/// The whole surface.
pub fn router(app: Arc<App>) -> Router {
    let keys = Arc::new(ApiKeys::new(&app.config.api_keys));
    // What jobs ask; their own routes check the key.
    let inside = openai("/v1")
        .merge(anthropic::routes("/v1"))
        .fallback(no_route)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), observe))
        .with_state(Arc::clone(&app));
    let api = openai("/v1")
        // As RunPod's endpoints have them, and as clients send them whose base URL lacks the version.
        .merge(openai("/openai/v1"))
        .merge(openai(""))
        .route("/v2/rerank", post(rerank::create))
        .route("/invocations", post(invocations::create))
        .merge(jobs::routes(Arc::clone(&app), inside))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&keys), require_key));
    let anthropic = anthropic::routes("/v1")
        .merge(anthropic::routes("/openai/v1"))
        .merge(anthropic::routes(""))
        .route_layer(middleware::from_fn_with_state(keys, anthropic::require_key));
    // A page asks before it sends its key, so what it may do is told without one. Probes are not for pages.
    let api = api.merge(anthropic);
    let api = match cors::layer(&app.config.cors) {
        Some(layer) => api.method_not_allowed_fallback(no_method).layer(layer),
        None => api,
    };
    let routes = Router::new()
        .merge(api)
        .route("/livez", get(probes::live))
        .route("/readyz", get(probes::ready))
        .route("/startupz", get(probes::startup))
        .route("/health", get(probes::health))
        .route("/ping", get(probes::ready).post(probes::ready))
        .route("/load", get(observation::server_load))
        .route("/metrics", get(observation::metrics))
        .route("/internal/load", get(observation::load))
        .route("/version", get(observation::version))
        .route("/openapi.json", get(documentation::openapi))
        .route("/docs", get(documentation::page))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), observe))
        .with_state(Arc::clone(&app));
    prefix::with_prefixes(routes, app.config.root_path.clone())
}

/// OpenAI's and vLLM's routes below a prefix.
fn openai(prefix: &str) -> Router<Arc<App>> {
    let at = |path: &str| format!("{prefix}{path}");
    Router::new()
        .route(&at("/models"), get(models::list))
        .route(&at("/models/{*name}"), get(models::one))
        .route(&at("/completions"), post(completions::create))
        .route(&at("/chat/completions"), post(chat_completions::create))
        .route(&at("/responses"), post(responses::create))
        .route(&at("/responses/{id}"), get(responses::unknown))
        .route(&at("/responses/{id}/cancel"), post(responses::unknown))
        .route(&at("/embeddings"), post(embeddings::create))
        .route(&at("/score"), post(score::create))
        .route(&at("/rerank"), post(rerank::create))
        .route(&at("/tokenize"), post(tokens::tokenize))
        .route(&at("/detokenize"), post(tokens::detokenize))
}

async fn require_key(State(keys): State<Arc<ApiKeys>>, request: Request, next: Next) -> Response {
    if keys.admit(request.headers()) {
        next.run(request).await
    } else {
        ApiError::InvalidApiKey.into_response()
    }
}

async fn no_route(uri: Uri) -> ApiError {
    ApiError::UnknownRoute {
        path: shortened(uri.path()),
    }
}

async fn no_method(method: Method, uri: Uri) -> ApiError {
    ApiError::MethodNotAllowed {
        method: shortened(method.as_str()),
        path: shortened(uri.path()),
    }
}

/// Gives every response the request's id, counts errors, logs a line, and answers for a handler that panicked. No
/// line of the log has any text of a prompt or an answer, unless requests are to be logged.
async fn observe(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let started_at = Instant::now();
    if let Some(log) = RequestLog::of(&app.config.serving) {
        request.extensions_mut().insert(log);
    }
    let id = request_id(request.headers());
    request.extensions_mut().insert(RequestId(id.clone()));
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("none", MatchedPath::as_str)
        .to_owned();
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default(), %method, route);
    let handled = AssertUnwindSafe(next.run(request))
        .catch_unwind()
        .instrument(span.clone());
    let mut response = handled.await.unwrap_or_else(|_| {
        tracing::error!(parent: &span, "a handler panicked");
        ApiError::Internal.into_response()
    });
    let error = response.extensions().get::<ErrorLabel>().map(|label| label.0);
    if let Some(error) = error {
        app.metrics.failed(error);
    }
    response.headers_mut().insert(REQUEST_ID, id);
    if app.is_draining() {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let (status, ms) = (
        response.status().as_u16(),
        started_at.elapsed().as_millis() as u64,
    );
    // Probes and scrapers ask with GET, and often.
    if route.contains("/v1/") || method == Method::POST {
        tracing::info!(parent: &span, status, ms, error, "answered");
    } else {
        tracing::debug!(parent: &span, status, ms, error, "answered");
    }
    response
}
