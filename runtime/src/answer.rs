//! Answers as they arrive: the tokens of a ticket become text, stop strings end it, and its times are measured.
//!
//! Owns the way from a [`Ticket`] to [`Delta`]s, for streams and for whole answers alike, so that both have the same
//! text. Must not know OpenAI's shapes or HTTP.

use std::sync::Arc;
use std::time::Instant;

use futures::stream::{self, Stream, StreamExt};

use crate::engine::{Event, FinishReason, RequestFailure, Ticket, TokenLogprobs};
use crate::error::ApiError;
use crate::metrics::Finished;
use crate::request::Answers;
use crate::server::App;
use crate::text::{StopPlace, TextStream};
use crate::tokenizer::{Special, Tokenizer};

/// Why an answer is complete, as OpenAI's `finish_reason` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it, or a stop string did.
    Stop,
    /// `max_tokens` or the context did.
    Length,
}

impl Finish {
    /// OpenAI's word.
    pub fn label(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
        }
    }
}

/// A piece of one answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// Which answer of the request.
    pub choice_idx: usize,
    /// Text, possibly none in the last piece.
    pub text: String,
    /// Tokens since the piece before, with their log-probabilities where the request asked for them.
    pub tokens: Vec<ScoredToken>,
    /// Tokens generated so far, those included that have no text.
    pub n_generated: usize,
    /// Tokens of the prompt that the prefix cache had.
    pub n_cached: usize,
    /// Set in the last piece.
    pub finish: Option<Finish>,
}

/// A token with its log-probabilities.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredToken {
    /// Its id.
    pub token: u32,
    /// Its own and the most probable ones'.
    pub logprobs: TokenLogprobs,
}

/// One answer that is being generated. Dropping it cancels it.
#[derive(Debug)]
pub struct Choice {
    app: Arc<App>,
    tokenizer: Arc<Tokenizer>,
    choice_idx: usize,
    /// `None` once the answer ended.
    ticket: Option<Ticket>,
    text: TextStream,
    stop_place: StopPlace,
    special: Special,
    n_prompt: usize,
    n_generated: usize,
    n_cached: usize,
    tokens: Vec<ScoredToken>,
    token_at: Option<Instant>,
}

/// What a choice needs beside its ticket.
#[derive(Clone, Debug)]
pub struct ChoicePlan<'a> {
    /// The process, for its metrics.
    pub app: &'a Arc<App>,
    /// Tokens to bytes.
    pub tokenizer: &'a Arc<Tokenizer>,
    /// How to answer.
    pub answers: &'a Answers,
    /// Which answer of the request.
    pub choice_idx: usize,
    /// Tokens of its prompt.
    pub n_prompt: usize,
}

impl Choice {
    /// The answer that arrives on `ticket`.
    pub fn new(ticket: Ticket, plan: &ChoicePlan<'_>) -> Self {
        Self {
            app: Arc::clone(plan.app),
            tokenizer: Arc::clone(plan.tokenizer),
            choice_idx: plan.choice_idx,
            ticket: Some(ticket),
            text: TextStream::new(plan.answers.stops.clone()),
            stop_place: plan.answers.stop_place,
            special: plan.answers.special,
            n_prompt: plan.n_prompt,
            n_generated: 0,
            n_cached: 0,
            tokens: Vec::new(),
            token_at: None,
        }
    }

    /// The next piece that has text or ends the answer; `None` after the end or an error.
    async fn next(&mut self) -> Option<Result<Delta, ApiError>> {
        loop {
            let ticket = self.ticket.as_mut()?;
            let event = ticket.next().await?;
            self.n_cached = ticket.n_cached_tokens();
            let delta = match event {
                Event::Token { token, logprobs } => self.token(token, logprobs),
                Event::Finished {
                    reason,
                    n_generated,
                    cumulative_logprob: _,
                } => {
                    self.n_generated = n_generated;
                    return Some(self.finished(reason));
                }
                Event::Beams(_) | Event::Pooled(_) => return Some(Err(ApiError::Internal)),
                Event::Failed(failure) => return Some(Err(self.failed(&failure))),
            };
            if let Some(delta) = delta {
                return Some(Ok(delta));
            }
        }
    }

