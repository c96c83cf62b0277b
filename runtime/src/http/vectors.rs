//! What the routes have in common that answer with vectors: submit, collect, wrap.

use super::client::current_client;
use crate::api::error::ApiError;
use crate::api::response::pooled::{List, PromptUsage};
use crate::clock::unix_time_s;
use crate::engine::{Engine, Event, PoolRequest, SubmitError, Ticket};

/// Inputs of one request that are in the engine at a time, so that a long list leaves room for others.
const IN_FLIGHT_MAX: usize = 32;

/// The vector of each request, in their order; `param` is where they came from.
pub(super) async fn vectors(
    engine: &Engine,
    requests: &[PoolRequest],
    param: &str,
) -> Result<Vec<Vec<f32>>, ApiError> {
    let mut vectors = Vec::with_capacity(requests.len());
    let mut n_at_once = IN_FLIGHT_MAX;
    while vectors.len() < requests.len() {
        let rest = &requests[vectors.len()..];
        let wave = &rest[..rest.len().min(n_at_once)];
        let of_client = |request: &PoolRequest| PoolRequest {
            client: current_client(),
            ..request.clone()
        };
        match engine.submit_pooling(wave.iter().map(of_client).collect()) {
            Ok(tickets) => {
                for ticket in tickets {
                    vectors.push(vector(ticket).await?);
                }
            }
            // A small engine holds fewer.
            Err(SubmitError::TooMany { n_requests_max, .. }) if (1..wave.len()).contains(&n_requests_max) => {
                n_at_once = n_requests_max;
            }
            Err(SubmitError::Refused { request_idx, error }) => {
                let param = if requests.len() == 1 {
                    param.to_string()
                } else {
                    format!("{param}[{}]", vectors.len() + request_idx)
                };
                let refused = SubmitError::Refused { request_idx, error };
                return Err(ApiError::from_submit(refused, &param));
            }
            Err(error) => return Err(ApiError::from_submit(error, param)),
        }
    }
    Ok(vectors)
}

async fn vector(mut ticket: Ticket) -> Result<Vec<f32>, ApiError> {
    loop {
        match ticket.next().await {
            Some(Event::Pooled(vector)) if vector.iter().all(|x| x.is_finite()) => return Ok(vector),
            Some(Event::Pooled(_)) => {
                tracing::error!("a pooled vector is not finite");
                return Err(ApiError::Internal);
            }
            Some(Event::Prompt(_) | Event::Token { .. } | Event::Beams(_)) => {}
            Some(Event::Failed(failure)) => return Err(ApiError::from(&failure)),
            // Only an engine that is being stopped ends a request so.
            Some(Event::Finished { .. }) | None => return Err(ApiError::Aborted),
        }
    }
}

/// The answer around `data`, with the usage of `requests`.
pub(super) fn list<T>(id: String, model: &str, data: Vec<T>, requests: &[PoolRequest]) -> List<T> {
    List {
        id,
        object: "list",
        created: unix_time_s(),
        model: model.to_string(),
        data,
        usage: usage(requests),
    }
}

/// Tokens of all inputs.
pub(super) fn usage(requests: &[PoolRequest]) -> PromptUsage {
    let n_tokens = requests.iter().map(|request| request.prompt.len()).sum();
    PromptUsage {
        prompt_tokens: n_tokens,
        completion_tokens: 0,
        total_tokens: n_tokens,
    }
}
