//! The body of `GET /internal/load`: the load of a replica in numbers. The runtime writes it and the autoscaler reads it.
//!
//! Types only. A reader accepts the bodies of other versions: absent fields have defaults, unknown fields are ignored.

use serde::{Deserialize, Serialize};

/// Path of the load, at the control port of the runtime.
pub const PATH: &str = "/internal/load";

/// The body of `GET /internal/load`. Before the model is loaded everything is zero.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadStatus {
    /// Sequences that run.
    pub running: u64,
    /// Requests that wait for a place.
    pub waiting: u64,
    /// Sequences that can run at the same time.
    pub capacity: u64,
    /// Share of the KV cache that is used, 0 to 1.
    pub kv_usage: f64,
    /// Requests that arrived since the start, whatever became of them.
    pub arrivals_total: u64,
    /// Requests that were refused since the start because the queue was full.
    pub rejected_total: u64,
    /// Mean seconds of a request in the engine; null before the first one ended.
    pub service_time_seconds: Option<f64>,
    /// Whether the process finishes its requests and takes no more.
    pub draining: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_another_version_is_read() {
        let body = r#"{"running": 2, "capacity": 8, "serviceTimeSeconds": null, "later": 1}"#;
        let expected = LoadStatus {
            running: 2,
            capacity: 8,
            ..LoadStatus::default()
        };
        assert_eq!(serde_json::from_str::<LoadStatus>(body).unwrap(), expected);
        let text = serde_json::to_string(&expected).unwrap();
        assert!(text.contains(r#""kvUsage":0.0,"arrivalsTotal":0"#), "{text}");
    }
}
