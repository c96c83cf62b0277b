//! Paths in front of the routes: a proxy's, and RunPod's `/v2/{endpoint}`.

use axum::Router;
use axum::extract::Request;
use axum::http::Uri;
use tower::util::MapRequest;

/// What RunPod has below `/v2/{endpoint}`.
const ENDPOINT_ROUTES: [&str; 9] = [
    "cancel",
    "health",
    "openai",
    "purge-queue",
    "retry",
    "run",
    "runsync",
    "status",
    "stream",
];

/// The routes of `inner`, with and without each prefix.
pub(super) fn with_prefixes(inner: Router, root: String) -> Router {
    let map = move |mut request: Request| {
        if let Some(uri) = shortened(request.uri(), &root) {
            *request.uri_mut() = uri;
        }
        request
    };
    Router::new().fallback_service(MapRequest::new(inner, map))
}

/// The address without its prefixes; `None` if it has none.
fn shortened(uri: &Uri, root: &str) -> Option<Uri> {
    let path = route(uri.path(), root);
    if path.len() == uri.path().len() {
        return None;
    }
    let query = uri.query().map_or(String::new(), |query| format!("?{query}"));
    format!("{path}{query}").parse().ok()
}

/// `root` is a path without a slash at its end, or nothing.
fn route<'a>(path: &'a str, root: &str) -> &'a str {
    let path = without(path, root).unwrap_or(path);
    without_endpoint(path).unwrap_or(path)
}

fn without<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix).filter(|rest| rest.starts_with('/'))
}

fn without_endpoint(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/v2/")?;
    let rest = &rest[rest.find('/')?..];
    let first = rest[1..].split('/').next()?;
    ENDPOINT_ROUTES.contains(&first).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_taken_off_and_other_paths_stay() {
        for (path, expected) in [
            ("/v1/models", "/v1/models"),
            ("/openai/v1/models", "/openai/v1/models"),
            ("/v2/abc/run", "/run"),
            ("/v2/abc/status/x-u1", "/status/x-u1"),
            (
                "/v2/abc/openai/v1/chat/completions",
                "/openai/v1/chat/completions",
            ),
            ("/v2/rerank", "/v2/rerank"),
            ("/v2/abc/livez", "/v2/abc/livez"),
            ("/v2//run", "/run"),
            ("/proxy/v1/models", "/v1/models"),
            ("/proxy/v2/abc/openai/v1/models", "/openai/v1/models"),
            ("/proxyv1/models", "/proxyv1/models"),
            ("/proxy", "/proxy"),
        ] {
            assert_eq!(route(path, "/proxy"), expected, "{path}");
        }
        assert_eq!(route("/v1/models", ""), "/v1/models");
    }

    #[test]
    fn the_query_stays() {
        let uri: Uri = "/v2/abc/runsync?wait=1000".parse().unwrap();
        assert_eq!(shortened(&uri, "").unwrap(), "/runsync?wait=1000");
        assert_eq!(shortened(&"/v1/models?x=1".parse().unwrap(), ""), None);
    }
}
