//! The scheduler: which sequences compute how many tokens in the next step.
//!
//! Continuous batching: every running sequence that decodes gets its token first, then chunks of prompts
//! fill the rest of the token budget, then waiting sequences are admitted. A pure state machine; it must not
//! know time, the model, sampling or the tickets.
//!
//! A step is scheduled, filled into a batch, submitted and *assumed*: its tokens count as computed, its draws as
//! pending tokens. Later it is *committed* with the tokens that were drawn. With depth 2 the next step is scheduled
//! between the two, so a step may contain a row of a sequence that has ended meanwhile: an overrun, which has no
//! effect. Two kinds of steps wait for the commit: a step that is alone in flight ([`Sequence::needs_alone`]), and
//! a step that preempts, because the commit may free the blocks.
//!
//! One order rules it: `running` and `waiting` are sorted by id, which is priority, then turn, then arrival. Only the
//! first of `waiting` is ever admitted, and only the last of `running` is ever preempted, for a sequence that
//! comes before it. So the first of all is never preempted and moves in every step, and no sequence starves for
//! others of its priority. Turns ([`super::turns`]) let a small request in while a request of many answers, or many
//! requests of another client run: the last of those answers gives way.

mod fill;
#[cfg(test)]
mod simulator;

use std::collections::VecDeque;
use std::ops::Range;

use super::beam::Continuation;
use super::config::Limits;
use super::paged_cache::{Hit, PagedCache};
use super::request::{FinishReason, Task};
use super::sequence::{Branch, Next, Sequence, SequenceId};
use super::step::{Admission, Step, StepRow, Yield};
use super::turns::Present;
use crate::client::Client;

/// Steps in flight at most: with more, masks of grammars would come too late for every step.
pub const DEPTH_MAX: usize = 2;

/// Positions of prompts whose log-probabilities one step computes at most: their logits are as many as those of a
/// step of 256 answers.
pub const N_SCORED_MAX: usize = 256;

/// The sequences of one engine, from admission to their end.
#[derive(Debug)]
pub struct Scheduler {
    /// Steps that may be in flight, 1 or 2.
    depth: usize,
    /// Steps that are assumed and not committed.
    n_in_flight: usize,
    /// The next step must wait until none is in flight.
    is_draining: bool,
    n_running_max: usize,
    n_step_tokens_max: usize,
    whole_prompts: bool,
    swaps: bool,
    cache: PagedCache,
    running: Vec<Sequence>,
    waiting: VecDeque<Sequence>,
    /// The first waiting sequence that found no room, and [`PagedCache::n_releases`] then: before blocks are
    /// released it need not be tried again.
    stuck: Option<(SequenceId, u64)>,
    /// Places that no running sequence has.
    free_places: Vec<u32>,
}

/// What a step did to one branch that drew.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// The branch.
    pub id: SequenceId,
    /// Index of its draw among those of the step.
    pub draw: usize,
    /// The token it drew; `None`: none could be drawn, and the sequence is gone.
    pub token: Option<u32>,
    /// Why it ended; its blocks are free already. `None`: it goes on, or failed.
    pub finished: Option<FinishReason>,
    /// Tokens it has generated.
    pub n_generated: usize,
}

impl Scheduler {
    /// A scheduler with nothing to do, for a model that takes `depth` steps at once.
    pub fn new(limits: &Limits, depth: usize) -> Scheduler {
        let n_places = u32::try_from(limits.n_running_max()).expect("places fit 32 bits");
        Scheduler {
            depth: depth.clamp(1, DEPTH_MAX),
            n_in_flight: 0,
            is_draining: false,
            n_running_max: limits.n_running_max(),
            n_step_tokens_max: limits.config.max_num_batched_tokens,
            whole_prompts: limits.whole_prompts,
            swaps: limits.swaps(),
            cache: PagedCache::new(limits),
            running: Vec::new(),
            waiting: VecDeque::new(),
            stuck: None,
            free_places: (0..n_places).rev().collect(),
        }
    }

