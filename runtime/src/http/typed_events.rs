//! The part that `/v1/responses` and `/v1/messages` share: one answer, as events each of which has a type.
//!
//! A complete answer is made in the same way as a stream, without its events, so both have the same content.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt};
use serde::Serialize;

use super::events::Events;
use super::generation::submit;
use super::ignored::name_ignored;
use crate::api::answer::{Delta, Deltas, Finish, Token, TokenCounts};
use crate::api::error::ApiError;
use crate::api::request::Prepared;
use crate::http::app::App;
use crate::parsers::Piece;

/// Tokens of an answer and its prompt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    /// Tokens of the prompt.
    pub(super) n_prompt: usize,
    /// Tokens of the answer.
    pub(super) answer: TokenCounts,
}

/// How a route writes an answer.
pub(super) trait Writer: Send + 'static {
    /// An event. Its first field is its `type`.
    type Event: Serialize + Send;
    /// A complete answer.
    type Answer: Serialize;

    /// Called before the first piece.
    fn begin(&mut self, counts: Counts, events: &mut Vec<Self::Event>);
    /// Called with the tokens of the next pieces, if the request needs their log-probabilities.
    fn tokens(&mut self, _tokens: &[Token]) {}
    /// Called for each piece.
    fn piece(&mut self, piece: Piece, events: &mut Vec<Self::Event>);
    /// Called after the last piece.
    fn end(&mut self, finish: &Finish, counts: Counts, events: &mut Vec<Self::Event>);
    /// Called instead of `end` if the answer failed.
    fn fail(&mut self, error: &ApiError, events: &mut Vec<Self::Event>);
    /// The complete answer, after its end.
    fn answer(self) -> Self::Answer;
}

/// Submits a request and answers it.
pub(super) async fn respond<W: Writer>(
    app: Arc<App>,
    prepared: Prepared,
    writer: W,
) -> Result<Response, ApiError> {
    let deltas = submit(&app, &prepared)?.deltas();
    let writer = EventWriter::new(writer, prepared.n_prompt_tokens());
    let mut response = match prepared.answers.stream {
        None => Json(complete(deltas, writer).await?).into_response(),
        Some(_) => streamed(app, deltas, writer),
    };
    name_ignored(&mut response, &prepared.ignored);
    Ok(response)
}

async fn complete<W: Writer>(mut deltas: Deltas, mut writer: EventWriter<W>) -> Result<W::Answer, ApiError> {
    let mut ready = Vec::new();
    loop {
        deltas.ready(&mut ready).await;
        if ready.is_empty() {
            return Ok(writer.writer.answer());
        }
        for delta in ready.drain(..) {
            writer.delta(delta?);
            writer.events.clear();
        }
    }
}

fn streamed<W: Writer>(app: Arc<App>, deltas: Deltas, writer: EventWriter<W>) -> Response {
    let state = Some((deltas, writer));
    let events = stream::unfold((state, app), |(state, app)| async move {
        let (mut deltas, mut writer) = state?;
        let mut ready = Vec::new();
        deltas.ready(&mut ready).await;
        if ready.is_empty() {
            return None;
        }
        for delta in ready {
            match delta {
                Ok(delta) => writer.delta(delta),
                Err(error) => {
                    app.metrics.failed(error.facts().label);
                    return Some((writer.failed(&error), (None, app)));
                }
            }
        }
        let events = writer.take_events();
        let state = (!writer.has_ended).then_some((deltas, writer));
        Some((events, (state, app)))
    });
    super::events::respond(events.boxed())
}

/// Writes the events of an answer.
struct EventWriter<W: Writer> {
    writer: W,
    counts: Counts,
    has_begun: bool,
    has_ended: bool,
    /// Events that were not sent yet.
    events: Vec<W::Event>,
}

impl<W: Writer> EventWriter<W> {
    fn new(writer: W, n_prompt: usize) -> Self {
        Self {
            writer,
            counts: Counts {
                n_prompt,
                answer: TokenCounts::default(),
            },
            has_begun: false,
            has_ended: false,
            events: Vec::new(),
        }
    }

    fn delta(&mut self, delta: Delta) {
        if !std::mem::replace(&mut self.has_begun, true) {
            self.counts.answer.n_cached = delta.counts.n_cached;
            self.writer.begin(self.counts, &mut self.events);
        }
        self.counts.answer = delta.counts;
        self.writer.tokens(&delta.tokens);
        for piece in delta.pieces {
            self.writer.piece(piece, &mut self.events);
        }
        if let Some(finish) = &delta.finish {
            self.has_ended = true;
            self.writer.end(finish, self.counts, &mut self.events);
        }
    }

    /// The events so far, and that of a failure.
    fn failed(mut self, error: &ApiError) -> Events {
        self.writer.fail(error, &mut self.events);
        self.take_events()
    }

    fn take_events(&mut self) -> Events {
        let mut written = Events::default();
        for event in self.events.drain(..) {
            written.push_typed(&event);
        }
        written
    }
}
