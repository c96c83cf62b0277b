//! One answer while it is generated: from the engine's events to pieces of text.

use std::sync::Arc;
use std::time::Instant;

use super::delta::{Delta, Finish, PromptLogprobs, StopReason, Token, TokenCounts};
use crate::api::error::ApiError;
use crate::api::request::{AnswerOptions, Method};
use crate::api::text::{StopPlace, TextStream};
use crate::engine::{Beam, Event, FinishReason, RequestFailure, Ticket, TokenLogprobs};
use crate::parsers::{OutputParser, ParserPlan, Pieces};
use crate::telemetry::metrics::{Finished, Metrics};
use crate::tokenizer::{Special, Tokenizer};

/// One answer that is being generated, or one prompt's beam search. Dropping it cancels it.
#[derive(Debug)]
pub struct Choice {
    metrics: Arc<Metrics>,
    tokenizer: Arc<Tokenizer>,
    choice_idx: usize,
    /// `None` after the end of the answer.
    ticket: Option<Ticket>,
    text: TextStream,
    stop_place: StopPlace,
    special: Special,
    parsing: ParserPlan,
    parser: OutputParser,
    keeps_tokens: bool,
    /// The token that ended the answer is kept too.
    keeps_end: bool,
    sends_each_token: bool,
    n_prompt: usize,
    counts: TokenCounts,
    /// Generated tokens whose text is parsed.
    n_parsed: usize,
    tokens: Vec<Token>,
    prompt: Option<PromptLogprobs>,
    token_at: Option<Instant>,
}

/// What a choice needs besides its ticket.
#[derive(Clone, Debug)]
pub struct ChoicePlan<'a> {
    /// The metrics of its times.
    pub metrics: &'a Arc<Metrics>,
    /// Tokens to bytes.
    pub tokenizer: &'a Arc<Tokenizer>,
    /// How to answer.
    pub answers: &'a AnswerOptions,
    /// The index of the answer in the request; for a beam search, that of its first answer.
    pub choice_idx: usize,
    /// Number of tokens of its prompt.
    pub n_prompt: usize,
}

/// The text of a token.
#[derive(Default)]
struct Pushed {
    /// The text that can be sent now.
    text: String,
    /// Set if the token completes a stop string.
    finish: Option<Finish>,
}

/// How the engine ended an answer.
struct EngineFinish {
    reason: FinishReason,
    /// Log-probabilities of the token that ended it.
    ended_by: Option<TokenLogprobs>,
}

impl Choice {
    /// The answer to which `ticket` belongs.
    pub fn new(ticket: Ticket, plan: &ChoicePlan<'_>) -> Self {
        let answers = plan.answers;
        let has_logprobs =
            matches!(&answers.method, Method::Sample { sampling, .. } if sampling.logprobs.is_some());
        Self {
            metrics: Arc::clone(plan.metrics),
            tokenizer: Arc::clone(plan.tokenizer),
            choice_idx: plan.choice_idx,
            ticket: Some(ticket),
            text: TextStream::new(answers.stops.clone()),
            stop_place: answers.stop_place,
            special: answers.special,
            parsing: answers.parsing.clone(),
            parser: OutputParser::new(&answers.parsing),
            keeps_tokens: has_logprobs || answers.token_ids,
            keeps_end: answers.token_ids,
            sends_each_token: answers.sends_each_token,
            n_prompt: plan.n_prompt,
            counts: TokenCounts::default(),
            n_parsed: 0,
            tokens: Vec::new(),
            prompt: None,
            token_at: None,
        }
    }

    /// Waits for the next piece that has text or ends the answer; `None` after the end or an error.
    pub(super) async fn next(&mut self) -> Option<Result<Delta, ApiError>> {
        loop {
            let event = self.ticket.as_mut()?.next().await?;
            if let Some(delta) = self.take(event) {
                return Some(delta);
            }
        }
    }

    /// The next piece, if the engine has already made it.
    pub(super) fn next_ready(&mut self) -> Option<Result<Delta, ApiError>> {
        loop {
            let event = self.ticket.as_mut()?.next_ready()?;
            if let Some(delta) = self.take(event) {
                return Some(delta);
            }
        }
    }

    /// The piece of an event, if it has text or ends the answer.
    fn take(&mut self, event: Event) -> Option<Result<Delta, ApiError>> {
        self.counts.n_cached = self.ticket.as_ref().map_or(0, Ticket::n_cached_tokens);
        match event {
            Event::Prompt(logprobs) => {
                self.prompt = Some(logprobs);
                None
            }
            Event::Token { token, logprobs } => self.token(token, logprobs).map(Ok),
            Event::Finished {
                reason,
                last,
                ended_by,
                n_generated,
                ..
            } => {
                let last = last.map(|(token, logprobs)| {
                    self.measure_gap();
                    self.push(token, logprobs)
                });
                self.counts.n_generated = n_generated;
                Some(self.finished(last.unwrap_or_default(), EngineFinish { reason, ended_by }))
            }
            Event::Beams(_) | Event::Pooled(_) => Some(Err(ApiError::Internal)),
            Event::Failed(failure) => Some(Err(self.failed(&failure))),
        }
    }

    fn token(&mut self, token: u32, logprobs: Option<TokenLogprobs>) -> Option<Delta> {
        self.counts.n_generated += 1;
        self.measure_gap();
        let Pushed { text, finish } = self.push(token, logprobs);
        if let Some(finish) = finish {
            // The engine does not know stop strings. It stops because its ticket is dropped.
            return Some(self.end(text, finish));
        }
        let pieces = self.parse(text);
        (self.sends_each_token || !pieces.is_empty()).then(|| self.delta(pieces, None))
    }

