//! The engine thread: receive, schedule, run, sample, commit, reply; turn after turn.
//!
//! Owns the model and everything that changes with a step. It never waits for a reader: an event channel
//! is as long as the answer may get, and a ticket that is gone is a request that is cancelled.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use rayon::ThreadPool;
use tokio::sync::mpsc;

use super::beam::{BeamSearch, Continuation};
use super::channels::{Channels, Phase, Submission};
use super::config::Limits;
use super::draw::{Drawing, Drawn, Guide, Outcome, Scored, draw, guided, score};
use super::philox::{halves, philox4x32};
use super::request::{Admitted, FinishReason, Task};
use super::sampler::{SampleError, Sampled, TokenLogprobs};
use super::scheduler::{Progress, Scheduler, Step, Yield};
use super::sequence::{Branch, Next, Sequence, SequenceId};
use super::ticket::{Event, RequestFailure, Stamped};
use crate::batch::{Batch, Forward, Logits, StepError, StepOutput};

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
    replies: BTreeMap<SequenceId, Reply>,
}

/// The way back to one ticket.
struct Reply {
    events: mpsc::Sender<Stamped>,
    /// Prompt tokens to count when the prompt is computed; one of several answers counts them.
    n_prompt: usize,
    n_cached: usize,
    search: Option<BeamSearch>,
    /// Where the answer is in its grammar; on loan while a step draws. It follows the tokens, so that no preemption
    /// concerns it.
    guide: Option<Guide>,
    cumulative_logprob: Option<f64>,
    scheduled_at: Option<Instant>,
    first_token_at: Option<Instant>,
}

/// Why the engine thread cannot go on.
#[derive(Debug, thiserror::Error)]
enum Fatal {
    #[error("the model could not compute a step")]
    Forward(#[from] StepError),
    #[error("the engine thread panicked: {0}")]
    Panic(String),
}

/// A search, and how it goes on.
type Searched = (SequenceId, Result<Vec<Continuation>, SampleError>);

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
            channels,
            n_arrived: 0,
            replies: BTreeMap::new(),
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

