//! Passes requests of the pages on to the API server, with the person's token and no other header that decides anything.

use axum::{
    body::{Body, Bytes},
    extract::{RawQuery, Request, State},
    http::{HeaderMap, HeaderName, Method, header},
    response::Response,
};
use futures::StreamExt;

use super::{
    error::Error,
    state::{BODY_BYTES_MAX, Console, Identity},
};
use crate::names::CONTROL_PORT;

/// Where the API server begins in the paths of the pages.
const PREFIX: &str = "/k8s";
/// Headers of a request that are passed on. `x-api-key` is for a model with keys.
const PASSED_ON: [HeaderName; 4] = [
    header::ACCEPT,
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    HeaderName::from_static("x-api-key"),
];

/// The answer of the API server.
pub(super) async fn pass_on(
    State(console): State<Console>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Error> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().strip_prefix(PREFIX).unwrap_or_default();
    if !is_passed_on(&parts.method, path) {
        return Err(Error::NotPassedOn {
            method: parts.method.to_string(),
            path: path.to_owned(),
        });
    }
    let headers = passed_on(&parts.headers, console.identity);
    if console.identity == Identity::Token && !headers.contains_key(header::AUTHORIZATION) {
        return Err(Error::NoToken);
    }
    let place = console
        .places
        .clone()
        .try_acquire_owned()
        .map_err(|_| Error::Busy)?;
    let body = axum::body::to_bytes(body, BODY_BYTES_MAX).await;
    let body: Bytes = body.map_err(|error| Error::Body {
        reason: error.to_string(),
    })?;
    let query = query.map_or(String::new(), |query| format!("?{query}"));
    let mut request = Request::new(kube::client::Body::from(body));
    *request.method_mut() = parts.method;
    *request.headers_mut() = headers;
    *request.uri_mut() = format!("{path}{query}").parse().map_err(|_| Error::Body {
        reason: "the address of the request is not valid".into(),
    })?;
    let (answer, body) = console.client.send(request).await?.into_parts();
    // The place is taken until the answer has ended.
    let pieces = Body::new(body).into_data_stream().inspect(move |_| {
        let _taken = &place;
    });
    let mut response = Response::new(Body::from_stream(pieces));
    *response.status_mut() = answer.status;
    for name in [header::CONTENT_TYPE, header::RETRY_AFTER] {
        if let Some(value) = answer.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    Ok(response)
}

fn passed_on(headers: &HeaderMap, identity: Identity) -> HeaderMap {
    let mut passed = HeaderMap::new();
    for name in PASSED_ON {
        let is_theirs = identity == Identity::Token || name != header::AUTHORIZATION;
        if let Some(value) = headers.get(&name).filter(|_| is_theirs) {
            passed.insert(name, value.clone());
        }
    }
    passed
}

/// Whether a page needs this of the API server. A path is refused if it could mean another one.
fn is_passed_on(method: &Method, path: &str) -> bool {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let is_plain = |part: &&str| !part.is_empty() && *part != "." && *part != ".." && !part.contains('%');
    if !parts.iter().all(is_plain) {
        return false;
    }
    let method = method.as_str();
    match parts.as_slice() {
        ["apis", "slipway.dev", _, rest @ ..] => match rest {
            ["modeldeployments"] => method == "GET",
            ["namespaces", _, "modeldeployments"] => matches!(method, "GET" | "POST"),
            ["namespaces", _, "modeldeployments", _] => matches!(method, "GET" | "PUT" | "PATCH" | "DELETE"),
            ["namespaces", _, "modeldeployments", _, "scale"] => matches!(method, "GET" | "PATCH"),
            _ => false,
        },
        ["apis", "authentication.k8s.io", "v1", "selfsubjectreviews"]
        | ["apis", "authorization.k8s.io", "v1", "selfsubjectaccessreviews"] => method == "POST",
        // The schema of ModelDeployments.
        ["openapi", "v3", "apis", "slipway.dev", _] => method == "GET",
        ["api", "v1", "namespaces"] => method == "GET",
        ["api", "v1", "namespaces", _, "pods" | "events" | "configmaps"] => method == "GET",
        [
            "api",
            "v1",
            "namespaces",
            _,
            "pods",
            pod,
            "proxy",
            "internal",
            "load",
        ] => method == "GET" && pod.ends_with(&format!(":{CONTROL_PORT}")),
        ["api", "v1", "namespaces", _, "services", _, "proxy", "v1", ..] => matches!(method, "GET" | "POST"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_pages_need_is_passed_on() {
        let of = |method: &str, path: &str| is_passed_on(&method.parse().unwrap(), path);
        for (method, path) in [
            ("GET", "/apis/slipway.dev/v1alpha1/modeldeployments"),
            ("POST", "/apis/slipway.dev/v1alpha1/namespaces/a/modeldeployments"),
            (
                "DELETE",
                "/apis/slipway.dev/v1alpha1/namespaces/a/modeldeployments/b",
            ),
            ("GET", "/api/v1/namespaces/a/pods/b:8001/proxy/internal/load"),
            (
                "POST",
                "/api/v1/namespaces/a/services/http:b:80/proxy/v1/chat/completions",
            ),
        ] {
            assert!(of(method, path), "{method} {path}");
        }
        for (method, path) in [
            ("GET", "/api/v1/namespaces/a/secrets"),
            ("DELETE", "/api/v1/namespaces/a/pods"),
            ("GET", "/api/v1/namespaces/a/pods/b:8000/proxy/internal/load"),
            ("POST", "/api/v1/namespaces/a/pods/b/exec"),
            ("GET", "/api/v1/namespaces/a/pods/../secrets"),
            ("GET", "/api/v1/namespaces/a/%70ods"),
            ("GET", "//api/v1/namespaces//pods"),
            ("GET", "/apis/apps/v1/deployments"),
            ("GET", "/version"),
        ] {
            assert!(!of(method, path), "{method} {path}");
        }
    }

    #[test]
    fn nobody_can_ask_in_the_name_of_another() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer a"),
            ("impersonate-user", "admin"),
            ("cookie", "x"),
            ("x-remote-user", "admin"),
            ("content-type", "application/json"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let of_token = passed_on(&headers, Identity::Token);
        assert_eq!(of_token.len(), 2);
        assert_eq!(of_token["authorization"], "Bearer a");
        let of_kubeconfig = passed_on(&headers, Identity::Kubeconfig);
        assert!(!of_kubeconfig.contains_key("authorization"));
    }
}
