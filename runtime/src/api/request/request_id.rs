//! The client's own name for a request: the parameter `request_id`, and the rule that the header shares.

use serde_json::Value;

use super::params::Params;
use crate::api::error::ApiError;

/// Longest id of a request that is accepted from a client, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Whether a client's id is accepted: short, printable and without spaces, so that a header and a log can contain it.
pub fn is_request_id(id: &[u8]) -> bool {
    (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

/// Reads `request_id`.
pub(super) fn request_id(params: &mut Params) -> Result<Option<String>, ApiError> {
    match params.text("request_id")? {
        Some(id) if !is_request_id(id.as_bytes()) => {
            let expected = format!("1 to {REQUEST_ID_BYTES_MAX} printable characters without spaces");
            Err(ApiError::invalid("request_id", expected, &Value::String(id)))
        }
        id => Ok(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_short_printable_and_without_spaces() {
        let longest = "x".repeat(REQUEST_ID_BYTES_MAX);
        for id in ["a", "my-request_1.2", longest.as_str()] {
            assert!(is_request_id(id.as_bytes()), "{id}");
        }
        let too_long = format!("{longest}x");
        for id in ["", "a b", "a\n", "é", too_long.as_str()] {
            assert!(!is_request_id(id.as_bytes()), "{id}");
        }
    }
}
