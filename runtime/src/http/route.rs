//! One route: its path, its handler, and its documentation.
//!
//! Each file below `routes` declares its routes as constants of this type. The router, the OpenAPI document, docs/api.md
//! and the list of routes that need no key follow from them.

use std::sync::Arc;

use axum::routing::MethodRouter;

use super::app::App;
use crate::api::openapi::RouteDoc;

/// Prefix of OpenAI's and Anthropic's routes.
const VERSION: &str = "/v1";

/// A route.
pub(super) struct Route {
    /// Its path and its documentation.
    pub(super) doc: RouteDoc,
    /// What answers it.
    pub(super) handler: fn() -> MethodRouter<Arc<App>>,
    /// In whose words a missing key is refused.
    pub(super) dialect: Dialect,
}

/// Whose errors a route has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// OpenAI's.
    Openai,
    /// Anthropic's.
    Anthropic,
}

impl Route {
    /// Its paths. A route below `/v1` is also below `/openai/v1`, where RunPod's endpoints have it, and without a
    /// version, for clients whose base URL lacks it.
    pub(super) fn paths(&self) -> Vec<String> {
        let path = self.doc.path;
        match path.strip_prefix(VERSION) {
            Some(rest) => vec![path.to_owned(), format!("/openai{path}"), rest.to_owned()],
            None => vec![path.to_owned()],
        }
    }

    /// Whether the route is one of OpenAI's or Anthropic's, which jobs may ask.
    pub(super) fn is_versioned(&self) -> bool {
        self.doc.path.starts_with(VERSION)
    }
}
