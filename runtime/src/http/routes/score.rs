//! `POST /v1/score`, which vLLM also has as `/score`: how well texts go together.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::post;

use crate::api::error::ApiError;
use crate::api::openapi::{Access, BodyOperation, Operation, RouteDoc, schema};
use crate::api::request::parameters::SCORES;
use crate::api::request::{self, Pairing, PreparedScores};
use crate::api::response::ErrorBody;
use crate::api::response::pooled::List;
use crate::api::response::pooled::Score;
use crate::api::vectors::cosine;
use crate::http::app::App;
use crate::http::body::JsonBytes;
use crate::http::generation::prepare;
use crate::http::ignored::json;
use crate::http::request_id::RequestName;
use crate::http::route::{Dialect, Route};
use crate::http::vectors::{list, vectors};
use crate::model::ScoreActivation;

/// The route.
pub(super) const CREATE: Route = Route {
    doc: RouteDoc {
        path: "/v1/score",
        methods: &["post"],
        summary: "Score how well texts match",
        access: Access::Key,
        operation: Some(Operation::Body(BodyOperation {
            body: &SCORES,
            answer: schema::<List<Score>>,
            event: None,
            error: schema::<ErrorBody>,
        })),
    },
    handler: || post(create),
    dialect: Dialect::Openai,
};

/// Scores every pair.
pub(super) async fn create(
    State(app): State<Arc<App>>,
    name: RequestName,
    body: JsonBytes,
) -> Result<Response, ApiError> {
    let prepared = prepare(&app, body, request::scores).await?;
    let scores = scores(&app, &prepared, "text_2").await?;
    let score = |(index, score)| Score {
        index,
        object: "score",
        score,
    };
    let data = scores.into_iter().enumerate().map(score).collect();
    let id = name.id("score-", prepared.request_id.as_deref());
    Ok(json(
        &list(id, &prepared.model, data, &prepared.requests),
        &prepared.ignored,
    ))
}

/// The score of each pair; `param` is where the second texts came from.
pub(super) async fn scores(
    app: &Arc<App>,
    prepared: &PreparedScores,
    param: &str,
) -> Result<Vec<f32>, ApiError> {
    let serving = app.ready()?;
    app.metrics.arrived();
    let vectors = vectors(&serving.engine, &prepared.requests, param).await?;
    let activation = if prepared.activates {
        serving.pooling.activation
    } else {
        ScoreActivation::Identity
    };
    Ok(match prepared.pairing {
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
    })
}
