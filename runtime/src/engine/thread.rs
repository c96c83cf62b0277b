//! The engine thread: receive, schedule, run, sample, commit, reply; turn after turn.
//!
//! Owns the model and everything that changes with a step. It never waits for a reader: an event channel
//! is as long as the answer may get, and a ticket that is gone is a request that is cancelled.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use rayon::ThreadPool;

use super::channels::{Channels, Phase, Submission};
use super::config::Limits;
use super::draw::{Drawing, Drawn, draw, guided, score};
use super::philox::{halves, philox4x32};
use super::reply::Replies;
use super::request::{Admitted, Task};
use super::scheduler::{Scheduler, Step};
use super::sequence::{Branch, Next, Sequence, SequenceId};
use crate::batch::{Batch, Forward, StepError, StepOutput};

/// An idle engine turns at least this often, so that its heartbeat never looks older than this.
const IDLE_TURN_MAX: Duration = Duration::from_secs(1);

/// What the engine thread owns.
pub(super) struct EngineThread {
    model: Box<dyn Forward + Send>,
    /// Draws the tokens of a step.
    samplers: ThreadPool,
    scheduler: Scheduler,
    /// The arrays of the step; kept, because they are as long in the next.
    batch: Batch,
    seed: u64,
    channels: Channels,
    n_arrived: u64,
    replies: Replies,
}

/// Why the engine thread cannot go on.
#[derive(Debug, thiserror::Error)]
enum Fatal {
    #[error("the model could not compute a step")]
    Forward(#[from] StepError),
    #[error("the engine thread panicked: {0}")]
    Panic(String),
}

impl EngineThread {
    pub(super) fn new(
        model: Box<dyn Forward + Send>,
        samplers: ThreadPool,
        limits: &Limits,
        channels: Channels,
    ) -> EngineThread {
        EngineThread {
            model,
            samplers,
            scheduler: Scheduler::new(limits),
            batch: Batch::default(),
            seed: limits.config.seed,
            n_arrived: 0,
            replies: Replies::new(Arc::clone(&channels.gauge)),
            channels,
        }
    }

