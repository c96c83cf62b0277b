//! The sampler: a row of logits becomes a token.
//!
//! A pure function: the same logits, parameters, history, seed and position give the same token, alone or
//! in any batch. Must not know sequences, requests or the model.
//!
//! The order is vLLM's: forbidden tokens; repetition, frequency and presence penalties; temperature;
//! min_p; top_k; top_p; the draw. Log-probabilities are of the raw logits, before all of that.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::philox::{halves, philox4x32};

/// Below this temperature sampling is greedy.
const GREEDY_TEMPERATURE: f32 = 1e-5;

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
    check_logits(logits)?;
    let shaped = shape(logits, draw);
    check_logits(&shaped)?;
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
        )
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
fn argmax(logits: &[f32]) -> Option<Candidate> {
    let max = logits
        .iter()
        .fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max });
    let token = logits.iter().position(|&x| x == max && x > f32::NEG_INFINITY)?;
    Some(Candidate::new(token, max))
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
    let top = top
        .into_iter()
        .map(|candidate| (candidate.token(), logprob(candidate.logit())))
        .collect();
    TokenLogprobs {
        chosen: logprob(logits[token as usize]),
        top,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const N_DRAWS: usize = 20_000;

    /// Logits of the probabilities 0.4, 0.25, 0.15, 0.1, 0.06, 0.04 in a scrambled order of ids.
    const PROBABILITIES: [f64; 6] = [0.06, 0.4, 0.1, 0.04, 0.25, 0.15];

    fn logits() -> Vec<f32> {
        PROBABILITIES.iter().map(|p| p.ln() as f32 + 3.0).collect()
    }

    fn draw(params: &SamplingParams, seed: u64) -> Draw<'_> {
        Draw {
            params,
            prompt: &[],
            generated: &[],
            forbidden: &[],
            seed,
        }
    }

    /// Draws with seeds 0, 1, 2, … and compares the counts with `expected` probabilities by Pearson's
    /// chi-square test, at the level of one false alarm in a thousand; the seeds are fixed, so it either
    /// always passes or never.
    fn check_distribution(params: &SamplingParams, expected: [f64; 6]) {
        let logits = logits();
        let draw_one = |seed| sample(&logits, &draw(params, seed)).unwrap().token;
        check_counts((0..N_DRAWS as u64).map(draw_one), &expected);
    }

    fn check_counts(tokens: impl Iterator<Item = u32>, expected: &[f64]) {
        let mut counts = vec![0usize; expected.len()];
        tokens.for_each(|token| counts[token as usize] += 1);
        let n_drawn = counts.iter().sum::<usize>() as f64;
        let total: f64 = expected.iter().sum();
        let (mut chi_square, mut n_cells) = (0.0, 0);
        for (&count, p) in counts.iter().zip(expected.iter().map(|p| p / total)) {
            if p == 0.0 {
                assert_eq!(count, 0, "a token was drawn that the filters drop: {counts:?}");
            } else {
                chi_square += (count as f64 - n_drawn * p).powi(2) / (n_drawn * p);
                n_cells += 1;
            }
        }
        assert!(
            chi_square < chi_square_limit(n_cells - 1),
            "chi-square {chi_square}: {counts:?}"
        );
    }

    /// The 99.9 % point of the chi-square distribution, by Wilson and Hilferty's approximation.
    fn chi_square_limit(n_degrees: usize) -> f64 {
        let spread = 2.0 / (9.0 * n_degrees as f64);
        n_degrees as f64 * (1.0 - spread + 3.0902 * spread.sqrt()).powi(3)
    }

    #[test]
    fn draws_follow_the_models_distribution() {
        check_distribution(&SamplingParams::default(), PROBABILITIES);
    }

    #[test]
    fn draws_follow_the_temperature() {
        for temperature in [0.5f32, 2.0] {
            let params = SamplingParams {
                temperature,
                ..SamplingParams::default()
            };
            check_distribution(
                &params,
                PROBABILITIES.map(|p| p.powf(1.0 / f64::from(temperature))),
            );
        }
    }

    #[test]
    fn draws_follow_top_k() {
        let params = SamplingParams {
            top_k: Some(3),
            ..SamplingParams::default()
        };
        check_distribution(&params, [0.0, 0.4, 0.0, 0.0, 0.25, 0.15]);
    }

    #[test]
    fn draws_follow_top_p() {
        // 0.4 + 0.25 + 0.15 = 0.8 is the first sum that reaches 0.7.
        let params = SamplingParams {
            top_p: 0.7,
            ..SamplingParams::default()
        };
        check_distribution(&params, [0.0, 0.4, 0.0, 0.0, 0.25, 0.15]);
    }

    #[test]
    fn draws_follow_min_p() {
        // A fifth of 0.4 is 0.08.
        let params = SamplingParams {
            min_p: 0.2,
            ..SamplingParams::default()
        };
        check_distribution(&params, [0.0, 0.4, 0.1, 0.0, 0.25, 0.15]);
    }

    #[test]
    fn draws_follow_all_filters_in_order() {
        // min_p keeps 0.4 0.25 0.15 0.1; top_k three of them, which sum to 0.8; 0.65 of these reach 0.8 * 0.8.
        let params = SamplingParams {
            min_p: 0.2,
            top_k: Some(3),
            top_p: 0.8,
            ..SamplingParams::default()
        };
        check_distribution(&params, [0.0, 0.4, 0.0, 0.0, 0.25, 0.0]);
    }

    #[test]
    fn draws_of_one_seed_at_successive_positions_are_independent() {
        let uniform = [0.0f32; 4];
        let params = SamplingParams::default();
        let text = [0u32; N_DRAWS];
        let token_at = |position: usize| {
            let draw = Draw {
                prompt: &text[..position],
                ..draw(&params, 42)
            };
            sample(&uniform, &draw).unwrap().token
        };
        check_counts((0..N_DRAWS).map(token_at), &[1.0; 4]);
        let pair_at = |position: usize| token_at(position) * 4 + token_at(position + 1);
        check_counts((0..N_DRAWS - 1).map(pair_at), &[1.0; 16]);
    }

    #[test]
    fn temperature_zero_takes_the_best_and_the_lowest_id_of_equals() {
        let greedy = SamplingParams {
            temperature: 0.0,
            top_k: Some(1),
            ..SamplingParams::default()
        };
        for seed in 0..50 {
            assert_eq!(
                sample(&[1.0, 3.0, 3.0, 2.0], &draw(&greedy, seed)).unwrap().token,
                1
            );
        }
    }

    #[test]
    fn penalties_are_subtracted_and_divided_as_vllm_does() {
        let params = SamplingParams {
            repetition_penalty: 2.0,
            presence_penalty: 0.5,
            frequency_penalty: 0.25,
            ..SamplingParams::default()
        };
        let draw = Draw {
            prompt: &[0, 1],
            generated: &[2, 2, 3],
            ..draw(&params, 0)
        };
        let shaped = shape(&[4.0, -4.0, 4.0, -4.0, 1.0], &draw);
        // Prompt tokens are only scaled; generated ones also lose 0.5 and 0.25 per occurrence.
        assert_eq!(*shaped, [2.0, -8.0, 2.0 - 0.5 - 0.5, -8.0 - 0.5 - 0.25, 1.0]);
    }

    #[test]
    fn logprobs_are_of_the_raw_logits() {
        let params = SamplingParams {
            temperature: 0.0,
            repetition_penalty: 100.0,
            logprobs: Some(2),
            ..SamplingParams::default()
        };
        let logits = logits();
        let draw = Draw {
            prompt: &[1],
            ..draw(&params, 0)
        };
        let sampled = sample(&logits, &draw).unwrap();
        let logprobs = sampled.logprobs.unwrap();
        assert_eq!(sampled.token, 4);
        assert!((f64::from(logprobs.chosen).exp() - 0.25).abs() < 1e-6);
        assert_eq!(logprobs.top.iter().map(|top| top.0).collect::<Vec<_>>(), [1, 4]);
        assert!((f64::from(logprobs.top[0].1).exp() - 0.4).abs() < 1e-6);
        let chosen_only = SamplingParams {
            logprobs: Some(0),
            ..params
        };
        let draw = Draw {
            params: &chosen_only,
            ..draw
        };
        assert_eq!(sample(&logits, &draw).unwrap().logprobs.unwrap().top, []);
    }

    #[test]
    fn logits_that_are_no_distribution_are_errors() {
        let params = SamplingParams::default();
        let nan = sample(&[0.0, f32::NAN], &draw(&params, 0)).unwrap_err();
        assert!(matches!(nan, SampleError::BadLogit { token: 1, value } if value.is_nan()));
        let infinite = sample(&[f32::INFINITY, 0.0], &draw(&params, 0)).unwrap_err();
        assert_eq!(
            infinite,
            SampleError::BadLogit {
                token: 0,
                value: f32::INFINITY
            }
        );
        let all_forbidden = Draw {
            forbidden: &[0, 1, 700],
            ..draw(&params, 0)
        };
        assert_eq!(sample(&[0.0, 0.0], &all_forbidden), Err(SampleError::NoCandidate));
        let empty = sample(&[], &draw(&params, 0));
        assert_eq!(empty, Err(SampleError::NoCandidate));
    }

    #[test]
    fn parameters_outside_their_range_are_named() {
        let bad = |params: SamplingParams| params.check().unwrap_err().parameter;
        let good = SamplingParams::default();
        assert_eq!(good.check(), Ok(()));
        assert_eq!(
            bad(SamplingParams {
                temperature: -0.1,
                ..good.clone()
            }),
            "temperature"
        );
        assert_eq!(
            bad(SamplingParams {
                temperature: f32::INFINITY,
                ..good.clone()
            }),
            "temperature"
        );
        assert_eq!(
            bad(SamplingParams {
                top_p: 0.0,
                ..good.clone()
            }),
            "top_p"
        );
        assert_eq!(
            bad(SamplingParams {
                top_k: Some(0),
                ..good.clone()
            }),
            "top_k"
        );
        assert_eq!(
            bad(SamplingParams {
                min_p: 1.1,
                ..good.clone()
            }),
            "min_p"
        );
        assert_eq!(
            bad(SamplingParams {
                repetition_penalty: 0.0,
                ..good.clone()
            }),
            "repetition_penalty"
        );
        assert_eq!(
            bad(SamplingParams {
                presence_penalty: 2.1,
                ..good.clone()
            }),
            "presence_penalty"
        );
        assert_eq!(
            bad(SamplingParams {
                frequency_penalty: f32::NAN,
                ..good
            }),
            "frequency_penalty"
        );
    }

    fn params() -> impl Strategy<Value = SamplingParams> {
        let filters = (
            0.05..3.0f32,
            0.01..=1.0f32,
            prop::option::of(1..40usize),
            0.0..=1.0f32,
        );
        (filters, 0.5..2.0f32, -2.0..2.0f32, -2.0..2.0f32).prop_map(
            |(
                (temperature, top_p, top_k, min_p),
                repetition_penalty,
                presence_penalty,
                frequency_penalty,
            )| {
                SamplingParams {
                    temperature,
                    top_p,
                    top_k,
                    min_p,
                    repetition_penalty,
                    presence_penalty,
                    frequency_penalty,
                    ..SamplingParams::default()
                }
            },
        )
    }

    /// Rows longer than the head that top_p sorts first; quarter steps make ties frequent.
    fn row() -> impl Strategy<Value = Vec<f32>> {
        let logit = prop_oneof![9 => (-40..40i32).prop_map(|x| x as f32 / 4.0), 1 => Just(f32::NEG_INFINITY)];
        prop::collection::vec(logit, 1..300).prop_filter("some logit is finite", |row| argmax(row).is_some())
    }

    proptest! {
        #[test]
        fn the_filters_keep_exactly_what_they_say(row in row(), params in params()) {
            let scale = Scale { max: argmax(&row).unwrap().logit(), temperature: params.temperature };
            let mut kept = kept(&row, scale, &params);
            kept.sort();

            // The ranking, by its definition.
            let mut ranking: Vec<usize> = (0..row.len()).collect();
            ranking.sort_by(|&a, &b| row[b].partial_cmp(&row[a]).unwrap().then(a.cmp(&b)));
            let ranking: Vec<Candidate> = ranking.into_iter().map(|token| Candidate::new(token, row[token])).collect();
            prop_assert_eq!(&kept, &ranking[..kept.len()]);

            // The candidates of top_p are what min_p and top_k leave.
            let weight = |candidate: Candidate| scale.weight(candidate);
            let min_weight = f64::from(params.min_p) * (1.0 - 1e-12);
            let is_possible = |c: Candidate| row[c.token() as usize] > f32::NEG_INFINITY && weight(c) >= min_weight;
            let n_possible = ranking.iter().take_while(|&&candidate| is_possible(candidate)).count();
            let candidates = &ranking[..n_possible.min(params.top_k.unwrap_or(usize::MAX))];
            prop_assert!(kept.len() <= candidates.len());

            // Kept is the shortest head that reaches top_p of them.
            let sum = |tokens: &[Candidate]| tokens.iter().copied().map(weight).sum::<f64>();
            let target = f64::from(params.top_p) * sum(candidates);
            let is_all = kept.len() == candidates.len();
            prop_assert!(is_all || sum(&kept) >= target * (1.0 - 1e-9));
            prop_assert!(params.top_p < 1.0 || is_all);
            let is_shortest = kept.len() == 1 || sum(&kept[..kept.len() - 1]) < target * (1.0 + 1e-9);
            prop_assert!(params.top_p == 1.0 || is_shortest);
        }

        #[test]
        fn a_candidate_holds_its_token_and_logit_in_order_of_rank(a in any::<f32>(), b in any::<f32>()) {
            let candidates = [Candidate::new(3, a), Candidate::new(5, b)];
            prop_assert_eq!(candidates.map(Candidate::token), [3, 5]);
            prop_assert!(candidates[0].logit() == a && candidates[1].logit() == b);
            prop_assert_eq!(candidates[0] < candidates[1], a >= b);
        }

        #[test]
        fn a_draw_is_a_function_of_its_inputs_and_never_forbidden(
            row in row(),
            params in params(),
            seed in any::<u64>(),
            forbidden in prop::collection::vec(0..300u32, 0..4),
            text in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let text: Vec<u32> = text.iter().map(|idx| idx.index(row.len()) as u32).collect();
            let (prompt, generated) = text.split_at(text.len() / 2);
            let draw = Draw { params: &params, prompt, generated, forbidden: &forbidden, seed };
            let sampled = sample(&row, &draw);
            prop_assert_eq!(&sampled, &sample(&row, &draw));
            match sampled {
                Ok(sampled) => {
                    prop_assert!(row[sampled.token as usize] > f32::NEG_INFINITY);
                    prop_assert!(!forbidden.contains(&sampled.token));
                }
                Err(error) => prop_assert_eq!(error, SampleError::NoCandidate),
            }
        }

        #[test]
        fn the_draw_does_not_depend_on_the_order_or_on_losers(row in row(), seed in any::<u64>()) {
            let params = SamplingParams::default();
            let scale = Scale { max: argmax(&row).unwrap().logit(), temperature: 1.0 };
            let draw = draw(&params, seed);
            let candidates = kept(&row, scale, &params);
            let winner = race(&candidates, scale, &draw);
            let reversed: Vec<Candidate> = candidates.iter().rev().copied().collect();
            prop_assert_eq!(race(&reversed, scale, &draw), winner);
            let is_left = |&(idx, c): &(usize, &Candidate)| idx % 2 == 0 || c.token() == winner;
            let left: Vec<Candidate> = candidates.iter().enumerate().filter(is_left).map(|(_, &c)| c).collect();
            prop_assert_eq!(race(&left, scale, &draw), winner);
        }

        #[test]
        fn logprobs_of_the_whole_vocabulary_sum_to_one(row in row()) {
            let logprobs = token_logprobs(&row, 0, row.len());
            let total: f64 = logprobs.top.iter().map(|&(_, logprob)| f64::from(logprob).exp()).sum();
            prop_assert!((total - 1.0).abs() < 1e-5);
            prop_assert!(logprobs.top.windows(2).all(|pair| pair[0].1 >= pair[1].1));
            let listed = logprobs.top.iter().find(|top| top.0 == 0).unwrap();
            prop_assert_eq!(listed.1, logprobs.chosen);
        }
    }
}
