//! The choice on the device against the CPU's.

use super::*;
use crate::cuda::testing::each_order;
use crate::route::Routing as Choice;

#[derive(Clone, Copy, Debug)]
struct Case {
    n_tokens: usize,
    n_experts: usize,
    n_chosen: usize,
    scoring: Scoring,
    has_bias: bool,
    groups: Option<ExpertGroups>,
    renormalise: bool,
}

const PLAIN: Case = Case {
    n_tokens: 5,
    n_experts: 40,
    n_chosen: 3,
    scoring: Scoring::Softmax,
    has_bias: false,
    groups: None,
    renormalise: true,
};

/// Pseudo-random numbers, some of them equal.
fn numbers(seed: u32, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state % 61) as f32 / 15.0 - 2.0
        })
        .collect()
}

/// What a routing holds: starts, tokens, weights, places.
type Held = (Vec<u32>, Vec<u32>, Vec<f32>, Vec<u32>);

fn download(gpu: &Gpu, choices: Choices) -> Held {
    let words = |view: View<u32>| {
        let mut words = vec![0; view.len()];
        gpu.download(view, &mut words).unwrap();
        words
    };
    let mut weights = vec![0.0; choices.weights.len()];
    gpu.download(choices.weights, &mut weights).unwrap();
    (
        words(choices.starts),
        words(choices.tokens),
        weights,
        words(choices.places),
    )
}

impl Case {
    fn on_cpu(&self, logits: &[f32], bias: &[f32]) -> Choice {
        let mut choice = Choice::default();
        let op = crate::route::Route {
            logits,
            n_experts: self.n_experts,
            n_chosen: self.n_chosen,
            scoring: self.scoring,
            choice_bias: self.has_bias.then_some(bias),
            groups: self.groups,
            renormalise: self.renormalise,
            scale: 1.5,
        };
        crate::route::route(&op, &mut choice).unwrap();
        choice
    }

    fn on_device(&self, gpu: &Gpu, logits: &[f32], bias: &[f32]) -> Held {
        let upload = |numbers: &[f32]| {
            let buffer = gpu.alloc::<f32>(numbers.len()).unwrap();
            gpu.upload(numbers, buffer.view()).unwrap();
            buffer
        };
        let (logits, bias) = (upload(logits), upload(bias));
        let routing = Routing::new(gpu, self.n_tokens + 2, (self.n_experts + 1, self.n_chosen)).unwrap();
        let op = Route {
            logits: logits.view(),
            n_experts: self.n_experts,
            n_chosen: self.n_chosen,
            scoring: self.scoring,
            choice_bias: self.has_bias.then(|| bias.view()),
            groups: self.groups,
            renormalise: self.renormalise,
            scale: 1.5,
        };
        route(gpu, &op, &routing).unwrap();
        let n = self.n_tokens * self.n_chosen;
        download(gpu, routing.choices(Contract("test"), self.n_experts, n).unwrap())
    }

    fn check(&self) {
        let logits = numbers(3, self.n_tokens * self.n_experts);
        let bias = numbers(7, self.n_experts);
        let want = self.on_cpu(&logits, &bias);
        each_order(|gpu| {
            let (starts, tokens, weights, places) = self.on_device(gpu, &logits, &bias);
            for (expert, of) in want.experts().enumerate() {
                let range = starts[expert] as usize..starts[expert + 1] as usize;
                assert_eq!(
                    &tokens[range.clone()],
                    of.rows,
                    "{self:?}: tokens of expert {expert}"
                );
                for (got, want) in weights[range].iter().zip(of.weights) {
                    assert!(
                        (got - want).abs() <= 1e-5 * want.abs(),
                        "{self:?}: {got}, not {want}"
                    );
                }
            }
            for (token, places) in places.chunks(self.n_chosen).enumerate() {
                assert!(places.is_sorted(), "{self:?}: the experts of a token ascend");
                assert!(places.iter().all(|place| tokens[*place as usize] == token as u32));
            }
        });
    }
}

#[test]
fn every_scoring_chooses_as_the_cpu() {
    for scoring in [Scoring::Softmax, Scoring::Sigmoid] {
        for (has_bias, renormalise) in [(false, true), (true, false)] {
            Case {
                scoring,
                has_bias,
                renormalise,
                ..PLAIN
            }
            .check();
        }
    }
    Case {
        scoring: Scoring::SparseMixer { jitter: 0.1 },
        n_chosen: 2,
        n_experts: 7,
        ..PLAIN
    }
    .check();
}

#[test]
fn groups_restrict_the_choice() {
    for (score, n_kept) in [(GroupScore::Best, 1), (GroupScore::BestTwo, 3)] {
        Case {
            groups: Some(ExpertGroups {
                n_groups: 5,
                n_kept,
                score,
            }),
            has_bias: true,
            ..PLAIN
        }
        .check();
    }
}

#[test]
fn sizes_that_are_no_multiples() {
    for (n_tokens, n_experts, n_chosen) in [(1, 1, 1), (1, 33, 33), (70, 3, 2), (130, 9, 4), (2, 1500, 5)] {
        Case {
            n_tokens,
            n_experts,
            n_chosen,
            ..PLAIN
        }
        .check();
    }
}

/// A row of padding must not send the sort astray, whatever is in it.
#[test]
fn logits_that_are_no_numbers_still_choose() {
    let mut logits = numbers(3, 2 * 40);
    logits[..40].fill(f32::NAN);
    let clean = Case { n_tokens: 1, ..PLAIN };
    each_order(|gpu| {
        let (starts, tokens, weights, _) = Case { n_tokens: 2, ..PLAIN }.on_device(gpu, &logits, &[0.0; 40]);
        assert_eq!((starts[0], starts[40]), (0, 6));
        let (_, _, alone, _) = clean.on_device(gpu, &logits[40..], &[0.0; 40]);
        let of_second: Vec<f32> = tokens
            .iter()
            .zip(&weights)
            .filter(|(token, _)| **token == 1)
            .map(|(_, w)| *w)
            .collect();
        assert_eq!(of_second, alone);
    });
}

#[test]
fn refuses_more_than_there_is_room_for() {
    each_order(|gpu| {
        let logits = gpu.alloc_zeroed::<f32>(12).unwrap();
        let routing = Routing::new(gpu, 2, (4, 2)).unwrap();
        let op = Route {
            logits: logits.view(),
            n_experts: 4,
            n_chosen: 2,
            scoring: Scoring::Softmax,
            choice_bias: None,
            groups: None,
            renormalise: false,
            scale: 1.0,
        };
        let refused = route(gpu, &op, &routing);
        assert!(matches!(
            refused,
            Err(KernelError::Range {
                operand: "routing",
                got: 6,
                ..
            })
        ));
    });
}
