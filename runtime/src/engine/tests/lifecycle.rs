//! Cancelling, draining and aborting: every ticket ends, and no block stays taken.

use super::*;

#[tokio::test]
async fn an_answer_of_several_that_is_cancelled_leaves_the_others() {
    for depth in DEPTHS {
        let (engine, gate) = gated(depth, config());
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
}

#[tokio::test]
async fn two_hundred_tickets_with_random_cancellations_leave_no_block() {
    for depth in DEPTHS {
        let engine = engine_of_depth(
            depth,
            EngineConfig {
                n_blocks: 40,
                ..config()
            },
        );
        let tickets = engine.submit((0..200).map(request).collect()).unwrap();
        let readers = tickets.into_iter().enumerate().map(|(idx, mut ticket)| {
            tokio::spawn(async move {
                let mut dice = Dice::new(1_000 + idx as u64);
                if dice.one_in(2) {
                    let (tokens, _) = answer(&mut ticket).await;
                    assert_eq!(tokens, expected_answer(&request(idx)).0);
                    return 0_u64;
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
        // Some of those who leave have the complete answer by then.
        let n_cancelled = engine.counters().cancelled.get();
        assert!((1..=n_left).contains(&n_cancelled), "{n_cancelled} of {n_left}");
        assert_ends_empty(engine).await;
    }
}

#[tokio::test]
async fn draining_finishes_what_was_accepted_and_refuses_the_rest() {
    for depth in DEPTHS {
        let (engine, gate) = gated(
            depth,
            EngineConfig {
                max_num_seqs: 2,
                ..config()
            },
        );
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
}

#[tokio::test]
async fn aborting_ends_running_and_waiting_tickets() {
    for depth in DEPTHS {
        let (engine, gate) = gated(
            depth,
            EngineConfig {
                max_num_seqs: 2,
                ..config()
            },
        );
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
        assert_ends_empty(engine).await;
    }
}

#[tokio::test]
async fn a_dropped_ticket_frees_its_place_and_blocks_on_the_next_turn() {
    let (engine, gate) = gated(
        1,
        EngineConfig {
            max_num_seqs: 1,
            max_waiting: 1,
            ..config()
        },
    );
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
    for depth in DEPTHS {
        let mut tickets = engine_of_depth(depth, config())
            .submit(vec![endless(1); 40])
            .unwrap();
        for ticket in &mut tickets {
            let (_, end) = read(ticket).await;
            assert!(matches!(end, Event::Finished { .. }), "{end:?}");
        }
    }
}
