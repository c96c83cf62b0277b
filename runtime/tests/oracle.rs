//! Every architecture against its reference, through the engine that serves requests: alone and mixed, in chunks
//! of 16 and of 2,048 tokens, with and without the prefix cache, preempted by recomputation and by swapping.
//!
//! References are computed without a cache, one text at a time (`fixtures/oracle`). Another fp32 implementation
//! differs by at most 8.3e-5 in a logit of these models, one weight that is off by 0.01 by 6e-4; so the
//! tolerance is 2e-4, and the smallest margin of a greedy choice is 4e-3. Where frequencies depend on the length
//! of the text (`rope_depends_on_length`), the length of the prompt decides here, so that logits after the
//! prompt agree and later tokens need not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "oracle/fixture.rs"]
mod fixture;
#[path = "oracle/reference.rs"]
mod reference;
#[path = "oracle/serving.rs"]
mod serving;

use std::path::Path;

use kernels::Isa;
use reference::{Prompt, Reference, each_fixture, generates, of_length_one, pools, prompts};
use runtime::engine::{PoolRequest, PreemptionMode};
use runtime::model::{DtypeChoice, KvDtypeChoice, LoadOptions};
use serde_json::{Value, json};
use serving::{ALONE, Answer, Serving, Setup, as_exact, context_len};

/// Largest difference of a logit, an element of a vector, or a score.
const TOLERANCE: f32 = 2e-4;

/// Compares answers with the reference; `context` describes how they were made.
fn check_answers(prompts: &[&Prompt], answers: &[Answer], context: &str) {
    for (idx, (prompt, answer)) in prompts.iter().zip(answers).enumerate() {
        for &(token, want) in &prompt.last_logits_top20 {
            let got = answer.logits[token];
            assert!(
                (got - want).abs() <= TOLERANCE,
                "{context}, prompt {idx}: logit of {token} is {got}, not {want}"
            );
        }
        if !prompt.rope_depends_on_length {
            assert_eq!(answer.tokens, prompt.greedy, "{context}, prompt {idx}");
        }
    }
}

/// Serves all prompts of a fixture and compares them with the reference, and to the bit with `expected`.
fn check_setup(name: &str, dir: &Path, prompts: &[&Prompt], (setup, expected): (Setup, &[Answer])) {
    let context = format!("{name}, {setup:?}");
    let serving = Serving::start(dir, setup);
    let ids: Vec<&[u32]> = prompts.iter().map(|prompt| prompt.ids.as_slice()).collect();
    let n_tokens = prompts[0].greedy.len();
    let answers = serving.generate(&ids, n_tokens);
    check_answers(prompts, &answers, &context);
    assert!(answers == expected, "{context}: other bits than alone");
    if setup.preempts.is_some() && serving.keeps_everything {
        assert!(serving.n_preemptions() > 0, "{context}: nothing was preempted");
    }
    if setup.caches_prefixes {
        let again = serving.generate(&ids, n_tokens);
        assert!(again == answers, "{context}: other bits from the cache");
        // Where blocks are scarce, each prompt takes those of the one before.
        let is_scarce = setup.preempts.is_some();
        assert!(
            is_scarce || serving.n_cached() > 0,
            "{context}: nothing was cached"
        );
    }
}

#[test]
fn every_architecture_agrees_however_it_is_served() {
    each_fixture(generates, |name, dir, reference| {
        let prompts = prompts(reference, context_len(dir));
        assert!(prompts.len() >= 4, "{name}");
        let ids: Vec<&[u32]> = prompts.iter().map(|prompt| prompt.ids.as_slice()).collect();
        let alone = Serving::start(dir, ALONE).generate(&ids, prompts[0].greedy.len());
        for n_step_tokens in [16, 2048] {
            for (is_mixed, caches_prefixes) in [(false, true), (true, false), (true, true)] {
                let setup = Setup {
                    caches_prefixes,
                    n_step_tokens,
                    is_mixed,
                    preempts: None,
                };
                check_setup(name, dir, &prompts, (setup, &alone));
            }
        }
        let chunked = Setup {
            n_step_tokens: 16,
            ..ALONE
        };
        check_setup(name, dir, &prompts, (chunked, &alone));
        check_answers(&prompts, &alone, name);
    });
}

/// Some steps with prompts that are cut, next to others that are decoded.
const MIXED: Setup = Setup {
    caches_prefixes: true,
    n_step_tokens: 16,
    is_mixed: true,
    preempts: None,
};

#[test]
fn every_architecture_agrees_with_every_instruction_set() {
    each_fixture(generates, |name, dir, reference| {
        let prompts = prompts(reference, context_len(dir));
        let ids: Vec<&[u32]> = prompts.iter().map(|prompt| prompt.ids.as_slice()).collect();
        let n_tokens = prompts[0].greedy.len();
        // The other tests take the best one.
        let others = Isa::available().into_iter().filter(|isa| *isa != Isa::best());
        for isa in others.filter(|isa| !isa.multiplies_bf16()) {
            let context = format!("{name}, {}", isa.name());
            let alone = Serving::with(dir, ALONE, as_exact(isa)).generate(&ids, n_tokens);
            check_answers(&prompts, &alone, &context);
            let mixed = Serving::with(dir, MIXED, as_exact(isa)).generate(&ids, n_tokens);
            assert!(mixed == alone, "{context}: other bits than alone");
        }
    });
}