    /// What decides the turn of a client's next submission.
    pub fn present(&self, client: Client) -> Present {
        let all = || self.running.iter().chain(&self.waiting);
        let own = all().filter(|sequence| sequence.client == client);
        Present {
            first: all().map(|sequence| sequence.submission_turn).min(),
            own: own.map(|sequence| sequence.submission_turn).collect(),
        }
    }

    /// Queues a sequence that [`Limits`] admitted.
    pub fn add(&mut self, sequence: Sequence) {
        let at = self.waiting.partition_point(|other| other.id() < sequence.id());
        self.waiting.insert(at, sequence);
    }

    /// Removes a branch or a search, and frees what only it needed; returns the number of tokens that it had generated,
    /// or `None` if there is no such branch.
    pub fn cancel(&mut self, id: SequenceId) -> Option<usize> {
        let found = self
            .running
            .iter()
            .chain(&self.waiting)
            .find(|sequence| sequence.request == id);
        if found.is_some_and(Sequence::is_searching) {
            self.cancel_search(id);
            return Some(0);
        }
        if let Some(idx) = self.running.iter().position(|sequence| has_branch(sequence, id)) {
            if !self.running[idx].drop_branch(id) {
                return Some(self.remove_running(idx).generated().len());
            }
            // Its id is that of its first branch.
            let sequence = self.running.remove(idx);
            let at = self.running.partition_point(|other| other.id() < sequence.id());
            self.running.insert(at, sequence);
            return Some(0);
        }
        let idx = self
            .waiting
            .iter()
            .position(|sequence| has_branch(sequence, id))?;
        let mut sequence = self.waiting.remove(idx)?;
        if sequence.drop_branch(id) {
            self.add(sequence);
            return Some(0);
        }
        self.cache.release(&mut sequence.tables);
        Some(sequence.generated().len())
    }

    /// Decides the next step and takes the blocks it needs. A step that is not empty must be assumed before the next
    /// one is scheduled. Empty if there is no sequence, or if a step in flight must be committed first.
    ///
    /// # Panics
    /// If as many steps are in flight as may be.
    pub fn schedule(&mut self) -> Step {
        self.schedule_with(true)
    }

    /// The same, in which sequences that wait join the step only if it `admits` them.
    ///
    /// # Panics
    /// As for [`Scheduler::schedule`].
    pub fn schedule_with(&mut self, admits: bool) -> Step {
        assert!(self.n_in_flight < self.depth, "too many steps are in flight");
        if self.n_in_flight > 0 && (self.is_draining || self.next_is_alone()) {
            return Step::default();
        }
        self.is_draining = false;
        let mut step = Step::default();
        if admits {
            self.admit_urgent(&mut step);
        }
        self.schedule_decodes(&mut step);
        self.schedule_prompts(&mut step);
        // Blocks are short right after a preemption, and the running sequences precede all that wait: they go first.
        if admits && step.preempted.is_empty() && self.all_have_rows(&step) {
            self.admit_waiting(&mut step);
        }
        step.is_alone = self.depth == 1 || self.running.iter().any(Sequence::needs_alone);
        step
    }

    /// Records that `step` was submitted: its tokens count as computed, and its draws as tokens that are not known yet.
    ///
    /// # Panics
    /// If it is not the step scheduled last.
    pub fn assume(&mut self, step: &Step) {
        for (logits, row) in step.with_logits() {
            let idx = self.running_idx(row.id);
            self.running[idx].assume_computed(row.n_tokens);
            if row.n_draws > 0 {
                self.running[idx].assume_drawn(logits.end as u32 - 1);
            }
            self.settle(idx);
        }
        self.n_in_flight += 1;
    }

