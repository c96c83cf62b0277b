//! The sampler: a row of logits becomes a token.
//!
//! A pure function: the same logits, parameters, history, seed and position give the same token, alone or
//! in any batch. Must not know sequences, requests or the model.
//!
//! The order is vLLM's: the grammar's mask, allowed tokens, bad words and forbidden tokens; biases; repetition,
//! frequency and presence penalties; temperature; min_p; top_k; top_p; the draw. Log-probabilities are of the raw
//! logits, before all of that.

mod draw;
mod shape;

use std::borrow::Cow;

pub use crate::batch::{SampleError, Sampled, SamplingParams, TokenLogprobs};

pub use draw::Draw;
use shape::shape;

pub(super) use shape::ends_of_bad_words;

use super::philox::{halves, philox4x32};

/// Logits of which the highest is looked for before its place among them is.
const ARGMAX_CHUNK: usize = 1024;
/// Below this temperature sampling is greedy.
const GREEDY_TEMPERATURE: f32 = 1e-5;

/// A parameter outside its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{parameter} must be {range}, and is {value}")]
pub struct InvalidParam {
    /// Name of the parameter, OpenAI's or vLLM's.
    pub parameter: &'static str,
    /// The values it may have.
    pub range: &'static str,
    /// The value it has.
    pub value: f64,
}

/// Draws the next token of a sequence from its row of raw `logits`, indexed by token id.
///
/// # Errors
/// [`SampleError`] if the logits are no distribution; only this sequence is concerned.
pub fn sample(logits: &[f32], draw: &Draw<'_>) -> Result<Sampled, SampleError> {
    check_logits(logits)?;
    let shaped = shape(logits, draw);
    if let Cow::Owned(shaped) = &shaped {
        check_logits(shaped)?;
    }
    let best = argmax(&shaped).ok_or(SampleError::NoCandidate)?;
    let params = draw.params;
    let token = if params.temperature < GREEDY_TEMPERATURE {
        best.token()
    } else {
        let scale = Scale {
            max: best.logit(),
            temperature: params.temperature,
        };
        race(&kept(&shaped, scale, params), scale, draw)
    };
    let logprobs = params.logprobs.map(|n_top| token_logprobs(logits, token, n_top));
    Ok(Sampled { token, logprobs })
}

impl SamplingParams {
    /// Checks every parameter against its range.
    ///
    /// # Errors
    /// [`InvalidParam`] names the first one outside it.
    pub fn check(&self) -> Result<(), InvalidParam> {
        let is_penalty = |x: f32| (-2.0..=2.0).contains(&x);
        ensure("temperature", "a number of at least 0", self.temperature, |x| {
            x >= 0.0
        })?;
        ensure("top_p", "above 0 and at most 1", self.top_p, |x| {
            x > 0.0 && x <= 1.0
        })?;
        ensure("top_k", "at least 1", self.top_k.map_or(1.0, |k| k as f32), |x| {
            x >= 1.0
        })?;
        ensure("min_p", "between 0 and 1", self.min_p, |x| {
            (0.0..=1.0).contains(&x)
        })?;
        ensure(
            "repetition_penalty",
            "a number above 0",
            self.repetition_penalty,
            |x| x > 0.0,
        )?;
        ensure(
            "presence_penalty",
            "between -2 and 2",
            self.presence_penalty,
            is_penalty,
        )?;
        ensure(
            "frequency_penalty",
            "between -2 and 2",
            self.frequency_penalty,
            is_penalty,
        )?;
        let biases = self.logit_bias.iter();
        biases.copied().try_for_each(|(_, bias)| {
            ensure("logit_bias", "between -100 and 100", bias, |x| {
                (-100.0..=100.0).contains(&x)
            })
        })?;
        let n_allowed = self.allowed_token_ids.as_ref().map_or(1, Vec::len);
        ensure(
            "allowed_token_ids",
            "a list of at least 1 token",
            n_allowed as f32,
            |n| n >= 1.0,
        )?;
        let n_shortest = self.bad_words.iter().map(Vec::len).min().unwrap_or(1);
        ensure("bad_words", "words of at least 1 token", n_shortest as f32, |n| {
            n >= 1.0
        })
    }

    /// Every token that a parameter names, with the parameter's name.
    pub(super) fn named_tokens(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let biased = self.logit_bias.iter().map(|&(token, _)| ("logit_bias", token));
        let allowed = self.allowed_token_ids.iter().flatten();
        let bad = self.bad_words.iter().flatten();
        biased
            .chain(allowed.map(|&token| ("allowed_token_ids", token)))
            .chain(bad.map(|&token| ("bad_words", token)))
    }
}

fn ensure(
    parameter: &'static str,
    range: &'static str,
    value: f32,
    in_range: impl Fn(f32) -> bool,
) -> Result<(), InvalidParam> {
    if value.is_finite() && in_range(value) {
        return Ok(());
    }
    Err(InvalidParam {
        parameter,
        range,
        value: f64::from(value),
    })
}

