//! `POST /v1/embeddings`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::body::JsonBytes;
use super::generation::{RequestName, json, prepare};
use super::pooling::{list, vectors};
use crate::error::ApiError;
use crate::model::Task;
use crate::pooling::normalised;
use crate::request::{self, Encoding};
use crate::response::pooled::{Embedding, Vector};
use crate::server::App;

/// Makes a vector of every input.
pub(super) async fn create(
    State(app): State<Arc<App>>,
    name: RequestName,
    body: JsonBytes,
) -> Result<Response, ApiError> {
    let prepared = prepare(&app, body, request::embeddings).await?;
    let serving = app.serving.get().ok_or(ApiError::Loading)?;
    app.metrics.arrived();
    let vectors = vectors(&serving.engine, &prepared.requests, "input").await?;
    let by_itself = matches!(serving.info.task, Task::Embed { normalises: true, .. });
    let normalises = prepared.normalises.unwrap_or(by_itself);
    let embedding = |(index, mut vector): (usize, Vec<f32>)| {
        vector.truncate(prepared.dimensions.unwrap_or(usize::MAX));
        let vector = if normalises { normalised(vector) } else { vector };
        Embedding {
            index,
            object: "embedding",
            embedding: written(vector, prepared.encoding),
        }
    };
    let data = vectors.into_iter().enumerate().map(embedding).collect();
    let id = name.id("embd-", prepared.request_id.as_deref());
    Ok(json(
        &list(id, &prepared.model, data, &prepared.requests),
        &prepared.ignored,
    ))
}

fn written(vector: Vec<f32>, encoding: Encoding) -> Vector {
    match encoding {
        Encoding::Float => Vector::Float(vector),
        Encoding::Base64 => {
            let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            Vector::Base64(STANDARD.encode(bytes))
        }
    }
}
