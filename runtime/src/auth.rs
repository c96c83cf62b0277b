//! API keys: who may use the routes of OpenAI and Anthropic.

use axum::http::{HeaderMap, header};
use subtle::{Choice, ConstantTimeEq};

/// The keys that open the routes, as hashes of one length, so that neither a key nor its length shows in the time a
/// comparison takes.
#[derive(Debug)]
pub struct ApiKeys {
    hashes: Vec<blake3::Hash>,
}

impl ApiKeys {
    /// Keys of which a client must present one; without any, the routes are open.
    pub fn new(keys: &[String]) -> Self {
        Self {
            hashes: keys.iter().map(|key| blake3::hash(key.as_bytes())).collect(),
        }
    }

    /// Whether a key is asked for.
    pub fn is_open(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Whether a request carries a key that opens. Every key is compared, whichever fits.
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        if self.is_open() {
            return true;
        }
        let anthropic = || Some(headers.get("x-api-key")?.as_bytes().trim_ascii());
        let Some(token) = bearer(headers).or_else(anthropic) else {
            return false;
        };
        let presented = blake3::hash(token);
        let fits = |hash: &blake3::Hash| hash.as_bytes().ct_eq(presented.as_bytes());
        self.hashes
            .iter()
            .map(fits)
            .fold(Choice::from(0), |any, one| any | one)
            .into()
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn admits(keys: &[&str], authorization: Option<&str>) -> bool {
        let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        ApiKeys::new(&keys).admit(&headers)
    }

    #[test]
    fn any_of_the_keys_opens_and_nothing_else() {
        for good in ["Bearer first", "bearer second", "Bearer  first "] {
            assert!(admits(&["first", "second"], Some(good)), "{good}");
        }
        for bad in [
            "first",
            "Bearer",
            "Bearer ",
            "Bearer firs",
            "Bearer first,second",
            "Basic first",
        ] {
            assert!(!admits(&["first", "second"], Some(bad)), "{bad}");
        }
        assert!(!admits(&["first"], None));
    }

    #[test]
    fn without_keys_everybody_may() {
        assert!(admits(&[], None));
        assert!(admits(&[], Some("Bearer anything")));
    }
}
