//! `POST /tokenize`, `POST /detokenize`: text to tokens and back.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::post;

use crate::api::error::ApiError;
use crate::api::openapi::{Access, BodyOperation, Operation, RouteDoc, schema};
use crate::api::request;
use crate::api::request::parameters::{DETOKENIZATION, TOKENIZATION};
use crate::api::response::ErrorBody;
use crate::api::response::tokens::{Piece, Text, TokenList, Tokens};
use crate::http::app::App;
use crate::http::body::JsonBytes;
use crate::http::generation::prepare;
use crate::http::ignored::json;
use crate::http::route::{Dialect, Route};

/// Text to tokens.
pub(super) const TOKENIZE: Route = Route {
    doc: RouteDoc {
        path: "/v1/tokenize",
        methods: &["post"],
        summary: "Turn text into tokens",
        access: Access::Key,
        operation: Some(Operation::Body(BodyOperation {
            body: &TOKENIZATION,
            answer: schema::<Tokens>,
            event: None,
            error: schema::<ErrorBody>,
        })),
    },
    handler: || post(tokenize),
    dialect: Dialect::Openai,
};

/// Tokens to text.
pub(super) const DETOKENIZE: Route = Route {
    doc: RouteDoc {
        path: "/v1/detokenize",
        methods: &["post"],
        summary: "Turn tokens into text",
        access: Access::Key,
        operation: Some(Operation::Body(BodyOperation {
            body: &DETOKENIZATION,
            answer: schema::<Text>,
            event: None,
            error: schema::<ErrorBody>,
        })),
    },
    handler: || post(detokenize),
    dialect: Dialect::Openai,
};

/// The tokens of a text or of a conversation.
pub(super) async fn tokenize(State(app): State<Arc<App>>, body: JsonBytes) -> Result<Response, ApiError> {
    let tokenized = prepare(&app, body, request::tokenized).await?;
    let max_model_len = app.ready()?.max_model_len;
    let count = tokenized.tokens.len();
    let (tokens, token_strs) = match tokenized.texts {
        Some(texts) if tokenized.in_pieces => {
            let pieces = tokenized.tokens.into_iter().zip(texts);
            let pieces = pieces.map(|(id, piece)| Piece { id, piece });
            (TokenList::Pieces(pieces.collect()), None)
        }
        texts => (TokenList::Ids(tokenized.tokens), texts),
    };
    let answer = Tokens {
        count,
        max_model_len,
        tokens,
        token_strs,
    };
    Ok(json(&answer, &tokenized.ignored))
}

/// The text of tokens.
pub(super) async fn detokenize(State(app): State<Arc<App>>, body: JsonBytes) -> Result<Response, ApiError> {
    let detokenized = prepare(&app, body, request::detokenized).await?;
    let answer = Text {
        prompt: detokenized.text.clone(),
        content: detokenized.text,
    };
    Ok(json(&answer, &detokenized.ignored))
}
