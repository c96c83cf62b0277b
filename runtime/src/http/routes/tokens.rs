//! `POST /tokenize`, `POST /detokenize`: text to tokens and back.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use crate::api::error::ApiError;
use crate::api::request;
use crate::api::response::tokens::{Piece, Text, TokenList, Tokens};
use crate::http::app::App;
use crate::http::body::JsonBytes;
use crate::http::generation::prepare;
use crate::http::ignored::json;

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
    let (prompt, ignored) = prepare(&app, body, request::detokenized).await?;
    let content = prompt.clone();
    Ok(json(&Text { prompt, content }, &ignored))
}
