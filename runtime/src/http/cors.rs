//! Headers for CORS, with vLLM's settings: which web pages a browser may let send requests.

use axum::http::HeaderName;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};

use crate::config::{Allowed, CorsConfig};

/// Headers of responses that pages may read.
const EXPOSED: [&str; 3] = ["x-request-id", "x-slipway-ignored-parameters", "retry-after"];

/// The layer; `None` if no page may send requests.
pub fn layer(config: &CorsConfig) -> Option<CorsLayer> {
    // With credentials, browsers ignore `*`, and for headers `*` never covers keys: the response repeats what the page
    // requests.
    let origins = match &config.origins {
        Allowed::Only(origins) if origins.is_empty() => return None,
        Allowed::Only(origins) => AllowOrigin::list(origins.clone()),
        Allowed::Any if config.with_credentials => AllowOrigin::mirror_request(),
        Allowed::Any => AllowOrigin::any(),
    };
    let methods = match &config.methods {
        Allowed::Any => AllowMethods::mirror_request(),
        Allowed::Only(methods) => AllowMethods::list(methods.clone()),
    };
    let headers = match &config.headers {
        Allowed::Any => AllowHeaders::mirror_request(),
        Allowed::Only(headers) => AllowHeaders::list(headers.clone()),
    };
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods(methods)
        .allow_headers(headers)
        .allow_credentials(config.with_credentials)
        .expose_headers(EXPOSED.map(HeaderName::from_static));
    Some(layer)
}