#[test]
fn rounded_activations_give_the_same_bits_in_every_batch() {
    let rounding: Vec<Isa> = Isa::available()
        .into_iter()
        .filter(|isa| isa.multiplies_bf16())
        .collect();
    if rounding.is_empty() {
        eprintln!("not run: this processor multiplies no bf16 numbers");
        return;
    }
    for name in ["llama3", "qwen3"] {
        let dir = fixture::materialise(name);
        let json = std::fs::read(dir.path().join("reference.json")).unwrap();
        let reference: Reference = serde_json::from_slice(&json).unwrap();
        let prompts = prompts(&reference, context_len(dir.path()));
        let ids: Vec<&[u32]> = prompts.iter().map(|prompt| prompt.ids.as_slice()).collect();
        for &isa in &rounding {
            let options = LoadOptions {
                isa: Some(isa),
                dtype: DtypeChoice::Bfloat16,
                ..LoadOptions::default()
            };
            let serve = |setup| Serving::with(dir.path(), setup, options.clone()).generate(&ids, 4);
            let (alone, mixed) = (serve(ALONE), serve(MIXED));
            assert!(mixed == alone, "{name}, {isa:?}: other bits than alone");
            let are_finite = |answer: &Answer| answer.logits.iter().all(|logit| logit.is_finite());
            assert!(alone.iter().all(are_finite), "{name}, {isa:?}");
        }
    }
}

#[test]
fn every_architecture_agrees_when_it_is_preempted() {
    each_fixture(generates, |name, dir, reference| {
        let prompts = prompts(reference, context_len(dir));
        let ids: Vec<&[u32]> = prompts.iter().map(|prompt| prompt.ids.as_slice()).collect();
        let alone = Serving::start(dir, ALONE).generate(&ids, prompts[0].greedy.len());
        for mode in [PreemptionMode::Recompute, PreemptionMode::Swap] {
            for (n_step_tokens, caches_prefixes) in [(16, true), (2048, false)] {
                let setup = Setup {
                    caches_prefixes,
                    n_step_tokens,
                    is_mixed: true,
                    preempts: Some(mode),
                };
                check_setup(name, dir, &prompts, (setup, &alone));
            }
        }
    });
}

/// Largest difference of a logit with a cache of the type, among all fixtures without experts: a small difference of a
/// router's logits chooses another expert.
const NARROW: [(KvDtypeChoice, f32); 3] = [
    (KvDtypeChoice::Bfloat16, 0.5),
    (KvDtypeChoice::Float16, 0.5),
    (KvDtypeChoice::Fp8, 5.0),
];

#[test]
fn narrow_caches_give_the_same_bits_however_they_are_served() {
    each_fixture(generates, |name, dir, reference| {
        let config = std::fs::read_to_string(dir.join("config.json")).unwrap();
        let prompts = prompts(reference, context_len(dir));
        let ids: Vec<&[u32]> = prompts.iter().map(|prompt| prompt.ids.as_slice()).collect();
        for (kv_cache_dtype, tolerance) in NARROW {
            let options = LoadOptions {
                kv_cache_dtype,
                ..LoadOptions::default()
            };
            let serve = |setup| Serving::with(dir, setup, options.clone()).generate(&ids, 4);
            let alone = serve(ALONE);
            let context = format!("{name}, {kv_cache_dtype}");
            let mut worst = 0.0_f32;
            for (prompt, answer) in prompts.iter().zip(&alone) {
                for &(token, want) in &prompt.last_logits_top20 {
                    worst = worst.max((answer.logits[token] - want).abs());
                }
            }
            println!("worst {kv_cache_dtype} {worst} {name}");
            let has_experts = config.contains("expert");
            assert!(
                worst <= tolerance || has_experts,
                "{context}: a logit is off by {worst}"
            );
            for preempts in [None, Some(PreemptionMode::Swap)] {
                let setup = Setup {
                    caches_prefixes: true,
                    n_step_tokens: 16,
                    is_mixed: true,
                    preempts,
                };
                assert!(
                    serve(setup) == alone,
                    "{context}, {setup:?}: other bits than alone"
                );
            }
        }
    });
}

#[test]
fn branches_of_a_prompt_share_what_they_do_not_write() {
    each_fixture(generates, |name, dir, reference| {
        let prompts = prompts(reference, context_len(dir));
        let prompt = prompts.iter().max_by_key(|prompt| prompt.ids.len()).unwrap();
        let n_tokens = prompt.greedy.len();
        let serving = Serving::start(dir, ALONE);
        let alone = serving.generate(&[&prompt.ids], n_tokens).remove(0).tokens;
        for tokens in serving.branches(&prompt.ids, (3, n_tokens)) {
            assert_eq!(tokens, alone, "{name}");
        }
    });
}

