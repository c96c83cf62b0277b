//! Which pages a browser may let ask: headers for CORS, with vLLM's settings.

use axum::http::{HeaderName, HeaderValue, Method};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};

/// What pages of other origins may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsConfig {
    /// Origins, or `*` for any. None: no page may ask.
    pub origins: Vec<String>,
    /// Methods, or `*` for any.
    pub methods: Vec<String>,
    /// Headers, or `*` for any.
    pub headers: Vec<String>,
    /// With cookies and keys that the browser holds.
    pub with_credentials: bool,
}

impl CorsConfig {
    /// The layer; `None` if no page may ask.
    ///
    /// # Errors
    /// The text that is no origin, method or header.
    pub fn layer(&self) -> Result<Option<CorsLayer>, String> {
        if self.origins.is_empty() {
            return Ok(None);
        }
        let any = |texts: &[String]| texts.iter().any(|text| text == "*");
        // With credentials the standard knows no `*`, and for headers it never covers keys: what a page asks for is
        // named back to it.
        let origins = match any(&self.origins) {
            true if self.with_credentials => AllowOrigin::mirror_request(),
            true => AllowOrigin::any(),
            false => AllowOrigin::list(parsed(&self.origins, |text| HeaderValue::from_str(text).ok())?),
        };
        let methods = match any(&self.methods) {
            true => AllowMethods::mirror_request(),
            false => AllowMethods::list(parsed(&self.methods, |text| {
                Method::from_bytes(text.as_bytes()).ok()
            })?),
        };
        let headers = match any(&self.headers) {
            true => AllowHeaders::mirror_request(),
            false => AllowHeaders::list(parsed(&self.headers, |text| text.parse::<HeaderName>().ok())?),
        };
        let shown = ["x-request-id", "x-slipway-ignored-parameters", "retry-after"];
        let layer = CorsLayer::new()
            .allow_origin(origins)
            .allow_methods(methods)
            .allow_headers(headers)
            .allow_credentials(self.with_credentials)
            .expose_headers(shown.map(HeaderName::from_static));
        Ok(Some(layer))
    }
}

fn parsed<T>(texts: &[String], parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, String> {
    texts
        .iter()
        .map(|text| parse(text).ok_or_else(|| text.clone()))
        .collect()
}
