//! What web pages of other origins may do.

use crds::settings::ServingSettings;
use http::{HeaderName, HeaderValue, Method};

use super::ConfigError;

/// Any value, or those of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed<T> {
    /// `*`.
    Any,
    /// These. An empty list allows none.
    Only(Vec<T>),
}

/// What web pages of other origins may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsConfig {
    /// Origins of the pages that may send requests.
    pub origins: Allowed<HeaderValue>,
    /// Methods that they may use.
    pub methods: Allowed<Method>,
    /// Headers that they may send.
    pub headers: Allowed<HeaderName>,
    /// Whether they may send the cookies and credentials that the browser has stored.
    pub with_credentials: bool,
}

impl CorsConfig {
    /// The rules of the settings.
    ///
    /// # Errors
    /// [`ConfigError::Cors`] for a text that is not an origin, method or header.
    pub(super) fn of(serving: &ServingSettings) -> Result<Self, ConfigError> {
        Ok(Self {
            origins: allowed(serving.allowed_origins(), |text| HeaderValue::from_str(text).ok())?,
            methods: allowed(serving.allowed_methods(), |text| text.parse().ok())?,
            headers: allowed(serving.allowed_headers(), |text| text.parse().ok())?,
            with_credentials: serving.allow_credentials(),
        })
    }
}

fn allowed<T>(texts: Vec<String>, parse: impl Fn(&str) -> Option<T>) -> Result<Allowed<T>, ConfigError> {
    if texts.iter().any(|text| text == "*") {
        return Ok(Allowed::Any);
    }
    let values: Result<Vec<T>, ConfigError> = texts
        .into_iter()
        .map(|text| parse(&text).ok_or(ConfigError::Cors { text }))
        .collect();
    values.map(Allowed::Only)
}