    fn turn_until_closed(&mut self) -> Result<(), Fatal> {
        loop {
            self.channels.gauge.beat();
            let is_open = self.receive();
            if self.channels.gauge.is_aborting() {
                self.abort_all();
            }
            self.cancel_dropped();
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
        give_back(&mut self.replies, drawings);
        let scored = score(&self.samplers, &self.scheduler, &step, &logits);
        let searched = self.search(&step, &logits);
        let unscored = self.reply_prompts(&step, scored);
        let progress = self.scheduler.commit(&step, &next);
        self.reply_searched(searched);
        self.reply(progress, drawn);
        self.fail(unscored);
        self.reply_pooled(&step, pooled);
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
            for (idx, (branch, events)) in branches.iter().zip(events).enumerate() {
                let reply = Reply {
                    events,
                    n_prompt: if idx == 0 { n_prompt } else { 0 },
                    n_cached: 0,
                    search: match admitted.task {
                        Task::Search { params, .. } => Some(BeamSearch::new(params)),
                        Task::Generate { .. } | Task::Pool { .. } => None,
                    },
                    guide: match &admitted.task {
                        Task::Generate { grammar, .. } => grammar.as_ref().map(Guide::new),
                        Task::Search { .. } | Task::Pool { .. } => None,
                    },
                    cumulative_logprob: None,
                    scheduled_at: None,
                    first_token_at: None,
                };
                self.replies.insert(branch.id, reply);
            }
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

    /// Forgets requests whose ticket was dropped.
    fn cancel_dropped(&mut self) {
        let is_gone = |reply: &Reply| reply.events.is_closed();
        let gone: Vec<SequenceId> = self
            .replies
            .iter()
            .filter(|(_, reply)| is_gone(reply))
            .map(|(&id, _)| id)
            .collect();
        for id in gone {
            self.scheduler.cancel(id);
            self.forget(id);
            self.channels.gauge.counters.cancelled.add(1);
        }
        self.publish();
    }

    fn note_scheduled(&mut self, step: &Step) {
        let now = Instant::now();
        let counters = &self.channels.gauge.counters;
        for admission in &step.admitted {
            counters.prefix_cache_queries.add(admission.n_queried);
            counters.prefix_cache_hits.add(admission.n_cached);
            // A search has one reply, whatever becomes of it.
            for id in &admission.branches {
                let Some(reply) = self.replies.get_mut(id) else {
                    continue;
                };
                reply.scheduled_at = Some(now);
                reply.n_cached = admission.n_cached;
            }
        }
        counters.steps.add(1);
        counters.step_tokens.observe(step.n_tokens);
        counters.preemptions.add(step.preempted.len());
        self.publish();
    }

    /// Continues the texts of every search whose rows yield logits.
    fn search(&mut self, step: &Step, logits: &Logits) -> Vec<Searched> {
        let texts: Vec<(usize, &Sequence)> = step
            .drawing()
            .map(|(idx, row)| (idx, self.scheduler.sequence(row.id)))
            .filter(|(_, sequence)| sequence.is_searching())
            .collect();
        let mut searched = Vec::new();
        for texts in texts.chunk_by(|(_, a), (_, b)| a.request == b.request) {
            let (_, first) = texts[0];
            let Task::Search { stop, .. } = &first.task else {
                continue;
            };
            let reply = self.replies.get_mut(&first.request);
            let search = reply.and_then(|reply| reply.search.as_mut());
            let running: Vec<_> = texts
                .iter()
                .map(|(idx, text)| (text.generated(), logits.row(*idx)))
                .collect();
            let search = search.expect("a search has a reply");
            searched.push((first.request, search.advance(&running, stop)));
        }
        searched
    }

    /// Lets searches go on, and sends the texts of those that ended.
    fn reply_searched(&mut self, searched: Vec<Searched>) {
        let now = Instant::now();
        let mut ended = Vec::new();
        for (id, continuations) in searched {
            let next = continuations.as_deref().unwrap_or_default();
            self.scheduler.continue_search(id, next);
            let counters = &self.channels.gauge.counters;
            counters.generation_tokens.add(next.len());
            if !next.is_empty() {
                continue;
            }
            let mut reply = self.forget(id);
            let counters = &self.channels.gauge.counters;
            let beams = reply.search.take().map_or_else(Vec::new, BeamSearch::into_beams);
            let event = match continuations {
                Ok(_) => {
                    counters.prompt_tokens.add(reply.n_prompt);
                    beams
                        .iter()
                        .take(1)
                        .for_each(|beam| counters.finished(beam.reason));
                    Event::Beams(beams)
                }
                Err(error) => {
                    counters.failed.add(1);
                    Event::Failed(RequestFailure::Sampling(error))
                }
            };
            ended.push((reply, event));
        }
        self.publish();
        for (reply, event) in ended {
            reply.send(event, now);
        }
    }

    /// Notes the log-probabilities of prompts, and sends those of the prompts that are complete. Those that have none
    /// fail; the step must be committed before.
    fn reply_prompts(&mut self, step: &Step, scored: Vec<Scored>) -> Vec<(SequenceId, SampleError)> {
        let now = Instant::now();
        let mut failed = Vec::new();
        for (id, scores) in scored {
            let sequence = self.scheduler.sequence_mut(id);
            match scores {
                Ok(scores) => sequence.add_scores(scores),
                Err(error) => {
                    let branches = sequence.branches().iter();
                    failed.extend(branches.map(|branch| (branch.id, error.clone())));
                }
            }
        }
        for (_, row) in step.drawing() {
            let sequence = self.scheduler.sequence_mut(row.id);
            let is_first = sequence.prompt_logprobs().is_some() && sequence.generated().is_empty();
            if !is_first || sequence.wants_scores() {
                continue;
            }
            let scores = sequence.take_scores();
            for branch in sequence.branches() {
                if let Some(reply) = self.replies.get(&branch.id) {
                    reply.send(Event::Prompt(Arc::clone(&scores)), now);
                }
            }
        }
        failed
    }

    /// Ends the requests whose prompts could not be scored, as far as they have not ended yet.
    fn fail(&mut self, unscored: Vec<(SequenceId, SampleError)>) {
        let now = Instant::now();
        for (id, error) in unscored {
            self.scheduler.cancel(id);
            if !self.replies.contains_key(&id) {
                continue;
            }
            self.channels.gauge.counters.failed.add(1);
            let reply = self.forget(id);
            self.publish();
            reply.send(Event::Failed(RequestFailure::Sampling(error)), now);
        }
    }

    /// Sends every drawn token to its ticket. The load is published before an answer's end is, so that who
    /// sees the end also sees the blocks free.
    fn reply(&mut self, progress: Vec<Progress>, drawn: Vec<Outcome>) {
        let now = Instant::now();
        let mut ended = Vec::new();
        for (progress, drawn) in progress.into_iter().zip(drawn) {
            let Progress {
                id,
                token: _,
                finished,
                n_generated,
            } = progress;
            match drawn {
                Ok(drawn) => {
                    let last = self.reply_token(id, drawn.sampled, finished, now);
                    if let Some(reason) = finished {
                        self.channels.gauge.counters.finished(reason);
                        let reply = self.forget(id);
                        let (last, ended_by) = match reason {
                            FinishReason::Eos(_) | FinishReason::StopToken(_) => {
                                (None, last.and_then(|(_, logprobs)| logprobs))
                            }
                            FinishReason::Complete | FinishReason::Length | FinishReason::Abort => {
                                (last, None)
                            }
                        };
                        let event = Event::Finished {
                            reason,
                            last,
                            ended_by,
                            n_generated,
                            cumulative_logprob: reply.cumulative_logprob,
                        };
                        ended.push((reply, event));
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        id = id.arrival,
                        error = &error as &dyn std::error::Error,
                        "no token drawn"
                    );
                    self.channels.gauge.counters.failed.add(1);
                    ended.push((self.forget(id), Event::Failed(error)));
                }
            }
        }
        self.publish();
        for (reply, event) in ended {
            reply.send(event, now);
        }
    }

    /// Sends a token, unless the answer ends with it: then it is returned.
    fn reply_token(
        &mut self,
        id: SequenceId,
        sampled: Sampled,
        finished: Option<FinishReason>,
        now: Instant,
    ) -> Option<(u32, Option<TokenLogprobs>)> {
        let reply = self.replies.get_mut(&id).expect("every branch has a reply");
        let counters = &self.channels.gauge.counters;
        counters.generation_tokens.add(1);
        if reply.first_token_at.is_none() {
            reply.first_token_at = Some(now);
            counters.prompt_tokens.add(reply.n_prompt);
        }
        let Sampled { token, logprobs } = sampled;
        if let Some(logprobs) = &logprobs {
            *reply.cumulative_logprob.get_or_insert_default() += f64::from(logprobs.chosen);
        }
        if finished.is_some() {
            return Some((token, logprobs));
        }
        reply.send(Event::Token { token, logprobs }, now);
        None
    }

    /// Sends every pooled vector to its ticket, after the load as in [`EngineThread::reply`].
    fn reply_pooled(&mut self, step: &Step, pooled: Vec<Vec<f32>>) {
        let now = Instant::now();
        let rows: Vec<SequenceId> = step
            .rows
            .iter()
            .filter(|row| row.yields == Yield::Pooled)
            .map(|row| row.id)
            .collect();
        assert_eq!(
            pooled.len(),
            rows.len(),
            "the model returned another number of vectors"
        );
        self.publish();
        for (id, vector) in rows.into_iter().zip(pooled) {
            let reply = self.forget(id);
            self.channels.gauge.counters.prompt_tokens.add(reply.n_prompt);
            self.channels.gauge.counters.finished_pooling.add(1);
            reply.send(Event::Pooled(vector), now);
        }
    }

    /// Ends everything that runs or waits, as it was told.
    fn abort_all(&mut self) {
        let now = Instant::now();
        for id in self.replies.keys().copied().collect::<Vec<_>>() {
            let n_generated = self.scheduler.cancel(id).unwrap_or(0);
            self.channels.gauge.counters.finished(FinishReason::Abort);
            let reply = self.forget(id);
            let event = Event::Finished {
                reason: FinishReason::Abort,
                last: None,
                ended_by: None,
                n_generated,
                cumulative_logprob: reply.cumulative_logprob,
            };
            reply.send(event, now);
        }
        self.publish();
    }

    /// Fails everything that was accepted; the model is not to be trusted any more.
    fn fail_all(&mut self) {
        let now = Instant::now();
        while let Ok(submissions) = self.channels.intake.try_recv() {
            self.accept(submissions);
        }
        for id in self.replies.keys().copied().collect::<Vec<_>>() {
            self.scheduler.cancel(id);
            self.channels.gauge.counters.failed.add(1);
            self.forget(id)
                .send(Event::Failed(RequestFailure::EngineDead), now);
        }
        self.publish();
    }

    fn forget(&mut self, id: SequenceId) -> Reply {
        let reply = self.replies.remove(&id).expect("every sequence has a reply");
        self.channels.gauge.ended(reply.scheduled_at);
        reply
    }

    fn publish(&self) {
        self.channels
            .gauge
            .publish(self.scheduler.n_running(), self.scheduler.cache().pool().n_used());
    }
}

impl Reply {
    /// Sends without waiting. A full channel cannot be: it is as long as the answer may get. A closed one
    /// is a dropped ticket, which the next turn cancels.
    fn send(&self, event: Event, at: Instant) {
        let stamped = Stamped {
            event,
            at,
            scheduled_at: self.scheduled_at,
            first_token_at: self.first_token_at,
            n_cached: self.n_cached,
        };
        if let Err(mpsc::error::TrySendError::Full(_)) = self.events.try_send(stamped) {
            unreachable!("an answer sent more events than it has tokens");
        }
    }
}

/// The branches that draw in a step: one after the other those of each row, in the order of the rows.
fn drawings<'a>(
    scheduler: &'a Scheduler,
    replies: &mut BTreeMap<SequenceId, Reply>,
    step: &Step,
) -> Vec<Drawing<'a>> {
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
            guide: replies.get_mut(&branch.id).and_then(|reply| reply.guide.take()),
        }));
    }
    drawings
}

/// Returns the guides that [`drawings`] took.
fn give_back(replies: &mut BTreeMap<SequenceId, Reply>, drawings: Vec<Drawing<'_>>) {
    for Drawing { branch, guide, .. } in drawings {
        if let Some(reply) = replies.get_mut(&branch.id) {
            reply.guide = guide;
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