    /// Turns until the intake is closed and everything accepted has ended, or until the model fails.
    pub(super) fn run(mut self) {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.turn_until_closed()))
            .unwrap_or_else(|panic| Err(Fatal::Panic(panic_message(panic.as_ref()))));
        match outcome {
            Ok(()) => {
                self.channels.phase.send_replace(Phase::Stopped);
            }
            Err(fatal) => {
                tracing::error!(error = &fatal as &dyn std::error::Error, "the engine is dead");
                self.channels.phase.send_replace(Phase::Dead);
                self.fail_all();
            }
        }
    }

    /// Fails everything that was accepted.
    fn fail_all(&mut self) {
        while let Ok(submissions) = self.channels.intake.try_recv() {
            self.accept(submissions);
        }
        self.replies.fail_all(&mut self.scheduler);
    }

    fn turn_until_closed(&mut self) -> Result<(), Fatal> {
        loop {
            self.channels.gauge.beat();
            let is_open = self.receive();
            if self.channels.gauge.is_aborting() {
                self.replies.abort_all(&mut self.scheduler);
            }
            self.replies.cancel_dropped(&mut self.scheduler);
            if !is_open && self.replies.is_empty() {
                return Ok(());
            }
            self.turn()?;
        }
    }

    /// One step: schedule, run, sample, commit, reply.
    fn turn(&mut self) -> Result<(), Fatal> {
        let step = self.scheduler.schedule();
        if step.rows.is_empty() {
            assert!(
                self.replies.is_empty(),
                "requests wait, and the scheduler finds nothing to do"
            );
            return Ok(());
        }
        self.note_scheduled(&step);
        self.scheduler.fill(&mut self.batch, &step);
        let mut drawings = drawings(&self.scheduler, &mut self.replies, &step);
        let compute = || self.model.forward(&self.batch);
        let StepOutput { logits, pooled } = guided(&self.samplers, &mut drawings, compute)?;
        let n_values =
            step.with_logits().map(|(rows, _)| rows.len()).sum::<usize>() * self.model.vocab_size();
        assert_eq!(
            logits.values.len(),
            n_values,
            "the model returned logits of another shape"
        );
        let drawn = draw(&self.samplers, &mut drawings, &logits);
        let next: Vec<Option<Next>> = drawn
            .iter()
            .map(|drawn| drawn.as_ref().ok().map(Drawn::next))
            .collect();
        return_guides(&mut self.replies, drawings);
        let scored = score(&self.samplers, &self.scheduler, &step, &logits);
        let advanced = self.replies.advance_searches(&self.scheduler, &step, &logits);
        let unscored = self.replies.send_scores(&mut self.scheduler, &step, scored);
        let progress = self.scheduler.commit(&step, &next);
        self.replies.send_beams(&mut self.scheduler, advanced);
        self.replies.send_texts(&self.scheduler, progress, drawn);
        self.replies.fail_unscored(&mut self.scheduler, unscored);
        self.replies.send_pooled(&self.scheduler, &step, pooled);
        Ok(())
    }

    /// Takes what was submitted, and waits a while if there is nothing else to do; false once the intake
    /// is closed and empty.
    fn receive(&mut self) -> bool {
        if self.replies.is_empty() {
            match self.channels.intake.recv_timeout(IDLE_TURN_MAX) {
                Ok(submissions) => self.accept(submissions),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        loop {
            match self.channels.intake.try_recv() {
                Ok(submissions) => self.accept(submissions),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn accept(&mut self, submissions: Vec<Submission>) {
        for Submission {
            admitted,
            events,
            queued_at,
        } in submissions
        {
            let n_prompt = admitted.prompt.len();
            let branches = self.branches(&admitted);
            tracing::debug!(
                id = branches[0].id.arrival,
                n_prompt,
                n_branches = branches.len(),
                queued_ms = queued_at.elapsed().as_millis(),
                "request arrived"
            );
            self.replies.add(&admitted, &branches, events);
            // Two salts in one: a client's may equal the model's, their mixture practically never another's.
            let model_salt = self.model.prefix_salt(n_prompt);
            let salt = model_salt ^ admitted.cache_salt.rotate_left(1);
            self.scheduler.add(Sequence::new(admitted, branches, salt));
        }
    }

    /// Ids and seeds of a request's answers.
    fn branches(&mut self, admitted: &Admitted) -> Vec<Branch> {
        let priority = admitted.priority;
        let seed = match &admitted.task {
            Task::Generate { sampling, .. } => sampling.seed,
            Task::Search { .. } | Task::Pool { .. } => None,
        };
        let first = self.n_arrived;
        self.n_arrived += admitted.n_branches as u64;
        let branch = |arrival: u64| Branch {
            id: SequenceId { priority, arrival },
            seed: seed.map_or_else(
                || self.derive_seed(arrival),
                |seed| seed.wrapping_add(arrival - first),
            ),
        };
        (first..self.n_arrived).map(branch).collect()
    }

    /// The seed of a request that brought none: a function of the engine's seed and the order of arrival.
    fn derive_seed(&self, arrival: u64) -> u64 {
        let [low, high] = halves(arrival);
        let words = philox4x32(halves(self.seed), [low, high, 0, u32::MAX]);
        u64::from(words[0]) << 32 | u64::from(words[1])
    }

    fn note_scheduled(&mut self, step: &Step) {
        let now = Instant::now();
        let counters = &self.channels.gauge.counters;
        for admission in &step.admitted {
            counters.prefix_cache_queries.add(admission.n_queried);
            counters.prefix_cache_hits.add(admission.n_cached);
            self.replies.note_admission(admission, now);
        }
        counters.steps.add(1);
        counters.step_tokens.observe(step.n_tokens);
        counters.preemptions.add(step.preempted.len());
        self.replies.publish(&self.scheduler);
    }
}

/// The branches that draw in a step: one after the other those of each row, in the order of the rows.
fn drawings<'a>(scheduler: &'a Scheduler, replies: &mut Replies, step: &Step) -> Vec<Drawing<'a>> {
    let mut drawings = Vec::new();
    for (logits_idx, row) in step.drawing() {
        let sequence = scheduler.sequence(row.id);
        if sequence.is_searching() {
            continue;
        }
        drawings.extend(sequence.branches().iter().map(|&branch| Drawing {
            branch,
            sequence,
            logits_idx,
            guide: replies.lend_guide(branch.id),
        }));
    }
    drawings
}

/// Returns the guides that [`drawings`] borrowed.
fn return_guides(replies: &mut Replies, drawings: Vec<Drawing<'_>>) {
    for Drawing { branch, guide, .. } in drawings {
        replies.return_guide(branch.id, guide);
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
