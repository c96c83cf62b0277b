//! What the generating routes have in common: prepare, submit, and answer whole or as a stream of events.
//!
//! A route brings its reader and its [`Shape`]; the rest is here once.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream, StreamExt};
use serde_json::{Value, json};

use super::body::JsonBytes;
use crate::answer::{Choice, ChoicePlan, Delta, Whole, deltas, wholes};
use crate::error::{ApiError, shortened};
use crate::request::{Prepared, Rules, StreamOptions};
use crate::server::{App, Serving};
use crate::tokenizer::Tokenizer;

/// Silence on a stream after which a comment is sent, so that nothing between here and the client gives up while a
/// long prompt is computed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

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
    fn whole(&mut self, choice_idx: usize, whole: Whole) -> Value;

    /// Entries of `choices`, each of which is a chunk of its own.
    fn chunks(&mut self, delta: Delta) -> Vec<Value>;
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
        max_logprobs: app.config.max_logprobs,
        max_model_len: serving.max_model_len,
        defaults: &serving.defaults,
        template: serving.template.as_ref(),
    }
}

/// Submits and answers.
pub(super) async fn respond<S: Shape>(
    app: Arc<App>,
    prepared: Prepared,
    mut shape: S,
) -> Result<Response, ApiError> {
    let choices = submit(&app, &prepared)?;
    let envelope = Envelope::new(S::ID_PREFIX, &prepared);
    let mut response = match prepared.answers.stream {
        None => {
            let wholes = wholes(choices).await?;
            let counts: Vec<Counts> = wholes
                .iter()
                .map(|whole| (whole.n_generated, whole.n_cached))
                .collect();
            let entries = wholes
                .into_iter()
                .enumerate()
                .map(|(idx, whole)| shape.whole(idx, whole))
                .collect();
            let mut body = envelope.around(S::WHOLE, entries);
            body["usage"] = envelope.usage(&counts);
            Json(body).into_response()
        }
        Some(options) => {
            let counts = vec![(0, 0); choices.len()];
            let writer = ChunkWriter {
                app,
                envelope,
                shape,
                options,
                counts,
            };
            events(choices, writer)
        }
    };
    tell_ignored(&mut response, &prepared.ignored);
    Ok(response)
}

fn submit(app: &Arc<App>, prepared: &Prepared) -> Result<Vec<Choice>, ApiError> {
    let serving = app.serving.get().ok_or(ApiError::Loading)?;
    app.metrics.arrived();
    let tickets = serving
        .engine
        .submit(prepared.generate_requests())
        .map_err(|error| ApiError::from_submit(error, prepared.prompt_param))?;
    let choice = |(choice_idx, ticket)| {
        let plan = ChoicePlan {
            app,
            tokenizer: &serving.tokenizer,
            answers: &prepared.answers,
            choice_idx,
            n_prompt: prepared.prompts[choice_idx / prepared.answers.n].ids.len(),
        };
        Choice::new(ticket, &plan)
    };
    Ok(tickets.into_iter().enumerate().map(choice).collect())
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
}

/// Tokens of a choice so far: generated, and those of its prompt that the prefix cache had.
type Counts = (usize, usize);

impl Envelope {
    fn new(id_prefix: &str, prepared: &Prepared) -> Self {
        Self {
            id: format!("{id_prefix}{}", uuid::Uuid::new_v4().simple()),
            created: unix_time_s(),
            model: prepared.model.clone(),
            n_prompt: prepared.n_prompt_tokens(),
            n: prepared.answers.n,
        }
    }

    fn around(&self, object: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }

    fn usage(&self, counts: &[Counts]) -> Value {
        let n_generated: usize = counts.iter().map(|(n_generated, _)| n_generated).sum();
        // The answers to one prompt share it.
        let n_cached: usize = counts.iter().step_by(self.n).map(|(_, n_cached)| n_cached).sum();
        json!({
            "prompt_tokens": self.n_prompt,
            "completion_tokens": n_generated,
            "total_tokens": self.n_prompt + n_generated,
            "prompt_tokens_details": {"cached_tokens": n_cached},
        })
    }
}

fn events<S: Shape>(choices: Vec<Choice>, writer: ChunkWriter<S>) -> Response {
    let chunks = stream::unfold(Some((deltas(choices).boxed(), writer)), |state| async move {
        let (mut deltas, mut writer) = state?;
        match deltas.next().await {
            Some(Ok(delta)) => Some((writer.delta(delta), Some((deltas, writer)))),
            Some(Err(error)) => Some((writer.error(&error), None)),
            None => Some((writer.end(), None)),
        }
    });
    let events = chunks
        .flat_map(stream::iter)
        .map(|text| Ok::<_, Infallible>(Event::default().data(text)));
    let mut response = sse(events).into_response();
    // Proxies in the manner of nginx would collect the whole answer.
    let no_buffering = (
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    response.headers_mut().insert(no_buffering.0, no_buffering.1);
    response
}

fn sse(events: impl Stream<Item = Result<Event, Infallible>> + Send + 'static) -> impl IntoResponse {
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

/// Writes the data of a stream's events.
struct ChunkWriter<S> {
    app: Arc<App>,
    envelope: Envelope,
    shape: S,
    options: StreamOptions,
    /// Per choice.
    counts: Vec<Counts>,
}

impl<S: Shape> ChunkWriter<S> {
    fn delta(&mut self, delta: Delta) -> Vec<String> {
        self.counts[delta.choice_idx] = (delta.n_generated, delta.n_cached);
        let entries = self.shape.chunks(delta);
        entries.into_iter().map(|entry| self.chunk(entry)).collect()
    }

    fn chunk(&self, entry: Value) -> String {
        let mut chunk = self.envelope.around(S::CHUNK, vec![entry]);
        if self.options.continuous_usage_stats {
            chunk["usage"] = self.usage();
        } else if self.options.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk.to_string()
    }

    /// An answer that breaks off says so and has no `[DONE]`.
    fn error(&mut self, error: &ApiError) -> Vec<String> {
        self.app.metrics.failed(error.facts().label);
        vec![error.body().to_string()]
    }

    fn end(&mut self) -> Vec<String> {
        let mut last = Vec::new();
        if self.options.include_usage {
            let mut chunk = self.envelope.around(S::CHUNK, Vec::new());
            chunk["usage"] = self.usage();
            last.push(chunk.to_string());
        }
        last.push("[DONE]".to_string());
        last
    }

    fn usage(&self) -> Value {
        self.envelope.usage(&self.counts)
    }
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