#[test]
fn every_architecture_scores_its_prompts_in_one_piece_and_in_chunks() {
    each_fixture(generates, |name, dir, reference| {
        let prompts = prompts(reference, context_len(dir));
        let ids: Vec<&[u32]> = prompts.iter().map(|prompt| prompt.ids.as_slice()).collect();
        let whole = Serving::start(dir, ALONE).prompt_logprobs(&ids);
        let chunked = Setup {
            n_step_tokens: 16,
            caches_prefixes: true,
            ..ALONE
        };
        let chunked = Serving::start(dir, chunked);
        assert!(
            chunked.prompt_logprobs(&ids) == whole,
            "{name}: other bits in chunks"
        );
        assert!(
            chunked.prompt_logprobs(&ids) == whole,
            "{name}: other bits the second time"
        );
        for (idx, (prompt, scores)) in prompts.iter().zip(whole).enumerate() {
            assert_eq!(scores.len(), prompt.prompt_logprobs.len(), "{name}, prompt {idx}");
            for (at, (got, want)) in scores.into_iter().zip(&prompt.prompt_logprobs).enumerate() {
                let is_near = match (got, want) {
                    (None, None) => at == 0,
                    (Some(got), Some(want)) => (got - want).abs() <= TOLERANCE,
                    _ => false,
                };
                assert!(is_near, "{name}, prompt {idx}, token {at}: {got:?}, not {want:?}");
            }
        }
    });
}

#[test]
fn every_embedding_model_and_cross_encoder_agrees() {
    each_fixture(pools, |name, dir, reference| {
        let request = |prompt: &Prompt| PoolRequest {
            prompt: prompt.ids.clone().into(),
            token_types: prompt.token_type_ids.clone(),
            ..PoolRequest::default()
        };
        let requests: Vec<PoolRequest> = reference.prompts.iter().map(request).collect();
        let serving = Serving::start(dir, ALONE);
        let together = serving.pool(requests.clone());
        for (idx, (prompt, request)) in reference.prompts.iter().zip(requests).enumerate() {
            let vector = serving.pool(vec![request]).remove(0);
            assert!(
                vector == together[idx],
                "{name}, prompt {idx}: other bits than in a batch"
            );
            let (got, want) = match (&prompt.embedding, &prompt.score) {
                (Some(embedding), _) => (of_length_one(&vector), embedding.clone()),
                (None, Some(score)) => (vector, score.clone()),
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

/// Files of a fixture as transformers 5 and sentence-transformers 6 write them: the name of the fixture, and what changes a
/// file.
type Dialect = (&'static str, &'static str, fn(&mut Value));

const DIALECTS: [Dialect; 4] = [
    ("llama3.2-tied-ropescaled", "config.json", |config| {
        let mut rope = config["rope_scaling"].take();
        rope["rope_theta"] = config["rope_theta"].take();
        config["rope_parameters"] = rope;
        config["dtype"] = config["torch_dtype"].take();
    }),
    ("gemma3_text", "config.json", |config| {
        let mut full = config["rope_scaling"].take();
        full["rope_theta"] = config["rope_theta"].take();
        let local = config["rope_local_base_freq"].take();
        let sliding = json!({"rope_type": "default", "rope_theta": local});
        config["rope_parameters"] = json!({"full_attention": full, "sliding_attention": sliding});
    }),
    ("bge-bert-cls", "1_Pooling/config.json", |config| {
        *config = json!({"embedding_dimension": 64, "pooling_mode": "cls", "include_prompt": true});
    }),
    ("qwen3-embedding-lasttoken", "1_Pooling/config.json", |config| {
        *config = json!({"embedding_dimension": 64, "pooling_mode": ["lasttoken"]});
    }),
];

#[test]
fn folders_of_newer_programs_compute_the_same() {
    let computed = |dir: &Path, reference: &Reference| {
        let serving = Serving::start(dir, ALONE);
        let ids = reference.prompts.iter().map(|prompt| prompt.ids.as_slice());
        if generates(reference) {
            let answers = serving.generate(&ids.collect::<Vec<_>>(), 4);
            answers
                .into_iter()
                .map(|answer| answer.logits)
                .collect::<Vec<_>>()
        } else {
            let request = |ids: &[u32]| PoolRequest {
                prompt: ids.to_vec().into(),
                ..PoolRequest::default()
            };
            serving.pool(ids.map(request).collect())
        }
    };
    for (name, file, change) in DIALECTS {
        let dir = fixture::materialise(name);
        let json = std::fs::read(dir.path().join("reference.json")).unwrap();
        let reference: Reference = serde_json::from_slice(&json).unwrap();
        let older = computed(dir.path(), &reference);
        let path = dir.path().join(file);
        let mut content: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut content);
        std::fs::write(&path, content.to_string()).unwrap();
        assert!(computed(dir.path(), &reference) == older, "{name}: other bits");
    }
}
