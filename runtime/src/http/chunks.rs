//! A streamed answer of OpenAI's APIs, written as events.
//!
//! Owns what all chunks of an answer have in common, the chunks, and the counts of tokens in `usage`.

use std::sync::Arc;

use axum::response::Response;
use futures::stream::{self, StreamExt};
use serde::Serialize;

use super::app::App;
use super::events::{self, Events};
use super::shape::Shape;
use crate::api::answer::{Delta, Deltas, TokenCounts};
use crate::api::error::ApiError;
use crate::api::request::{Prepared, StreamOptions};
use crate::api::response::{Answer, CompletionTokensDetails, FINGERPRINT, PromptTokensDetails, Usage};
use crate::clock::unix_time_s;

/// Bytes of a choice with little text, for making room.
const CHOICE_BYTES: usize = 128;

/// What is the same in every chunk of an answer.
#[derive(Debug)]
pub(super) struct Envelope {
    id: String,
    created: u64,
    model: String,
    n_prompt: usize,
    /// Answers to each prompt.
    n: usize,
    /// The request wants only prompts, so generated tokens do not count.
    only_prompt: bool,
}

impl Envelope {
    pub(super) fn new(id: String, prepared: &Prepared) -> Self {
        Self {
            id,
            created: unix_time_s(),
            model: prepared.model.clone(),
            n_prompt: prepared.n_prompt_tokens(),
            n: prepared.answers.n,
            only_prompt: prepared.answers.only_prompt,
        }
    }

    pub(super) fn around<C>(&self, object: &'static str, choices: Vec<C>) -> Answer<'_, C> {
        Answer {
            id: &self.id,
            object,
            created: self.created,
            model: &self.model,
            choices,
            usage: None,
            system_fingerprint: FINGERPRINT,
            prompt_token_ids: None,
            prompt_logprobs: None,
        }
    }

    pub(super) fn usage(&self, counts: &[TokenCounts]) -> Usage {
        let shown = counts.iter().filter(|_| !self.only_prompt);
        let n_generated: usize = shown.map(|counts| counts.n_generated).sum();
        // The answers to one prompt share it.
        let shared = counts.iter().step_by(self.n);
        Usage {
            prompt_tokens: self.n_prompt,
            completion_tokens: n_generated,
            total_tokens: self.n_prompt + n_generated,
            prompt_tokens_details: PromptTokensDetails {
                cached_tokens: shared.map(|counts| counts.n_cached).sum(),
            },
            completion_tokens_details: CompletionTokensDetails {
                reasoning_tokens: counts.iter().map(|counts| counts.n_reasoning).sum(),
            },
        }
    }
}

/// What every chunk of an answer has around its choices, written once.
struct Frame {
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Frame {
    /// Of an answer without choices.
    fn new<C: Serialize>(answer: &Answer<'_, C>) -> Self {
        // No text can look so: a quote in one is written with a backslash.
        const CHOICES: &[u8] = br#","choices":["#;
        let mut before = serde_json::to_vec(answer).expect("answers serialize");
        let at = before.windows(CHOICES.len()).position(|bytes| bytes == CHOICES);
        let after = before.split_off(at.expect("an answer has choices") + CHOICES.len());
        Self { before, after }
    }

    /// Bytes of an event with little text.
    fn n_bytes(&self) -> usize {
        self.before.len() + self.after.len() + CHOICE_BYTES
    }

    /// Adds an event. `usage` is as [`Answer::usage`].
    fn push(&self, events: &mut Events, choice: Option<&impl Serialize>, usage: Option<Option<Usage>>) {
        let (end_of_choices, after) = self.after.split_at(1);
        events.push_written(|data| {
            data.extend_from_slice(&self.before);
            if let Some(choice) = choice {
                serde_json::to_writer(&mut *data, choice).expect("choices serialize");
            }
            data.extend_from_slice(end_of_choices);
            if let Some(usage) = usage {
                data.extend_from_slice(br#","usage":"#);
                serde_json::to_writer(&mut *data, &usage).expect("numbers serialize");
            }
            data.extend_from_slice(after);
        });
    }
}

/// Writes a stream's events.
pub(super) struct ChunkWriter<S: Shape> {
    app: Arc<App>,
    envelope: Envelope,
    frame: Frame,
    shape: S,
    options: StreamOptions,
    /// Per choice.
    counts: Vec<TokenCounts>,
    /// Those of the piece that is being written.
    chunks: Vec<S::ChunkChoice>,
}

impl<S: Shape> ChunkWriter<S> {
    /// Writes the answers to `prepared` in a shape.
    pub(super) fn new(app: Arc<App>, prepared: &Prepared, id: String, shape: S) -> Self {
        let envelope = Envelope::new(id, prepared);
        Self {
            app,
            frame: Frame::new(&envelope.around::<S::ChunkChoice>(S::CHUNK, Vec::new())),
            envelope,
            shape,
            options: prepared.answers.stream.unwrap_or_default(),
            counts: vec![TokenCounts::default(); prepared.prompts.len() * prepared.answers.n],
            chunks: Vec::new(),
        }
    }

    /// The events of answers as they arrive; what is ready at once is sent at once.
    pub(super) fn respond(self, deltas: Deltas) -> Response {
        // Boxed, because it is moved in and out with each batch.
        let state = Some(Box::new((self, deltas, Vec::new())));
        let written = stream::unfold(state, |state| async move {
            let mut state = state?;
            let (writer, deltas, ready) = &mut *state;
            deltas.ready(ready).await;
            let mut events = Events::with_room_for(ready.len() * writer.frame.n_bytes());
            if ready.is_empty() {
                writer.end(&mut events);
                return Some((events, None));
            }
            for delta in ready.drain(..) {
                match delta {
                    Ok(delta) => writer.delta(delta, &mut events),
                    Err(error) => {
                        writer.error(&error, &mut events);
                        return Some((events, None));
                    }
                }
            }
            Some((events, Some(state)))
        });
        events::respond(written.boxed())
    }

    fn delta(&mut self, delta: Delta, events: &mut Events) {
        let idx = delta.choice_idx;
        let counts = delta.counts;
        self.shape.chunks(delta, &mut self.chunks);
        let n_before = self.chunks.len().saturating_sub(1);
        for (at, choice) in self.chunks.drain(..).enumerate() {
            // What comes before the last chunk, such as the role, is no token of its own.
            if at == n_before {
                self.counts[idx] = counts;
            }
            let options = self.options;
            let usage = options
                .continuous_usage_stats
                .then(|| self.envelope.usage(&self.counts));
            let usage = (options.include_usage || usage.is_some()).then_some(usage);
            let Some(prompt_ids) = self.shape.take_prompt_ids() else {
                self.frame.push(events, Some(&choice), usage);
                continue;
            };
            let mut chunk = self.envelope.around(S::CHUNK, vec![choice]);
            chunk.usage = usage;
            chunk.prompt_token_ids = Some(prompt_ids);
            events.push(&chunk);
        }
    }

    /// An answer that breaks off ends with an error event and without `[DONE]`.
    fn error(&mut self, error: &ApiError, events: &mut Events) {
        self.app.metrics.failed(error.facts().label);
        events.push(&error.body());
    }

    fn end(&mut self, events: &mut Events) {
        if self.options.include_usage {
            let usage = self.envelope.usage(&self.counts);
            self.frame
                .push(events, None::<&S::ChunkChoice>, Some(Some(usage)));
        }
        events.done();
    }
}
