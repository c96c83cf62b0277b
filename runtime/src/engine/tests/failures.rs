//! Failures: of the model, which end the engine, and of one request's logits, which do not.

use super::*;

#[derive(Clone, Copy)]
enum Fault {
    Error,
    Panic,
    Nan,
}

/// An engine whose model fails once a context has 20 tokens.
fn faulty(depth: usize, fault: Fault) -> Engine {
    let inject = move |batch: &Batch, output: &mut StepOutput| {
        let Some(row_idx) = batch.rows.iter().position(|row| row.context_len == 20) else {
            return Ok(());
        };
        match fault {
            Fault::Error => {
                return Err(StepError::Batch {
                    reason: "an injected error".to_owned(),
                });
            }
            Fault::Panic => panic!("an injected panic"),
            Fault::Nan if depth == 1 => output.logits.values[row_idx * VOCAB_SIZE + 3] = f32::NAN,
            Fault::Nan => {
                output.drawn[row_idx] = Err(SampleError::BadLogit {
                    token: 3,
                    value: f32::NAN,
                });
            }
        }
        Ok(())
    };
    let model = Tap::new(model(&config()).with_depth(depth), inject);
    Engine::start(Box::new(model), config()).unwrap()
}

#[tokio::test]
async fn a_model_that_fails_ends_every_ticket_and_the_engine() {
    for depth in DEPTHS {
        for fault in [Fault::Error, Fault::Panic] {
            let engine = faulty(depth, fault);
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
}

#[tokio::test]
async fn logits_that_are_not_numbers_fail_their_request_only() {
    for depth in DEPTHS {
        let engine = faulty(depth, Fault::Nan);
        let mut tickets = engine.submit(vec![endless(10), endless(25)]).unwrap();
        let (tokens, end) = read(&mut tickets[0]).await;
        assert_eq!(tokens.len(), 10);
        let Event::Failed(RequestFailure::Sampling(SampleError::BadLogit { token: 3, .. })) = end else {
            panic!("{end:?}")
        };
        assert_eq!(answer(&mut tickets[1]).await.0.len(), 50);
        assert_eq!(answer(&mut submit_one(&engine, endless(30))).await.0.len(), 50);
        assert_ends_empty(engine).await;
    }
}