    /// Records what the oldest step in flight drew: one entry per draw of each row, in order; `None`: no token could
    /// be drawn, and the branch is dropped. Rows of sequences that are gone have no effect. Searches draw nothing here;
    /// each of those that yielded logits must be continued before the next step.
    ///
    /// # Panics
    /// If `tokens` does not match the step's rows.
    pub fn commit(&mut self, step: &Step, tokens: &[Option<Next>]) -> Vec<Progress> {
        self.n_in_flight -= 1;
        let mut progress = Vec::with_capacity(tokens.len());
        let mut n_drawn = 0;
        for row in &step.rows {
            let draws = n_drawn..n_drawn + row.n_draws;
            n_drawn = draws.end;
            let Ok(idx) = self.running.binary_search_by_key(&row.id, Sequence::id) else {
                continue;
            };
            match row.yields {
                Yield::Pooled => {
                    self.remove_running(idx);
                }
                Yield::Logits if row.n_draws > 0 => {
                    let draws = draws.clone().zip(tokens[draws].iter().copied());
                    self.commit_draws(idx, draws, &mut progress);
                }
                Yield::Nothing | Yield::Logits => {}
            }
        }
        assert_eq!(n_drawn, tokens.len(), "one token per draw of the step");
        progress
    }

    /// Gives the branches of `running[idx]` their tokens, each with the index of its draw, and notes their progress.
    fn commit_draws(
        &mut self,
        idx: usize,
        mut draws: impl Iterator<Item = (usize, Option<Next>)>,
        progress: &mut Vec<Progress>,
    ) {
        let children = self.fork(idx);
        assert!(
            self.running[idx].pending_draw().is_some(),
            "a draw that was not assumed"
        );
        let mut draw = |sequence: &mut Sequence| {
            let (draw, next) = draws.next().expect("one draw per branch");
            advance(sequence, draw, next)
        };
        let advanced = draw(&mut self.running[idx]);
        if advanced.goes_on() {
            self.settle(idx);
        } else {
            self.remove_running(idx);
        }
        progress.push(advanced);
        for mut child in children {
            let advanced = draw(&mut child);
            if advanced.goes_on() {
                self.place(child);
            } else {
                self.cache.release(&mut child.tables);
            }
            progress.push(advanced);
        }
    }

    /// Lets a search whose texts were computed go on with `continuations`, which take the place of its texts;
    /// without any it has ended.
    ///
    /// # Panics
    /// If the search does not run.
    pub fn continue_search(&mut self, request: SequenceId, continuations: &[Continuation]) {
        let first = self.running_idx(request);
        let texts = self.of_request(first);
        let mut texts: Vec<Sequence> = self.running.drain(texts).collect();
        self.free_places
            .extend(texts.iter_mut().filter_map(|text| text.place.take()));
        let (free_places, cache) = (&mut self.free_places, &mut self.cache);
        let continued = continuations
            .iter()
            .zip(request.arrival..)
            .map(|(continuation, arrival)| {
                let text = &texts[continuation.from];
                let id = SequenceId { arrival, ..request };
                let mut next = text.continued(Branch { id, seed: 0 }, continuation.token);
                next.tables = cache.fork(&text.tables);
                next.place = free_places.pop();
                next
            });
        let continued: Vec<Sequence> = continued.collect();
        self.running.splice(first..first, continued);
        for text in &mut texts {
            self.cache.release(&mut text.tables);
        }
    }

    /// A sequence, if it runs.
    pub fn find(&self, id: SequenceId) -> Option<&Sequence> {
        let idx = self.running.binary_search_by_key(&id, Sequence::id).ok()?;
        Some(&self.running[idx])
    }

    /// A sequence, if it runs.
    pub fn find_mut(&mut self, id: SequenceId) -> Option<&mut Sequence> {
        let idx = self.running.binary_search_by_key(&id, Sequence::id).ok()?;
        Some(&mut self.running[idx])
    }

    /// A running sequence.
    ///
    /// # Panics
    /// If it does not run.
    pub fn sequence(&self, id: SequenceId) -> &Sequence {
        &self.running[self.running_idx(id)]
    }

    /// A running sequence.
    ///
    /// # Panics
    /// If it does not run.
    pub fn sequence_mut(&mut self, id: SequenceId) -> &mut Sequence {
        let idx = self.running_idx(id);
        &mut self.running[idx]
    }

