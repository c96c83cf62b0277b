//! Texts: the same alone, in any batch, in chunks, after preemptions, with the prefix cache and with windows.

use super::*;

async fn check_answers(depth: usize, config: EngineConfig, n_requests: usize) -> Engine {
    let requests: Vec<GenerateRequest> = (0..n_requests).map(request).collect();
    let engine = engine_of_depth(depth, config);
    let mut tickets = engine.submit(requests.clone()).unwrap();
    for (ticket, request) in tickets.iter_mut().zip(&requests) {
        assert_eq!(answer(ticket).await, expected_answer(request));
    }
    engine
}

#[tokio::test]
async fn answers_alone_are_the_models() {
    for depth in DEPTHS {
        let engine = engine_of_depth(depth, config());
        for idx in 0..20 {
            let mut ticket = submit_one(&engine, request(idx));
            assert_eq!(answer(&mut ticket).await, expected_answer(&request(idx)));
        }
        assert_ends_empty(engine).await;
    }
}

#[tokio::test]
async fn answers_in_a_batch_are_those_alone() {
    for depth in DEPTHS {
        assert_ends_empty(check_answers(depth, config(), 60).await).await;
    }
}

#[tokio::test]
async fn answers_of_chunked_prompts_are_those_alone() {
    for depth in DEPTHS {
        let engine = check_answers(
            depth,
            EngineConfig {
                max_num_batched_tokens: 4,
                ..config()
            },
            60,
        )
        .await;
        assert!(
            engine.counters().step_tokens.counts()[2..]
                .iter()
                .all(|&count| count == 0)
        );
        assert_ends_empty(engine).await;
    }
}

#[tokio::test]
async fn answers_under_preemption_are_those_alone() {
    for depth in DEPTHS {
        // 24 blocks of 4 hold one sequence of 80 tokens and little beside it.
        let engine = check_answers(
            depth,
            EngineConfig {
                n_blocks: 24,
                ..config()
            },
            60,
        )
        .await;
        assert!(
            engine.counters().preemptions.get() > 0,
            "the pool is not tiny enough"
        );
        assert_ends_empty(engine).await;
    }
}

#[tokio::test]
async fn swapped_answers_are_those_alone() {
    for depth in DEPTHS {
        let engine = check_answers(
            depth,
            EngineConfig {
                n_blocks: 24,
                n_host_blocks: 30,
                enable_prefix_caching: false,
                preemption_mode: PreemptionMode::Swap,
                ..config()
            },
            60,
        )
        .await;
        assert!(engine.counters().preemptions.get() > 0);
        // What was swapped is not computed again: every token once, but for the last of each answer. The host is
        // not always large enough, so some are.
        let n_prompt: usize = (0..60).map(|idx| request(idx).prompt.len()).sum();
        let n_generated = engine.counters().generation_tokens.get();
        let n_needed = n_prompt as u64 + n_generated - 60;
        let n_again = engine.counters().step_tokens.sum() - n_needed;
        let n_overrun_max = 60 * (depth as u64 - 1);
        assert!(
            n_again < n_needed / 20 + n_overrun_max,
            "{n_again} of {n_needed} tokens were computed again"
        );
        assert_ends_empty(engine).await;
    }
}

#[tokio::test]
async fn layers_with_windows_answer_as_alone_in_less_room() {
    for depth in DEPTHS {
        let windows = [None, Some(5), Some(1)];
        // A sequence of 80 tokens needs 20 blocks, 2 and 1; without windows it would be three times 20.
        let config = EngineConfig {
            n_blocks: 40,
            ..config()
        };
        let engine = Engine::start(Box::new(grouped(&config, &windows).with_depth(depth)), config).unwrap();
        let requests: Vec<GenerateRequest> = (0..40).map(request).collect();
        let mut tickets = engine.submit(requests.clone()).unwrap();
        for (ticket, request) in tickets.iter_mut().zip(&requests) {
            assert_eq!(answer(ticket).await, expected_of(&windows, request));
        }
        assert_ends_empty(engine).await;
    }
}

#[tokio::test]
async fn several_answers_share_a_prompt_that_is_computed_once() {
    for depth in DEPTHS {
        let engine = engine_of_depth(
            depth,
            EngineConfig {
                enable_prefix_caching: false,
                ..config()
            },
        );
        let several = GenerateRequest { n: 3, ..request(1) };
        let mut tickets = engine.submit(vec![several.clone()]).unwrap();
        let mut n_computed = several.prompt.len();
        for (idx, ticket) in tickets.iter_mut().enumerate() {
            let mut alone = several.clone();
            Arc::make_mut(&mut alone.sampling).seed = several.sampling.seed.map(|seed| seed + idx as u64);
            let (tokens, reason) = answer(ticket).await;
            // The last token is not computed, whether it is sent or ends the answer unsent.
            n_computed += tokens.len() - usize::from(reason == FinishReason::Length);
            assert_eq!((tokens, reason), expected_answer(&alone));
        }
        assert_eq!(tickets.len(), 3);
        let counters = engine.counters();
        // With depth 2 the token that ends an answer may be computed.
        let n_overrun = counters.step_tokens.sum() - n_computed as u64;
        assert!(n_overrun <= 3 * (depth as u64 - 1), "{n_overrun} tokens too many");
        assert_eq!(counters.prompt_tokens.get(), several.prompt.len() as u64);
        assert_ends_empty(engine).await;
    }
}

