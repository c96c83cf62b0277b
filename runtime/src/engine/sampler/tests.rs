//! The sampler: distributions by the chi-square test, filters and penalties by their definitions.

#[cfg(feature = "cuda")]
mod device;

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
        mask: None,
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

/// As [`check_distribution`], for a draw of its own.
fn check_draw(draw: &Draw<'_>, expected: [f64; 6]) {
    let logits = logits();
    let draw_one = |seed| sample(&logits, &Draw { seed, ..draw.clone() }).unwrap().token;
    check_counts((0..N_DRAWS as u64).map(draw_one), &expected);
}

#[test]
fn draws_follow_penalties() {
    let params = SamplingParams {
        repetition_penalty: 1.5,
        presence_penalty: 0.5,
        frequency_penalty: 0.25,
        ..SamplingParams::default()
    };
    let draw = Draw {
        prompt: &[1, 0],
        generated: &[4, 4, 3],
        ..draw(&params, 0)
    };
    let logits = PROBABILITIES.map(|p| p.ln() + 3.0);
    // All seen logits but the fourth are positive; the generated ones also lose 0.5, and 0.25 per occurrence.
    assert!(logits[3] < 0.0 && [0, 1, 4].iter().all(|&token| logits[token] > 0.0));
    let mut expected = logits;
    for token in [0, 1, 4] {
        expected[token] /= 1.5;
    }
    expected[3] = expected[3] * 1.5 - 0.75;
    expected[4] -= 1.0;
    check_draw(&draw, expected.map(f64::exp));
}

#[test]
fn draws_follow_biases_before_penalties() {
    let params = SamplingParams {
        logit_bias: vec![(1, -100.0), (3, 2.0), (0, 0.5)],
        repetition_penalty: 2.0,
        ..SamplingParams::default()
    };
    let draw = Draw {
        prompt: &[3],
        ..draw(&params, 0)
    };
    let mut expected = PROBABILITIES;
    expected[1] = 0.0;
    expected[0] *= 0.5f64.exp();
    expected[3] = ((0.04f64.ln() + 3.0 + 2.0) / 2.0 - 3.0).exp();
    check_draw(&draw, expected);
}

#[test]
fn draws_follow_the_grammars_mask_and_the_allowed_tokens() {
    let params = SamplingParams {
        allowed_token_ids: Some(vec![5, 0, 4, 4]),
        ..SamplingParams::default()
    };
    check_draw(&draw(&params, 0), [0.06, 0.0, 0.0, 0.0, 0.25, 0.15]);
    let masked = Draw {
        mask: Some(&[0b11_0110]),
        ..draw(&params, 0)
    };
    check_draw(&masked, [0.0, 0.0, 0.0, 0.0, 0.25, 0.15]);
    let free = SamplingParams::default();
    let masked = Draw {
        params: &free,
        ..masked
    };
    check_draw(&masked, [0.0, 0.4, 0.1, 0.0, 0.25, 0.15]);
}

#[test]
fn a_mask_ends_where_the_tokenizer_does() {
    let params = SamplingParams::default();
    let masked = Draw {
        mask: Some(&[u32::MAX, 0b1]),
        ..draw(&params, 0)
    };
    let shaped = shape(&[1.0; 70], &masked);
    let (allowed, beyond) = shaped.split_at(33);
    assert!(allowed.iter().all(|&logit| logit == 1.0));
    assert!(beyond.iter().all(|&logit| logit == f32::NEG_INFINITY));
}

#[test]
fn draws_never_complete_a_bad_word() {
    let params = SamplingParams {
        bad_words: vec![
            vec![1],
            vec![2, 4],
            vec![3, 2, 5],
            vec![0, 2, 5],
            vec![2, 3, 2, 0],
        ],
        ..SamplingParams::default()
    };
    let text = |prompt: &'static [u32], generated: &'static [u32]| Draw {
        prompt,
        generated,
        ..draw(&params, 0)
    };
    check_draw(&text(&[], &[]), [0.06, 0.0, 0.1, 0.04, 0.25, 0.15]);
    check_draw(&text(&[], &[3, 2]), [0.06, 0.0, 0.1, 0.04, 0.0, 0.0]);
    // A bad word that begins in the prompt does not count.
    check_draw(&text(&[2, 3], &[2]), [0.06, 0.0, 0.1, 0.04, 0.0, 0.15]);
}

#[test]
fn draws_follow_everything_at_once_in_order() {
    let params = SamplingParams {
        allowed_token_ids: Some(vec![0, 1, 2, 4, 5]),
        bad_words: vec![vec![2, 5]],
        logit_bias: vec![(2, 1.5), (5, 50.0), (1, -0.5)],
        repetition_penalty: 1.3,
        frequency_penalty: 0.4,
        presence_penalty: 0.1,
        temperature: 0.8,
        min_p: 0.05,
        top_k: Some(3),
        top_p: 0.97,
        ..SamplingParams::default()
    };
    let draw = Draw {
        prompt: &[1],
        generated: &[2],
        mask: Some(&[0b11_1110]),
        ..draw(&params, 0)
    };
    // The mask drops 0, the allowed tokens 3, the bad word 5 in spite of its bias.
    let raw = PROBABILITIES.map(|p| p.ln() + 3.0);
    let mut expected = [f64::NEG_INFINITY; 6];
    expected[1] = (raw[1] - 0.5) / 1.3;
    expected[2] = (raw[2] + 1.5) / 1.3 - 0.5;
    expected[4] = raw[4];
    check_draw(&draw, expected.map(|logit| (logit / 0.8).exp()));
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
    assert_eq!((sampled.token, logprobs.rank), (4, 2));
    assert!((f64::from(logprobs.chosen).exp() - 0.25).abs() < 1e-6);
    assert_eq!(logprobs.top.iter().map(|top| top.0).collect::<Vec<_>>(), [1, 4]);
    assert!((f64::from(logprobs.top[0].1).exp() - 0.4).abs() < 1e-6);
    let chosen_only = SamplingParams {
        logprobs: Some(0),
        ..params.clone()
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
            ..good.clone()
        }),
        "frequency_penalty"
    );
    assert_eq!(
        bad(SamplingParams {
            logit_bias: vec![(0, 100.0), (1, f32::NAN)],
            ..good.clone()
        }),
        "logit_bias"
    );
    assert_eq!(
        bad(SamplingParams {
            allowed_token_ids: Some(Vec::new()),
            ..good.clone()
        }),
        "allowed_token_ids"
    );
    assert_eq!(
        bad(SamplingParams {
            bad_words: vec![vec![1], Vec::new()],
            ..good
        }),
        "bad_words"
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
        |((temperature, top_p, top_k, min_p), repetition_penalty, presence_penalty, frequency_penalty)| {
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
        let draw = Draw { params: &params, prompt, generated, forbidden: &forbidden, mask: None, seed };
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

#[test]
fn log_probabilities_hold_no_more_memory_than_they_need() {
    let logits: Vec<f32> = (0..10_000).map(|token| token as f32 / 100.0).collect();
    let logprobs = token_logprobs(&logits, 7, 20);
    assert_eq!((logprobs.top.len(), logprobs.top.capacity()), (20, 20));
}
