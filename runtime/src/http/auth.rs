//! API keys: who may use the routes of OpenAI and Anthropic.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
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

    /// Whether clients need a key.
    pub fn is_open(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Whether a request carries a key that opens.
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        self.is_open() || self.holder(headers).is_some()
    }

    /// The valid key that a request carries, as a hash. Every key is compared, whichever fits.
    pub fn holder(&self, headers: &HeaderMap) -> Option<blake3::Hash> {
        let fits = |presented: &blake3::Hash| {
            let equal = |hash: &blake3::Hash| hash.as_bytes().ct_eq(presented.as_bytes());
            let any = self.hashes.iter().map(equal);
            any.fold(Choice::from(0), |any, one| any | one).into()
        };
        presented(headers).map(blake3::hash).find(fits)
    }
}

/// The keys of a request: as OpenAI's clients send them, as RunPod's do, without a scheme, or as Anthropic's do.
fn presented(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let bytes = |name| {
        headers
            .get(name)
            .map(|value: &HeaderValue| value.as_bytes().trim_ascii())
    };
    let authorization =
        bytes(header::AUTHORIZATION).map(|value| match value.split_at_checked("bearer ".len()) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token.trim_ascii(),
            _ => value,
        });
    let anthropic = bytes(HeaderName::from_static("x-api-key"));
    authorization.into_iter().chain(anthropic)
}

#[cfg(test)]
mod tests {
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
        for good in [
            "Bearer first",
            "bearer second",
            "Bearer  first ",
            "first",
            " second ",
        ] {
            assert!(admits(&["first", "second"], Some(good)), "{good}");
        }
        for bad in [
            "",
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
    fn a_key_may_come_as_anthropics_clients_send_it() {
        let keys = ApiKeys::new(&["first".to_string()]);
        let admits = |key: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-api-key", HeaderValue::from_static(key));
            keys.admit(&headers)
        };
        assert!(admits("first") && !admits("second") && !admits(""));
    }

    #[test]
    fn without_keys_everybody_may() {
        assert!(admits(&[], None));
        assert!(admits(&[], Some("Bearer anything")));
    }
}