    fn parse(&mut self, text: String) -> Pieces {
        if self.parser.is_reasoning() {
            self.counts.n_reasoning += self.counts.n_generated - self.n_parsed;
        }
        self.n_parsed = self.counts.n_generated;
        self.parser.push(text)
    }

    /// Adds a token to the text.
    fn push(&mut self, token: u32, logprobs: Option<TokenLogprobs>) -> Pushed {
        if self.keeps_tokens {
            self.tokens.push(Token { id: token, logprobs });
        }
        let piece = self.text.push(self.tokenizer.tokens().shown(token, self.special));
        Pushed {
            text: piece.text,
            finish: piece.stop.map(|stop| Finish::Stop(Some(StopReason::Text(stop)))),
        }
    }

    /// Ends the answer after its last token, unless a stop string in that token's text has ended it.
    fn finished(&mut self, last: Pushed, end: EngineFinish) -> Result<Delta, ApiError> {
        if let Some(stop) = last.finish {
            return Ok(self.end(last.text, stop));
        }
        // The ticket remains, so that dropping this choice counts it as aborted.
        let finish = finish(end.reason).ok_or(ApiError::Aborted)?;
        let text = last.text + &self.rest(end);
        Ok(self.end(text, finish))
    }

    /// The text that was held back, and that of the token that ended the answer if it is part of it.
    fn rest(&mut self, end: EngineFinish) -> String {
        let mut text = String::new();
        if let FinishReason::Eos(token) | FinishReason::StopToken(token) = end.reason {
            if self.keeps_end {
                self.tokens.push(Token {
                    id: token,
                    logprobs: end.ended_by,
                });
            }
            if self.stop_place == StopPlace::Inside {
                let shown = self.tokenizer.tokens().shown(token, self.special);
                text = self.text.push(shown).text;
            }
        }
        text.push_str(&self.text.finish().text);
        text
    }

    /// Waits for the best texts of a beam search.
    pub(super) async fn search(mut self, n: usize) -> Vec<Result<Delta, ApiError>> {
        let Some(ticket) = self.ticket.as_mut() else {
            return Vec::new();
        };
        let event = ticket.next().await;
        self.counts.n_cached = ticket.n_cached_tokens();
        let beams = match event {
            Some(Event::Beams(beams)) => beams,
            Some(Event::Failed(failure)) => return vec![Err(self.failed(&failure))],
            // The engine was stopped.
            _ => return vec![Err(ApiError::Aborted)],
        };
        let stops = self.text.clone();
        let first_idx = self.choice_idx;
        let mut deltas = Vec::with_capacity(n);
        for (idx, beam) in beams.into_iter().take(n).enumerate() {
            self.text = stops.clone();
            self.parser = OutputParser::new(&self.parsing);
            self.choice_idx = first_idx + idx;
            deltas.push(self.beam(&beam).ok_or(ApiError::Aborted));
        }
        deltas
    }

    fn beam(&mut self, beam: &Beam) -> Option<Delta> {
        let mut finish = finish(beam.reason)?;
        let ends_with_token = matches!(beam.reason, FinishReason::Eos(_) | FinishReason::StopToken(_));
        self.counts.n_generated = beam.tokens.len() + usize::from(ends_with_token);
        // The tokens of thoughts are not counted, because the parser reads the text at once.
        self.n_parsed = self.counts.n_generated;
        let mut text = String::new();
        for token in &beam.tokens {
            let pushed = self.push(*token, None);
            text.push_str(&pushed.text);
            if let Some(stop) = pushed.finish {
                finish = stop;
                break;
            }
        }
        text.push_str(&self.rest(EngineFinish {
            reason: beam.reason,
            ended_by: None,
        }));
        Some(self.end(text, finish))
    }

    fn failed(&mut self, failure: &RequestFailure) -> ApiError {
        self.ticket = None;
        let cause = std::error::Error::source(failure).map(ToString::to_string);
        tracing::error!(error = %failure, cause, "an answer failed");
        ApiError::from(failure)
    }

    fn end(&mut self, text: String, finish: Finish) -> Delta {
        if let Some(ticket) = self.ticket.take() {
            self.metrics.finished(Finished {
                timing: ticket.timing(),
                n_prompt: self.n_prompt,
                n_generated: self.counts.n_generated,
                reason: finish.label(),
            });
        }
        let mut pieces = self.parse(text);
        pieces.extend(self.parser.finish());
        self.delta(pieces, Some(finish))
    }

    fn delta(&mut self, pieces: Pieces, finish: Option<Finish>) -> Delta {
        Delta {
            choice_idx: self.choice_idx,
            pieces,
            tokens: std::mem::take(&mut self.tokens),
            prompt: self.prompt.take(),
            counts: self.counts,
            finish,
        }
    }

    fn measure_gap(&mut self) {
        let at = self
            .ticket
            .as_ref()
            .and_then(|ticket| ticket.timing().last_event_at);
        if let (Some(before), Some(at)) = (self.token_at, at) {
            self.metrics.token_gap(at.saturating_duration_since(before));
        }
        self.token_at = at;
    }
}

impl Drop for Choice {
    fn drop(&mut self) {
        if self.ticket.is_some() {
            self.metrics.aborted();
        }
    }
}

/// Why the answer ended; `None` if the engine aborted it.
fn finish(reason: FinishReason) -> Option<Finish> {
    match reason {
        FinishReason::Eos(_) | FinishReason::Complete => Some(Finish::Stop(None)),
        FinishReason::StopToken(token) => Some(Finish::Stop(Some(StopReason::Token(token)))),
        FinishReason::Length => Some(Finish::Length),
        FinishReason::Abort => None,
    }
}
