//! An engine that computes nothing: every answer is one token, again and again, at a pace or all at once.

use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use super::channels::{Channels, Phase, Submission};
use super::request::{FinishReason, Task};
use super::ticket::{Event, EventSender, RequestFailure, Stamped};

/// What every answer consists of.
#[derive(Clone, Copy, Debug)]
pub struct Echo {
    /// The one token.
    pub token: u32,
    /// Time between two tokens of an answer; zero: all tokens come at once.
    pub step: Duration,
}

/// An answer that goes on.
struct Answer {
    events: EventSender,
    n_tokens: usize,
    n_left: usize,
    began_at: Instant,
}

/// Answers until the intake is closed. The first token of an answer is there at once, and all that go on get another at
/// each step; with steps of no length all tokens are there at once.
pub(super) fn run(Echo { token, step }: Echo, channels: Channels) {
    let mut answers: Vec<Answer> = Vec::new();
    let mut next_step_at = Instant::now();
    loop {
        let received = if answers.is_empty() {
            channels.intake.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            let wait = next_step_at.saturating_duration_since(Instant::now());
            channels.intake.recv_timeout(wait)
        };
        match received {
            Ok(submissions) => {
                if answers.is_empty() {
                    next_step_at = Instant::now() + step;
                }
                let n_before = answers.len();
                answers.extend(submissions.into_iter().flat_map(begin));
                for answer in &mut answers[n_before..] {
                    answer.send(token);
                    while step.is_zero() && answer.n_left > 0 {
                        answer.send(token);
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                next_step_at += step;
                answers.iter_mut().for_each(|answer| answer.send(token));
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
        for ended in answers.extract_if(.., |answer| answer.n_left == 0) {
            channels.gauge.ended(Some(ended.began_at));
        }
    }
    channels.phase.send_replace(Phase::Stopped);
}

/// The answers of a submission; a request that generates no text fails at once.
fn begin(submission: Submission) -> impl Iterator<Item = Answer> {
    let n_tokens = match submission.admitted.task {
        Task::Generate { stop, .. } => stop.max_tokens,
        Task::Search { .. } | Task::Pool { .. } => 0,
    };
    let began_at = Instant::now();
    submission.events.into_iter().map(move |events| Answer {
        events,
        n_tokens,
        n_left: n_tokens.max(1),
        began_at,
    })
}

impl Answer {
    /// Sends one more token; a dropped ticket ends the answer.
    fn send(&mut self, token: u32) {
        self.n_left -= 1;
        let logprobs = None;
        let event = match (self.n_tokens, self.n_left) {
            (0, _) => Event::Failed(RequestFailure::EngineDead),
            (n_generated, 0) => Event::Finished {
                reason: FinishReason::Length,
                last: Some((token, logprobs)),
                ended_by: None,
                n_generated,
            },
            _ => Event::Token { token, logprobs },
        };
        let stamped = Stamped {
            event,
            at: Instant::now(),
            scheduled_at: Some(self.began_at),
            first_token_at: Some(self.began_at),
            n_cached: 0,
        };
        self.events.send(stamped);
        if self.events.is_closed() {
            self.n_left = 0;
        }
    }
}
