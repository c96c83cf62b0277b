//! Every architecture against its reference on a CUDA device, which is the stand-in for the driver where the build has
//! made one: op by op and as recorded graphs, one step ahead, preempted, with and without the prefix cache.
//!
//! Weights are in f32 here whatever the checkpoint has, because then the device's logits are as near to the reference as the
//! CPU's, and its greedy tokens must be the reference's. One test serves them in 16 bits, as users do, on each generation of
//! cards: products and attention have kernels of their own there.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![allow(dead_code, reason = "the tests on the CPU use more of the shared files")]

#[path = "oracle/fixture.rs"]
mod fixture;
#[path = "oracle/reference.rs"]
mod reference;
#[path = "oracle/serving.rs"]
mod serving;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kernels::cuda::testing;
use reference::{Prompt, Reference, each_fixture, generates, of_length_one, pools, prompts};
use runtime::engine::{GenerateRequest, PoolRequest, PreemptionMode, SamplingParams};
use runtime::grammar::{Constraint, Grammars};
use runtime::model::{Device, DtypeChoice, GraphMode, LoadOptions};
use runtime::tokenizer::{Special, Tokenizer};
use serde_json::json;
use serving::{ALONE, Serving, Setup, context_len, greedy};

/// Largest difference of an element of a vector, a score or a log-probability.
const TOLERANCE: f32 = 2e-4;

/// All requests at once.
const TOGETHER: Setup = Setup {
    is_mixed: true,
    ..ALONE
};

/// Every decode step is recorded.
const RECORDED: GraphMode = GraphMode::Decode {
    max_context_len: usize::MAX,
};

/// One fixture for each kind of attention, norm, position and feed-forward part.
const KINDS: [&str; 12] = [
    "llama3",
    "gpt2",
    "mpt",
    "bloom",
    "gemma2",
    "gemma3_text",
    "gpt_oss-bf16",
    "mixtral",
    "deepseek_v2-lite",
    "qwen3",
    "command-r",
    "phi3-longrope",
];

/// The stand-in has one device, whose settings and counters belong to one test at a time.
fn device() -> (MutexGuard<'static, ()>, Option<LoadOptions>) {
    static DEVICE: Mutex<()> = Mutex::new(());
    let guard = DEVICE.lock().unwrap_or_else(PoisonError::into_inner);
    (guard, options(GraphMode::Eager))
}

fn options(graphs: GraphMode) -> Option<LoadOptions> {
    Some(LoadOptions {
        device: Device::Cuda(testing::gpu(0)?),
        graphs,
        dtype: DtypeChoice::Float32,
        ..LoadOptions::default()
    })
}

/// Serves the prompts of a fixture and compares the tokens with the reference.
fn check_tokens(serving: &Serving, prompts: &[&Prompt], context: &str) {
    let ids: Vec<&[u32]> = prompts.iter().map(|prompt| prompt.ids.as_slice()).collect();
    let answers = serving.generate(&ids, N_TOKENS);
    for (idx, (prompt, answer)) in prompts.iter().zip(answers).enumerate() {
        if !prompt.rope_depends_on_length {
            assert_eq!(
                answer.tokens,
                prompt.greedy[..N_TOKENS],
                "{context}, prompt {idx}"
            );
        }
    }
}

/// Tokens of an answer: enough to begin a block of the cache, few enough for a device that is a stand-in.
const N_TOKENS: usize = 20;

/// The longest sequence that the tests serve.
const CONTEXT_LEN_MAX: usize = 208;

fn short_prompts(reference: &Reference) -> Vec<&Prompt> {
    prompts(reference, CONTEXT_LEN_MAX)
}

#[test]
fn every_architecture_agrees_op_by_op() {
    let (_guard, options) = device();
    if options.is_none() {
        return;
    }
    each_fixture(generates, |name, dir, reference| {
        let serving = Serving::with(dir, TOGETHER, self::options(GraphMode::Eager).unwrap());
        let prompts = prompts(reference, CONTEXT_LEN_MAX.min(context_len(dir)));
        check_tokens(&serving, &prompts, name);
    });
}

