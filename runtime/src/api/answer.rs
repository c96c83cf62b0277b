//! Answers as they arrive: the tokens of a ticket become text, stop strings end it, and its times are measured.
//!
//! Owns the way from a [`Ticket`] to [`Delta`]s, for streams and for whole answers alike, so that both have the same
//! text. Must not know OpenAI's shapes or HTTP.

use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use futures::stream::{self, BoxStream, Fuse, StreamExt};

use crate::api::error::ApiError;
use crate::api::request::{Answers, Method};
use crate::api::text::{StopPlace, TextStream};
use crate::engine::{Beam, Event, FinishReason, RequestFailure, Ticket, TokenLogprobs};
use crate::parsers::{OutputParser, ParserPlan, Parts, Pieces};
use crate::telemetry::metrics::{Finished, Metrics};
use crate::tokenizer::{Special, Tokenizer};

/// Pieces of answers that are taken together.
const READY_MAX: usize = 64;

/// Why an answer is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it, or what the request named.
    Stop(Option<StopReason>),
    /// `max_tokens` or the context did.
    Length,
}

/// What the request named that ended an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// One of `stop_token_ids`.
    Token(u32),
    /// One of `stop`.
    Text(String),
}

impl Finish {
    /// OpenAI's `finish_reason`.
    pub fn label(&self) -> &'static str {
        match self {
            Finish::Stop(_) => "stop",
            Finish::Length => "length",
        }
    }

    /// vLLM's `stop_reason`.
    pub fn stop_reason(&self) -> Option<&StopReason> {
        match self {
            Finish::Stop(reason) => reason.as_ref(),
            Finish::Length => None,
        }
    }
}

/// A piece of one answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// Which answer of the request.
    pub choice_idx: usize,
    /// What is new, possibly nothing in the last one and where each token is told.
    pub pieces: Pieces,
    /// Tokens since the piece before, where the request asked for them or their log-probabilities.
    pub tokens: Vec<Token>,
    /// Log-probabilities of the prompt, in the first piece where the request asked for them.
    pub prompt: Option<PromptLogprobs>,
    /// Tokens generated so far, those included that have no text.
    pub n_generated: usize,
    /// Of these, tokens of thoughts.
    pub n_reasoning: usize,
    /// Tokens of the prompt that the prefix cache had.
    pub n_cached: usize,
    /// Set in the last piece.
    pub finish: Option<Finish>,
}

/// Log-probabilities of a prompt's tokens; `None` for the first.
pub type PromptLogprobs = Arc<[Option<TokenLogprobs>]>;

/// A token of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its own log-probability and the most probable ones', where the request asked for them.
    pub logprobs: Option<TokenLogprobs>,
}

/// One answer that is being generated, or one prompt's beam search. Dropping it cancels it.
#[derive(Debug)]
pub struct Choice {
    metrics: Arc<Metrics>,
    tokenizer: Arc<Tokenizer>,
    choice_idx: usize,
    /// `None` once the answer ended.
    ticket: Option<Ticket>,
    text: TextStream,
    stop_place: StopPlace,
    special: Special,
    parsing: ParserPlan,
    parser: OutputParser,
    keeps_tokens: bool,
    /// The token that ended the answer is told too.
    keeps_end: bool,
    tells_each_token: bool,
    n_prompt: usize,
    n_generated: usize,
    /// Of these, tokens whose text is parsed.
    n_parsed: usize,
    n_reasoning: usize,
    n_cached: usize,
    tokens: Vec<Token>,
    prompt: Option<PromptLogprobs>,
    token_at: Option<Instant>,
}

/// What a choice needs beside its ticket.
#[derive(Clone, Debug)]
pub struct ChoicePlan<'a> {
    /// Where its times are counted.
    pub metrics: &'a Arc<Metrics>,
    /// Tokens to bytes.
    pub tokenizer: &'a Arc<Tokenizer>,
    /// How to answer.
    pub answers: &'a Answers,
    /// Which answer of the request; of a beam search, its first.
    pub choice_idx: usize,
    /// Tokens of its prompt.
    pub n_prompt: usize,
}

