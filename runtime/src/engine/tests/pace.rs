//! SCHEDULER_DELAY_FACTOR and BATCH_WAIT_TIMEOUT, by the batches that a model is given.

use std::sync::Mutex;
use std::time::Duration;

use super::*;

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

/// The lengths of the prompts in each step, in the order of the steps.
type Steps = Arc<Mutex<Vec<Vec<usize>>>>;

/// An engine that notes what each step computes; with a gate as in [`gated`].
fn watched(config: EngineConfig) -> (Engine, Steps, mpsc::SyncSender<()>) {
    let steps = Steps::default();
    let (gate, permits) = mpsc::sync_channel(1);
    let noted = Arc::clone(&steps);
    let model = Tap::new(model(&config), move |batch: &Batch, _: &mut StepOutput| {
        let prompts = batch.rows.iter().map(|row| row.prompt_len).collect();
        noted.lock().unwrap().push(prompts);
        let _ = permits.recv();
        Ok(())
    });
    (Engine::start(Box::new(model), config).unwrap(), steps, gate)
}

#[tokio::test]
async fn an_idle_engine_waits_until_its_batch_is_full() {
    let pace = Pace {
        batch_wait: LONG,
        ..Pace::default()
    };
    let (engine, steps, gate) = watched(EngineConfig {
        max_num_seqs: 2,
        pace,
        ..config()
    });
    drop(gate);
    let mut tickets = engine.submit(vec![endless(3)]).unwrap();
    tickets.extend(engine.submit(vec![endless(5)]).unwrap());
    for ticket in &mut tickets {
        assert_eq!(answer(ticket).await.1, FinishReason::Length);
    }
    let mut first = steps.lock().unwrap()[0].clone();
    first.sort_unstable();
    assert_eq!(first, [3, 5]);
    assert_ends_empty(engine).await;
}

#[tokio::test]
async fn a_draining_engine_waits_for_nobody() {
    let pace = Pace {
        batch_wait: LONG,
        ..Pace::default()
    };
    let (engine, _, gate) = watched(EngineConfig { pace, ..config() });
    drop(gate);
    let mut ticket = submit_one(&engine, endless(3));
    engine.drain();
    assert_eq!(answer(&mut ticket).await.1, FinishReason::Length);
    assert_ends_empty(engine).await;
}

#[tokio::test]
async fn prompts_wait_while_others_run_by_the_factor() {
    for (delay_factor, waits) in [(0.0, false), (1e9, true)] {
        let pace = Pace {
            delay_factor,
            ..Pace::default()
        };
        let (engine, steps, gate) = watched(EngineConfig { pace, ..config() });
        let mut first = submit_one(&engine, endless(3));
        gate.send(()).unwrap();
        assert!(matches!(
            first.next().await,
            Some(Event::Prompt(_) | Event::Token { .. })
        ));
        let mut second = submit_one(&engine, endless(5));
        drop(gate);
        for ticket in [&mut first, &mut second] {
            let (_, end) = read(ticket).await;
            assert!(matches!(end, Event::Finished { .. }), "{end:?}");
        }
        let are_together = steps.lock().unwrap().iter().any(|prompts| prompts.len() == 2);
        assert_eq!(are_together, !waits, "{delay_factor}");
        assert_ends_empty(engine).await;
    }
}
