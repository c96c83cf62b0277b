//! How long new prompts wait so that more of them are computed together.
//!
//! Owns SCHEDULER_DELAY_FACTOR and BATCH_WAIT_TIMEOUT. Its methods receive the time. Must not know sequences.

use std::time::{Duration, Instant};

use crds::settings::EngineSettings;

/// How long new prompts wait.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// While sequences run: this factor times the time that the last prompts took.
    pub delay_factor: f64,
    /// While none runs: this long for further requests.
    pub batch_wait: Duration,
}

/// What waits and runs before a step.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Queue {
    /// Sequences that run.
    pub(super) n_running: usize,
    /// Those that wait to run.
    pub(super) n_waiting: usize,
    /// As many as can run at once.
    pub(super) n_running_max: usize,
}

/// Whether waiting prompts may join the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// They may.
    Open,
    /// Not before this time.
    ClosedUntil(Instant),
}

/// Opens and closes the way from the queue to the steps.
#[derive(Debug)]
pub(super) struct Gatekeeper {
    pace: Pace,
    /// Since when some wait.
    waits_since: Option<Instant>,
    /// When the step with the last prompts was scheduled, until the next step is.
    prompts_at: Option<Instant>,
    /// How long the last prompts took.
    prompts_took: Duration,
}

impl Pace {
    /// The pace that the settings choose.
    pub fn of(settings: &EngineSettings) -> Pace {
        Pace {
            delay_factor: settings.scheduler_delay_factor(),
            batch_wait: Duration::from_secs_f64(settings.batch_wait_timeout()),
        }
    }

    /// Whether prompts never wait.
    fn is_at_once(&self) -> bool {
        *self == Pace::default()
    }
}

impl Gatekeeper {
    pub(super) fn new(pace: Pace) -> Gatekeeper {
        Gatekeeper {
            pace,
            waits_since: None,
            prompts_at: None,
            prompts_took: Duration::ZERO,
        }
    }

    /// Whether those that wait may join the step that is scheduled `now`.
    pub(super) fn gate(&mut self, queue: Queue, now: Instant) -> Gate {
        if self.pace.is_at_once() {
            return Gate::Open;
        }
        if let Some(scheduled_at) = self.prompts_at.take() {
            self.prompts_took = now.saturating_duration_since(scheduled_at);
        }
        if queue.n_waiting == 0 {
            self.waits_since = None;
            return Gate::Open;
        }
        let waits_since = *self.waits_since.get_or_insert(now);
        let is_full = queue.n_waiting >= queue.n_running_max;
        let wait = match queue.n_running {
            0 if is_full => Duration::ZERO,
            0 => self.pace.batch_wait,
            _ => times(self.prompts_took, self.pace.delay_factor),
        };
        match waits_since.checked_add(wait) {
            Some(open_at) if open_at > now => Gate::ClosedUntil(open_at),
            Some(_) | None => Gate::Open,
        }
    }

    /// Notes that a step computes prompts which were scheduled at this time.
    pub(super) fn note_prompts(&mut self, scheduled_at: Instant) {
        self.prompts_at = Some(scheduled_at);
        self.waits_since = None;
    }
}

/// A duration times a factor, at most a year.
fn times(duration: Duration, factor: f64) -> Duration {
    const YEAR_S: f64 = 365.0 * 86_400.0;
    Duration::from_secs_f64((duration.as_secs_f64() * factor).min(YEAR_S))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn queue(n_running: usize, n_waiting: usize) -> Queue {
        Queue {
            n_running,
            n_waiting,
            n_running_max: 4,
        }
    }

    #[test]
    fn without_settings_nothing_waits() {
        let mut gatekeeper = Gatekeeper::new(Pace::default());
        let now = Instant::now();
        gatekeeper.note_prompts(now);
        assert_eq!(gatekeeper.gate(queue(1, 1), now + 100 * MS), Gate::Open);
    }

    #[test]
    fn prompts_wait_the_factor_times_the_time_of_the_last_ones() {
        let mut gatekeeper = Gatekeeper::new(Pace {
            delay_factor: 2.0,
            ..Pace::default()
        });
        let start = Instant::now();
        assert_eq!(gatekeeper.gate(queue(0, 1), start), Gate::Open);
        gatekeeper.note_prompts(start);
        // They took 30 ms.
        let arrived = start + 30 * MS;
        let closed = Gate::ClosedUntil(arrived + 60 * MS);
        assert_eq!(gatekeeper.gate(queue(1, 1), arrived), closed);
        assert_eq!(gatekeeper.gate(queue(1, 2), arrived + 59 * MS), closed);
        assert_eq!(gatekeeper.gate(queue(1, 2), arrived + 60 * MS), Gate::Open);
        // Nothing is gained by waiting for nobody.
        assert_eq!(gatekeeper.gate(queue(0, 2), arrived + MS), Gate::Open);
    }

    #[test]
    fn an_idle_engine_waits_for_a_fuller_batch() {
        let mut gatekeeper = Gatekeeper::new(Pace {
            batch_wait: 100 * MS,
            ..Pace::default()
        });
        let start = Instant::now();
        let closed = Gate::ClosedUntil(start + 100 * MS);
        assert_eq!(gatekeeper.gate(queue(0, 1), start), closed);
        assert_eq!(gatekeeper.gate(queue(0, 3), start + 99 * MS), closed);
        assert_eq!(gatekeeper.gate(queue(0, 4), start + 99 * MS), Gate::Open);
        assert_eq!(gatekeeper.gate(queue(0, 1), start + 100 * MS), Gate::Open);
        assert_eq!(gatekeeper.gate(queue(1, 1), start), Gate::Open);
    }
}