    /// Sequences that run, and may hold blocks.
    pub fn n_running(&self) -> usize {
        self.running.len()
    }

    /// Branches that wait for a place.
    pub fn n_waiting(&self) -> usize {
        let all = self.running.iter().chain(&self.waiting);
        let n_branches: usize = all.map(|sequence| sequence.branches().len()).sum();
        n_branches - self.n_running()
    }

    /// Places that are taken, or promised to the texts of a search.
    fn n_places_taken(&self) -> usize {
        self.running.iter().map(Sequence::n_places).sum()
    }

    /// The blocks of all sequences.
    pub fn cache(&self) -> &PagedCache {
        &self.cache
    }

    /// Gives a place to the first that waits while it comes before some that run; those give way, from the
    /// last on, where places or blocks are short.
    fn admit_urgent(&mut self, step: &mut Step) {
        while let Some(first) = self.waiting.front() {
            let last = self.running.last();
            if last.is_some_and(|last| first.id() >= last.id()) {
                return;
            }
            if self.try_admit(step).is_some() {
                continue;
            }
            if self.n_in_flight > 0 {
                self.is_draining = true;
                return;
            }
            self.preempt_last(step);
        }
    }

    /// One token for every running sequence that misses just one.
    fn schedule_decodes(&mut self, step: &mut Step) {
        let mut idx = 0;
        while idx < self.running.len() {
            let sequence = &self.running[idx];
            if sequence.n_uncomputed() == 1 && !sequence.is_full() && self.is_ready(idx) {
                self.push_row(idx, step);
            }
            idx += 1;
        }
    }

    /// Chunks of the prompts that are not computed yet.
    fn schedule_prompts(&mut self, step: &mut Step) {
        let mut idx = 0;
        while idx < self.running.len() && step.n_tokens < self.n_step_tokens_max {
            if self.running[idx].n_uncomputed() > 1 {
                self.push_row(idx, step);
            }
            idx += 1;
        }
    }

    /// Admits from the front of the queue while there are places, budget and blocks for all tokens known.
    fn admit_waiting(&mut self, step: &mut Step) {
        while step.n_tokens < self.n_step_tokens_max
            && let Some(admitted) = self.try_admit(step)
        {
            // The texts of a search have to draw in the same step.
            if admitted.len() > self.n_step_tokens_max - step.n_tokens {
                return;
            }
            for idx in admitted {
                if idx < self.running.len() && (self.running[idx].n_uncomputed() > 1 || self.is_ready(idx)) {
                    self.push_row(idx, step);
                }
            }
            if !self.all_have_rows(step) {
                return;
            }
        }
    }

    /// Every running sequence that has something to compute is part of the step.
    fn all_have_rows(&self, step: &Step) -> bool {
        let n_full = self.running.iter().filter(|sequence| sequence.is_full()).count();
        step.rows.len() == self.running.len() - n_full
    }

    /// The next step must be alone in flight, for a sequence that runs or the one that would be admitted.
    fn next_is_alone(&self) -> bool {
        let is_next = |first: &Sequence| {
            let attempt = Some((first.id(), self.cache.n_releases()));
            first.needs_alone() && (self.stuck != attempt || self.running.is_empty())
        };
        self.running.iter().any(Sequence::needs_alone) || self.waiting.front().is_some_and(is_next)
    }

    /// Gives a place to the first that waits, if there are places and blocks for all its tokens. One that is
    /// alone always gets it: it fits, or it had not been admitted.
    /// Answers where in `running` it is.
    fn try_admit(&mut self, step: &mut Step) -> Option<Range<usize>> {
        let first = self.waiting.front()?;
        let attempt = Some((first.id(), self.cache.n_releases()));
        if self.stuck == attempt && !self.running.is_empty() {
            return None;
        }
        if self.n_in_flight > 0 && first.needs_alone() {
            return None;
        }
        let with_first = |other: &&Sequence| first.is_searching() && other.request == first.request;
        let n = 1 + self.waiting.iter().skip(1).take_while(with_first).count();
        if !self.running.is_empty() && !self.has_room_for(n) {
            self.stuck = attempt;
            return None;
        }
        let at = self.running.partition_point(|other| other.id() < first.id());
        for idx in at..at + n {
            let sequence = self.waiting.pop_front()?;
            self.admit(idx, sequence, step);
        }
        Some(at..at + n)
    }

