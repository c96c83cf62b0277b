//! The engine thread: receive, schedule, submit, collect, commit, reply; turn after turn.
//!
//! Owns the model and everything that changes with a step. It never waits for a reader: an event channel
//! is as long as the answer may get, and a ticket that is gone is a request that is cancelled.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use crds::failure::chain;
use rayon::ThreadPool;

use super::channels::{Channels, Death, Phase, Submission};
use super::config::Limits;
use super::draw::{DrawPlan, Drawing, Outcome, guided, late_inputs, score};
use super::pace::{Gate, Gatekeeper, Queue};
use super::philox::{halves, philox4x32};
use super::reply::Replies;
use super::request::{Admitted, Task};
use super::scheduler::{DEPTH_MAX, Scheduler};
use super::sequence::{Branch, Next, Sequence, SequenceId};
use super::step::Step;
use super::turns::Turns;
use crate::batch::{Batch, Forward, StepError, StepOutput};

/// An idle engine turns at least this often, so that its heartbeat never looks older than this.
const IDLE_TURN_MAX: Duration = Duration::from_secs(1);

/// An engine whose requests wait for others turns at least this often, so that it notices tickets that are dropped.
const WAITING_TURN_MAX: Duration = Duration::from_millis(50);

/// Later requests that may overtake an answer for each answer to its request that comes before it. With few, a client
/// that sends small requests would soon wait for all answers of a large one; with many, the last of those answers would.
const TURNS_PER_ANSWER: u64 = 256;

/// Later submissions of other clients that may overtake one for each that its client has in the engine. Many would let
/// clients with two requests at a time take each other's places again and again.
const TURNS_PER_SUBMISSION: u64 = 16;

/// What the engine thread owns.
pub(super) struct EngineThread {
    model: Box<dyn Forward + Send>,
    /// Draws the tokens of a step.
    samplers: ThreadPool,
    scheduler: Scheduler,
    gatekeeper: Gatekeeper,
    n_running_max: usize,
    /// Further requests may come.
    is_open: bool,
    /// Until when waiting requests wait, if they do and nothing runs.
    waits_until: Option<Instant>,
    /// Steps in flight at most.
    depth: usize,
    /// The oldest first.
    in_flight: VecDeque<InFlight>,
    /// Batches of steps that are collected; kept, because the arrays are as long in the next step. At most `depth`.
    spare: Vec<Arc<Batch>>,
    seed: u64,
    channels: Channels,
    n_arrived: u64,
    turns: Turns,
    replies: Replies,
}

/// A step that is submitted and not collected.
struct InFlight {
    step: Step,
    batch: Arc<Batch>,
    plan: DrawPlan,
    /// The model lacks what the tokens of the step before decide.
    is_late_due: bool,
}

/// Why the engine thread cannot go on.
#[derive(Debug, thiserror::Error)]
enum Fatal {
    #[error("the model could not compute a step")]
    Forward(#[from] StepError),
    #[error("the engine thread panicked: {0}")]
    Panic(String),
}

impl Fatal {
    fn is_of_device(&self) -> bool {
        matches!(self, Fatal::Forward(StepError::Kernel(error)) if error.is_of_device())
    }
}

impl EngineThread {
    pub(super) fn new(
        model: Box<dyn Forward + Send>,
        samplers: ThreadPool,
        limits: &Limits,
        channels: Channels,
    ) -> EngineThread {
        let depth = model.depth().clamp(1, DEPTH_MAX);
        EngineThread {
            model,
            samplers,
            scheduler: Scheduler::new(limits, depth),
            gatekeeper: Gatekeeper::new(limits.config.pace),
            n_running_max: limits.n_running_max(),
            is_open: true,
            waits_until: None,
            depth,
            in_flight: VecDeque::new(),
            spare: Vec::new(),
            seed: limits.config.seed,
            n_arrived: 0,
            turns: Turns::new(TURNS_PER_SUBMISSION),
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
                let death = Death {
                    reason: chain(&fatal),
                    is_of_device: fatal.is_of_device(),
                };
                self.channels.death.get_or_init(|| death);
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
            self.is_open = is_open;
            if self.channels.gauge.is_aborting() {
                self.replies.abort_all(&mut self.scheduler);
            }
            self.replies.cancel_dropped(&mut self.scheduler);
            self.replies.end_unread(&mut self.scheduler);
            if !is_open && self.is_idle() {
                return Ok(());
            }
            self.turn()?;
        }
    }