/// A token with its logit, ordered by rank: the higher logit first, the lower id among equals.
///
/// Both are packed into one word whose order is that one, because selecting and sorting the vocabulary is
/// most of the work here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate(u64);

/// What turns logits into probabilities.
#[derive(Clone, Copy)]
struct Scale {
    max: f32,
    temperature: f32,
}

impl Candidate {
    fn new(token: usize, logit: f32) -> Candidate {
        // Adding 0 makes one zero of both. Flipping the sign bit of positive and all bits of negative
        // numbers makes their bits ascend with them.
        let bits = (logit + 0.0).to_bits();
        let ascending = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
        Candidate(u64::from(!ascending) << 32 | token as u64)
    }

    fn token(self) -> u32 {
        self.0 as u32
    }

    fn logit(self) -> f32 {
        let ascending = !((self.0 >> 32) as u32);
        f32::from_bits(if ascending >> 31 == 1 {
            ascending & !(1 << 31)
        } else {
            !ascending
        })
    }
}

impl Scale {
    /// Log of the probability relative to the most probable token's: 0 for that one.
    fn log_weight(self, candidate: Candidate) -> f64 {
        (f64::from(candidate.logit()) - f64::from(self.max)) / f64::from(self.temperature)
    }

    fn weight(self, candidate: Candidate) -> f64 {
        self.log_weight(candidate).exp()
    }
}

fn check_logits(logits: &[f32]) -> Result<(), SampleError> {
    let is_bad = |x: f32| x.is_nan() || x == f32::INFINITY;
    // Without an early exit this is a vector loop; the position is only looked for when there is one.
    if logits.iter().fold(false, |any_bad, &x| any_bad | is_bad(x)) {
        let token = logits.iter().position(|&x| is_bad(x)).expect("one was bad");
        return Err(SampleError::BadLogit {
            token,
            value: logits[token],
        });
    }
    Ok(())
}

/// The token with the highest logit, the lowest id among equals; `None` if all are negative infinity.
fn argmax(logits: &[f32]) -> Option<Candidate> {
    // The order of floats, except for NaN, which has no place in it: a vector loop, which a comparison of floats is not.
    let ascending = |&x: &f32| {
        let bits = (x + 0.0).to_bits().cast_signed();
        bits ^ ((bits >> 31) & i32::MAX)
    };
    let best_of = |chunk: &[f32]| chunk.iter().map(ascending).fold(i32::MIN, i32::max);
    let chunks = logits.chunks(ARGMAX_CHUNK).map(best_of).enumerate();
    let (chunk, best) = chunks.reduce(|best, next| if next.1 > best.1 { next } else { best })?;
    let first = chunk * ARGMAX_CHUNK;
    let token = first + logits[first..].iter().map(ascending).position(|x| x == best)?;
    (logits[token] > f32::NEG_INFINITY).then(|| Candidate::new(token, logits[token]))
}

/// The tokens that min_p, then top_k, then top_p keep; never none.
fn kept(logits: &[f32], scale: Scale, params: &SamplingParams) -> Vec<Candidate> {
    let lowest = f64::from(scale.max) + f64::from(params.min_p).ln() * f64::from(scale.temperature);
    let mut candidates: Vec<Candidate> = logits
        .iter()
        .enumerate()
        .filter(|&(_, &logit)| logit > f32::NEG_INFINITY && f64::from(logit) >= lowest)
        .map(|(token, &logit)| Candidate::new(token, logit))
        .collect();
    if let Some(k) = params.top_k {
        keep_first(&mut candidates, k);
    }
    if params.top_p < 1.0 {
        keep_top_p(&mut candidates, scale, f64::from(params.top_p));
    }
    candidates
}

/// Keeps the `n` first in rank, in no order.
fn keep_first(candidates: &mut Vec<Candidate>, n: usize) {
    if n < candidates.len() {
        candidates.select_nth_unstable(n);
        candidates.truncate(n);
    }
}

/// Keeps the fewest first in rank whose probabilities, renormalised over `candidates`, reach `top_p`.
fn keep_top_p(candidates: &mut Vec<Candidate>, scale: Scale, top_p: f64) {
    let target = top_p
        * candidates
            .iter()
            .map(|&candidate| scale.weight(candidate))
            .sum::<f64>();
    let mut sum = 0.0;
    let mut n_sorted = 0;
    // Few tokens hold most of the probability, so the ranking is sorted only as far as needed.
    while n_sorted < candidates.len() {
        let rest = &mut candidates[n_sorted..];
        let n_head = (7 * n_sorted).max(64).min(rest.len());
        if n_head < rest.len() {
            rest.select_nth_unstable(n_head);
        }
        rest[..n_head].sort_unstable();
        for idx in n_sorted..n_sorted + n_head {
            sum += scale.weight(candidates[idx]);
            if sum >= target {
                candidates.truncate(idx + 1);
                return;
            }
        }
        n_sorted += n_head;
    }
}