impl Choice {
    /// The answer that arrives on `ticket`.
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
            tells_each_token: answers.tells_each_token,
            n_prompt: plan.n_prompt,
            n_generated: 0,
            n_parsed: 0,
            n_reasoning: 0,
            n_cached: 0,
            tokens: Vec::new(),
            prompt: None,
            token_at: None,
        }
    }

    /// The next piece that has text or ends the answer; `None` after the end or an error.
    async fn next(&mut self) -> Option<Result<Delta, ApiError>> {
        loop {
            let event = self.ticket.as_mut()?.next().await?;
            if let Some(delta) = self.take(event) {
                return Some(delta);
            }
        }
    }

    /// The next piece if it is there already.
    fn next_ready(&mut self) -> Option<Result<Delta, ApiError>> {
        loop {
            let event = self.ticket.as_mut()?.next_ready()?;
            if let Some(delta) = self.take(event) {
                return Some(delta);
            }
        }
    }

    /// The piece that an event makes, if it has text or ends the answer.
    fn take(&mut self, event: Event) -> Option<Result<Delta, ApiError>> {
        self.n_cached = self.ticket.as_ref().map_or(0, Ticket::n_cached_tokens);
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
                self.n_generated = n_generated;
                Some(self.finished((reason, ended_by), last.unwrap_or_default()))
            }
            Event::Beams(_) | Event::Pooled(_) => Some(Err(ApiError::Internal)),
            Event::Failed(failure) => Some(Err(self.failed(&failure))),
        }
    }

    fn token(&mut self, token: u32, logprobs: Option<TokenLogprobs>) -> Option<Delta> {
        self.n_generated += 1;
        self.measure_gap();
        let (text, finish) = self.push(token, logprobs);
        if let Some(finish) = finish {
            // The engine does not know stop strings; without its ticket it stops here.
            return Some(self.end(text, finish));
        }
        let pieces = self.parse(text);
        (self.tells_each_token || !pieces.is_empty()).then(|| self.delta(pieces, None))
    }

    fn parse(&mut self, text: String) -> Pieces {
        if self.parser.is_reasoning() {
            self.n_reasoning += self.n_generated - self.n_parsed;
        }
        self.n_parsed = self.n_generated;
        self.parser.push(text)
    }

    /// A token's text, and the end if it completes a stop string.
    fn push(&mut self, token: u32, logprobs: Option<TokenLogprobs>) -> (String, Option<Finish>) {
        if self.keeps_tokens {
            self.tokens.push(Token { id: token, logprobs });
        }
        let piece = self.text.push(self.tokenizer.tokens().shown(token, self.special));
        let finish = piece.stop.map(|stop| Finish::Stop(Some(StopReason::Text(stop))));
        (piece.text, finish)
    }

    /// Ends the answer behind its last token's text, which may have ended it by itself.
    fn finished(
        &mut self,
        (reason, ended_by): (FinishReason, Option<TokenLogprobs>),
        (text, stop): (String, Option<Finish>),
    ) -> Result<Delta, ApiError> {
        if let Some(stop) = stop {
            return Ok(self.end(text, stop));
        }
        // Its ticket stays, so that dropping this counts it as aborted.
        let finish = finish(reason).ok_or(ApiError::Aborted)?;
        let text = text + &self.rest(reason, ended_by);
        Ok(self.end(text, finish))
    }

    /// What was held back, and the token that ended the answer where it is part of it.
    fn rest(&mut self, reason: FinishReason, logprobs: Option<TokenLogprobs>) -> String {
        let mut text = String::new();
        if let FinishReason::Eos(token) | FinishReason::StopToken(token) = reason {
            if self.keeps_end {
                self.tokens.push(Token { id: token, logprobs });
            }
            if self.stop_place == StopPlace::Inside {
                let shown = self.tokenizer.tokens().shown(token, self.special);
                text = self.text.push(shown).text;
            }
        }
        text.push_str(&self.text.finish().text);
        text
    }

    /// The best texts of a beam search, each whole.
    async fn search(mut self, n: usize) -> Vec<Result<Delta, ApiError>> {
        let Some(ticket) = self.ticket.as_mut() else {
            return Vec::new();
        };
        let event = ticket.next().await;
        self.n_cached = ticket.n_cached_tokens();
        let beams = match event {
            Some(Event::Beams(beams)) => beams,
            Some(Event::Failed(failure)) => return vec![Err(self.failed(&failure))],
            // An engine that is being stopped ends a search so.
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
        self.n_generated = beam.tokens.len() + usize::from(ends_with_token);
        // Which of a whole text's tokens are thoughts is not known.
        self.n_parsed = self.n_generated;
        let mut text = String::new();
        for token in &beam.tokens {
            let (piece, stop) = self.push(*token, None);
            text.push_str(&piece);
            if let Some(stop) = stop {
                finish = stop;
                break;
            }
        }
        text.push_str(&self.rest(beam.reason, None));
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
                n_generated: self.n_generated,
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
            n_generated: self.n_generated,
            n_reasoning: self.n_reasoning,
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

/// `None` for an answer that the engine broke off.
fn finish(reason: FinishReason) -> Option<Finish> {
    match reason {
        FinishReason::Eos(_) | FinishReason::Complete => Some(Finish::Stop(None)),
        FinishReason::StopToken(token) => Some(Finish::Stop(Some(StopReason::Token(token)))),
        FinishReason::Length => Some(Finish::Length),
        FinishReason::Abort => None,
    }
}

/// The answers of a request that are being generated.
#[derive(Debug)]
pub struct Running {
    /// One per generated answer; of a beam search, one per prompt.
    pub choices: Vec<Choice>,
    /// Texts of each beam search that are returned.
    pub n_searched: Option<usize>,
}

/// The pieces of a request's answers as they arrive. Dropping them cancels what still runs.
pub struct Deltas(Source);

enum Source {
    /// One answer needs none of what it takes to ask several in turn, which costs as much as a token's way.
    One(Box<Choice>),
    Several(Fuse<BoxStream<'static, Result<Delta, ApiError>>>),
}

impl Deltas {
    /// Waits for a piece, and takes with it what is ready at once, up to a number. Takes nothing after the end.
    pub async fn ready(&mut self, taken: &mut Vec<Result<Delta, ApiError>>) {
        match &mut self.0 {
            Source::One(choice) => {
                taken.extend(choice.next().await);
                let more = std::iter::from_fn(|| choice.next_ready());
                taken.extend(more.take(READY_MAX.saturating_sub(taken.len())));
            }
            Source::Several(choices) => {
                taken.extend(choices.next().await);
                let more = std::iter::from_fn(|| choices.next().now_or_never().flatten());
                taken.extend(more.take(READY_MAX.saturating_sub(taken.len())));
            }
        }
    }
}

impl Running {
    /// The pieces of all answers.
    pub fn deltas(self) -> Deltas {
        let mut choices = self.choices;
        let several = match (self.n_searched, choices.len()) {
            (None, 1) => return Deltas(Source::One(Box::new(choices.remove(0)))),
            (None, _) => {
                let generated = |choice| stream::unfold(Box::new(choice), next).boxed();
                stream::select_all(choices.into_iter().map(generated)).boxed()
            }
            (Some(n), _) => {
                let searched = |choice: Choice| stream::once(choice.search(n)).flat_map(stream::iter).boxed();
                stream::select_all(choices.into_iter().map(searched)).boxed()
            }
        };
        Deltas(Source::Several(several.fuse()))
    }

    /// Waits for all answers; in the order of their numbers.
    ///
    /// # Errors
    /// The first error of any of them; the others are cancelled.
    pub async fn wholes(self) -> Result<Vec<Whole>, ApiError> {
        let n_each = self.n_searched.unwrap_or(1);
        let mut wholes = vec![Whole::default(); self.choices.len() * n_each];
        let (mut deltas, mut ready) = (self.deltas(), Vec::new());
        loop {
            deltas.ready(&mut ready).await;
            if ready.is_empty() {
                return Ok(wholes);
            }
            for delta in ready.drain(..) {
                let delta = delta?;
                wholes[delta.choice_idx].append(delta);
            }
        }
    }
}

/// Boxed, because it is moved in and out with each piece.
async fn next(mut choice: Box<Choice>) -> Option<(Result<Delta, ApiError>, Box<Choice>)> {
    choice.next().await.map(|delta| (delta, choice))
}

/// A whole answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Whole {
    /// What it says.
    pub parts: Parts,
    /// Its tokens, where the request asked for them or their log-probabilities.
    pub tokens: Vec<Token>,
    /// Log-probabilities of the prompt, where the request asked for them.
    pub prompt: Option<PromptLogprobs>,
    /// Tokens generated.
    pub n_generated: usize,
    /// Of these, tokens of thoughts.
    pub n_reasoning: usize,
    /// Tokens of the prompt that the prefix cache had.
    pub n_cached: usize,
    /// Why it ended.
    pub finish: Option<Finish>,
}

impl From<Delta> for Whole {
    /// A piece, as if it were all.
    fn from(delta: Delta) -> Self {
        let mut whole = Self::default();
        whole.append(delta);
        whole
    }
}

impl Whole {
    fn append(&mut self, delta: Delta) {
        let Delta {
            choice_idx: _,
            pieces,
            tokens,
            prompt,
            n_generated,
            n_reasoning,
            n_cached,
            finish,
        } = delta;
        self.parts.extend(pieces);
        self.tokens.extend(tokens);
        self.prompt = self.prompt.take().or(prompt);
        self.n_generated = n_generated;
        self.n_reasoning = n_reasoning;
        self.n_cached = n_cached;
        self.finish = finish;
    }

    /// Sum of the log-probabilities of its tokens.
    fn logprob(&self) -> f64 {
        let chosen = self.tokens.iter().filter_map(|token| token.logprobs.as_ref());
        chosen.map(|logprobs| f64::from(logprobs.chosen)).sum()
    }
}

/// Of each `best_of` answers the `n` with the highest probability, best first.
pub fn best(candidates: Vec<Whole>, best_of: usize, n: usize) -> Vec<Whole> {
    if best_of == n {
        return candidates;
    }
    let mut best = Vec::new();
    for answers in candidates.chunks(best_of) {
        let mut answers = answers.to_vec();
        // Stable: of equals the earlier seed comes first.
        answers.sort_by(|a, b| b.logprob().total_cmp(&a.logprob()));
        answers.truncate(n);
        best.extend(answers);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str, logprobs: &[f32]) -> Whole {
        let token = |chosen: &f32| Token {
            id: 1,
            logprobs: Some(TokenLogprobs {
                rank: 1,
                chosen: *chosen,
                top: Vec::new(),
            }),
        };
        Whole {
            parts: Parts {
                content: text.into(),
                ..Parts::default()
            },
            tokens: logprobs.iter().map(token).collect(),
            ..Whole::default()
        }
    }

    #[test]
    fn the_best_are_those_of_the_highest_probability_of_their_prompt() {
        let candidates = vec![
            whole("a", &[-1.0, -2.0]),
            whole("b", &[-0.5]),
            whole("c", &[-2.0]),
            whole("d", &[-9.0]),
            whole("e", &[-9.0]),
            whole("f", &[-8.0]),
        ];
        let texts = |n| -> Vec<String> {
            let best = best(candidates.clone(), 3, n);
            best.into_iter().map(|whole| whole.parts.content).collect()
        };
        assert_eq!(texts(2), ["b", "c", "f", "d"]);
        assert_eq!(texts(1), ["b", "f"]);
        assert_eq!(texts(3), ["a", "b", "c", "d", "e", "f"]);
    }
}