    fn token(&mut self, token: u32, logprobs: Option<TokenLogprobs>) -> Option<Delta> {
        self.n_generated += 1;
        self.measure_gap();
        self.tokens
            .extend(logprobs.map(|logprobs| ScoredToken { token, logprobs }));
        let piece = self.text.push(self.tokenizer.tokens().shown(token, self.special));
        if piece.stopped {
            // The engine does not know stop strings; without its ticket it stops here.
            return Some(self.end(piece.text, Finish::Stop));
        }
        (!piece.text.is_empty()).then(|| self.delta(piece.text, None))
    }

    fn finished(&mut self, reason: FinishReason) -> Result<Delta, ApiError> {
        let (ending, finish) = match reason {
            FinishReason::Eos(token) | FinishReason::StopToken(token) => (Some(token), Finish::Stop),
            FinishReason::Length => (None, Finish::Length),
            // Its ticket stays, so that dropping this counts it as aborted.
            FinishReason::Abort => return Err(ApiError::Aborted),
        };
        let mut text = String::new();
        if let Some(token) = ending.filter(|_| self.stop_place == StopPlace::Inside) {
            text = self
                .text
                .push(self.tokenizer.tokens().shown(token, self.special))
                .text;
        }
        text.push_str(&self.text.finish().text);
        Ok(self.end(text, finish))
    }

    fn failed(&mut self, failure: &RequestFailure) -> ApiError {
        self.ticket = None;
        let cause = std::error::Error::source(failure).map(ToString::to_string);
        tracing::error!(error = %failure, cause, "an answer failed");
        ApiError::from(failure)
    }

    fn end(&mut self, text: String, finish: Finish) -> Delta {
        if let Some(ticket) = self.ticket.take() {
            self.app.metrics.finished(Finished {
                timing: ticket.timing(),
                n_prompt: self.n_prompt,
                n_generated: self.n_generated,
                reason: finish.label(),
            });
        }
        self.delta(text, Some(finish))
    }

    fn delta(&mut self, text: String, finish: Option<Finish>) -> Delta {
        Delta {
            choice_idx: self.choice_idx,
            text,
            tokens: std::mem::take(&mut self.tokens),
            n_generated: self.n_generated,
            n_cached: self.n_cached,
            finish,
        }
    }

    fn measure_gap(&mut self) {
        let at = self
            .ticket
            .as_ref()
            .and_then(|ticket| ticket.timing().last_event_at);
        if let (Some(before), Some(at)) = (self.token_at, at) {
            self.app.metrics.token_gap(at.saturating_duration_since(before));
        }
        self.token_at = at;
    }
}

impl Drop for Choice {
    fn drop(&mut self) {
        if self.ticket.is_some() {
            self.app.metrics.aborted();
        }
    }
}

/// The pieces of all answers of a request as they arrive. Dropping the stream cancels what still runs.
pub fn deltas(choices: Vec<Choice>) -> impl Stream<Item = Result<Delta, ApiError>> + Send {
    stream::select_all(choices.into_iter().map(|choice| {
        let next = |mut choice: Choice| async move { choice.next().await.map(|delta| (delta, choice)) };
        stream::unfold(choice, next).boxed()
    }))
}

/// A whole answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Whole {
    /// Its text.
    pub text: String,
    /// Its tokens, where the request asked for log-probabilities.
    pub tokens: Vec<ScoredToken>,
    /// Tokens generated.
    pub n_generated: usize,
    /// Tokens of the prompt that the prefix cache had.
    pub n_cached: usize,
    /// Why it ended.
    pub finish: Option<Finish>,
}

/// Waits for all answers; in the order of their numbers.
///
/// # Errors
/// The first error of any of them; the others are cancelled.
pub async fn wholes(choices: Vec<Choice>) -> Result<Vec<Whole>, ApiError> {
    let mut wholes = vec![Whole::default(); choices.len()];
    let mut deltas = std::pin::pin!(deltas(choices));
    while let Some(delta) = deltas.next().await {
        let Delta {
            choice_idx,
            text,
            tokens,
            n_generated,
            n_cached,
            finish,
        } = delta?;
        let whole = &mut wholes[choice_idx];
        whole.text.push_str(&text);
        whole.tokens.extend(tokens);
        whole.n_generated = n_generated;
        whole.n_cached = n_cached;
        whole.finish = finish;
    }
    Ok(wholes)
}
