//! API keys: who may use the routes of OpenAI and Anthropic.
//!
//! Owns the keys that are valid now, and follows the file that they come from.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use crds::{failure::chain, keys};
use subtle::{Choice, ConstantTimeEq};

use crate::config::{ApiKeysFile, ConfigError};

/// Time between two looks at a file of keys. Kubernetes renews a mounted Secret about once a minute.
const FILE_INTERVAL: Duration = Duration::from_secs(2);

/// The keys that open the routes, as hashes of one length, so that neither a key nor its length shows in the time a
/// comparison takes.
#[derive(Debug)]
pub struct ApiKeys {
    hashes: RwLock<Arc<[blake3::Hash]>>,
}

impl ApiKeys {
    /// Keys of which a client must present one; without any, the routes are open.
    pub fn new(keys: &[String]) -> Self {
        Self {
            hashes: RwLock::new(hashes(keys)),
        }
    }

    /// Whether clients need no key.
    pub fn is_open(&self) -> bool {
        self.valid().is_empty()
    }

    /// Whether a request carries a key that opens, or none is needed.
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        self.is_open() || self.holder(headers).is_some()
    }

    /// The valid key that a request carries, as a hash. Every key is compared, whichever fits.
    pub fn holder(&self, headers: &HeaderMap) -> Option<blake3::Hash> {
        let valid = self.valid();
        let fits = |presented: &blake3::Hash| {
            let equal = |hash: &blake3::Hash| hash.as_bytes().ct_eq(presented.as_bytes());
            let any = valid.iter().map(equal);
            any.fold(Choice::from(0), |any, one| any | one).into()
        };
        presented(headers).map(blake3::hash).find(fits)
    }

    /// The valid keys for those who recognise them without knowing them.
    pub fn salted(&self, salt: &str) -> Vec<String> {
        let valid = self.valid();
        let mut hashes: Vec<String> = valid
            .iter()
            .map(|key| keys::of_digest(salt, key.as_bytes()))
            .collect();
        hashes.sort();
        hashes
    }

    fn valid(&self) -> Arc<[blake3::Hash]> {
        Arc::clone(&self.hashes.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the keys that a file contains now. If they cannot be used, the keys of before stay, and the problem is
    /// logged and returned; `known` is a problem that was logged already.
    fn renew(&self, read: Result<Vec<String>, ConfigError>, known: Option<String>) -> Option<String> {
        match read.map(|keys| hashes(&keys)) {
            Ok(renewed) => {
                if renewed != self.valid() {
                    tracing::info!(n_keys = renewed.len(), "the API keys changed");
                    *self.hashes.write().unwrap_or_else(PoisonError::into_inner) = renewed;
                }
                None
            }
            Err(error) => {
                let problem = chain(&error);
                if known.as_ref() != Some(&problem) {
                    tracing::error!(
                        problem,
                        "the changed API keys cannot be used; those of before stay valid"
                    );
                }
                Some(problem)
            }
        }
    }
}

/// Reads a file of keys again and again, and takes its keys whenever they change.
pub async fn follow(keys: Arc<ApiKeys>, file: ApiKeysFile) {
    let file = Arc::new(file);
    let mut problem = None;
    loop {
        tokio::time::sleep(FILE_INTERVAL).await;
        let file = Arc::clone(&file);
        let Ok(read) = tokio::task::spawn_blocking(move || file.read()).await else {
            continue;
        };
        problem = keys.renew(read, problem);
    }
}

fn hashes(keys: &[String]) -> Arc<[blake3::Hash]> {
    keys.iter().map(|key| blake3::hash(key.as_bytes())).collect()
}

/// The keys of a request: as OpenAI's clients send them, as RunPod's do, without a scheme, or as Anthropic's do.
fn presented(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let bytes = |name| headers.get(name).map(HeaderValue::as_bytes);
    let authorization = bytes(header::AUTHORIZATION).map(keys::of_authorization);
    let anthropic = bytes(HeaderName::from_static(keys::ANTHROPIC_HEADER)).map(<[u8]>::trim_ascii);
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
    fn changed_keys_replace_the_old_ones_and_invalid_ones_do_not() {
        let keys = ApiKeys::new(&["old".to_owned()]);
        let admits = |key: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-api-key", HeaderValue::from_static(key));
            keys.admit(&headers)
        };
        assert_eq!(keys.renew(Ok(vec!["new".to_owned()]), None), None);
        assert!(admits("new") && !admits("old"));
        let broken = || Err(ConfigError::NoKeys { path: "keys".into() });
        let problem = keys.renew(broken(), None).unwrap();
        assert!(problem.contains("no keys"), "{problem}");
        assert_eq!(keys.renew(broken(), Some(problem.clone())), Some(problem));
        assert!(admits("new") && !admits("old"));
    }

    #[test]
    fn salted_keys_are_recognised_by_their_hash() {
        let keys = ApiKeys::new(&["first".to_owned(), "second".to_owned()]);
        let mut expected = [b"first".as_slice(), b"second"].map(|key| crds::keys::hash("salt", key));
        expected.sort();
        assert_eq!(keys.salted("salt"), expected);
        assert!(ApiKeys::new(&[]).salted("salt").is_empty());
    }

    #[test]
    fn without_keys_everybody_may() {
        assert!(admits(&[], None));
        assert!(admits(&[], Some("Bearer anything")));
    }
}
