//! Ends of answers: the reason, the last token, log-probabilities and times.

use super::*;

/// Token 7 wins every greedy draw, then token 8, then 5, which ends.
fn preferring() -> impl Forward + Send {
    FunctionModel::new(10, |batch: &Batch| {
        let row = [0.0, 0.0, 0.0, 0.0, 0.0, 4.0, 0.0, 6.0, 5.0, 0.0];
        let logits = Logits {
            values: row.repeat(batch.logits_at.len()),
            vocab_size: 10,
        };
        Ok(StepOutput {
            logits,
            ..StepOutput::default()
        })
    })
}

fn greedy() -> GenerateRequest {
    let sampling = SamplingParams {
        temperature: 0.0,
        ..SamplingParams::default()
    };
    GenerateRequest {
        prompt: vec![1, 2].into(),
        sampling: sampling.into(),
        max_tokens: Some(3),
        ..GenerateRequest::default()
    }
}

#[tokio::test]
async fn answers_end_as_requested() {
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
    let engine = Engine::start(Box::new(preferring()), config()).unwrap();
    for (request, tokens, reason) in cases {
        assert_eq!(answer(&mut submit_one(&engine, request)).await, (tokens, reason));
    }
    let ends_on_seven = EngineConfig {
        eos_token_ids: [7].into(),
        ..config()
    };
    let engine = Engine::start(Box::new(preferring()), ends_on_seven).unwrap();
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
async fn an_echo_repeats_its_token_up_to_max_tokens() {
    for step in [Duration::ZERO, Duration::from_millis(1)] {
        let engine = Engine::start_echo(Echo { token: 7, step }, &preferring(), config()).unwrap();
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
async fn the_token_that_ended_an_answer_has_logprobs() {
    let engine = Engine::start(Box::new(preferring()), config()).unwrap();
    let mut request = greedy();
    request.stop_token_ids = vec![7];
    for n_top in [None, Some(1)] {
        Arc::make_mut(&mut request.sampling).logprobs = n_top;
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
    let engine = Engine::start(Box::new(preferring()), config()).unwrap();
    let mut request = greedy();
    Arc::make_mut(&mut request.sampling).logprobs = Some(2);
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
        last: Some((7, Some(last))),
        ..
    } = end
    else {
        panic!("{end:?}")
    };
    assert_eq!(last, logprobs);
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
    assert_eq!(counters.steps.get(), 3);
    assert_eq!(counters.step_tokens.sum(), 4);
}
