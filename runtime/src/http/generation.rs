//! What the generating routes have in common: prepare, submit, and answer at once or as a stream of events.
//!
//! A route brings its reader and its [`Shape`]; the rest is here once.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};

use super::app::App;
use super::background;
use super::body::JsonBytes;
use super::chunks::{ChunkWriter, Envelope};
use super::client::current_client;
use super::ignored::name_ignored;
use super::request_id::RequestName;
use super::shape::Shape;
use crate::api::answer::{Choice, ChoicePlan, Running, TokenCounts, best};
use crate::api::error::ApiError;
use crate::api::request::{Prepared, Rules, Work};
use crate::config::ServeConfig;
use crate::engine::Ticket;
use crate::preparation::Budget;
use crate::serving::Serving;

/// How a route reads a body.
pub(super) type Reader<T> = fn(&[u8], &Rules<'_>) -> Result<T, ApiError>;

/// Reads and checks a body where it may take long: in a place of its own, off the threads that serve others.
pub(super) async fn prepare<T: Send + 'static>(
    app: &Arc<App>,
    JsonBytes(bytes, client): JsonBytes,
    read: Reader<T>,
) -> Result<T, ApiError> {
    let serving = app.ready()?;
    let config = Arc::clone(&app.config);
    let n_bytes = bytes.len();
    let work = move |budget: &Budget| read(&bytes, &rules(&config, &serving, budget));
    app.preparation.run(client, n_bytes, work).await?
}

fn rules<'a>(config: &'a ServeConfig, serving: &'a Serving, budget: &'a Budget) -> Rules<'a> {
    Rules {
        served: &config.served_names,
        task: serving.info.task,
        embedding_size: serving.info.embedding_size,
        lengths: &serving.pooling.lengths,
        max_logprobs: config.max_logprobs,
        max_model_len: serving.max_model_len,
        defaults: &serving.defaults,
        template: serving.template.as_ref(),
        response_role: &config.response_role,
        grammars: serving.grammars.as_ref(),
        strict: config.openai.strict_parameters(),
        formats: serving.formats,
        tokenizer: &serving.tokenizer,
        budget,
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
            let counts: Vec<TokenCounts> = wholes.iter().map(|whole| whole.counts).collect();
            let wholes = wholes.into_iter().enumerate();
            let choices = wholes.map(|(idx, whole)| shape.whole(idx, whole)).collect();
            let mut answer = envelope.around(S::WHOLE, choices);
            answer.usage = Some(Some(envelope.usage(&counts)));
            shape.complete(&prepared, &mut answer);
            Json(answer).into_response()
        }
        Some(_) => {
            let id = name.id(S::ID_PREFIX, request_id);
            ChunkWriter::new(app, &prepared, id, shape).respond(running.deltas())
        }
    };
    name_ignored(&mut response, &prepared.ignored);
    Ok(response)
}

/// Hands a request to the engine.
pub(super) fn submit(app: &Arc<App>, prepared: &Prepared) -> Result<Running, ApiError> {
    let serving = app.ready()?;
    app.metrics.arrived();
    let (answers, client) = (&prepared.answers, current_client());
    let (tickets, n_searched) = match prepared.work() {
        Work::Generate(mut requests) => {
            for request in &mut requests {
                request.client = client;
                request.n_overtaking_max = background::n_overtaking_max();
            }
            (serving.engine.submit(requests), None)
        }
        Work::Search(mut requests) => {
            requests.iter_mut().for_each(|request| request.client = client);
            (serving.engine.submit_beam_searches(requests), Some(answers.n))
        }
    };
    let refused = |error| ApiError::from_submit(error, prepared.prompt_param);
    let tickets = tickets.map_err(|error| prepared.renames.restore(refused(error)))?;
    let n_each = n_searched.unwrap_or(1);
    let per_prompt = answers.n_generated() / n_each;
    let choice = |(idx, ticket): (usize, Ticket)| {
        let plan = ChoicePlan {
            metrics: &app.metrics,
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