    /// One turn: schedule and submit a step, collect the oldest one, give the newest what it lacks.
    fn turn(&mut self) -> Result<(), Fatal> {
        let step = self.schedule();
        let (is_new, is_alone) = (!step.is_empty(), step.is_alone);
        assert!(
            is_new || !self.in_flight.is_empty() || self.replies.is_empty() || self.waits_until.is_some(),
            "requests wait, and the scheduler finds nothing to do"
        );
        if is_new {
            self.submit(step)?;
        }
        // What the newest step lacks depends on the tokens of the oldest.
        if self.in_flight.len() > 1 || !is_new {
            self.collect()?;
        }
        self.send_late()?;
        // What comes after it depends on all that it computes.
        if is_new && is_alone {
            self.collect()?;
        }
        Ok(())
    }

    /// The next step, which those that wait join if the settings do not let them wait longer.
    fn schedule(&mut self) -> Step {
        let now = Instant::now();
        let queue = Queue {
            n_running: self.scheduler.n_running(),
            n_waiting: self.scheduler.n_waiting(),
            n_running_max: self.n_running_max,
        };
        // When no request can come any more, none is waited for.
        let gate = if self.is_open {
            self.gatekeeper.gate(queue, now)
        } else {
            Gate::Open
        };
        let step = self.scheduler.schedule_with(gate == Gate::Open);
        if !step.admitted.is_empty() {
            self.gatekeeper.note_prompts(now);
        }
        let is_idle = step.is_empty() && self.in_flight.is_empty();
        self.waits_until = match gate {
            Gate::ClosedUntil(open_at) if is_idle => Some(open_at),
            Gate::ClosedUntil(_) | Gate::Open => None,
        };
        self.note_scheduled(&step, now);
        step
    }

    /// Hands a step to the model, which computes it in its own time.
    fn submit(&mut self, step: Step) -> Result<(), Fatal> {
        let spare = self.spare.pop().filter(|batch| Arc::strong_count(batch) == 1);
        let mut batch = spare.unwrap_or_default();
        self.scheduler.fill(Arc::make_mut(&mut batch), &step);
        let plan = DrawPlan::new(&self.scheduler, &step, self.depth);
        let specs = plan.specs(&self.scheduler);
        self.model.submit(Arc::clone(&batch), &specs)?;
        if plan.is_drawn_by_model() && !plan.has_late_inputs {
            self.model.late(&[])?;
        }
        self.scheduler.assume(&step);
        self.in_flight.push_back(InFlight {
            is_late_due: plan.has_late_inputs,
            step,
            batch,
            plan,
        });
        Ok(())
    }

    /// Gives the newest step the masks of its grammars and the tokens that may not be drawn, once. They depend on the
    /// tokens of the step before, so that step must be committed.
    fn send_late(&mut self) -> Result<(), Fatal> {
        let Some(newest) = self.in_flight.back_mut() else {
            return Ok(());
        };
        if !std::mem::take(&mut newest.is_late_due) {
            return Ok(());
        }
        let replies = &mut self.replies;
        let mut drawings = newest.plan.drawings(&self.scheduler, |id| replies.lend_guide(id));
        let inputs = late_inputs(&self.samplers, &mut drawings);
        self.model.late(&inputs)?;
        drop(inputs);
        return_guides(&mut self.replies, drawings);
        Ok(())
    }

