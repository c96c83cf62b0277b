//! What the keys of clients look like to those who must recognise them without knowing them.
//!
//! A replica reports the operator a salted hash of each key that it accepts, so that the gateway recognises the clients of a
//! model without replicas. The salt is the uid of the ModelDeployment: equal keys of two of them look different.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Path of the hashes, at the control port of the runtime; the salt is the parameter `salt` of the query.
pub const PATH: &str = "/internal/keys";
/// Name of the header in which Anthropic's clients send their key.
pub const ANTHROPIC_HEADER: &str = "x-api-key";
/// Characters of a hash: 128 bits.
pub const HASH_CHARS: usize = 32;
/// The purpose of the hashes, so that they are no hashes of anything else.
const CONTEXT: &str = "slipway.dev 2026-12 keys that may start a replica";

/// The body of `GET /internal/keys`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KeyHashes {
    /// A hash of each key, sorted; none if clients need no key.
    pub hashes: Vec<String>,
}

/// The keys that may start a replica: those of a Secret, as a replica reported them.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct WakeKeys {
    /// Name of the Secret.
    pub secret: String,
    /// Key in the Secret.
    pub key: String,
    /// A salted hash of each API key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hashes: Vec<String>,
}

/// The salted hash of a key.
pub fn hash(salt: &str, key: &[u8]) -> String {
    of_digest(salt, blake3::hash(key).as_bytes())
}

/// The salted hash of a key with this BLAKE3 digest.
pub fn of_digest(salt: &str, digest: &[u8; 32]) -> String {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(digest).update(salt.as_bytes());
    hasher.finalize().to_hex()[..HASH_CHARS].to_string()
}

/// The key in the value of an `Authorization` header: with the scheme `Bearer`, as OpenAI's clients send it, or without
/// one, as RunPod's do.
pub fn of_authorization(value: &[u8]) -> &[u8] {
    let value = value.trim_ascii();
    match value.split_at_checked("bearer".len()) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer") && ends_word(key) => key.trim_ascii(),
        _ => value,
    }
}

fn ends_word(rest: &[u8]) -> bool {
    rest.first().is_none_or(|next| *next == b' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_depends_on_the_key_and_the_salt() {
        let of = |salt: &str, key: &str| hash(salt, key.as_bytes());
        assert_eq!(of("a", "key"), of("a", "key"));
        assert_ne!(of("a", "key"), of("b", "key"));
        assert_ne!(of("a", "key"), of("a", "other"));
        assert_eq!(of("a", "key").len(), HASH_CHARS);
    }

    #[test]
    fn a_key_comes_with_a_scheme_or_without() {
        for value in ["Bearer key", "bearer  key ", " key", "key"] {
            assert_eq!(of_authorization(value.as_bytes()), b"key", "{value}");
        }
        assert_eq!(of_authorization(b"Bearer "), b"");
        assert_eq!(of_authorization(b"Basic key"), b"Basic key");
    }
}
