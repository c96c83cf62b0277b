//! The body of `GET /internal/demand` of a gateway: the requests that it holds because no replica is ready. The gateway
//! writes it and the operator reads it.
//!
//! Types only. A reader accepts the bodies of other versions: absent fields have defaults, unknown fields are ignored.

use serde::{Deserialize, Serialize};

/// Path of the demand, at the control port of a gateway.
pub const PATH: &str = "/internal/demand";

/// The body of `GET /internal/demand`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DemandStatus {
    /// The ModelDeployments with held requests.
    pub held: Vec<HeldRequests>,
}

/// The requests that are held for one ModelDeployment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeldRequests {
    /// Namespace of the ModelDeployment.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How many requests are held, at least one.
    pub requests: u64,
    /// Milliseconds since the first of them came, without a pause in which none was held.
    pub since_milliseconds: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_another_version_is_read() {
        let body = r#"{"held": [{"namespace": "a", "name": "b", "requests": 3, "later": 1}], "later": 1}"#;
        let status: DemandStatus = serde_json::from_str(body).unwrap();
        assert_eq!(status.held[0].requests, 3);
        assert_eq!(serde_json::from_str::<DemandStatus>("{}").unwrap().held, []);
    }
}
