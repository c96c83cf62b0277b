//! Who may start the first replica of a ModelDeployment that has none.

use crate::{keys::WakeKeys, modeldeployment::ModelDeployment};

/// Who may start a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known<'a> {
    /// Everybody: clients need no key.
    Everybody,
    /// Clients whose key has one of these hashes.
    Keys(&'a [String]),
    /// Clients with a key, but no replica has reported which keys there are.
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
        let reported = self.status.as_ref().and_then(|status| status.wake_keys.as_ref());
        let is_of_secret =
            |reported: &&WakeKeys| reported.secret == secret.name && reported.key == secret.key();
        match reported.filter(is_of_secret) {
            Some(reported) => Known::Keys(&reported.hashes),
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
        let object = |auth: serde_json::Value, reported: serde_json::Value| {
            let object = json!({
                "apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "chat"},
                "spec": {"model": {"huggingFace": {"repo": "a/b"}}, "auth": auth},
                "status": {"wakeKeys": reported},
            });
            serde_json::from_value::<ModelDeployment>(object).unwrap()
        };
        let keys = json!({"apiKeysSecretRef": {"name": "keys"}});
        let reported = json!({"secret": "keys", "key": "OPENAI_API_KEYS", "hashes": ["h"]});
        assert_eq!(object(json!({}), reported.clone()).wake_keys(), Known::Everybody);
        let known = object(keys.clone(), reported.clone());
        assert_eq!(known.wake_keys(), Known::Keys(&["h".into()]));
        let other = json!({"apiKeysSecretRef": {"name": "keys", "key": "other"}});
        assert_eq!(object(other, reported).wake_keys(), Known::Nobody);
        assert_eq!(object(keys, json!(null)).wake_keys(), Known::Nobody);
    }
}
