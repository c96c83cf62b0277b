//! What `/v1/responses` and `/v1/messages` have in common: one answer, told as events that have a type each.
//!
//! A whole answer goes the same way as a stream and leaves the events out, so that both say the same.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt};
use serde_json::Value;

use super::events::Events;
use super::generation::submit;
use super::ignored::name_ignored;
use crate::api::answer::{Delta, Deltas, Finish, Token};
use crate::api::error::ApiError;
use crate::api::request::Prepared;
use crate::http::app::App;
use crate::parsers::Piece;

/// Tokens of an answer and its prompt.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Of the prompt.
    pub(super) n_prompt: usize,
    /// Of the prompt, those that the prefix cache had.
    pub(super) n_cached: usize,
    /// Of the answer.
    pub(super) n_generated: usize,
    /// Of the answer, those of thoughts.
    pub(super) n_reasoning: usize,
}

/// How a route writes an answer. Every event is an object with a `type`.
pub(super) trait Writer: Send + 'static {
    /// Before the first piece.
    fn begin(&mut self, counts: Counts, events: &mut Vec<Value>);
    /// The tokens of the next pieces, where the request asked for their log-probabilities.
    fn tokens(&mut self, _tokens: &[Token]) {}
    /// A piece.
    fn piece(&mut self, piece: Piece, events: &mut Vec<Value>);
    /// After the last piece.
    fn end(&mut self, finish: &Finish, counts: Counts, events: &mut Vec<Value>);
    /// Instead of the end.
    fn fail(&mut self, error: &ApiError, events: &mut Vec<Value>);
    /// The whole answer, after its end.
    fn whole(self) -> Value;
}

/// Submits and answers.
pub(super) async fn respond<W: Writer>(
    app: Arc<App>,
    prepared: Prepared,
    writer: W,
) -> Result<Response, ApiError> {
    let deltas = submit(&app, &prepared)?.deltas();
    let teller = Teller {
        writer,
        counts: Counts {
            n_prompt: prepared.n_prompt_tokens(),
            ..Counts::default()
        },
        has_begun: false,
        has_ended: false,
    };
    let mut response = match prepared.answers.stream {
        None => Json(whole(deltas, teller).await?).into_response(),
        Some(_) => streamed(app, deltas, teller),
    };
    name_ignored(&mut response, &prepared.ignored);
    Ok(response)
}

async fn whole<W: Writer>(mut deltas: Deltas, mut teller: Teller<W>) -> Result<Value, ApiError> {
    let (mut events, mut ready) = (Vec::new(), Vec::new());
    loop {
        deltas.ready(&mut ready).await;
        if ready.is_empty() {
            return Ok(teller.writer.whole());
        }
        for delta in ready.drain(..) {
            teller.delta(delta?, &mut events);
            events.clear();
        }
    }
}

fn streamed<W: Writer>(app: Arc<App>, deltas: Deltas, teller: Teller<W>) -> Response {
    let state = Some((deltas, teller));
    let written = stream::unfold((state, app), |(state, app)| async move {
        let (mut deltas, mut teller) = state?;
        let (mut told, mut ready) = (Vec::new(), Vec::new());
        deltas.ready(&mut ready).await;
        if ready.is_empty() {
            return None;
        }
        for delta in ready {
            match delta {
                Ok(delta) => teller.delta(delta, &mut told),
                Err(error) => {
                    app.metrics.failed(error.facts().label);
                    teller.writer.fail(&error, &mut told);
                    return Some((written(&told), (None, app)));
                }
            }
        }
        let state = (!teller.has_ended).then_some((deltas, teller));
        Some((written(&told), (state, app)))
    });
    super::events::respond(written.boxed())
}

fn written(told: &[Value]) -> Events {
    let mut events = Events::default();
    for event in told {
        events.push_typed(event["type"].as_str().unwrap_or_default(), event);
    }
    events
}

struct Teller<W> {
    writer: W,
    counts: Counts,
    has_begun: bool,
    has_ended: bool,
}

impl<W: Writer> Teller<W> {
    fn delta(&mut self, delta: Delta, events: &mut Vec<Value>) {
        self.counts.n_cached = delta.counts.n_cached;
        if !std::mem::replace(&mut self.has_begun, true) {
            self.writer.begin(self.counts, events);
        }
        self.counts.n_generated = delta.counts.n_generated;
        self.counts.n_reasoning = delta.counts.n_reasoning;
        self.writer.tokens(&delta.tokens);
        for piece in delta.pieces {
            self.writer.piece(piece, events);
        }
        if let Some(finish) = &delta.finish {
            self.has_ended = true;
            self.writer.end(finish, self.counts, events);
        }
    }
}
