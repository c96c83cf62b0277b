//! The engine as its callers see it: tickets, over a model that checks every block table it is given.

mod grammars;
mod scores;

use std::sync::mpsc;

use super::fake::{Dice, HashModel, Reference, Shape};
use super::*;
use crate::batch::{Batch, KvGroup, Logits, StepError, StepOutput};
use crate::engine::sampler::{Draw, SampleError, sample};

const VOCAB_SIZE: usize = 48;
const EOS: u32 = 5;

fn config() -> EngineConfig {
    EngineConfig {
        n_blocks: 256,
        block_size: 4,
        max_num_seqs: 16,
        max_num_batched_tokens: 64,
        max_model_len: 100,
        seed: 11,
        eos_token_ids: [EOS].into(),
        ..EngineConfig::default()
    }
}

fn engine(config: EngineConfig) -> Engine {
    Engine::start(Box::new(model(&config)), config).unwrap()
}

fn model(config: &EngineConfig) -> HashModel {
    grouped(config, &[None])
}

/// A model of one group of layers per window.
fn grouped(config: &EngineConfig, windows: &[Option<usize>]) -> HashModel {
    let shape = Shape {
        vocab_size: VOCAB_SIZE,
        block_size: config.block_size,
        groups: groups(windows),
        whole_prompts: false,
    };
    HashModel::new(shape, config.n_blocks, config.n_host_blocks)
}

fn groups(windows: &[Option<usize>]) -> Vec<KvGroup> {
    windows.iter().map(|&window| KvGroup { window }).collect()
}

/// Request `idx` of a varied crowd: greedy and sampled, short and long.
fn request(idx: usize) -> GenerateRequest {
    let mut dice = Dice::new(idx as u64);
    let n_prompt = dice.within(1..=40);
    let sampling = SamplingParams {
        temperature: [0.0, 0.7, 1.3][idx % 3],
        top_p: [1.0, 0.9][idx % 2],
        top_k: [None, Some(10)][idx / 2 % 2],
        repetition_penalty: [1.0, 1.2][idx / 3 % 2],
        seed: Some(idx as u64),
        ..SamplingParams::default()
    };
    GenerateRequest {
        prompt: (0..n_prompt).map(|_| dice.below(VOCAB_SIZE) as u32).collect(),
        sampling,
        max_tokens: Some(dice.within(1..=40)),
        ..GenerateRequest::default()
    }
}

/// The answer by definition: no engine, no cache, no batch.
fn expected_answer(request: &GenerateRequest) -> (Vec<u32>, FinishReason) {
    expected_of(&[None], request)
}

fn expected_of(windows: &[Option<usize>], request: &GenerateRequest) -> (Vec<u32>, FinishReason) {
    let mut generated = Vec::new();
    let (mut text, mut hash) = Reference::of(&groups(windows), &request.prompt, &[]);
    loop {
        let draw = Draw {
            params: &request.sampling,
            prompt: &request.prompt,
            generated: &generated,
            forbidden: &[],
            mask: None,
            seed: request.sampling.seed.unwrap(),
        };
        let token = sample(&hash.logits(VOCAB_SIZE), &draw).unwrap().token;
        if token == EOS {
            return (generated, FinishReason::Eos(EOS));
        }
        generated.push(token);
        hash = text.push(token, 0);
        if Some(generated.len()) == request.max_tokens {
            return (generated, FinishReason::Length);
        }
    }
}

/// Everything a ticket has to say.
async fn read(ticket: &mut Ticket) -> (Vec<u32>, Event) {
    let mut tokens = Vec::new();
    loop {
        match ticket.next().await.expect("a ticket ends with an event") {
            Event::Token { token, .. } => tokens.push(token),
            Event::Prompt(_) => assert!(tokens.is_empty(), "a prompt behind its answer"),
            end @ (Event::Finished { .. } | Event::Beams(_) | Event::Pooled(_) | Event::Failed(_)) => {
                if let Event::Finished {
                    last: Some((token, _)),
                    ..
                } = end
                {
                    tokens.push(token);
                }
                assert_eq!(ticket.next().await, None, "an event after the end");
                return (tokens, end);
            }
        }
    }
}