#[tokio::test]
async fn more_answers_than_places_come_one_after_the_other() {
    for depth in DEPTHS {
        let engine = engine_of_depth(
            depth,
            EngineConfig {
                max_num_seqs: 2,
                ..config()
            },
        );
        let several = GenerateRequest { n: 7, ..endless(9) };
        for ticket in &mut engine.submit(vec![several, endless(3)]).unwrap() {
            assert_eq!(answer(ticket).await.0.len(), 50);
        }
        assert_ends_empty(engine).await;
    }
}

#[tokio::test]
async fn a_prompt_that_begins_as_another_did_is_not_computed_again() {
    for depth in DEPTHS {
        for enable_prefix_caching in [true, false] {
            let engine = engine_of_depth(
                depth,
                EngineConfig {
                    enable_prefix_caching,
                    ..config()
                },
            );
            let first = GenerateRequest {
                prompt: (1..=23).collect(),
                ..request(4)
            };
            let n_prompt = first.prompt.len();
            // The last block differs: all before it is known.
            let mut second = first.clone();
            second.prompt = (1..23).chain([22]).collect();
            let n_known = if enable_prefix_caching {
                (n_prompt - 1) / 4 * 4
            } else {
                0
            };
            for (request, n_cached) in [(&first, 0), (&second, n_known), (&first, n_known)] {
                let mut ticket = submit_one(&engine, request.clone());
                assert_eq!(answer(&mut ticket).await, expected_answer(request));
                assert_eq!(ticket.n_cached_tokens(), n_cached);
            }
            let counters = engine.counters();
            let asked_and_had = (
                counters.prefix_cache_queries.get(),
                counters.prefix_cache_hits.get(),
            );
            let n_queried = if enable_prefix_caching {
                3 * n_prompt as u64
            } else {
                0
            };
            assert_eq!(asked_and_had, (n_queried, 2 * n_known as u64));
            assert_ends_empty(engine).await;
        }
    }
}

#[tokio::test]
async fn vectors_come_between_answers() {
    for depth in DEPTHS {
        let engine = engine_of_depth(
            depth,
            EngineConfig {
                max_num_batched_tokens: 16,
                ..config()
            },
        );
        let pool = |idx: usize| {
            let prompt = request(idx).prompt;
            let token_types = prompt
                .ids()
                .map(|token| token % 2)
                .take([0, prompt.len()][idx % 2])
                .collect();
            PoolRequest {
                prompt,
                token_types,
                ..PoolRequest::default()
            }
        };
        let mut tickets = engine.submit((0..20).map(request).collect()).unwrap();
        let mut pooling = engine.submit_pooling((0..20).map(pool).collect()).unwrap();
        for (idx, ticket) in pooling.iter_mut().enumerate() {
            let PoolRequest {
                prompt, token_types, ..
            } = pool(idx);
            let (_, hash) = Reference::of(&groups(&[None]), &prompt, &token_types);
            assert_eq!(ticket.next().await, Some(Event::Pooled(hash.vector())));
            assert_eq!(ticket.next().await, None);
        }
        for (idx, ticket) in tickets.iter_mut().enumerate() {
            assert_eq!(answer(ticket).await, expected_answer(&request(idx)));
        }
        assert_ends_empty(engine).await;
    }
}

#[tokio::test]
async fn requests_without_a_seed_differ_but_an_engines_seed_repeats_them() {
    let unseeded = GenerateRequest {
        prompt: vec![1, 2, 3].into(),
        max_tokens: Some(20),
        ignore_eos: true,
        ..GenerateRequest::default()
    };
    let mut texts = Vec::new();
    for seed in [1, 1, 2] {
        let engine = engine(EngineConfig { seed, ..config() });
        let mut tickets = engine.submit(vec![unseeded.clone(); 2]).unwrap();
        texts.push((answer(&mut tickets[0]).await, answer(&mut tickets[1]).await));
    }
    assert_ne!(texts[0].0, texts[0].1);
    assert_eq!(texts[0], texts[1]);
    assert_ne!(texts[0], texts[2]);
}
