//! The device's sampler against this one: the same tokens, draw for draw.

use kernels::cuda::testing::{downloaded, each_order, uploaded};
use kernels::cuda::{DeviceBuffer, Gpu};
use kernels::gpu::{self, Drawn, Draws, EditSeen, Refusal, SampleWorkspace, SeenEdits};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::*;

/// One sequence that draws.
#[derive(Clone, Debug)]
struct Row {
    logits: Vec<f32>,
    params: SamplingParams,
    prompt: Vec<u32>,
    generated: Vec<u32>,
    forbidden: Vec<u32>,
    mask: Option<Vec<u32>>,
    seed: u64,
}

impl Row {
    fn draw(&self) -> Draw<'_> {
        Draw {
            params: &self.params,
            prompt: &self.prompt,
            generated: &self.generated,
            forbidden: &self.forbidden,
            mask: self.mask.as_deref(),
            seed: self.seed,
        }
    }
}

/// Steps in which every sequence draws from the same logits.
const N_STEPS: usize = 2;

fn logits(n: usize) -> impl Strategy<Value = Vec<f32>> {
    let smooth = prop::collection::vec(-20.0_f32..20.0, n);
    // Many equal ones, and zeros of both signs.
    let tied = prop::collection::vec((-6_i8..7).prop_map(|v| f32::from(v) * 0.5), n);
    let negative = prop::collection::vec(-20.0_f32..-1.0, n);
    let special = prop_oneof![
        8 => Just(f32::NEG_INFINITY),
        1 => Just(f32::NAN),
        1 => Just(f32::INFINITY),
        4 => Just(-0.0_f32),
    ];
    let holes = prop::collection::vec((0..n, special), 0..4);
    let only_holes = prop_oneof![15 => Just(false), 1 => Just(true)];
    let values = prop_oneof![3 => smooth, 3 => tied, 1 => negative];
    (values, holes, prop::bool::weighted(0.3), only_holes).prop_map(
        |(mut values, holes, has_holes, only_holes)| {
            if only_holes {
                values.fill(f32::NEG_INFINITY);
            } else if has_holes {
                holes.into_iter().for_each(|(at, hole)| values[at] = hole);
            }
            values
        },
    )
}

fn params(n: usize) -> impl Strategy<Value = SamplingParams> {
    let token = 0..n as u32 + 2;
    let filters = (
        prop_oneof![Just(0.0_f32), Just(1.0), 0.1_f32..3.0],
        prop_oneof![Just(1.0_f32), 0.01_f32..1.0],
        prop::option::of(1..n + 3),
        prop_oneof![Just(0.0_f32), 0.0_f32..1.0],
    );
    let penalties = (
        prop_oneof![Just(1.0_f32), 0.5_f32..2.0],
        prop_oneof![Just(0.0_f32), -2.0_f32..2.0],
        prop_oneof![Just(0.0_f32), -2.0_f32..2.0],
    );
    let lists = (
        prop_oneof![
            Just(Vec::new()),
            prop::collection::vec((token.clone(), -100.0_f32..100.0), 1..9)
        ],
        prop::option::weighted(0.2, prop::collection::vec(token, 1..20)),
        prop::option::weighted(0.5, 0_usize..=20),
    );
    (filters, penalties, lists).prop_map(|(filters, penalties, lists)| SamplingParams {
        temperature: filters.0,
        top_p: filters.1,
        top_k: filters.2,
        min_p: filters.3,
        repetition_penalty: penalties.0,
        presence_penalty: penalties.1,
        frequency_penalty: penalties.2,
        logit_bias: lists.0,
        allowed_token_ids: lists.1,
        logprobs: lists.2,
        ..SamplingParams::default()
    })
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    prop_oneof![1..9_usize, 60..70_usize, 2_000..3_000_usize].prop_flat_map(|n| {
        let token = 0..n as u32;
        let texts = (
            prop::collection::vec(token.clone(), 1..20),
            prop::collection::vec(token.clone(), 0..20),
            prop_oneof![Just(Vec::new()), prop::collection::vec(token, 1..5)],
        );
        let mask = prop::option::weighted(0.3, prop::collection::vec(any::<u32>(), 0..n.div_ceil(32) + 1));
        let row = (logits(n), params(n), texts, mask, any::<u64>());
        let row = row.prop_map(
            |(logits, params, (prompt, generated, forbidden), mask, seed)| Row {
                logits,
                params,
                prompt,
                generated,
                forbidden,
                mask,
                seed,
            },
        );
        prop::collection::vec(row, 1..7)
    })
}

/// What the device keeps from step to step.
struct Device<'a> {
    gpu: &'a Gpu,
    logits: DeviceBuffer<f32>,
    seen: DeviceBuffer<u32>,
    vocab_size: usize,
}

