//! What the generating routes have in common: prepare, submit, and answer whole or as a stream of events.
//!
//! A route brings its reader and its [`Shape`]; the rest is here once.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt};
use serde::Serialize;

use super::body::JsonBytes;
use super::events::Events;
use crate::answer::{Choice, ChoicePlan, Delta, Deltas, Running, Whole, best};
use crate::engine::Ticket;
use crate::error::{ApiError, shortened};
use crate::request::{Prepared, Rules, StreamOptions, Work};
use crate::response::{Answer, CompletionTokensDetails, FINGERPRINT, PromptTokensDetails, Usage};
use crate::server::{App, Serving};
use crate::tokenizer::Tokenizer;

/// Bytes of a choice with little text, for making room.
const CHOICE_BYTES: usize = 128;

/// Unknown parameters that are named to the client.
const IGNORED_MAX: usize = 16;

/// How a route reads a body.
pub(super) type Reader<T> = fn(&[u8], &Rules<'_>, &Tokenizer) -> Result<T, ApiError>;

/// How a route writes answers.
pub(super) trait Shape: Send + 'static {
    /// Beginning of an answer's id.
    const ID_PREFIX: &'static str;
    /// `object` of a whole answer.
    const WHOLE: &'static str;
    /// `object` of a chunk.
    const CHUNK: &'static str;
    /// An entry of `choices` of a whole answer.
    type Choice: Serialize;
    /// An entry of `choices` of a chunk.
    type ChunkChoice: Serialize + Send;

    /// A whole answer.
    fn whole(&mut self, choice_idx: usize, whole: Whole) -> Self::Choice;

    /// Adds the pieces of an answer, each of which is a chunk of its own.
    fn chunks(&mut self, delta: Delta, chunks: &mut Vec<Self::ChunkChoice>);

    /// Tokens of the prompt, which the first chunk of a stream tells; none from the second call on.
    fn take_prompt_ids(&mut self) -> Option<Vec<u32>> {
        None
    }

    /// What a whole answer has beside its choices.
    fn complete(&mut self, _prepared: &Prepared, _answer: &mut Answer<'_, Self::Choice>) {}
}

/// Reads and checks a body where it may take long: off the threads that serve others.
pub(super) async fn prepare<T: Send + 'static>(
    app: &Arc<App>,
    body: JsonBytes,
    read: Reader<T>,
) -> Result<T, ApiError> {
    let serving = app.serving.get().ok_or(ApiError::Loading)?;
    let worker = Arc::clone(app);
    let prepared = Arc::clone(&serving.tokenizer).in_pool(move |tokenizer| {
        let serving = worker.serving.get().expect("it was there when the body came");
        read(&body.0, &rules(&worker, serving), tokenizer)
    });
    prepared.await.map_err(|error| {
        tracing::error!(%error, "a request could not be prepared");
        ApiError::Internal
    })?
}

fn rules<'a>(app: &'a App, serving: &'a Serving) -> Rules<'a> {
    Rules {
        served: &app.config.served_names,
        task: serving.info.task,
        embedding_size: serving.info.embedding_size,
        lengths: &serving.pooling.lengths,
        max_logprobs: app.config.max_logprobs,
        max_model_len: serving.max_model_len,
        defaults: &serving.defaults,
        template: serving.template.as_ref(),
        response_role: &app.config.response_role,
        grammars: serving.grammars.as_ref(),
        strict: app.config.openai.strict_parameters(),
        formats: serving.formats,
    }
}

/// Submits and answers.
pub(super) async fn respond<S: Shape>(
    app: Arc<App>,
    (name, prepared): (RequestName, Prepared),
    mut shape: S,
) -> Result<Response, ApiError> {
    let running = submit(&app, &prepared)?;
    let request_id = prepared.request_id.as_deref();
    let mut response = match prepared.answers.stream {
        None => {
            let answers = &prepared.answers;
            let wholes = best(running.wholes().await?, answers.n_generated(), answers.n);
            let envelope = Envelope::new(name.id(S::ID_PREFIX, request_id), &prepared);
            let counts: Vec<Counts> = wholes.iter().map(Counts::of_whole).collect();
            let wholes = wholes.into_iter().enumerate();
            let choices = wholes.map(|(idx, whole)| shape.whole(idx, whole)).collect();
            let mut answer = envelope.around(S::WHOLE, choices);
            answer.usage = Some(Some(envelope.usage(&counts)));
            shape.complete(&prepared, &mut answer);
            Json(answer).into_response()
        }
        Some(options) => {
            let envelope = Envelope::new(name.id(S::ID_PREFIX, request_id), &prepared);
            let writer = ChunkWriter {
                app,
                frame: Frame::new(&envelope.around::<S::ChunkChoice>(S::CHUNK, Vec::new())),
                envelope,
                shape,
                options,
                counts: vec![Counts::default(); prepared.prompts.len() * prepared.answers.n],
                chunks: Vec::new(),
            };
            writer.respond(running.deltas())
        }
    };
    tell_ignored(&mut response, &prepared.ignored);
    Ok(response)
}

