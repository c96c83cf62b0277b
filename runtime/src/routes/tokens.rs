//! `POST /tokenize`, `POST /detokenize`: text to tokens and back.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::body::JsonBytes;
use super::generation::{json, prepare};
use crate::error::ApiError;
use crate::request;
use crate::response::tokens::{Text, Tokens};
use crate::server::App;

/// The tokens of a text or of a conversation.
pub(super) async fn tokenize(State(app): State<Arc<App>>, body: JsonBytes) -> Result<Response, ApiError> {
    let tokenized = prepare(&app, body, request::tokenized).await?;
    let max_model_len = app.serving.get().ok_or(ApiError::Loading)?.max_model_len;
    let answer = Tokens {
        count: tokenized.tokens.len(),
        max_model_len,
        tokens: tokenized.tokens,
        token_strs: tokenized.texts,
    };
    Ok(json(&answer, &tokenized.ignored))
}

/// The text of tokens.
pub(super) async fn detokenize(State(app): State<Arc<App>>, body: JsonBytes) -> Result<Response, ApiError> {
    let (prompt, ignored) = prepare(&app, body, request::detokenized).await?;
    Ok(json(&Text { prompt }, &ignored))
}
