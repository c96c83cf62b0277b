//! The sampler: a row of logits becomes a token.
//!
//! A pure function: the same logits, parameters, history, seed and position give the same token, alone or
//! in any batch. Must not know sequences, requests or the model.
//!
//! The order is vLLM's: forbidden tokens; repetition, frequency and presence penalties; temperature;
//! min_p; top_k; top_p; the draw. Log-probabilities are of the raw logits, before all of that.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use super::philox::{halves, philox4x32};

/// Below this temperature sampling is greedy.
const GREEDY_TEMPERATURE: f32 = 1e-5;

/// `-ln` of the smallest exponential variate [`race`] can see, `-ln(1 - 2^-33)`; no token gains more.
const GAIN_MAX: f64 = 22.9;

/// How to draw tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; below 1e-5 the most probable token is taken.
    pub temperature: f32,
    /// Keep the fewest most probable tokens whose probabilities reach this sum. In (0, 1].
    pub top_p: f32,
    /// Keep this many of the most probable tokens.
    pub top_k: Option<usize>,
    /// Keep tokens at least this fraction as probable as the most probable one. In [0, 1].
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens in prompt or answer. Above 0.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of tokens in the answer. In [-2, 2].
    pub presence_penalty: f32,
    /// Subtracted from the logits of tokens in the answer, once per occurrence. In [-2, 2].
    pub frequency_penalty: f32,
    /// Fixes the draws; `None`: the engine picks a seed.
    pub seed: Option<u64>,
    /// Return the token's log-probability and those of this many most probable tokens.
    pub logprobs: Option<usize>,
}

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

/// What the sampler needs beside the logits.
#[derive(Clone, Debug)]
pub struct Draw<'a> {
    /// How to draw.
    pub params: &'a SamplingParams,
    /// Tokens of the prompt.
    pub prompt: &'a [u32],
    /// Tokens generated so far.
    pub generated: &'a [u32],
    /// Tokens that may not be drawn.
    pub forbidden: &'a [u32],
    /// Decides the draw, together with the position.
    pub seed: u64,
}

/// A drawn token.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// Its id.
    pub token: u32,
    /// Log-probabilities, where [`SamplingParams::logprobs`] asks for them.
    pub logprobs: Option<TokenLogprobs>,
}

/// Natural log-probabilities under the model alone: before penalties, temperature and filters.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// Of the token that was drawn.
    pub chosen: f32,
    /// The most probable tokens, most probable first; ties by lower id.
    pub top: Vec<(u32, f32)>,
}

/// Why no token could be drawn.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SampleError {
    /// The model produced NaN or positive infinity, or a penalty turned a logit into it.
    #[error("the logit of token {token} is {value}")]
    BadLogit {
        /// The first such token.
        token: usize,
        /// Its logit.
        value: f32,
    },
    /// Every token is forbidden or has a logit of negative infinity.
    #[error("no token may be drawn")]
    NoCandidate,
}

