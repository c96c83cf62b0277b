//! An engine that computes nothing: every answer is one token, again and again, and complete at once.

use std::time::Instant;

use super::Phase;
use super::sequence::Task;
use super::thread::{Links, Submission};
use super::ticket::{Event, FinishReason, RequestFailure, Stamped};

/// Answers until the intake is closed.
pub(super) fn run(token: u32, links: Links) {
    for submission in links.intake.iter().flatten() {
        let n_answers = submission.events.len();
        answer(token, submission);
        (0..n_answers).for_each(|_| links.pulse.ended(None));
    }
    links.phase.send_replace(Phase::Stopped);
}

/// Sends every answer whole; a ticket that is gone takes none.
fn answer(token: u32, submission: Submission) {
    let now = Instant::now();
    let stamped = |event| Stamped {
        event,
        at: now,
        scheduled_at: Some(now),
        first_token_at: Some(now),
        n_cached: 0,
    };
    let n_tokens = match submission.admitted.task {
        Task::Generate { stop, .. } => Some(stop.max_tokens),
        Task::Search { .. } | Task::Pool { .. } => None,
    };
    let end = match n_tokens {
        Some(n_generated) => Event::Finished {
            reason: FinishReason::Length,
            last: Some((token, None)),
            ended_by: None,
            n_generated,
            cumulative_logprob: None,
        },
        None => Event::Failed(RequestFailure::EngineDead),
    };
    for events in submission.events {
        for _ in 1..n_tokens.unwrap_or(1) {
            let logprobs = None;
            let _gone = events.try_send(stamped(Event::Token { token, logprobs }));
        }
        let _gone = events.try_send(stamped(end.clone()));
    }
}