async fn answer(ticket: &mut Ticket) -> (Vec<u32>, FinishReason) {
    let (tokens, end) = read(ticket).await;
    let Event::Finished {
        reason,
        last,
        ended_by: None,
        n_generated,
        cumulative_logprob: None,
    } = end
    else {
        panic!("{end:?}")
    };
    let n_withheld = usize::from(matches!(
        reason,
        FinishReason::Eos(_) | FinishReason::StopToken(_)
    ));
    assert_eq!(n_generated, tokens.len() + n_withheld);
    assert_eq!(
        last.is_some(),
        matches!(reason, FinishReason::Length | FinishReason::Complete)
    );
    (tokens, reason)
}

fn submit_one(engine: &Engine, request: GenerateRequest) -> Ticket {
    engine.submit(vec![request]).unwrap().remove(0)
}

/// Nothing runs, waits or holds a block once a drained engine has stopped.
async fn assert_ends_empty(engine: Engine) {
    engine.drain();
    assert_eq!(engine.drained().await, Phase::Stopped);
    let Load {
        n_running,
        n_waiting,
        n_blocks_used,
        ..
    } = engine.load();
    assert_eq!((n_running, n_waiting, n_blocks_used), (0, 0, 0));
}

async fn check_answers(config: EngineConfig, n_requests: usize) -> Engine {
    let requests: Vec<GenerateRequest> = (0..n_requests).map(request).collect();
    let engine = engine(config);
    let mut tickets = engine.submit(requests.clone()).unwrap();
    for (ticket, request) in tickets.iter_mut().zip(&requests) {
        assert_eq!(answer(ticket).await, expected_answer(request));
    }
    engine
}

#[tokio::test]
async fn answers_alone_are_the_models() {
    let engine = engine(config());
    for idx in 0..20 {
        let mut ticket = submit_one(&engine, request(idx));
        assert_eq!(answer(&mut ticket).await, expected_answer(&request(idx)));
    }
    assert_ends_empty(engine).await;
}

#[tokio::test]
async fn answers_in_a_batch_are_those_alone() {
    assert_ends_empty(check_answers(config(), 60).await).await;
}

