//! `/v1/models`: what the client may use, as the replicas themselves answer it with the client's key.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::directory::{Backend, Directory};

/// Replicas that are asked at the same time.
const CONCURRENCY: usize = 32;
/// Longest time that a replica may take for its answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The models of all ModelDeployments for the client with these headers.
pub(super) async fn models(http: &reqwest::Client, directory: &Directory, headers: &HeaderMap) -> Response {
    let backends: Vec<Arc<Backend>> = directory.named().cloned().collect();
    let listed = stream::iter(backends)
        .map(|backend| async move { of_backend(http, directory, &backend, headers).await })
        .buffered(CONCURRENCY)
        .concat()
        .await;
    let mut models: Vec<Value> = Vec::new();
    for model in listed {
        if !models.iter().any(|known| known["id"] == model["id"]) {
            models.push(model);
        }
    }
    Json(json!({"object": "list", "data": models})).into_response()
}

/// What one ModelDeployment serves under names that are its own.
async fn of_backend(
    http: &reqwest::Client,
    directory: &Directory,
    backend: &Backend,
    headers: &HeaderMap,
) -> Vec<Value> {
    let is_owned = |id: &str| {
        let owners = directory.of_name(id).unwrap_or_default();
        owners.iter().any(|owner| owner.key == backend.key)
    };
    let models = match backend.replicas.first() {
        Some(replica) => {
            let request = http
                .get(format!("http://{replica}/v1/models"))
                .headers(headers.clone());
            let answer = async { request.send().await?.error_for_status()?.json::<Value>().await };
            match timeout(TIMEOUT, answer).await {
                Ok(Ok(answer)) => answer["data"].as_array().cloned().unwrap_or_default(),
                Ok(Err(_)) | Err(_) => Vec::new(),
            }
        }
        // Only keys that a replica has reported before can be checked now.
        None if backend.guests.admit(headers) => backend.names.iter().map(|name| of_name(name)).collect(),
        None => Vec::new(),
    };
    let named = models.into_iter();
    named
        .filter(|model| model["id"].as_str().is_some_and(is_owned))
        .collect()
}

fn of_name(name: &str) -> Value {
    json!({"id": name, "object": "model", "created": 0, "owned_by": "slipway"})
}