    /// Gives a sequence its place and the blocks that it has already.
    fn admit(&mut self, idx: usize, mut sequence: Sequence, step: &mut Step) {
        if sequence.tables.is_swapped() {
            self.cache.swap_in(&mut sequence.tables, &mut step.moves);
        } else {
            let hit = self.hit(&sequence);
            self.cache.adopt(&mut sequence.tables, &hit);
            sequence.set_cached(self.cache.n_tokens(&hit));
        }
        if !std::mem::replace(&mut sequence.was_admitted, true) {
            let is_queried = self.may_read(&sequence);
            step.admitted.push(Admission {
                branches: sequence.branches().iter().map(|branch| branch.id).collect(),
                n_queried: if is_queried { sequence.tokens().len() } else { 0 },
                n_cached: sequence.n_computed(),
            });
        }
        self.enter(idx, sequence);
    }

    /// Lets a sequence run as `running[idx]`, in a place of its own.
    fn enter(&mut self, idx: usize, mut sequence: Sequence) {
        sequence.place = self.free_places.pop();
        self.running.insert(idx, sequence);
    }

    /// Whether there are places and blocks for the first `n` that wait.
    fn has_room_for(&self, n: usize) -> bool {
        let waiting = || self.waiting.iter().take(n);
        let n_places = self.n_places_taken() + waiting().map(Sequence::n_places).sum::<usize>();
        if n_places > self.n_running_max {
            return false;
        }
        let wanted = |sequence: &Sequence| {
            let n_tokens = sequence.n_tokens();
            if sequence.tables.is_swapped() {
                return self
                    .cache
                    .n_missing(&sequence.tables, sequence.n_computed(), n_tokens);
            }
            let hit = self.hit(sequence);
            self.cache.n_missing_after(&hit, n_tokens) + self.cache.n_idle(&hit)
        };
        // Running sequences are promised blocks for all tokens they have.
        let missing = |other: &Sequence| {
            let n_tokens = other.n_tokens();
            self.cache.n_missing(&other.tables, other.n_computed(), n_tokens)
        };
        let n_promised: usize = self.running.iter().map(missing).sum();
        let n_wanted: usize = waiting().map(wanted).sum();
        n_wanted + n_promised <= self.cache.pool().n_free()
    }

    /// What the prefix cache has of a sequence without blocks.
    fn hit(&self, sequence: &Sequence) -> Hit {
        if self.may_read(sequence) {
            self.cache.lookup(sequence.salt, sequence.content())
        } else {
            Hit::default()
        }
    }

    /// Whether the sequence may draw in this step: all texts of a search do or none.
    fn is_ready(&self, idx: usize) -> bool {
        let texts = &self.running[self.of_request(idx)];
        texts.iter().all(|text| text.n_uncomputed() == 1)
    }

    /// The running texts of the search that `running[idx]` belongs to; only itself if it does not search.
    fn of_request(&self, idx: usize) -> Range<usize> {
        let sequence = &self.running[idx];
        if !sequence.is_searching() {
            return idx..idx + 1;
        }
        let is_other = |other: &Sequence| other.request != sequence.request;
        let first = self.running[..idx]
            .iter()
            .rposition(is_other)
            .map_or(0, |before| before + 1);
        let n_after = self.running[idx..]
            .iter()
            .take_while(|other| !is_other(other))
            .count();
        first..idx + n_after
    }

