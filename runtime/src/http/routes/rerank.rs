//! `POST /v1/rerank`, also `/rerank` and `/v2/rerank`: documents in the order in which they fit a query.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::post;

use super::score::scores;
use crate::api::error::ApiError;
use crate::api::openapi::{Access, BodyOperation, Operation, RouteDoc, schema};
use crate::api::request::parameters::RERANKING;
use crate::api::request::{self, RankingForm};
use crate::api::response::ErrorBody;
use crate::api::response::pooled::{Document, Ranked, RankedDocument, RankedText, Ranking};
use crate::http::app::App;
use crate::http::body::JsonBytes;
use crate::http::generation::prepare;
use crate::http::ignored::json;
use crate::http::request_id::RequestName;
use crate::http::route::{Dialect, Route};
use crate::http::vectors::usage;

/// The route.
pub(super) const CREATE: Route = Route {
    doc: RouteDoc {
        path: "/v1/rerank",
        methods: &["post"],
        summary: "Order documents by a query",
        access: Access::Key,
        operation: Some(Operation::Body(BodyOperation {
            body: &RERANKING,
            answer: schema::<Ranked>,
            event: None,
            error: schema::<ErrorBody>,
        })),
    },
    handler: || post(create),
    dialect: Dialect::Openai,
};

/// The route as Cohere's clients send it.
pub(super) const CREATE_V2: Route = Route {
    doc: RouteDoc {
        path: "/v2/rerank",
        methods: &["post"],
        summary: "As `/v1/rerank`",
        access: Access::Key,
        operation: None,
    },
    handler: || post(create),
    dialect: Dialect::Openai,
};

/// Ranks the documents.
pub(super) async fn create(
    State(app): State<Arc<App>>,
    name: RequestName,
    body: JsonBytes,
) -> Result<Response, ApiError> {
    let prepared = prepare(&app, body, request::ranking).await?;
    let scores = scores(&app, &prepared.scores, prepared.form.param()).await?;
    let mut order: Vec<(usize, f32)> = scores.into_iter().enumerate().collect();
    // Stable: of equals the earlier document comes first.
    order.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    order.truncate(prepared.top_n);
    let document = |(index, relevance_score): (usize, f32)| RankedDocument {
        index,
        document: prepared.returns_documents.then(|| Document {
            text: prepared.documents[index].clone(),
        }),
        relevance_score,
    };
    let text = |(index, score): (usize, f32)| RankedText { index, score };
    let answer = match prepared.form {
        RankingForm::Documents => Ranked::Documents(Ranking {
            id: name.id("rerank-", prepared.scores.request_id.as_deref()),
            model: prepared.scores.model.clone(),
            usage: usage(&prepared.scores.requests),
            results: order.into_iter().map(document).collect(),
        }),
        RankingForm::Texts => Ranked::Texts(order.into_iter().map(text).collect()),
    };
    Ok(json(&answer, &prepared.scores.ignored))
}