#[test]
fn every_embedding_model_and_cross_encoder_agrees() {
    let (_guard, options) = device();
    if options.is_none() {
        return;
    }
    each_fixture(pools, |name, dir, reference| {
        let request = |prompt: &Prompt| PoolRequest {
            prompt: prompt.ids.clone().into(),
            token_types: prompt.token_type_ids.clone(),
            ..PoolRequest::default()
        };
        let serving = Serving::with(dir, ALONE, self::options(GraphMode::Eager).unwrap());
        let vectors = serving.pool(reference.prompts.iter().map(request).collect());
        for (idx, (prompt, vector)) in reference.prompts.iter().zip(vectors).enumerate() {
            let (got, want) = match (&prompt.embedding, &prompt.score) {
                (Some(embedding), _) => (of_length_one(&vector), embedding),
                (None, Some(score)) => (vector, score),
                (None, None) => panic!("{name}: prompt {idx} has no reference"),
            };
            assert_eq!(got.len(), want.len(), "{name}");
            for (got, want) in got.into_iter().zip(want) {
                assert!(
                    (got - want).abs() <= TOLERANCE,
                    "{name}, prompt {idx}: {got}, not {want}"
                );
            }
        }
    });
}

/// Calls `check` for one fixture of each kind.
fn each_kind(check: impl Fn(&str, &Path, &Reference)) {
    for name in KINDS {
        let dir = fixture::materialise(name);
        let json = std::fs::read(dir.path().join("reference.json")).unwrap();
        check(name, dir.path(), &serde_json::from_slice(&json).unwrap());
    }
}

#[test]
fn recorded_steps_agree_with_and_without_the_prefix_cache() {
    let (_guard, options) = device();
    let Some(options) = options else { return };
    each_kind(|name, dir, reference| {
        let options = LoadOptions {
            graphs: RECORDED,
            ..options.clone()
        };
        let prompts = short_prompts(reference);
        let cached = Setup {
            caches_prefixes: true,
            n_step_tokens: 16,
            ..TOGETHER
        };
        let serving = Serving::with(dir, cached, options.clone());
        check_tokens(&serving, &prompts, &format!("{name}, {cached:?}"));
        check_tokens(&serving, &prompts, &format!("{name}, {cached:?}, again"));
        assert!(serving.n_cached() > 0, "{name}: nothing was cached");
        let serving = Serving::with(dir, TOGETHER, options);
        check_tokens(&serving, &prompts, &format!("{name}, {TOGETHER:?}"));
    });
    if testing::driver() == Some(testing::Driver::StandIn) {
        assert!(testing::get("graph_launches") > 0, "no step was replayed");
    }
}

#[test]
fn preempted_sequences_agree() {
    let (_guard, options) = device();
    let Some(options) = options else { return };
    each_kind(|name, dir, reference| {
        for (mode, graphs) in [
            (PreemptionMode::Recompute, RECORDED),
            (PreemptionMode::Swap, GraphMode::Eager),
        ] {
            let options = LoadOptions {
                graphs,
                ..options.clone()
            };
            let setup = Setup {
                preempts: Some(mode),
                ..TOGETHER
            };
            let serving = Serving::with(dir, setup, options);
            check_tokens(&serving, &short_prompts(reference), &format!("{name}, {setup:?}"));
            assert!(
                !serving.keeps_everything || serving.n_preemptions() > 0,
                "{name}: nothing was preempted"
            );
        }
    });
}

#[test]
fn scores_of_prompts_agree() {
    let (_guard, options) = device();
    let Some(options) = options else { return };
    each_kind(|name, dir, reference| {
        let mut prompts = short_prompts(reference);
        prompts.sort_by_key(|prompt| prompt.ids.len());
        prompts.truncate(2);
        let ids: Vec<&[u32]> = prompts.iter().map(|prompt| prompt.ids.as_slice()).collect();
        let scores = Serving::with(dir, ALONE, options.clone()).prompt_logprobs(&ids);
        for (idx, (prompt, scores)) in prompts.iter().zip(scores).enumerate() {
            assert_eq!(scores.len(), prompt.prompt_logprobs.len(), "{name}, prompt {idx}");
            for (got, want) in scores.into_iter().zip(&prompt.prompt_logprobs) {
                let (got, want) = (got.unwrap_or_default(), want.unwrap_or_default());
                assert!(
                    (got - want).abs() <= TOLERANCE,
                    "{name}, prompt {idx}: {got}, not {want}"
                );
            }
        }
    });
}

/// Weights in 16 bits, and the largest difference of a log-probability then: about twice what was seen.
const OF_16_BITS: [(DtypeChoice, f32); 2] = [(DtypeChoice::Bfloat16, 0.5), (DtypeChoice::Half, 0.05)];

