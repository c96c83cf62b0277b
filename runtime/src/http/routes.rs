//! The list of all routes, and what they have in common.
//!
//! Owns request ids, API keys, counting of errors, and that even a panic has an answer in OpenAI's shape. Each file
//! below declares its routes and answers them. Must not know how requests are checked or run.

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

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use futures::FutureExt;
use jobs::InsideRouter;
use tracing::Instrument;

use crate::api::error::{ApiError, shortened};
use crate::api::jobs::store::Owner;
use crate::api::openapi::{Access, RouteDoc};
use crate::http::app::App;
use crate::http::auth::ApiKeys;
use crate::http::client::{client_of, for_client};
use crate::http::cors;
use crate::http::error::ErrorLabel;
use crate::http::prefix;
use crate::http::request_id::{REQUEST_ID, RequestId, request_id};
use crate::http::route::{Dialect, Route};
use crate::telemetry::request_log::RequestLog;

/// Every route, in the order of the documents.
const ROUTES: &[&Route] = &[
    &chat_completions::CREATE,
    &completions::CREATE,
    &responses::CREATE,
    &anthropic::CREATE,
    &anthropic::COUNT_TOKENS,
    &embeddings::CREATE,
    &score::CREATE,
    &rerank::CREATE,
    &rerank::CREATE_V2,
    &tokens::TOKENIZE,
    &tokens::DETOKENIZE,
    &models::LIST,
    &models::ONE,
    &observation::VERSION,
    &jobs::RUN,
    &jobs::RUN_AND_WAIT,
    &jobs::STATUS,
    &jobs::STREAM,
    &jobs::CANCEL,
    &jobs::RETRY,
    &jobs::PURGE,
    &responses::UNKNOWN,
    &responses::UNKNOWN_CANCEL,
    &invocations::CREATE,
    &probes::LIVE,
    &probes::READY,
    &probes::STARTUP,
    &probes::HEALTH,
    &probes::PING,
    &observation::SERVER_LOAD,
    &observation::METRICS,
    &observation::LOAD,
    &observation::KEYS,
    &documentation::OPENAPI,
    &documentation::PAGE,
];

/// The documentation of all routes.
pub fn docs() -> Vec<&'static RouteDoc> {
    ROUTES.iter().map(|route| &route.doc).collect()
}

/// All routes as a service.
pub fn router(app: Arc<App>) -> Router {
    let keys = Arc::clone(&app.api_keys);
    // The routes that jobs ask; the jobs' own routes check the key.
    let inside = mounted(|route| route.is_versioned())
        .fallback(no_route)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), observe))
        .with_state(Arc::clone(&app));
    let with_key = |dialect| move |route: &Route| route.doc.access == Access::Key && route.dialect == dialect;
    let openai = mounted(with_key(Dialect::Openai))
        .layer(Extension(InsideRouter(inside)))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&keys), require_key));
    let anthropic = mounted(with_key(Dialect::Anthropic))
        .route_layer(middleware::from_fn_with_state(keys, anthropic::require_key));
    // A browser sends a preflight request without the key, so its answer needs none. Probes are not for pages.
    let api = openai.merge(anthropic);
    let api = match cors::layer(&app.config.cors) {
        Some(layer) => api.method_not_allowed_fallback(no_method).layer(layer),
        None => api,
    };
    let has_control_port = app.config.control_port.is_some();
    let routes = api
        .merge(mounted(|route| match route.doc.access {
            Access::Key => false,
            Access::Open | Access::Probe => true,
            Access::Control => !has_control_port,
        }))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), observe))
        .with_state(Arc::clone(&app));
    prefix::with_prefixes(routes, app.config.root_path.clone())
}

/// The routes of the control port.
pub fn control_router(app: Arc<App>) -> Router {
    mounted(|route| matches!(route.doc.access, Access::Probe | Access::Control))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), observe))
        .with_state(app)
}

/// A router of the chosen routes, each at all of its paths.
fn mounted(is_chosen: impl Fn(&Route) -> bool) -> Router<Arc<App>> {
    let chosen = ROUTES.iter().filter(|route| is_chosen(route));
    chosen.fold(Router::new(), |router, route| {
        let paths = route.paths();
        paths
            .iter()
            .fold(router, |router, path| router.route(path, (route.handler)()))
    })
}

async fn require_key(State(keys): State<Arc<ApiKeys>>, mut request: Request, next: Next) -> Response {
    let key = keys.holder(request.headers());
    if key.is_some() || keys.is_open() {
        request
            .extensions_mut()
            .insert(Owner(key.map(|key| *key.as_bytes())));
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

/// Adds the request's id to every response, counts errors, logs a line, and answers if a handler panicked. The log
/// contains no text of prompts or answers, unless requests are to be logged.
async fn observe(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let started_at = Instant::now();
    if let Some(log) = RequestLog::of(&app.config.serving) {
        request.extensions_mut().insert(log);
    }
    let id = request_id(request.headers());
    request.extensions_mut().insert(RequestId(id.clone()));
    let client = client_of(&request, &app.api_keys);
    request.extensions_mut().insert(client);
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("none", MatchedPath::as_str)
        .to_owned();
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default(), %method, route);
    let handled = AssertUnwindSafe(for_client(client, next.run(request)))
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::*;
    use crate::api::openapi::{document, markdown};

    #[test]
    fn generated_files_are_fresh() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let openapi = serde_json::to_string_pretty(&document(&docs())).unwrap() + "\n";
        for (name, expected) in [("openapi.json", openapi), ("api.md", markdown(&docs()))] {
            let text = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
            assert!(text == expected, "docs/{name} is stale: run `make generate`");
        }
    }

    #[test]
    fn every_reference_of_the_document_exists() {
        fn check(value: &Value, document: &Value) {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(reference)) = fields.get("$ref") {
                        let pointer = reference.trim_start_matches('#');
                        assert!(document.pointer(pointer).is_some(), "{reference}");
                    }
                    fields.values().for_each(|value| check(value, document));
                }
                Value::Array(items) => items.iter().for_each(|value| check(value, document)),
                _ => {}
            }
        }
        let document = document(&docs());
        check(&document, &document);
        assert_eq!(document["openapi"], "3.1.0");
    }
}
