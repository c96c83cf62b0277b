//! `POST /v1/embeddings`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::body::JsonBytes;
use super::generation::prepare;
use super::pooling::{list, response, vectors};
use crate::error::ApiError;
use crate::model::Task;
use crate::pooling::normalised;
use crate::request::{self, Encoding};
use crate::server::App;

/// Makes a vector of every input.
pub(super) async fn create(State(app): State<Arc<App>>, body: JsonBytes) -> Result<Response, ApiError> {
    let prepared = prepare(&app, body, request::embeddings).await?;
    let serving = app.serving.get().ok_or(ApiError::Loading)?;
    app.metrics.arrived();
    let vectors = vectors(&serving.engine, &prepared.requests, "input").await?;
    let normalises = matches!(serving.info.task, Task::Embed { normalises: true, .. });
    let entry = |(idx, vector): (usize, Vec<f32>)| {
        let vector = if normalises { normalised(vector) } else { vector };
        json!({"index": idx, "object": "embedding", "embedding": written(&vector, prepared.encoding)})
    };
    let data = vectors.into_iter().enumerate().map(entry).collect();
    let body = list("embd-", &prepared.model, data, &prepared.requests);
    Ok(response(body, &prepared.ignored))
}

fn written(vector: &[f32], encoding: Encoding) -> Value {
    match encoding {
        Encoding::Float => vector.into(),
        Encoding::Base64 => {
            let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            STANDARD.encode(bytes).into()
        }
    }
}