/// Draws the next token of a sequence from its row of raw `logits`, indexed by token id.
///
/// # Errors
/// [`SampleError`] if the logits are no distribution; only this sequence is concerned.
pub fn sample(logits: &[f32], draw: &Draw<'_>) -> Result<Sampled, SampleError> {
    if let Some(token) = logits.iter().position(|&x| x.is_nan() || x == f32::INFINITY) {
        return Err(SampleError::BadLogit {
            token,
            value: logits[token],
        });
    }
    let shaped = shape(logits, draw);
    let best = argmax(&shaped).ok_or(SampleError::NoCandidate)?;
    if shaped[best as usize] == f32::INFINITY {
        return Err(SampleError::BadLogit {
            token: best as usize,
            value: f32::INFINITY,
        });
    }
    let params = draw.params;
    let token = if params.temperature < GREEDY_TEMPERATURE {
        best
    } else {
        let scores = Scores {
            logits: &shaped,
            max: shaped[best as usize],
            temperature: params.temperature,
        };
        race(&scores, &kept(&scores, params), draw)
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
        let top_k = self.top_k.map_or(1.0, |k| k as f64);
        let checks = [
            (
                "temperature",
                "a number of at least 0",
                f64::from(self.temperature),
                self.temperature >= 0.0,
            ),
            (
                "top_p",
                "above 0 and at most 1",
                f64::from(self.top_p),
                self.top_p > 0.0 && self.top_p <= 1.0,
            ),
            ("top_k", "at least 1", top_k, top_k >= 1.0),
            (
                "min_p",
                "between 0 and 1",
                f64::from(self.min_p),
                (0.0..=1.0).contains(&self.min_p),
            ),
            (
                "repetition_penalty",
                "a number above 0",
                f64::from(self.repetition_penalty),
                self.repetition_penalty > 0.0,
            ),
            (
                "presence_penalty",
                "a number",
                f64::from(self.presence_penalty),
                true,
            ),
            (
                "frequency_penalty",
                "a number",
                f64::from(self.frequency_penalty),
                true,
            ),
        ];
        match checks
            .into_iter()
            .find(|(_, _, value, in_range)| !value.is_finite() || !in_range)
        {
            Some((parameter, range, value, _)) => Err(InvalidParam {
                parameter,
                range,
                value,
            }),
            None => Ok(()),
        }
    }
}

impl Default for SamplingParams {
    /// OpenAI's defaults: the model's own distribution.
    fn default() -> SamplingParams {
        SamplingParams {
            temperature: 1.0,
            top_p: 1.0,
            top_k: None,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: None,
            logprobs: None,
        }
    }
}

/// Logits after forbidden tokens and penalties, with what turns them into probabilities.
struct Scores<'a> {
    logits: &'a [f32],
    max: f32,
    temperature: f32,
}

impl Scores<'_> {
    /// Log of the token's probability relative to the most probable token's: 0 for that one.
    fn log_weight(&self, token: u32) -> f64 {
        (f64::from(self.logits[token as usize]) - f64::from(self.max)) / f64::from(self.temperature)
    }

    /// More probable first; ties by lower id, so that the order is total.
    fn rank(&self, a: u32, b: u32) -> Ordering {
        descending(self.logits, a, b)
    }
}