    fn cancel_search(&mut self, request: SequenceId) {
        let (mut running, mut waiting) = (
            std::mem::take(&mut self.running),
            std::mem::take(&mut self.waiting),
        );
        let is_cancelled = |sequence: &&mut Sequence| sequence.request == request;
        for sequence in running.iter_mut().chain(&mut waiting).filter(is_cancelled) {
            self.cache.release(&mut sequence.tables);
            self.free_places.extend(sequence.place.take());
        }
        running.retain(|sequence| sequence.request != request);
        waiting.retain(|sequence| sequence.request != request);
        (self.running, self.waiting) = (running, waiting);
    }

    /// Whether blocks of the sequence are those of any other with the same tokens.
    fn may_share(&self, sequence: &Sequence) -> bool {
        sequence.token_types().is_empty() && self.cache.is_caching()
    }

    /// Whether it may begin with what the prefix cache has. Log-probabilities of a prompt need it computed.
    fn may_read(&self, sequence: &Sequence) -> bool {
        self.may_share(sequence) && !sequence.wants_scores()
    }

    /// Adds a row with as many tokens of `running[idx]` as budget and blocks have room for; none if it had to
    /// give way itself, or if its prompt must be computed at once and does not fit the rest of the step.
    fn push_row(&mut self, idx: usize, step: &mut Step) {
        let n_tokens = self.make_room(idx, step);
        if n_tokens == 0 {
            return;
        }
        let sequence = &self.running[idx];
        let yields = match &sequence.task {
            _ if n_tokens < sequence.n_uncomputed() => Yield::Nothing,
            Task::Generate { .. } | Task::Search { .. } => Yield::Logits,
            Task::Pool { .. } => Yield::Pooled,
        };
        let n_draws = match yields {
            Yield::Logits if !sequence.is_searching() => sequence.branches().len(),
            Yield::Logits | Yield::Nothing | Yield::Pooled => 0,
        };
        let row = StepRow {
            id: sequence.id(),
            n_tokens,
            scores: sequence.scored_by(n_tokens),
            yields,
            n_draws,
        };
        step.n_tokens += n_tokens;
        step.rows.push(row);
    }

    /// Makes room for the next tokens of `running[idx]`, as many as budget and blocks allow. Where not one
    /// fits, the last sequences give way, or the sequence waits for the steps in flight.
    fn make_room(&mut self, idx: usize, step: &mut Step) -> usize {
        while let Some(sequence) = self.running.get_mut(idx) {
            let n_computed = sequence.n_computed();
            let n_wanted = sequence
                .n_computable()
                .min(self.n_step_tokens_max - step.n_tokens);
            // The logits of a prompt whose log-probabilities are wanted would take too much memory at once.
            let is_whole = self.whole_prompts && !sequence.wants_scores();
            let n_wanted = n_wanted - n_unscorable(sequence, n_wanted, step);
            let n_whole = sequence.prompt().len().saturating_sub(n_computed);
            let n_tokens_min = if is_whole { n_whole.max(1) } else { 1 };
            if n_wanted < n_tokens_min {
                return 0;
            }
            let n_tokens = self
                .cache
                .n_tokens_fitting(&sequence.tables, n_computed)
                .min(n_wanted);
            if n_tokens >= n_tokens_min {
                let range = n_computed..n_computed + n_tokens;
                self.cache.grow(&mut sequence.tables, range, &mut step.moves);
                return n_tokens;
            }
            if self.n_in_flight > 0 {
                self.is_draining = true;
                return 0;
            }
            // The first never gives way: admission made sure that it fits alone.
            let first = self.of_request(0);
            assert!(
                first.len() < self.running.len(),
                "a sequence was admitted that does not fit alone"
            );
            self.preempt_last(step);
        }
        0
    }

    /// Takes the blocks of the last running sequence, or search.
    fn preempt_last(&mut self, step: &mut Step) {
        let last = self.running.len() - 1;
        for sequence in self
            .running
            .split_off(self.of_request(last).start)
            .into_iter()
            .rev()
        {
            self.preempt(sequence, step);
        }
    }