#[test]
fn weights_of_16_bits_agree_on_each_generation_of_cards() {
    let (_guard, options) = device();
    let Some(options) = options else { return };
    let capabilities: &[u32] = match testing::driver() {
        Some(testing::Driver::StandIn) => &[80, 86, 89, 90],
        _ => &[0],
    };
    for &capability in capabilities {
        if capability > 0 {
            testing::set("capability", capability.into());
        }
        let gpu = testing::gpu(0).unwrap();
        let (major, minor) = gpu.capability();
        assert!(capability == 0 || capability == 10 * major + minor);
        for (dtype, tolerance) in OF_16_BITS {
            each_kind(|name, dir, reference| {
                let options = LoadOptions {
                    dtype,
                    device: Device::Cuda(gpu.clone()),
                    graphs: RECORDED,
                    ..options.clone()
                };
                let context = format!("{name}, {dtype:?}, {}", gpu.name());
                let prompts = short_prompts(reference);
                let serving = Serving::with(dir, TOGETHER, options);
                check_16_bits(&serving, dir, &prompts, (tolerance, &context));
            });
        }
    }
}

/// Compares scores of prompts with the reference, and greedy answers with what the CPU finds most probable.
fn check_16_bits(serving: &Serving, dir: &Path, prompts: &[&Prompt], (tolerance, context): (f32, &str)) {
    // Longer than a block of the cache and a tile of a product; the longest ones take minutes on the stand-in.
    let fits = |prompt: &&&Prompt| prompt.ids.len() > 32;
    let prompt = prompts
        .iter()
        .filter(fits)
        .min_by_key(|prompt| prompt.ids.len())
        .unwrap();
    let scores = serving.prompt_logprobs(&[&prompt.ids]).remove(0);
    assert_eq!(scores.len(), prompt.prompt_logprobs.len(), "{context}");
    for (got, want) in scores.into_iter().zip(&prompt.prompt_logprobs) {
        let (got, want) = (got.unwrap_or_default(), want.unwrap_or_default());
        assert!((got - want).abs() <= tolerance, "{context}: {got}, not {want}");
    }
    let answer = serving.generate(&[&prompt.ids], 8).remove(0).tokens;
    let whole = [&prompt.ids[..], &answer].concat();
    let scores = Serving::with(dir, ALONE, on_cpu())
        .prompt_scores(&[&whole])
        .remove(0);
    for (at, score) in scores.into_iter().enumerate().skip(prompt.ids.len()) {
        let score = score.unwrap();
        let behind = score.top[0].1 - score.chosen;
        assert!(
            behind <= 2.0 * tolerance,
            "{context}: token {at} is {behind} behind the best"
        );
    }
}

/// Requests whose draws depend on everything that a draw can depend on, except grammars: see [`formed_requests`].
fn drawn_requests(prompt: &[u32]) -> Vec<GenerateRequest> {
    let plain = SamplingParams {
        temperature: 0.9,
        seed: Some(7),
        ..SamplingParams::default()
    };
    let sampled = [
        plain.clone(),
        SamplingParams {
            top_k: Some(20),
            top_p: 0.8,
            min_p: 0.05,
            ..plain.clone()
        },
        SamplingParams {
            repetition_penalty: 1.3,
            presence_penalty: 0.4,
            frequency_penalty: 0.3,
            ..plain.clone()
        },
        SamplingParams {
            temperature: 0.0,
            frequency_penalty: 1.5,
            logprobs: Some(3),
            ..plain.clone()
        },
        SamplingParams {
            allowed_token_ids: Some((5..60).collect()),
            logit_bias: vec![(9, 3.0), (11, -50.0)],
            ..plain.clone()
        },
        SamplingParams {
            bad_words: vec![vec![prompt[0]], vec![12, 13]],
            ..plain
        },
    ];
    let request = |sampling: SamplingParams| GenerateRequest {
        sampling: sampling.into(),
        ..greedy(prompt, (1, 24))
    };
    sampled.into_iter().map(request).collect()
}

