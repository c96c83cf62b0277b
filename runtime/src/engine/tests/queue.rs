//! The way in: what is refused, and what goes first.

use super::*;
use crate::client::Client;

#[tokio::test]
async fn the_smaller_priority_goes_first_where_priorities_count() {
    for depth in DEPTHS {
        for (scheduling_policy, first) in [(SchedulingPolicy::Priority, 1), (SchedulingPolicy::Fcfs, 0)] {
            let (engine, gate) = gated(
                depth,
                EngineConfig {
                    max_num_seqs: 1,
                    scheduling_policy,
                    ..config()
                },
            );
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
}

#[tokio::test]
async fn a_full_queue_refuses_all_of_a_submission_and_recovers() {
    let (engine, gate) = gated(
        1,
        EngineConfig {
            max_num_seqs: 2,
            max_waiting: 3,
            ..config()
        },
    );
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
async fn a_small_request_overtakes_the_later_answers_of_large_ones() {
    for depth in DEPTHS {
        let (engine, gate) = gated(
            depth,
            EngineConfig {
                max_num_seqs: 8,
                max_waiting: 8,
                ..config()
            },
        );
        let large = || GenerateRequest { n: 5, ..endless(1) };
        let mut tickets = engine.submit(vec![large()]).unwrap();
        tickets.extend(engine.submit(vec![large()]).unwrap());
        for _ in 0..4 {
            gate.send(()).unwrap();
        }
        assert!(matches!(tickets[0].next().await, Some(Event::Token { .. })));
        let small = GenerateRequest {
            max_tokens: Some(2),
            ..endless(1)
        };
        let mut small = engine.submit(vec![small]).unwrap();
        drop(gate);
        assert_eq!(answer(&mut small[0]).await.0.len(), 2);
        let small_ended_at = small[0].timing().last_event_at;
        for ticket in &mut tickets {
            let (_, end) = read(ticket).await;
            assert!(matches!(end, Event::Finished { .. }), "{end:?}");
            assert!(small_ended_at < ticket.timing().last_event_at);
        }
        assert_ends_empty(engine).await;
    }
}

#[tokio::test]
async fn a_client_does_not_wait_for_all_requests_of_another() {
    for depth in DEPTHS {
        let (engine, gate) = gated(
            depth,
            EngineConfig {
                max_num_seqs: 4,
                max_waiting: 20,
                ..config()
            },
        );
        let of_client = |client: u8, request: GenerateRequest| GenerateRequest {
            client: Client::Key([client; 32]),
            ..request
        };
        let mut tickets = Vec::new();
        for _ in 0..16 {
            tickets.extend(engine.submit(vec![of_client(1, endless(1))]).unwrap());
        }
        for _ in 0..4 {
            gate.send(()).unwrap();
        }
        assert!(matches!(tickets[0].next().await, Some(Event::Token { .. })));
        let small = GenerateRequest {
            max_tokens: Some(2),
            ..endless(1)
        };
        let mut small = engine.submit(vec![of_client(2, small)]).unwrap();
        drop(gate);
        assert_eq!(answer(&mut small[0]).await.0.len(), 2);
        let mut ended_at = Vec::new();
        for ticket in &mut tickets {
            let (_, end) = read(ticket).await;
            assert!(matches!(end, Event::Finished { .. }), "{end:?}");
            ended_at.push(ticket.timing().last_event_at);
        }
        assert!(
            small[0].timing().last_event_at < ended_at[0],
            "it takes the seat of the last"
        );
        assert!(ended_at.is_sorted(), "requests of one client keep their order");
        assert_ends_empty(engine).await;
    }
}

#[tokio::test]
async fn a_request_in_the_background_gives_way() {
    for depth in DEPTHS {
        let (engine, gate) = gated(
            depth,
            EngineConfig {
                max_num_seqs: 2,
                ..config()
            },
        );
        let background = || GenerateRequest {
            n_overtaking_max: 9,
            ..endless(1)
        };
        let mut tickets = engine.submit(vec![background(), background()]).unwrap();
        for _ in 0..4 {
            gate.send(()).unwrap();
        }
        assert!(matches!(tickets[0].next().await, Some(Event::Token { .. })));
        // Of two clients: the second request of one would come in a later turn itself.
        let of_other = |client: u8| GenerateRequest {
            client: Client::Key([client; 32]),
            ..endless(1)
        };
        let mut others = engine.submit(vec![of_other(1)]).unwrap();
        others.extend(engine.submit(vec![of_other(2)]).unwrap());
        drop(gate);
        let mut last_ended_at = None;
        for ticket in others.iter_mut().chain(&mut tickets) {
            let (_, end) = read(ticket).await;
            assert!(matches!(end, Event::Finished { .. }), "{end:?}");
            let ended_at = ticket.timing().last_event_at;
            assert!(last_ended_at <= ended_at, "the others end first");
            last_ended_at = ended_at;
        }
        assert_ends_empty(engine).await;
    }
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

#[test]
fn sizes_that_make_no_sense_are_refused() {
    let start = |config| {
        Engine::start(Box::new(model(&self::config())), config)
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
