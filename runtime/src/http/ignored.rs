//! Parameters of a request that have no effect, named in a header of its answer.

use axum::Json;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::api::error::shortened;

/// Unknown parameters that are named to the client.
const IGNORED_MAX: usize = 16;

/// An answer, with the parameters that have no effect.
pub(super) fn json(answer: &impl Serialize, ignored: &[String]) -> Response {
    let mut response = Json(answer).into_response();
    name_ignored(&mut response, ignored);
    response
}

/// Names the parameters that have no effect in a header of the answer.
pub(super) fn name_ignored(response: &mut Response, names: &[String]) {
    if let Some(names) = ignored(names) {
        let header = HeaderName::from_static("x-slipway-ignored-parameters");
        response.headers_mut().insert(header, names);
    }
}

/// Names of parameters as a header can carry them.
fn ignored(names: &[String]) -> Option<HeaderValue> {
    let printable = |name: &String| {
        shortened(name)
            .chars()
            .filter(char::is_ascii_graphic)
            .collect::<String>()
    };
    let names: Vec<String> = names.iter().take(IGNORED_MAX).map(printable).collect();
    let text = Some(names.join(", ")).filter(|text| !text.is_empty())?;
    HeaderValue::from_str(&text).ok()
}