/// Requests of each kind of form, greedy and drawn, with and without a penalty.
fn formed_requests(grammars: &Grammars, prompt: &[u32]) -> Vec<GenerateRequest> {
    let schema = json!({
        "type": "object",
        "properties": {"name": {"enum": ["ant", "bee"]}, "n": {"type": "integer", "minimum": 10, "maximum": 99}},
        "required": ["name", "n"],
    });
    let forms = [
        Constraint::JsonSchema(schema),
        Constraint::Regex("[a-f]{3}-[0-9]{4}".to_owned()),
        Constraint::Choice(vec!["yes".to_owned(), "yesterday".to_owned(), "no".to_owned()]),
    ];
    let mut requests = Vec::new();
    for form in forms {
        for (temperature, frequency_penalty) in [(0.0, 0.0), (0.9, 0.0), (0.9, 1.2)] {
            let sampling = SamplingParams {
                temperature,
                frequency_penalty,
                seed: Some(11),
                ..SamplingParams::default()
            };
            requests.push(GenerateRequest {
                sampling: sampling.into(),
                grammar: Some(grammars.compile(&form).unwrap()),
                ignore_eos: false,
                ..greedy(prompt, (1, 48))
            });
        }
    }
    requests
}

#[test]
fn answers_with_a_form_are_those_of_the_cpu() {
    let (_guard, options) = device();
    let Some(options) = options else { return };
    let dir = fixture::materialise("llama3");
    let tokenizer = Tokenizer::load(dir.path()).unwrap();
    let config = std::fs::read(dir.path().join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    let eos: Vec<u32> = serde_json::from_value(config["eos_token_id"].clone()).unwrap();
    let vocab_size = config["vocab_size"].as_u64().unwrap() as usize;
    let grammars = Grammars::new(tokenizer.tokens(), &eos, vocab_size).unwrap();
    let requests = || {
        let mut requests = formed_requests(&grammars, &[1, 2, 3]);
        // One without a form among them: its rows have no mask.
        requests.insert(4, greedy(&[1, 2, 3], (1, 12)));
        requests
    };
    let expected = Serving::with(dir.path(), TOGETHER, on_cpu()).answers(requests());
    let text = |idx: usize| {
        let ids: Vec<u32> = expected[idx]
            .iter()
            .copied()
            .filter(|id| !eos.contains(id))
            .collect();
        tokenizer.tokens().decode(&ids, Special::Skip)
    };
    let object: serde_json::Value = serde_json::from_str(&text(0)).unwrap();
    assert!(
        object["n"].as_i64().is_some_and(|n| (10..100).contains(&n)),
        "{object}"
    );
    assert_eq!(text(3).len(), 8, "{}", text(3));
    assert!(
        ["yes", "yesterday", "no"].contains(&text(9).as_str()),
        "{}",
        text(9)
    );
    for graphs in [GraphMode::Eager, RECORDED] {
        let options = LoadOptions {
            graphs,
            ..options.clone()
        };
        let serving = Serving::with(dir.path(), TOGETHER, options);
        assert_eq!(serving.answers(requests()), expected, "{graphs:?}");
    }
}

fn on_cpu() -> LoadOptions {
    LoadOptions {
        dtype: DtypeChoice::Float32,
        ..LoadOptions::default()
    }
}

#[test]
fn seeded_draws_are_those_of_the_cpu() {
    let (_guard, options) = device();
    let Some(options) = options else { return };
    let dir = fixture::materialise("llama3");
    let json = std::fs::read(dir.path().join("reference.json")).unwrap();
    let reference: Reference = serde_json::from_slice(&json).unwrap();
    let prompt = &reference.prompts[0].ids;
    let expected = Serving::with(dir.path(), TOGETHER, on_cpu()).answers(drawn_requests(prompt));
    for graphs in [GraphMode::Eager, RECORDED] {
        let options = LoadOptions {
            graphs,
            ..options.clone()
        };
        let serving = Serving::with(dir.path(), TOGETHER, options);
        assert_eq!(serving.answers(drawn_requests(prompt)), expected, "{graphs:?}");
    }
}

#[test]
fn a_decode_step_waits_for_nothing_but_its_results() {
    let (_guard, options) = device();
    let Some(options) = options else { return };
    if testing::driver() != Some(testing::Driver::StandIn) {
        testing::skip("only the stand-in counts waits");
        return;
    }
    let dir = fixture::materialise("llama3");
    let options = LoadOptions {
        graphs: RECORDED,
        ..options
    };
    let serving = Serving::with(dir.path(), TOGETHER, options);
    let prompt: &[u32] = &[1, 2, 3];
    serving.answers(vec![greedy(prompt, (1, 8))]);
    let counts = || ["host_waits", "allocations"].map(testing::get);
    let before = counts();
    let n_tokens = 24;
    serving.answers(vec![greedy(prompt, (1, n_tokens))]);
    assert_eq!(counts(), before, "a step waited for the device, or took memory");
}
