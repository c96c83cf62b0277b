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
            let best = argmax(&row).unwrap();
            let scores = Scores { logits: &row, max: row[best as usize], temperature: params.temperature };
            let weight = |token: u32| scores.log_weight(token).exp();
            let mut kept = kept(&scores, &params);
            kept.sort_by(|&a, &b| scores.rank(a, b));

            // What is kept is the head of the ranking.
            let mut ranking: Vec<u32> = (0..row.len() as u32).collect();
            ranking.sort_by(|&a, &b| scores.rank(a, b));
            prop_assert_eq!(&kept, &ranking[..kept.len()]);

            // The candidates of top_p are what min_p and top_k leave.
            let min_weight = f64::from(params.min_p) * (1.0 - 1e-12);
            let n_possible = ranking.iter().take_while(|&&t| weight(t) > 0.0 && weight(t) >= min_weight).count();
            let candidates = &ranking[..n_possible.min(params.top_k.unwrap_or(usize::MAX))];
            prop_assert!(kept.len() <= candidates.len());

            // Kept is the shortest head that reaches top_p of them.
            let sum = |tokens: &[u32]| tokens.iter().map(|&token| weight(token)).sum::<f64>();
            let target = f64::from(params.top_p) * sum(candidates);
            let is_all = kept.len() == candidates.len();
            prop_assert!(is_all || sum(&kept) >= target * (1.0 - 1e-9));
            prop_assert!(params.top_p < 1.0 || is_all);
            prop_assert!(kept.len() == 1 || params.top_p == 1.0 || sum(&kept[..kept.len() - 1]) < target * (1.0 + 1e-9));
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
            let best = argmax(&row).unwrap();
            let scores = Scores { logits: &row, max: row[best as usize], temperature: 1.0 };
            let draw = draw(&params, seed);
            let tokens = kept(&scores, &params);
            let winner = race(&scores, &tokens, &draw);
            let reversed: Vec<u32> = tokens.iter().rev().copied().collect();
            prop_assert_eq!(race(&scores, &reversed, &draw), winner);
            let every_other: Vec<u32> =
                tokens.iter().enumerate().filter(|&(idx, &t)| idx % 2 == 0 || t == winner).map(|(_, &t)| t).collect();
            prop_assert_eq!(race(&scores, &every_other, &draw), winner);
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
