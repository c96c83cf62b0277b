//! What is admitted, and what is refused by which name.

use proptest::prelude::*;

use super::*;
use crate::batch::MediaDigest;
use crate::engine::prompt::Span;

fn limits() -> Limits {
    sized(config())
}

fn config() -> EngineConfig {
    EngineConfig {
        n_blocks: 4,
        block_size: 8,
        max_num_seqs: 4,
        max_num_batched_tokens: 16,
        max_model_len: 24,
        eos_token_ids: [2].into(),
        ..EngineConfig::default()
    }
}

fn sized(config: EngineConfig) -> Limits {
    Limits {
        config,
        groups: vec![KvGroup::default()],
        whole_prompts: false,
        has_prefixes: true,
        reads_media: false,
        vocab_size: 100,
    }
}

fn request(n_prompt: usize, max_tokens: Option<usize>) -> GenerateRequest {
    GenerateRequest {
        prompt: vec![1; n_prompt].into(),
        max_tokens,
        ..GenerateRequest::default()
    }
}

fn stop(limits: &Limits, request: GenerateRequest) -> StopRules {
    rules(limits.admit(request).unwrap())
}

fn rules(admitted: Admitted) -> StopRules {
    match admitted.task {
        Task::Generate { stop, .. } => stop,
        Task::Search { .. } | Task::Pool { .. } => panic!("another request"),
    }
}

fn refusal(limits: &Limits, request: GenerateRequest) -> AdmitError {
    limits.admit(request).unwrap_err()
}

#[test]
fn max_tokens_is_clamped_only_when_absent() {
    assert_eq!(stop(&limits(), request(20, None)).max_tokens, 4);
    assert_eq!(stop(&limits(), request(20, Some(4))).max_tokens, 4);
    assert_eq!(
        refusal(&limits(), request(20, Some(5))),
        AdmitError::AnswerTooLong {
            n_prompt: 20,
            max_tokens: 5,
            max_model_len: 24
        }
    );
}

#[test]
fn what_the_cache_can_never_hold_is_refused() {
    let tight = sized(EngineConfig {
        n_blocks: 2,
        ..config()
    });
    // 16 slots hold 16 computed tokens; the 17th is drawn and not computed.
    assert_eq!(stop(&tight, request(10, None)).max_tokens, 7);
    assert_eq!(stop(&tight, request(16, None)).max_tokens, 1);
    assert!(tight.admit(request(10, Some(7))).is_ok());
    for too_big in [request(10, Some(8)), request(17, None)] {
        let expected = AdmitError::NeverFits {
            n_blocks_needed: 3,
            n_blocks: 2,
        };
        assert_eq!(refusal(&tight, too_big), expected);
    }
}

#[test]
fn malformed_requests_are_refused_by_name() {
    let limits = limits();
    assert_eq!(refusal(&limits, request(0, None)), AdmitError::EmptyPrompt);
    assert_eq!(
        refusal(&limits, request(24, None)),
        AdmitError::PromptTooLong {
            n_prompt: 24,
            max_model_len: 24
        }
    );
    assert_eq!(refusal(&limits, request(1, Some(0))), AdmitError::NoTokensWanted);
    let none = GenerateRequest {
        n: 0,
        ..request(1, None)
    };
    assert_eq!(refusal(&limits, none), AdmitError::NoAnswersWanted);
    let urgent = GenerateRequest {
        priority: -1,
        ..request(1, None)
    };
    assert_eq!(
        refusal(&limits, urgent),
        AdmitError::NoPriorities { priority: -1 }
    );
    assert_eq!(
        refusal(
            &limits,
            GenerateRequest {
                min_tokens: 3,
                ..request(1, Some(2))
            }
        ),
        AdmitError::MinAboveMax {
            min_tokens: 3,
            max_tokens: 2
        }
    );
    assert_eq!(
        refusal(
            &limits,
            GenerateRequest {
                prompt: vec![1, 100].into(),
                ..request(1, None)
            }
        ),
        AdmitError::TokenOutOfVocabulary {
            token: 100,
            vocab_size: 100
        }
    );
    for (parameter, sampling) in [
        (
            "logit_bias",
            SamplingParams {
                logit_bias: vec![(99, 1.0), (100, 1.0)],
                ..SamplingParams::default()
            },
        ),
        (
            "allowed_token_ids",
            SamplingParams {
                allowed_token_ids: Some(vec![100]),
                ..SamplingParams::default()
            },
        ),
        (
            "bad_words",
            SamplingParams {
                bad_words: vec![vec![1, 100]],
                ..SamplingParams::default()
            },
        ),
    ] {
        let named = GenerateRequest {
            sampling: sampling.into(),
            ..request(1, None)
        };
        let expected = AdmitError::ParameterOutOfVocabulary {
            parameter,
            token: 100,
            vocab_size: 100,
        };
        assert_eq!(refusal(&limits, named), expected);
    }
    let stopping = GenerateRequest {
        stop_token_ids: vec![100],
        ..request(1, None)
    };
    assert_eq!(
        refusal(&limits, stopping).to_string(),
        "stop_token_ids has token id 100, which is out of vocabulary: it has 100 tokens"
    );
    let mut hot = request(1, None);
    Arc::make_mut(&mut hot.sampling).temperature = f32::NAN;
    assert!(matches!(refusal(&limits, hot), AdmitError::Sampling(_)));
}