    /// Waits for the oldest step, commits it and replies.
    fn collect(&mut self) -> Result<(), Fatal> {
        let Some(InFlight {
            step, batch, plan, ..
        }) = self.in_flight.pop_front()
        else {
            return Ok(());
        };
        let replies = &mut self.replies;
        let mut drawings = plan.drawings(&self.scheduler, |id| replies.lend_guide(id));
        let StepOutput {
            logits,
            drawn,
            pooled,
        } = guided(&self.samplers, &mut drawings, || self.model.collect())?;
        self.spare.push(batch);
        let logits = plan.logits(&logits, self.model.vocab_size());
        plan.hand_over(drawn, &mut drawings);
        let outcomes = plan.draw(&self.samplers, &mut drawings, &logits);
        return_guides(&mut self.replies, drawings);
        let next: Vec<Option<Next>> = outcomes.iter().map(next).collect();
        let scored = score(&self.samplers, &self.scheduler, &step, &logits);
        let advanced = self.replies.advance_searches(&self.scheduler, &step, &logits);
        let unscored = self.replies.send_scores(&mut self.scheduler, &step, scored);
        let progress = self.scheduler.commit(&step, &next);
        self.replies.send_beams(&mut self.scheduler, advanced);
        self.replies.send_texts(&self.scheduler, progress, outcomes);
        self.replies.fail_unscored(&mut self.scheduler, unscored);
        self.replies.send_pooled(&self.scheduler, &step, pooled);
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.replies.is_empty() && self.in_flight.is_empty()
    }

    /// Takes what was submitted, and waits a while if there is nothing else to do; false once the intake
    /// is closed and empty.
    fn receive(&mut self) -> bool {
        let waits_until = self.waits_until.take();
        let until_open = waits_until.map(|open_at| open_at.saturating_duration_since(Instant::now()));
        if self.is_idle() || until_open.is_some() {
            let timeout = until_open.map_or(IDLE_TURN_MAX, |until_open| until_open.min(WAITING_TURN_MAX));
            match self.channels.intake.recv_timeout(timeout) {
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
        let Some(client) = submissions.first().map(|first| first.admitted.client) else {
            return;
        };
        let submission_turn = self.turns.next(&self.scheduler.present(client));
        let mut turn = submission_turn;
        for Submission {
            admitted,
            events,
            queued_at,
        } in submissions
        {
            let n_prompt = admitted.prompt.len();
            let branches = self.branches(&admitted, turn + admitted.n_overtaking_max);
            turn += branches.len() as u64 * TURNS_PER_ANSWER;
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
            let sequence = Sequence::new(admitted, branches, submission_turn, salt);
            self.scheduler.add(sequence);
        }
    }

    /// Ids and seeds of a request's answers, the first of which has a turn. The texts of a search have one together.
    fn branches(&mut self, admitted: &Admitted, turn: u64) -> Vec<Branch> {
        let priority = admitted.priority;
        let (seed, turns_each) = match &admitted.task {
            Task::Generate { sampling, .. } => (sampling.seed, TURNS_PER_ANSWER),
            Task::Search { .. } | Task::Pool { .. } => (None, 0),
        };
        let first = self.n_arrived;
        self.n_arrived += admitted.n_branches as u64;
        let branch = |arrival: u64| Branch {
            id: SequenceId {
                priority,
                turn: turn + (arrival - first) * turns_each,
                arrival,
            },
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

    fn note_scheduled(&mut self, step: &Step, now: Instant) {
        let counters = &self.channels.gauge.counters;
        for admission in &step.admitted {
            counters.prefix_cache_queries.add(admission.n_queried);
            counters.prefix_cache_hits.add(admission.n_cached);
            self.replies.note_admission(admission, now);
        }
        if !step.is_empty() {
            counters.steps.add(1);
            counters.step_tokens.observe(step.n_tokens);
        }
        counters.preemptions.add(step.preempted.len());
        self.replies.publish(&self.scheduler);
    }
}

/// Returns the guides that the drawings borrowed.
fn return_guides(replies: &mut Replies, drawings: Vec<Drawing<'_>>) {
    for (id, guide) in drawings.into_iter().map(Drawing::into_guide) {
        replies.return_guide(id, guide);
    }
}

/// The token of a draw, if there is one.
fn next(outcome: &Option<Outcome>) -> Option<Next> {
    let drawn = outcome.as_ref()?.as_ref().ok()?;
    Some(drawn.next())
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
