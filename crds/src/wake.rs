//! Who may start the first replica of a ModelDeployment that has none.

use crate::{keys::WakeKeys, modeldeployment::ModelDeployment};

/// Who may start a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known<'a> {
    /// Everybody: clients need no key.
    Everybody,
    /// Clients whose key has one of these hashes.
    Keys(&'a [String]),
    /// Clients with a key, but no replica has told which keys there are.
    Nobody,
}

impl ModelDeployment {
    /// Who may start a replica.
    pub fn wake_keys(&self) -> Known<'_> {
        let secret = self
            .spec
            .auth
            .as_ref()
            .and_then(|auth| auth.api_keys_secret_ref.as_ref());
        let Some(secret) = secret else {
            return Known::Everybody;
        };
        let told = self.status.as_ref().and_then(|status| status.wake_keys.as_ref());
        let is_of_secret = |told: &&WakeKeys| told.secret == secret.name && told.key == secret.key();
        match told.filter(is_of_secret) {
            Some(told) => Known::Keys(&told.hashes),
            None => Known::Nobody,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_of_another_secret_start_nothing() {
        let object = |auth: serde_json::Value, told: serde_json::Value| {
            let object = json!({
                "apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "chat"},
                "spec": {"model": {"huggingFace": {"repo": "a/b"}}, "auth": auth},
                "status": {"wakeKeys": told},
            });
            serde_json::from_value::<ModelDeployment>(object).unwrap()
        };
        let keys = json!({"apiKeysSecretRef": {"name": "keys"}});
        let told = json!({"secret": "keys", "key": "OPENAI_API_KEYS", "hashes": ["h"]});
        assert_eq!(object(json!({}), told.clone()).wake_keys(), Known::Everybody);
        let known = object(keys.clone(), told.clone());
        assert_eq!(known.wake_keys(), Known::Keys(&["h".into()]));
        let other = json!({"apiKeysSecretRef": {"name": "keys", "key": "other"}});
        assert_eq!(object(other, told).wake_keys(), Known::Nobody);
        assert_eq!(object(keys, json!(null)).wake_keys(), Known::Nobody);
    }
}