#[test]
fn windows_need_no_more_than_they_see_and_groups_share_one_pool() {
    let grouped = |windows: &[Option<usize>]| Limits {
        groups: windows.iter().map(|&window| KvGroup { window }).collect(),
        ..sized(EngineConfig {
            n_blocks: 10,
            max_model_len: 1000,
            ..config()
        })
    };
    // 10 blocks of 8: five for each of two groups; a window of 9 needs two blocks, however they lie.
    assert_eq!(stop(&grouped(&[None, None]), request(10, None)).max_tokens, 31);
    assert_eq!(stop(&grouped(&[None, Some(9)]), request(10, None)).max_tokens, 55);
    assert_eq!(
        stop(&grouped(&[Some(9), Some(9)]), request(10, None)).max_tokens,
        990
    );
    assert!(matches!(
        refusal(&grouped(&[None, Some(9)]), request(10, Some(56))),
        AdmitError::NeverFits {
            n_blocks_needed: 11,
            n_blocks: 10
        }
    ));
}

#[test]
fn a_whole_prompt_must_fit_a_step() {
    let whole = Limits {
        whole_prompts: true,
        has_prefixes: false,
        ..limits()
    };
    let pool = |n_prompt, n_token_types| {
        let request = PoolRequest {
            prompt: vec![1; n_prompt].into(),
            token_types: vec![0; n_token_types],
            ..PoolRequest::default()
        };
        whole.admit_pooling(request).map(|admitted| admitted.prompt.len())
    };
    assert_eq!(pool(16, 16), Ok(16));
    let above = AdmitError::PromptAboveStep {
        n_prompt: 17,
        max_num_batched_tokens: 16,
    };
    assert_eq!(pool(17, 0), Err(above));
    let types = AdmitError::TokenTypes {
        n_prompt: 3,
        n_token_types: 2,
    };
    assert_eq!(pool(3, 2), Err(types));
}

#[test]
fn ignore_eos_leaves_only_the_requests_own_stop_tokens() {
    let ignoring = GenerateRequest {
        ignore_eos: true,
        ..request(1, None)
    };
    assert_eq!(&*stop(&limits(), ignoring).eos_token_ids, &[] as &[u32]);
    assert_eq!(&*stop(&limits(), request(1, None)).eos_token_ids, [2]);
}

proptest! {
    #[test]
    fn an_admitted_request_fits_alone(
        n_blocks in 1..20usize,
        block_size in 1..10usize,
        max_model_len in 1..100usize,
        n_prompt in 0..120usize,
        max_tokens in prop::option::of(0..120usize),
    ) {
        let limits = sized(EngineConfig { n_blocks, block_size, max_model_len, ..config() });
        if let Ok(admitted) = limits.admit(request(n_prompt, max_tokens)) {
            let stop = rules(admitted);
            let n_tokens = n_prompt + stop.max_tokens;
            prop_assert!(stop.max_tokens >= 1);
            prop_assert!(n_tokens <= max_model_len);
            prop_assert!(n_tokens - 1 <= n_blocks * block_size);
            prop_assert!(max_tokens.is_none_or(|wanted| wanted == stop.max_tokens));
        }
    }
}

#[test]
fn media_are_refused_where_the_model_reads_text_alone() {
    let image = |placeholder| {
        let span = Span::Media {
            digest: MediaDigest([7; 32]),
            n_tokens: 3,
            placeholder,
        };
        GenerateRequest {
            prompt: vec![Span::Tokens(vec![1]), span].into(),
            ..GenerateRequest::default()
        }
    };
    assert_eq!(refusal(&limits(), image(5)), AdmitError::NoMedia);
    let reading = Limits {
        reads_media: true,
        ..limits()
    };
    assert_eq!(reading.admit(image(5)).unwrap().prompt.len(), 4);
    assert!(matches!(
        refusal(&reading, image(100)),
        AdmitError::TokenOutOfVocabulary { token: 100, .. }
    ));
}