/// Draws one of `candidates` with probability proportional to its weight: each runs with an exponential
/// variate of its own, divided by its weight, and the smallest wins (the Gumbel-max trick).
///
/// The variate is a function of (seed, position, token) alone, so the draw does not depend on which other
/// tokens were kept, on their order, or on the rest of the batch.
fn race(candidates: &[Candidate], scale: Scale, draw: &Draw<'_>) -> u32 {
    let mut variates = Variates::new(draw.seed, draw.prompt.len() + draw.generated.len());
    let mut winner: Option<(f64, u32)> = None;
    for &candidate in candidates {
        let token = candidate.token();
        let log_weight = scale.log_weight(candidate);
        let word = variates.word(token);
        // A cheap upper bound spares most of the vocabulary the two logarithms.
        let gain_max = f64::from(word.leading_zeros() + 1) * std::f64::consts::LN_2;
        if winner.is_some_and(|(best, _)| log_weight + gain_max < best) {
            continue;
        }
        let score = log_weight - exponential(word).ln();
        if winner.is_none_or(|(best, holder)| score > best || (score == best && token < holder)) {
            winner = Some((score, token));
        }
    }
    winner.expect("the filters keep at least one token").1
}

/// An exponential variate from a random word. At least `word / 2^32`, as `-ln(1 - u)` is at least `u`.
fn exponential(word: u32) -> f64 {
    let uniform = (f64::from(word) + 0.5) / 4_294_967_296.0;
    -(-uniform).ln_1p()
}

/// One random word per token, a function of (seed, position, token).
struct Variates {
    key: [u32; 2],
    position: [u32; 2],
    /// Four successive tokens share one call of Philox.
    group: u32,
    words: [u32; 4],
}

impl Variates {
    fn new(seed: u64, position: usize) -> Variates {
        let (key, position) = (halves(seed), halves(position as u64));
        Variates {
            key,
            position,
            group: 0,
            words: philox4x32(key, [0, position[0], position[1], 0]),
        }
    }

    fn word(&mut self, token: u32) -> u32 {
        let group = token / 4;
        if group != self.group {
            self.group = group;
            self.words = philox4x32(self.key, [group, self.position[0], self.position[1], 0]);
        }
        self.words[token as usize % 4]
    }
}

/// The `n` most probable tokens with their natural log-probabilities, most probable first; ties by lower id.
///
/// # Errors
/// [`SampleError`] if the logits are no distribution.
pub fn top_logprobs(logits: &[f32], n: usize) -> Result<Vec<(u32, f32)>, SampleError> {
    check_logits(logits)?;
    let best = argmax(logits).ok_or(SampleError::NoCandidate)?;
    let mut top = token_logprobs(logits, best.token(), n).top;
    top.retain(|(_, logprob)| *logprob > f32::NEG_INFINITY);
    Ok(top)
}

/// Log-probabilities of a `token` that was not drawn but given, and of the `n_top` most probable ones.
///
/// # Errors
/// [`SampleError`] if the logits are no distribution.
pub fn given_logprobs(logits: &[f32], token: u32, n_top: usize) -> Result<TokenLogprobs, SampleError> {
    check_logits(logits)?;
    argmax(logits).ok_or(SampleError::NoCandidate)?;
    Ok(token_logprobs(logits, token, n_top))
}

/// Log-softmax of the raw logits at `token` and at the `n_top` most probable tokens.
fn token_logprobs(logits: &[f32], token: u32, n_top: usize) -> TokenLogprobs {
    let max = logits
        .iter()
        .fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max });
    let sum: f64 = logits.iter().map(|&x| f64::from((x - max).exp())).sum();
    let log_sum = f64::from(max) + sum.ln();
    let logprob = |logit: f32| (f64::from(logit) - log_sum) as f32;

    let mut top: Vec<Candidate> = Vec::new();
    if n_top > 0 {
        top.extend(
            logits
                .iter()
                .enumerate()
                .map(|(token, &logit)| Candidate::new(token, logit)),
        );
        keep_first(&mut top, n_top);
        top.sort_unstable();
    }
    let top = top.into_iter();
    let mut top: Vec<(u32, f32)> = top
        .map(|candidate| (candidate.token(), logprob(candidate.logit())))
        .collect();
    // The list was as long as the vocabulary, and the pairs took over its memory.
    top.shrink_to_fit();
    let chosen = logits[token as usize];
    TokenLogprobs {
        chosen: logprob(chosen),
        rank: 1 + logits.iter().filter(|&&logit| logit > chosen).count(),
        top,
    }
}

#[cfg(test)]
mod tests;