impl Device<'_> {
    fn new<'a>(gpu: &'a Gpu, rows: &[Row]) -> Device<'a> {
        let logits: Vec<f32> = rows.iter().flat_map(|row| row.logits.clone()).collect();
        let vocab_size = rows[0].logits.len();
        let device = Device {
            gpu,
            logits: uploaded(gpu, &logits),
            seen: gpu.alloc(logits.len()).unwrap(),
            vocab_size,
        };
        let mut edits = SeenEdits::default();
        for (place, row) in (0..).zip(rows) {
            edits.begin(place, &row.prompt, &row.generated);
        }
        let (words, lists) = (uploaded(gpu, edits.edits()), uploaded(gpu, edits.lists()));
        let op = EditSeen {
            seen: device.seen.view(),
            vocab_size,
            edits: words.view(),
            lists: lists.view(),
        };
        gpu::edit_seen(gpu, op).unwrap();
        device
    }

    fn sample(&self, rows: &[Row]) -> Vec<Result<Drawn, Refusal>> {
        let mut draws = Draws::default();
        for (idx, row) in (0..).zip(rows) {
            draws.push(&gpu::Draw {
                logits_row: idx,
                place: Some(idx),
                seed: row.seed,
                position: (row.prompt.len() + row.generated.len()) as u64,
                temperature: row.params.temperature,
                top_p: row.params.top_p,
                top_k: row.params.top_k,
                min_p: row.params.min_p,
                repetition_penalty: row.params.repetition_penalty,
                presence_penalty: row.params.presence_penalty,
                frequency_penalty: row.params.frequency_penalty,
                logprobs: row.params.logprobs,
                logit_bias: &row.params.logit_bias,
                allowed: row.params.allowed_token_ids.as_deref(),
                forbidden: &row.forbidden,
                mask: row.mask.as_deref(),
            });
        }
        let gpu = self.gpu;
        // Draws may start at any word.
        let (words, lists) = (
            uploaded(gpu, &[&[0], draws.rows()].concat()),
            uploaded(gpu, draws.lists()),
        );
        let workspace = SampleWorkspace::new(gpu, self.vocab_size, rows.len()).unwrap();
        let drawn = gpu.alloc(rows.len()).unwrap();
        let results = gpu.alloc(rows.len() * Drawn::N_WORDS).unwrap();
        let op = gpu::Sample {
            logits: self.logits.view(),
            vocab_size: self.vocab_size,
            draws: words.view().range(1..words.len()),
            lists: lists.view(),
            seen: self.seen.view(),
            workspace: &workspace,
            drawn: drawn.view(),
            results: results.view(),
        };
        gpu::sample(gpu, op).unwrap();
        let results = Drawn::read(&downloaded(gpu, results.view()), &draws);
        let tokens = results
            .iter()
            .map(|result| result.as_ref().map_or(0, |drawn| drawn.token));
        assert_eq!(downloaded(gpu, drawn.view()), tokens.collect::<Vec<_>>());
        results
    }
}

fn check(row: &Row, got: &Result<Drawn, Refusal>, want: &Result<Sampled, SampleError>) {
    match (got, want) {
        (Ok(got), Ok(want)) => {
            assert_eq!(got.token, want.token, "{row:?}");
            assert_eq!(got.logprobs.is_some(), want.logprobs.is_some());
            let (Some(got), Some(want)) = (&got.logprobs, &want.logprobs) else {
                return;
            };
            let is_close =
                |got: f32, want: f32| got == want || (got - want).abs() <= 1e-5 * want.abs().max(1.0);
            assert!(
                is_close(got.chosen, want.chosen),
                "{} {}",
                got.chosen,
                want.chosen
            );
            assert_eq!(got.rank, want.rank, "{row:?}");
            let tokens = |top: &[(u32, f32)]| top.iter().map(|top| top.0).collect::<Vec<_>>();
            assert_eq!(tokens(&got.top), tokens(&want.top), "{row:?}");
            assert!(
                got.top
                    .iter()
                    .zip(&want.top)
                    .all(|(got, want)| is_close(got.1, want.1))
            );
        }
        (
            Err(Refusal::BadLogit { token, value }),
            Err(SampleError::BadLogit {
                token: at,
                value: want,
            }),
        ) => {
            assert_eq!((*token as usize, value.is_nan()), (*at, want.is_nan()), "{row:?}");
        }
        (Err(Refusal::NoCandidate), Err(SampleError::NoCandidate)) => {}
        _ => panic!("{got:?}, not {want:?}: {row:?}"),
    }
}

#[test]
fn the_device_draws_the_same_tokens() {
    each_order(|gpu| {
        let config = Config {
            cases: 24,
            failure_persistence: None,
            ..Config::default()
        };
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let mut runner = TestRunner::new_with_rng(config, rng);
        let result = runner.run(&rows(), |mut rows| {
            let device = Device::new(gpu, &rows);
            for _ in 0..N_STEPS {
                let got = device.sample(&rows);
                for (row, got) in rows.iter_mut().zip(&got) {
                    let want = sample(&row.logits, &row.draw());
                    check(row, got, &want);
                    row.generated.extend(want.ok().map(|sampled| sampled.token));
                }
            }
            Ok(())
        });
        result.unwrap();
    });
}

#[test]
fn the_device_draws_from_a_large_vocabulary() {
    // Longer than all threads of a block take at once, several times, and no multiple of four.
    let n = 20_003;
    let noise = |i: usize| f32::from((i as u16).wrapping_mul(40_503) >> 4) / 256.0;
    let row = |seed: u64, params: SamplingParams| Row {
        logits: (0..n).map(noise).collect(),
        params,
        prompt: vec![1],
        generated: Vec::new(),
        forbidden: Vec::new(),
        mask: None,
        seed,
    };
    let filtered = SamplingParams {
        top_p: 0.9,
        top_k: Some(3000),
        logprobs: Some(20),
        ..SamplingParams::default()
    };
    let flat = SamplingParams {
        temperature: 50.0,
        top_p: 0.5,
        logprobs: Some(5),
        ..SamplingParams::default()
    };
    let rows: Vec<Row> = [filtered, flat, SamplingParams::default()]
        .into_iter()
        .zip(7..)
        .map(|(params, seed)| row(seed, params))
        .collect();
    each_order(|gpu| {
        let got = Device::new(gpu, &rows).sample(&rows);
        for (row, got) in rows.iter().zip(&got) {
            check(row, got, &sample(&row.logits, &row.draw()));
        }
    });
}