/// The logits with forbidden tokens removed and penalties applied.
fn shape<'a>(logits: &'a [f32], draw: &Draw<'_>) -> Cow<'a, [f32]> {
    let params = draw.params;
    let mut shaped = Cow::Borrowed(logits);
    for &token in draw.forbidden {
        if let Some(logit) = shaped.to_mut().get_mut(token as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
    if params.repetition_penalty != 1.0 {
        let seen: HashSet<u32> = draw.prompt.iter().chain(draw.generated).copied().collect();
        let shaped = shaped.to_mut();
        for token in seen {
            let logit = &mut shaped[token as usize];
            let is_positive = *logit > 0.0;
            *logit = if is_positive {
                *logit / params.repetition_penalty
            } else {
                *logit * params.repetition_penalty
            };
        }
    }
    if params.presence_penalty != 0.0 || params.frequency_penalty != 0.0 {
        let mut counts: HashMap<u32, u32> = HashMap::new();
        for &token in draw.generated {
            *counts.entry(token).or_default() += 1;
        }
        let shaped = shaped.to_mut();
        for (token, count) in counts {
            shaped[token as usize] -= params.frequency_penalty * count as f32 + params.presence_penalty;
        }
    }
    shaped
}

/// The token with the highest logit, the lowest id among equals; `None` if all are negative infinity.
fn argmax(logits: &[f32]) -> Option<u32> {
    let mut best: Option<(usize, f32)> = None;
    for (token, &logit) in logits.iter().enumerate() {
        if logit > best.map_or(f32::NEG_INFINITY, |(_, highest)| highest) {
            best = Some((token, logit));
        }
    }
    best.map(|(token, _)| token as u32)
}

/// The tokens that min_p, then top_k, then top_p keep; never none.
fn kept(scores: &Scores<'_>, params: &SamplingParams) -> Vec<u32> {
    let log_min_p = f64::from(params.min_p).ln();
    let possible = |token: &u32| scores.logits[*token as usize] > f32::NEG_INFINITY;
    let mut tokens: Vec<u32> = (0..scores.logits.len() as u32)
        .filter(|token| possible(token) && scores.log_weight(*token) >= log_min_p)
        .collect();
    if let Some(k) = params.top_k {
        keep_first(scores, &mut tokens, k);
    }
    if params.top_p < 1.0 {
        keep_top_p(scores, &mut tokens, f64::from(params.top_p));
    }
    tokens
}

/// Keeps the `n` most probable of `tokens`, in no order.
fn keep_first(scores: &Scores<'_>, tokens: &mut Vec<u32>, n: usize) {
    if n < tokens.len() {
        tokens.select_nth_unstable_by(n, |&a, &b| scores.rank(a, b));
        tokens.truncate(n);
    }
}

/// Keeps the fewest most probable of `tokens` whose probabilities, renormalised over `tokens`, reach
/// `top_p`.
fn keep_top_p(scores: &Scores<'_>, tokens: &mut Vec<u32>, top_p: f64) {
    let target = top_p
        * tokens
            .iter()
            .map(|&token| scores.log_weight(token).exp())
            .sum::<f64>();
    // Few tokens hold most of the probability, so a short head is sorted first instead of everything.
    let mut n_head = 64;
    loop {
        n_head = n_head.min(tokens.len());
        if n_head < tokens.len() {
            tokens.select_nth_unstable_by(n_head, |&a, &b| scores.rank(a, b));
        }
        tokens[..n_head].sort_unstable_by(|&a, &b| scores.rank(a, b));
        let mut sum = 0.0;
        for idx in 0..n_head {
            sum += scores.log_weight(tokens[idx]).exp();
            if sum >= target {
                tokens.truncate(idx + 1);
                return;
            }
        }
        if n_head == tokens.len() {
            return;
        }
        n_head *= 8;
    }
}

/// Draws one of `tokens` with probability proportional to its weight: each runs with an exponential
/// variate of its own, divided by its weight, and the smallest wins (the Gumbel-max trick).
///
/// The variate is a function of (seed, position, token) alone, so the draw does not depend on which other
/// tokens were kept, on their order, or on the rest of the batch.
fn race(scores: &Scores<'_>, tokens: &[u32], draw: &Draw<'_>) -> u32 {
    let key = halves(draw.seed);
    let [position_low, position_high] = halves((draw.prompt.len() + draw.generated.len()) as u64);
    let mut winner = (f64::NEG_INFINITY, u32::MAX);
    for &token in tokens {
        let log_weight = scores.log_weight(token);
        if log_weight + GAIN_MAX < winner.0 {
            continue;
        }
        let word = philox4x32(key, [token, position_low, position_high, 0])[0];
        let uniform = (f64::from(word) + 0.5) / 4_294_967_296.0;
        let exponential = -(-uniform).ln_1p();
        let finish = log_weight - exponential.ln();
        if finish > winner.0 || (finish == winner.0 && token < winner.1) {
            winner = (finish, token);
        }
    }
    winner.1
}

/// Log-softmax of the raw logits at `token` and at the `n_top` most probable tokens.
fn token_logprobs(logits: &[f32], token: u32, n_top: usize) -> TokenLogprobs {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&x| (f64::from(x) - max).exp()).sum();
    let log_sum = max + sum.ln();
    let logprob = |token: u32| (f64::from(logits[token as usize]) - log_sum) as f32;

    let mut top: Vec<u32> = (0..logits.len() as u32).collect();
    if n_top < top.len() {
        top.select_nth_unstable_by(n_top, |&a, &b| descending(logits, a, b));
        top.truncate(n_top);
    }
    top.sort_unstable_by(|&a, &b| descending(logits, a, b));
    TokenLogprobs {
        chosen: logprob(token),
        top: top.into_iter().map(|t| (t, logprob(t))).collect(),
    }
}

/// Higher logit first; ties by lower id.
fn descending(logits: &[f32], a: u32, b: u32) -> Ordering {
    logits[b as usize]
        .partial_cmp(&logits[a as usize])
        .unwrap_or(Ordering::Equal)
        .then(a.cmp(&b))
}