    /// Takes the blocks of a sequence. It waits again, and has no part in this step.
    fn preempt(&mut self, mut sequence: Sequence, step: &mut Step) {
        let id = sequence.id();
        self.free_places.extend(sequence.place.take());
        if let Some(idx) = step.rows.iter().rposition(|row| row.id == id) {
            step.n_tokens -= step.rows.remove(idx).n_tokens;
        }
        let n_computed = sequence.n_computed();
        let is_swapped = self.swaps
            && self
                .cache
                .swap_out(&mut sequence.tables, n_computed, &mut step.moves);
        if !is_swapped {
            self.cache.release(&mut sequence.tables);
            sequence.set_cached(0);
        }
        step.preempted.push(id);
        self.add(sequence);
    }

    /// The other branches of `running[idx]`, which go on from where it is.
    fn fork(&mut self, idx: usize) -> Vec<Sequence> {
        let parent = &mut self.running[idx];
        if parent.branches().len() == 1 {
            return Vec::new();
        }
        let mut children = parent.fork_off();
        for child in &mut children {
            child.tables = self.cache.fork(&parent.tables);
        }
        children
    }

    /// Lets a branch run on its own; it waits if there are more branches than places, or if a sequence before it waits.
    fn place(&mut self, mut branch: Sequence) {
        let is_next = self.waiting.front().is_none_or(|first| branch.id() < first.id());
        if is_next && self.n_places_taken() < self.n_running_max {
            let at = self.running.partition_point(|other| other.id() < branch.id());
            self.enter(at, branch);
        } else {
            self.cache.release(&mut branch.tables);
            branch.set_cached(0);
            self.add(branch);
        }
    }

    /// Publishes the full blocks of `running[idx]` whose tokens are known, and gives back those that its windows have
    /// left. Steps in flight may still compute or read them: they come before every later use.
    fn settle(&mut self, idx: usize) {
        let may_share = self.may_share(&self.running[idx]);
        let sequence = &mut self.running[idx];
        let salt = sequence.salt;
        let (tables, computed) = sequence.tables_and_computed();
        if may_share {
            self.cache.publish(tables, salt, computed);
        }
        self.cache.free_unseen(tables, computed.tokens.len());
    }

    fn remove_running(&mut self, idx: usize) -> Sequence {
        let mut sequence = self.running.remove(idx);
        self.free_places.extend(sequence.place.take());
        self.cache.release(&mut sequence.tables);
        sequence
    }

    fn running_idx(&self, id: SequenceId) -> usize {
        let found = self.running.binary_search_by_key(&id, Sequence::id);
        found.expect("the sequence runs")
    }
}

impl Progress {
    /// The branch draws again.
    pub fn goes_on(&self) -> bool {
        self.token.is_some() && self.finished.is_none()
    }
}

/// Gives a sequence its drawn token.
fn advance(sequence: &mut Sequence, draw: usize, next: Option<Next>) -> Progress {
    let finished = next.and_then(|next| sequence.push(next));
    Progress {
        id: sequence.id(),
        draw,
        token: next.map(|next| next.token),
        finished,
        n_generated: sequence.generated().len(),
    }
}

/// Those of its next `n_tokens` tokens that are more than the step may score, with those that it scores already.
fn n_unscorable(sequence: &Sequence, n_tokens: usize, step: &Step) -> usize {
    let n_wanted = sequence.scored_by(n_tokens).len();
    if n_wanted == 0 {
        return 0;
    }
    let n_scored: usize = step.rows.iter().map(|row| row.scores.len()).sum();
    let n_left = N_SCORED_MAX.saturating_sub(n_scored);
    if n_wanted <= n_left {
        return 0;
    }
    // All of them from the first unscored one on; a token after the last scored position needs no score.
    n_tokens - (sequence.scored_by(n_tokens).start - sequence.n_computed() + n_left)
}

fn has_branch(sequence: &Sequence, id: SequenceId) -> bool {
    sequence.branches().iter().any(|branch| branch.id == id)
}

#[cfg(test)]
mod tests;
