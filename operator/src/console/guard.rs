//! What keeps other pages out: requests of our own pages carry a header that another origin cannot add without the
//! console's consent, and the address bar's name must be one that cannot be rebound where the kubeconfig's rights are used.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    error::Error,
    state::{Console, Identity},
};

/// The header of our own pages.
const OURS: &str = "x-slipway-console";

/// Scripts, styles and connections of this origin only; nothing inline; in no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Refuses requests that do not come from our own pages.
pub(super) async fn only_our_pages(State(console): State<Console>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let is_ours = headers.contains_key(OURS) && (console.identity == Identity::Token || is_loopback(headers));
    match is_ours {
        true => next.run(request).await,
        false => Error::OtherPage.into_response(),
    }
}

/// Whether the page was opened by a name of this machine. Another name could be made to lead here (DNS rebinding).
fn is_loopback(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let name = host.map(|host| host.rsplit_once(':').map_or(host, |(name, _)| name));
    matches!(name, Some("localhost" | "127.0.0.1" | "[::1]"))
}

/// The headers of every answer.
pub(super) async fn headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_loopback() {
        for (host, expected) in [
            ("localhost:8090", true),
            ("127.0.0.1", true),
            ("[::1]:8090", true),
            ("localhost.example.com:8090", false),
            ("10.0.0.1:8090", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
            assert_eq!(is_loopback(&headers), expected, "{host}");
        }
        assert!(!is_loopback(&HeaderMap::new()));
    }
}
