//! `POST /v1/score`, which vLLM also has as `/score`: how well texts go together.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use super::body::JsonBytes;
use super::generation::prepare;
use super::pooling::{list, response, vectors};
use crate::error::ApiError;
use crate::pooling::{Activation, cosine};
use crate::request::{self, Pairing};
use crate::server::App;

/// Scores every pair.
pub(super) async fn create(State(app): State<Arc<App>>, body: JsonBytes) -> Result<Response, ApiError> {
    let prepared = prepare(&app, body, request::scores).await?;
    let serving = app.serving.get().ok_or(ApiError::Loading)?;
    app.metrics.arrived();
    let vectors = vectors(&serving.engine, &prepared.requests, "text_2").await?;
    let entry = |(idx, score): (usize, f32)| json!({"index": idx, "object": "score", "score": score});
    let scores = scores(&vectors, prepared.pairing, serving.activation);
    let data = scores.into_iter().enumerate().map(entry).collect();
    let body = list("score-", &prepared.model, data, &prepared.requests);
    Ok(response(body, &prepared.ignored))
}

fn scores(vectors: &[Vec<f32>], pairing: Pairing, activation: Activation) -> Vec<f32> {
    match pairing {
        Pairing::Scored => {
            let raw = vectors
                .iter()
                .map(|vector| vector.first().copied().unwrap_or(f32::NAN));
            raw.map(|raw| activation.apply(raw)).collect()
        }
        Pairing::Compared { n_first } => {
            let (first, second) = vectors.split_at(n_first);
            let pairs = first.iter().cycle().zip(second);
            pairs.map(|(a, b)| cosine(a, b)).collect()
        }
    }
}