/// Hands a request to the engine.
pub(super) fn submit(app: &Arc<App>, prepared: &Prepared) -> Result<Running, ApiError> {
    let serving = app.serving.get().ok_or(ApiError::Loading)?;
    app.metrics.arrived();
    let answers = &prepared.answers;
    let (tickets, n_searched) = match prepared.work() {
        Work::Generate(requests) => (serving.engine.submit(requests), None),
        Work::Search(requests) => (serving.engine.submit_beam_searches(requests), Some(answers.n)),
    };
    let refused = |error| ApiError::from_submit(error, prepared.prompt_param);
    let tickets = tickets.map_err(|error| prepared.names.restore(refused(error)))?;
    let n_each = n_searched.unwrap_or(1);
    let per_prompt = answers.n_generated() / n_each;
    let choice = |(idx, ticket): (usize, Ticket)| {
        let plan = ChoicePlan {
            app,
            tokenizer: &serving.tokenizer,
            answers,
            choice_idx: idx * n_each,
            n_prompt: prepared.prompts[idx / per_prompt].ids.len(),
        };
        Choice::new(ticket, &plan)
    };
    Ok(Running {
        choices: tickets.into_iter().enumerate().map(choice).collect(),
        n_searched,
    })
}

/// What is the same in every chunk of an answer.
#[derive(Debug)]
struct Envelope {
    id: String,
    created: u64,
    model: String,
    n_prompt: usize,
    /// Answers to each prompt.
    n: usize,
    /// Nothing but prompts is asked for, so that what is generated does not count.
    only_prompt: bool,
}

/// Tokens of a choice so far.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    n_generated: usize,
    n_reasoning: usize,
    /// Of its prompt, those that the prefix cache had.
    n_cached: usize,
}

impl Counts {
    fn of_whole(whole: &Whole) -> Self {
        Self {
            n_generated: whole.n_generated,
            n_reasoning: whole.n_reasoning,
            n_cached: whole.n_cached,
        }
    }
}

impl Envelope {
    fn new(id: String, prepared: &Prepared) -> Self {
        Self {
            id,
            created: unix_time_s(),
            model: prepared.model.clone(),
            n_prompt: prepared.n_prompt_tokens(),
            n: prepared.answers.n,
            only_prompt: prepared.answers.only_prompt,
        }
    }

    fn around<C>(&self, object: &'static str, choices: Vec<C>) -> Answer<'_, C> {
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

    fn usage(&self, counts: &[Counts]) -> Usage {
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
struct ChunkWriter<S: Shape> {
    app: Arc<App>,
    envelope: Envelope,
    frame: Frame,
    shape: S,
    options: StreamOptions,
    /// Per choice.
    counts: Vec<Counts>,
    /// Those of the piece that is being written.
    chunks: Vec<S::ChunkChoice>,
}

impl<S: Shape> ChunkWriter<S> {
    /// The events of answers as they arrive; what is ready at once is sent at once.
    fn respond(self, deltas: Deltas) -> Response {
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
        super::events::respond(written.boxed())
    }

    fn delta(&mut self, delta: Delta, events: &mut Events) {
        let idx = delta.choice_idx;
        let counts = Counts {
            n_generated: delta.n_generated,
            n_reasoning: delta.n_reasoning,
            n_cached: delta.n_cached,
        };
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

    /// An answer that breaks off says so and has no `[DONE]`.
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

/// The name that a client gives its request in the header `X-Request-Id`.
#[derive(Clone, Debug)]
pub(super) struct RequestName(Option<String>);

impl RequestName {
    /// The header's name, else that of the body, else a new one, behind a prefix.
    pub(super) fn id(&self, prefix: &str, in_body: Option<&str>) -> String {
        match self.0.as_deref().or(in_body) {
            Some(name) => format!("{prefix}{name}"),
            None => format!("{prefix}{}", uuid::Uuid::new_v4().simple()),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for RequestName {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let given = super::sane_request_id(&parts.headers);
        Ok(Self(given.and_then(|id| Some(id.to_str().ok()?.to_owned()))))
    }
}

/// A whole answer, with the parameters that mean nothing here.
pub(super) fn json(answer: &impl Serialize, ignored: &[String]) -> Response {
    let mut response = Json(answer).into_response();
    tell_ignored(&mut response, ignored);
    response
}

/// Seconds since 1970.
pub(super) fn unix_time_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Tells the client which of its parameters mean nothing here.
pub(super) fn tell_ignored(response: &mut Response, names: &[String]) {
    if let Some(names) = ignored(names) {
        let header = HeaderName::from_static("x-slipway-ignored-parameters");
        response.headers_mut().insert(header, names);
    }
}

/// Names of parameters as a header can carry them.
fn ignored(names: &[String]) -> Option<HeaderValue> {
    let printable = |name: &String| {
        shortened(name)
            .chars()
            .filter(char::is_ascii_graphic)
            .collect::<String>()
    };
    let names: Vec<String> = names.iter().take(IGNORED_MAX).map(printable).collect();
    let text = Some(names.join(", ")).filter(|text| !text.is_empty())?;
    HeaderValue::from_str(&text).ok()
}
