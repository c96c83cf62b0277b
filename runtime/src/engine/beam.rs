//! Beam search: which continuations of several texts go on, and which texts are the answer.
//!
//! As `generate` of transformers 4.5x defines it (`GenerationMixin._beam_search`). Owns scores; must not know
//! blocks, sequences or tickets.

use super::request::{BeamParams, EarlyStopping, FinishReason, StopRules};
use super::sampler::{SampleError, top_logprobs};
use super::ticket::Beam;

/// A running text and one more token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Continuation {
    /// Which running text.
    pub from: usize,
    /// The token.
    pub token: u32,
}

/// A running text: its generated tokens, and the logits of the next.
pub type Running<'a> = (&'a [u32], &'a [f32]);

/// One search under way.
#[derive(Clone, Debug)]
pub struct BeamSearch {
    params: BeamParams,
    /// Log-probabilities of the running texts, best first.
    running: Vec<f64>,
    /// Best first, at most as many as beams.
    finished: Vec<Beam>,
}

/// One of the best continuations of all running texts.
struct Candidate {
    continuation: Continuation,
    logprob: f64,
}

impl BeamSearch {
    /// A search whose only running text is the prompt.
    pub fn new(params: BeamParams) -> BeamSearch {
        BeamSearch {
            params,
            running: vec![0.0],
            finished: Vec::new(),
        }
    }

    /// Continues the running texts by a token; best first, and none once the search has ended.
    ///
    /// # Errors
    /// [`SampleError`] if logits are no numbers.
    ///
    /// # Panics
    /// If these are not as many texts as there were continuations.
    pub fn advance(
        &mut self,
        running: &[Running<'_>],
        stop: &StopRules,
    ) -> Result<Vec<Continuation>, SampleError> {
        assert_eq!(
            running.len(),
            self.running.len(),
            "a text of the search is missing"
        );
        let candidates = self.candidates(running, stop)?;
        let n_generated = running.first().map_or(0, |(generated, _)| generated.len());
        let length = n_generated + 1;
        let mut going_on = Vec::new();
        for (rank, candidate) in candidates.into_iter().enumerate() {
            let token = candidate.continuation.token;
            match stop.finish(n_generated, token) {
                None => going_on.push(candidate),
                Some(reason) if rank < self.params.width => {
                    let generated = running[candidate.continuation.from].0;
                    self.finish(candidate, generated, reason);
                }
                Some(_) => {}
            }
        }
        going_on.truncate(self.params.width);
        if self.has_ended(going_on.first(), length, stop.max_tokens) {
            return Ok(Vec::new());
        }
        self.running = going_on.iter().map(|candidate| candidate.logprob).collect();
        Ok(going_on
            .into_iter()
            .map(|candidate| candidate.continuation)
            .collect())
    }

    /// The finished texts, best first.
    pub fn into_beams(self) -> Vec<Beam> {
        self.finished
    }

    /// The best continuations of all running texts: enough that as many as beams go on, whatever ends.
    fn candidates(&self, running: &[Running<'_>], stop: &StopRules) -> Result<Vec<Candidate>, SampleError> {
        let n_stops = stop.eos_token_ids.len() + stop.stop_token_ids.len();
        let n_kept = self.params.width * (1 + n_stops).max(2);
        let mut candidates = Vec::new();
        for (from, (&(generated, logits), before)) in running.iter().zip(&self.running).enumerate() {
            let forbidden = stop.forbidden(generated.len());
            let top = top_logprobs(logits, n_kept + forbidden.len())?;
            let allowed = top.into_iter().filter(|(token, _)| !forbidden.contains(token));
            candidates.extend(allowed.map(|(token, logprob)| Candidate {
                continuation: Continuation { from, token },
                logprob: before + f64::from(logprob),
            }));
        }
        // Stable: among equals the earlier text, then the lower token comes first.
        candidates.sort_by(|a, b| b.logprob.total_cmp(&a.logprob));
        candidates.truncate(n_kept);
        Ok(candidates)
    }

    fn finish(&mut self, candidate: Candidate, generated: &[u32], reason: FinishReason) {
        let length = generated.len() + 1;
        let mut tokens = generated.to_vec();
        if reason == FinishReason::Length {
            tokens.push(candidate.continuation.token);
        }
        let score = self.score(candidate.logprob, length);
        let at = self.finished.partition_point(|beam| beam.score >= score);
        let beam = Beam {
            tokens,
            reason,
            cumulative_logprob: candidate.logprob,
            score,
        };
        self.finished.insert(at, beam);
        self.finished.truncate(self.params.width);
    }

    /// Whether the texts that could go on, the best of which is `best`, are not worth it.
    fn has_ended(&self, best: Option<&Candidate>, length: usize, max_tokens: usize) -> bool {
        let Some(best) = best else { return true };
        if self.finished.len() < self.params.width {
            return false;
        }
        let Some(worst) = self.finished.last() else {
            return false;
        };
        let length = match self.params.early_stopping {
            EarlyStopping::AtOnce => return true,
            // A longer text has the better score then.
            EarlyStopping::Never if self.params.length_penalty > 0.0 => max_tokens,
            EarlyStopping::Never | EarlyStopping::Heuristic => length,
        };
        self.score(best.logprob, length) <= worst.score
    }

    fn score(&self, logprob: f64, length: usize) -> f64 {
        logprob / (length as f64).powf(self.params.length_penalty)
    }
}
