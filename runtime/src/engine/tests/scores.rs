//! Log-probabilities of prompts: exact, once, bounded, and a matter of their own request.

use super::*;
use crate::engine::sampler::given_logprobs;

/// The log-probabilities of a prompt by definition.
fn expected_scores(prompt: &Prompt, n_top: usize) -> Vec<Option<TokenLogprobs>> {
    let tokens: Vec<u32> = prompt.ids().collect();
    let mut reference = Reference::new(&groups(&[None]), prompt.len());
    let mut scores = vec![None];
    for pair in tokens.windows(2) {
        let logits = reference.push(pair[0]).logits(VOCAB_SIZE);
        scores.push(Some(given_logprobs(&logits, pair[1], n_top).unwrap()));
    }
    scores
}

/// The prompt's log-probabilities, and the answer after them.
async fn scored(ticket: &mut Ticket) -> (Vec<Option<TokenLogprobs>>, Vec<u32>) {
    let Some(Event::Prompt(scores)) = ticket.next().await else {
        panic!("the prompt does not come first");
    };
    (scores.to_vec(), answer(ticket).await.0)
}

/// Every other request wants its prompt scored; all prompts have a common beginning.
fn scoring_request(idx: usize) -> GenerateRequest {
    let mut request = request(idx);
    let n = request.prompt.len();
    let beginning = (0..n as u32 / 2).map(|token| token % 7);
    request.prompt = beginning.chain(request.prompt.ids().skip(n / 2)).collect();
    request.prompt_logprobs = idx.is_multiple_of(2).then_some(idx % 4);
    request
}

#[tokio::test]
async fn prompts_are_scored_exactly_in_chunks_with_the_cache_and_after_preemptions() {
    for depth in DEPTHS {
        let chunked = EngineConfig {
            max_num_batched_tokens: 17,
            ..config()
        };
        for config in [config(), scarce(), swapping(), chunked] {
            let engine = engine_of_depth(depth, config);
            let requests: Vec<_> = (0..60).map(scoring_request).collect();
            let tickets = engine.submit(requests.clone()).unwrap();
            for (mut ticket, request) in tickets.into_iter().zip(requests) {
                let expected = expected_answer(&request).0;
                let Some(n_top) = request.prompt_logprobs else {
                    assert_eq!(answer(&mut ticket).await.0, expected);
                    continue;
                };
                let scores = expected_scores(&request.prompt, n_top);
                assert_eq!(scored(&mut ticket).await, (scores, expected));
                assert_eq!(ticket.n_cached_tokens(), 0);
            }
            assert!(engine.counters().prefix_cache_hits.get() > 0);
        }
    }
}

#[tokio::test]
async fn each_answer_gets_the_scores_of_the_prompt_although_one_is_cancelled() {
    for depth in DEPTHS {
        let engine = engine_of_depth(depth, config());
        let request = GenerateRequest {
            n: 3,
            prompt_logprobs: Some(2),
            ..request(4)
        };
        let mut tickets = engine.submit(vec![request.clone()]).unwrap();
        drop(tickets.remove(0));
        for ticket in &mut tickets {
            assert_eq!(scored(ticket).await.0, expected_scores(&request.prompt, 2));
        }
        let one_token = GenerateRequest {
            prompt: vec![3].into(),
            n: 1,
            ..request
        };
        let mut ticket = engine.submit(vec![one_token]).unwrap().remove(0);
        assert_eq!(scored(&mut ticket).await.0, [None]);
    }
}

#[tokio::test]
async fn scoring_takes_no_more_logits_than_a_step_may_have() {
    for depth in DEPTHS {
        let config = EngineConfig {
            max_num_batched_tokens: 2048,
            max_model_len: 800,
            n_blocks: 1000,
            ..config()
        };
        let (seen, n_logits) = mpsc::channel();
        let count = move |batch: &Batch, _: &mut StepOutput| {
            seen.send(batch.logits_at.len()).unwrap();
            Ok(())
        };
        let model = Tap::new(model(&config).with_depth(depth), count);
        let engine = Engine::start(Box::new(model), config).unwrap();
        let long = |n: usize| GenerateRequest {
            prompt: (0..n as u32).map(|idx| idx * idx % VOCAB_SIZE as u32).collect(),
            prompt_logprobs: Some(0),
            max_tokens: Some(1),
            ..GenerateRequest::default()
        };
        let requests = vec![long(700), long(300)];
        let tickets = engine.submit(requests.clone()).unwrap();
        for (mut ticket, request) in tickets.into_iter().zip(requests) {
            assert_eq!(scored(&mut ticket).await.0, expected_scores(&request.prompt, 0));
        }
        drop(engine);
        let n_logits: Vec<usize> = n_logits.iter().collect();
        assert!(n_logits.iter().all(|&n| n <= 256 + 2), "{n_logits:?}");
        assert_eq!(n_logits.iter().sum::<usize>(), 700 + 300);
    }
}

#[tokio::test]
async fn a_prompt_that_cannot_be_scored_fails_its_own_request() {
    for depth in DEPTHS {
        let config = config();
        // No logits after one token of a prompt.
        let spoil = |batch: &Batch, output: &mut StepOutput| {
            let vocab_size = output.logits.vocab_size;
            for (row, &at) in output.logits.values.chunks_mut(vocab_size).zip(&batch.logits_at) {
                if batch.tokens[at as usize] == NAN_AFTER && batch.rows.len() > 1 && at == 2 {
                    row[0] = f32::NAN;
                }
            }
            Ok(())
        };
        let model = Tap::new(model(&config).with_depth(depth), spoil);
        let engine = Engine::start(Box::new(model), config).unwrap();
        let scored_request = GenerateRequest {
            prompt: vec![1, 2, NAN_AFTER, 4].into(),
            n: 2,
            prompt_logprobs: Some(1),
            ..request(1)
        };
        let other = request(2);
        let mut tickets = engine.submit(vec![scored_request, other.clone()]).unwrap();
        for ticket in &mut tickets[..2] {
            let failed = loop {
                match ticket.next().await.unwrap() {
                    Event::Prompt(_) | Event::Token { .. } => {}
                    end => break end,
                }
            };
            let is_bad = matches!(
                failed,
                Event::Failed(RequestFailure::Sampling(SampleError::BadLogit { .. }))
            );
            assert!(is_bad, "{failed:?}");
        }
        assert_eq!(answer(&mut tickets[2]).await, expected_answer(&other));
    }
}

const NAN_AFTER: u32 = 47;