#[tokio::test]
async fn answers_of_chunked_prompts_are_those_alone() {
    let engine = check_answers(
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

#[tokio::test]
async fn answers_under_preemption_are_those_alone() {
    // 24 blocks of 4 hold one sequence of 80 tokens and little beside it.
    let engine = check_answers(
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

#[tokio::test]
async fn swapped_answers_are_those_alone() {
    let engine = check_answers(
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
    assert!(
        n_again < n_needed / 20,
        "{n_again} of {n_needed} tokens were computed again"
    );
    assert_ends_empty(engine).await;
}

#[tokio::test]
async fn layers_with_windows_answer_as_alone_in_less_room() {
    let windows = [None, Some(5), Some(1)];
    // A sequence of 80 tokens needs 20 blocks, 2 and 1; without windows it would be three times 20.
    let config = EngineConfig {
        n_blocks: 40,
        ..config()
    };
    let engine = Engine::start(Box::new(grouped(&config, &windows)), config).unwrap();
    let requests: Vec<GenerateRequest> = (0..40).map(request).collect();
    let mut tickets = engine.submit(requests.clone()).unwrap();
    for (ticket, request) in tickets.iter_mut().zip(&requests) {
        assert_eq!(answer(ticket).await, expected_of(&windows, request));
    }
    assert_ends_empty(engine).await;
}

#[tokio::test]
async fn several_answers_share_a_prompt_that_is_computed_once() {
    let engine = engine(EngineConfig {
        enable_prefix_caching: false,
        ..config()
    });
    let several = GenerateRequest { n: 3, ..request(1) };
    let mut tickets = engine.submit(vec![several.clone()]).unwrap();
    let mut n_computed = several.prompt.len();
    for (idx, ticket) in tickets.iter_mut().enumerate() {
        let mut alone = several.clone();
        alone.sampling.seed = several.sampling.seed.map(|seed| seed + idx as u64);
        let (tokens, reason) = answer(ticket).await;
        // The last token is not computed, whether it is sent or ends the answer unsent.
        n_computed += tokens.len() - usize::from(reason == FinishReason::Length);
        assert_eq!((tokens, reason), expected_answer(&alone));
    }
    assert_eq!(tickets.len(), 3);
    let counters = engine.counters();
    assert_eq!(counters.step_tokens.sum(), n_computed as u64);
    assert_eq!(counters.prompt_tokens.get(), several.prompt.len() as u64);
    assert_ends_empty(engine).await;
}

#[tokio::test]
async fn more_answers_than_places_come_one_after_the_other() {
    let engine = engine(EngineConfig {
        max_num_seqs: 2,
        ..config()
    });
    let several = GenerateRequest { n: 7, ..endless(9) };
    for ticket in &mut engine.submit(vec![several, endless(3)]).unwrap() {
        assert_eq!(answer(ticket).await.0.len(), 50);
    }
    assert_ends_empty(engine).await;
}

#[tokio::test]
async fn an_answer_of_several_that_is_cancelled_leaves_the_others() {
    let (engine, gate) = gated(config());
    let mut tickets = engine
        .submit(vec![GenerateRequest { n: 3, ..endless(9) }])
        .unwrap();
    drop(tickets.remove(0));
    drop(gate);
    for ticket in &mut tickets {
        assert_eq!(answer(ticket).await.0.len(), 50);
    }
    assert_eq!(engine.counters().cancelled.get(), 1);
    assert_ends_empty(engine).await;
}

#[tokio::test]
async fn a_prompt_that_begins_as_another_did_is_not_computed_again() {
    for enable_prefix_caching in [true, false] {
        let engine = engine(EngineConfig {
            enable_prefix_caching,
            ..config()
        });
        let first = GenerateRequest {
            prompt: (1..=23).collect(),
            ..request(4)
        };
        let n_prompt = first.prompt.len();
        // The last block differs: all before it is known.
        let mut second = first.clone();
        second.prompt[n_prompt - 1] ^= 1;
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

#[tokio::test]
async fn vectors_come_between_answers() {
    let engine = engine(EngineConfig {
        max_num_batched_tokens: 16,
        ..config()
    });
    let pool = |idx: usize| {
        let prompt = request(idx).prompt;
        let token_types = prompt
            .iter()
            .map(|token| token % 2)
            .take([0, prompt.len()][idx % 2])
            .collect();
        PoolRequest {
            prompt,
            token_types,
            cache_salt: 0,
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
    assert_eq!(engine.counters().finished_pooling.get(), 20);
    assert_ends_empty(engine).await;
}

#[tokio::test]
async fn the_smaller_priority_goes_first_where_priorities_count() {
    for (scheduling_policy, first) in [(SchedulingPolicy::Priority, 1), (SchedulingPolicy::Fcfs, 0)] {
        let (engine, gate) = gated(EngineConfig {
            max_num_seqs: 1,
            scheduling_policy,
            ..config()
        });
        let urgent = GenerateRequest {
            priority: -first,
            ..endless(1)
        };
        let mut tickets = engine.submit(vec![endless(1)]).unwrap();
        gate.send(()).unwrap();
        assert!(matches!(tickets[0].next().await, Some(Event::Token { .. })));
        tickets.extend(engine.submit(vec![urgent]).unwrap());
        drop(gate);
        let mut ended_at = Vec::new();
        for ticket in &mut tickets {
            let (_, end) = read(ticket).await;
            assert!(matches!(end, Event::Finished { .. }), "{end:?}");
            ended_at.push(ticket.timing().last_event_at);
        }
        assert_eq!(i32::from(ended_at[1] < ended_at[0]), first);
        assert_ends_empty(engine).await;
    }
}

#[tokio::test]
async fn two_hundred_tickets_with_random_cancellations_leave_no_block() {
    let engine = engine(EngineConfig {
        n_blocks: 40,
        ..config()
    });
    let tickets = engine.submit((0..200).map(request).collect()).unwrap();
    let readers = tickets.into_iter().enumerate().map(|(idx, mut ticket)| {
        tokio::spawn(async move {
            let mut dice = Dice::new(1_000 + idx as u64);
            if dice.one_in(2) {
                let (tokens, _) = answer(&mut ticket).await;
                assert_eq!(tokens, expected_answer(&request(idx)).0);
                return 0;
            }
            // Reads some tokens and leaves; some leave before the first.
            for _ in 0..dice.below(12) {
                ticket.next().await;
            }
            1
        })
    });
    let mut n_left = 0;
    for reader in readers.collect::<Vec<_>>() {
        n_left += reader.await.unwrap();
    }
    assert!(n_left > 50);
    engine.drain();
    assert_eq!(engine.drained().await, Phase::Stopped);
    let counters = engine.counters();
    let n_ended = counters.finished_stop.get() + counters.finished_length.get() + counters.cancelled.get();
    assert_eq!((n_ended, counters.failed.get()), (200, 0));
    assert_ends_empty(engine).await;
}

#[tokio::test]
async fn requests_without_a_seed_differ_but_an_engines_seed_repeats_them() {
    let unseeded = GenerateRequest {
        prompt: vec![1, 2, 3],
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

/// Token 7 wins every greedy draw, then token 8, then 5, which ends.
struct Preferring;

impl Forward for Preferring {
    fn vocab_size(&self) -> usize {
        10
    }

    fn forward(&mut self, batch: &Batch) -> Result<StepOutput, StepError> {
        let row = [0.0, 0.0, 0.0, 0.0, 0.0, 4.0, 0.0, 6.0, 5.0, 0.0];
        let logits = Logits {
            values: row.repeat(batch.logits_at.len()),
            vocab_size: 10,
        };
        Ok(StepOutput {
            logits,
            pooled: Vec::new(),
        })
    }
}

fn greedy() -> GenerateRequest {
    let sampling = SamplingParams {
        temperature: 0.0,
        ..SamplingParams::default()
    };
    GenerateRequest {
        prompt: vec![1, 2],
        sampling,
        max_tokens: Some(3),
        ..GenerateRequest::default()
    }
}

#[tokio::test]
async fn answers_end_as_the_request_says() {
    let cases = [
        (greedy(), vec![7, 7, 7], FinishReason::Length),
        (
            GenerateRequest {
                stop_token_ids: vec![7],
                ..greedy()
            },
            vec![],
            FinishReason::StopToken(7),
        ),
        (
            GenerateRequest {
                stop_token_ids: vec![7],
                min_tokens: 2,
                ..greedy()
            },
            vec![8, 8],
            FinishReason::StopToken(7),
        ),
        (
            GenerateRequest {
                max_tokens: None,
                ..greedy()
            },
            vec![7; config().max_model_len - 2],
            FinishReason::Length,
        ),
    ];
    let engine = Engine::start(Box::new(Preferring), config()).unwrap();
    for (request, tokens, reason) in cases {
        assert_eq!(answer(&mut submit_one(&engine, request)).await, (tokens, reason));
    }
    let ends_on_seven = EngineConfig {
        eos_token_ids: [7].into(),
        ..config()
    };
    let engine = Engine::start(Box::new(Preferring), ends_on_seven).unwrap();
    assert_eq!(
        answer(&mut submit_one(&engine, greedy())).await,
        (vec![], FinishReason::Eos(7))
    );
    let ignoring = GenerateRequest {
        ignore_eos: true,
        ..greedy()
    };
    assert_eq!(
        answer(&mut submit_one(&engine, ignoring)).await,
        (vec![7; 3], FinishReason::Length)
    );
}

#[tokio::test]
async fn an_echo_says_its_token_as_often_as_it_may() {
    for step in [Duration::ZERO, Duration::from_millis(1)] {
        let engine = Engine::start_echo(Echo { token: 7, step }, &Preferring, config()).unwrap();
        // Whoever leaves costs nothing.
        drop(submit_one(&engine, greedy()));
        for max_tokens in [1, 5] {
            let mut request = greedy();
            request.max_tokens = Some(max_tokens);
            let (tokens, end) = read(&mut submit_one(&engine, request)).await;
            let Event::Finished {
                last, n_generated, ..
            } = end
            else {
                panic!("{end:?}")
            };
            assert_eq!(tokens, vec![7; max_tokens]);
            assert_eq!((last, n_generated), (Some((7, None)), max_tokens));
        }
    }
}

#[tokio::test]
async fn what_ended_an_answer_has_logprobs_of_its_own() {
    let engine = Engine::start(Box::new(Preferring), config()).unwrap();
    let mut request = greedy();
    request.stop_token_ids = vec![7];
    for n_top in [None, Some(1)] {
        request.sampling.logprobs = n_top;
        let (tokens, end) = read(&mut submit_one(&engine, request.clone())).await;
        let Event::Finished { last, ended_by, .. } = end else {
            panic!("{end:?}")
        };
        assert_eq!((tokens, last), (vec![], None));
        assert_eq!(
            ended_by.map(|logprobs| (logprobs.rank, logprobs.top.len())),
            n_top.map(|n| (1, n))
        );
    }
}

#[tokio::test]
async fn tokens_carry_logprobs_and_tickets_their_times() {
    let engine = Engine::start(Box::new(Preferring), config()).unwrap();
    let mut request = greedy();
    request.sampling.logprobs = Some(2);
    let mut ticket = submit_one(&engine, request);
    assert_eq!(ticket.timing().scheduled_at, None);
    let Some(Event::Token {
        token: 7,
        logprobs: Some(logprobs),
    }) = ticket.next().await
    else {
        panic!("no token with logprobs")
    };
    assert_eq!(logprobs.rank, 1);
    assert_eq!(logprobs.top, [(7, logprobs.chosen), (8, logprobs.chosen - 1.0)]);
    let (_, end) = read(&mut ticket).await;
    let Event::Finished {
        cumulative_logprob: Some(sum),
        ..
    } = end
    else {
        panic!("{end:?}")
    };
    assert_eq!(sum, 3.0 * f64::from(logprobs.chosen));
    let timing = ticket.timing();
    let times = [
        Some(timing.queued_at),
        timing.scheduled_at,
        timing.first_token_at,
        timing.last_event_at,
    ]
    .map(Option::unwrap);
    assert!(times.is_sorted());
    let counters = engine.counters();
    assert_eq!(
        (counters.prompt_tokens.get(), counters.generation_tokens.get()),
        (2, 3)
    );
    assert_eq!((counters.finished_length.get(), counters.steps.get()), (1, 3));
    assert_eq!(counters.step_tokens.sum(), 4);
}

/// Fails in the way `fault` says once a context is as long as `at_len`.
struct Faulty {
    model: HashModel,
    at_len: usize,
    fault: Fault,
}

#[derive(Clone, Copy)]
enum Fault {
    Error,
    Panic,
    Nan,
}

impl Forward for Faulty {
    fn vocab_size(&self) -> usize {
        VOCAB_SIZE
    }

    fn forward(&mut self, batch: &Batch) -> Result<StepOutput, StepError> {
        let mut output = self.model.forward(batch)?;
        let is_faulty = |row: &crate::batch::BatchRow| row.context_len == self.at_len;
        let Some(row_idx) = batch.rows.iter().position(is_faulty) else {
            return Ok(output);
        };
        match self.fault {
            Fault::Error => {
                return Err(StepError::Batch {
                    reason: "an injected error".to_owned(),
                });
            }
            Fault::Panic => panic!("an injected panic"),
            Fault::Nan => output.logits.values[row_idx * VOCAB_SIZE + 3] = f32::NAN,
        }
        Ok(output)
    }
}

fn faulty(fault: Fault) -> Engine {
    let model = Faulty {
        model: model(&config()),
        at_len: 20,
        fault,
    };
    Engine::start(Box::new(model), config()).unwrap()
}

fn endless(n_prompt: usize) -> GenerateRequest {
    GenerateRequest {
        prompt: vec![1; n_prompt],
        max_tokens: Some(50),
        ignore_eos: true,
        ..GenerateRequest::default()
    }
}

#[tokio::test]
async fn a_model_that_fails_ends_every_ticket_and_the_engine() {
    for fault in [Fault::Error, Fault::Panic] {
        let engine = faulty(fault);
        let mut tickets = engine
            .submit((1..=30).map(|n_prompt| endless(n_prompt % 8 + 1)).collect())
            .unwrap();
        for ticket in &mut tickets {
            assert_eq!(read(ticket).await.1, Event::Failed(RequestFailure::EngineDead));
        }
        assert_eq!(engine.drained().await, Phase::Dead);
        assert_eq!(engine.liveness().phase, Phase::Dead);
        assert_eq!(
            engine.submit(vec![endless(1)]).unwrap_err(),
            SubmitError::EngineDead
        );
        engine.drain();
        assert_eq!(
            engine.submit(vec![endless(1)]).unwrap_err(),
            SubmitError::EngineDead
        );
    }
}

#[tokio::test]
async fn logits_that_are_not_numbers_fail_their_request_only() {
    let engine = faulty(Fault::Nan);
    let mut tickets = engine.submit(vec![endless(10), endless(25)]).unwrap();
    let (tokens, end) = read(&mut tickets[0]).await;
    assert_eq!(tokens.len(), 10);
    let Event::Failed(RequestFailure::Sampling(SampleError::BadLogit { token: 3, .. })) = end else {
        panic!("{end:?}")
    };
    assert_eq!(answer(&mut tickets[1]).await.0.len(), 50);
    assert_eq!(answer(&mut submit_one(&engine, endless(30))).await.0.len(), 50);
    assert_eq!(engine.counters().failed.get(), 1);
    assert_ends_empty(engine).await;
}

/// Computes one step per permit, so that a test decides how far the engine gets.
struct Gated {
    model: HashModel,
    permits: mpsc::Receiver<()>,
}

impl Forward for Gated {
    fn vocab_size(&self) -> usize {
        VOCAB_SIZE
    }

    fn forward(&mut self, batch: &Batch) -> Result<StepOutput, StepError> {
        // A dropped sender opens the gate for good.
        let _ = self.permits.recv();
        self.model.forward(batch)
    }
}

fn gated(config: EngineConfig) -> (Engine, mpsc::SyncSender<()>) {
    let (gate, permits) = mpsc::sync_channel(1);
    let model = model(&config);
    (
        Engine::start(Box::new(Gated { model, permits }), config).unwrap(),
        gate,
    )
}

#[tokio::test]
async fn a_full_queue_refuses_all_of_a_submission_and_recovers() {
    let (engine, gate) = gated(EngineConfig {
        max_num_seqs: 2,
        max_waiting: 3,
        ..config()
    });
    let mut tickets = engine.submit(vec![endless(1); 4]).unwrap();
    let full = SubmitError::QueueFull { retry_after_s: 1 };
    assert_eq!(engine.submit(vec![endless(1); 2]).unwrap_err(), full);
    tickets.extend(engine.submit(vec![endless(1)]).unwrap());
    assert_eq!(engine.submit(vec![endless(1)]).unwrap_err(), full);
    let too_many = SubmitError::TooMany {
        n_requests: 6,
        n_requests_max: 5,
    };
    assert_eq!(engine.submit(vec![endless(1); 6]).unwrap_err(), too_many);
    drop(gate);
    for ticket in &mut tickets {
        assert_eq!(answer(ticket).await.1, FinishReason::Length);
    }
    assert_eq!(
        answer(&mut submit_one(&engine, endless(1))).await.1,
        FinishReason::Length
    );
    assert_ends_empty(engine).await;
}

#[tokio::test]
async fn a_submission_with_one_bad_request_runs_none() {
    let engine = engine(config());
    let too_long = SubmitError::Refused {
        request_idx: 1,
        error: AdmitError::PromptTooLong {
            n_prompt: 100,
            max_model_len: 100,
        },
    };
    assert_eq!(
        engine.submit(vec![endless(1), endless(100)]).unwrap_err(),
        too_long
    );
    assert_eq!(engine.submit(vec![]).unwrap().len(), 0);
    assert_ends_empty(engine).await;
}

#[tokio::test]
async fn draining_finishes_what_was_accepted_and_refuses_the_rest() {
    let (engine, gate) = gated(EngineConfig {
        max_num_seqs: 2,
        ..config()
    });
    let mut tickets = engine.submit(vec![endless(1); 5]).unwrap();
    engine.drain();
    assert_eq!(engine.liveness().phase, Phase::Draining);
    assert_eq!(
        engine.submit(vec![endless(1)]).unwrap_err(),
        SubmitError::Draining
    );
    drop(gate);
    for ticket in &mut tickets {
        assert_eq!(answer(ticket).await.0.len(), 50);
    }
    assert_ends_empty(engine).await;
}

#[tokio::test]
async fn aborting_ends_running_and_waiting_tickets() {
    let (engine, gate) = gated(EngineConfig {
        max_num_seqs: 2,
        ..config()
    });
    let mut tickets = engine.submit(vec![endless(1); 5]).unwrap();
    gate.send(()).unwrap();
    assert!(matches!(tickets[0].next().await, Some(Event::Token { .. })));
    engine.abort();
    drop(gate);
    for ticket in &mut tickets {
        let (_, end) = read(ticket).await;
        assert!(
            matches!(
                end,
                Event::Finished {
                    reason: FinishReason::Abort,
                    ..
                }
            ),
            "{end:?}"
        );
    }
    assert_eq!(engine.counters().finished_abort.get(), 5);
    assert_ends_empty(engine).await;
}

#[tokio::test]
async fn a_dropped_ticket_frees_its_place_and_blocks_on_the_next_turn() {
    let (engine, gate) = gated(EngineConfig {
        max_num_seqs: 1,
        max_waiting: 1,
        ..config()
    });
    let mut tickets = engine.submit(vec![endless(9), endless(1)]).unwrap();
    let mut second = tickets.pop().unwrap();
    gate.send(()).unwrap();
    assert!(matches!(tickets[0].next().await, Some(Event::Token { .. })));
    assert_eq!(engine.load().n_blocks_used, 3);
    drop(tickets);
    // At most one step still belongs to the dropped one; then the second moves.
    gate.send(()).unwrap();
    gate.send(()).unwrap();
    assert!(matches!(second.next().await, Some(Event::Token { .. })));
    assert_eq!(
        (engine.load().n_blocks_used, engine.counters().cancelled.get()),
        (1, 1)
    );
    drop(gate);
    assert_eq!(read(&mut second).await.0.len(), 49);
    assert_ends_empty(engine).await;
}

#[tokio::test]
async fn dropping_the_engine_ends_its_tickets() {
    let mut tickets = engine(config()).submit(vec![endless(1); 40]).unwrap();
    for ticket in &mut tickets {
        let (_, end) = read(ticket).await;
        assert!(matches!(end, Event::Finished { .. }), "{end:?}");
    }
}

#[test]
fn sizes_that_make_no_sense_are_refused() {
    let start = |config| {
        Engine::start(Box::new(Preferring), config)
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        start(EngineConfig {
            n_blocks: 0,
            ..config()
        }),
        "n_blocks must be at least 1"
    );
    assert_eq!(
        start(EngineConfig {
            max_num_seqs: 0,
            ..config()
        }),
        "max_num_seqs must be at least 1"
    );
    let huge = EngineConfig {
        n_blocks: 1 << 30,
        ..config()
    };
    assert_eq!(
        start(huge),
        "1073741824 blocks of 4 tokens are more than 2^32 slots"
    );
}
