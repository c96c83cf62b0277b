//! A seeded simulator: arrivals, cancellations and failures drive the scheduler through two million steps at each depth.
//!
//! After each step every invariant is checked: every block has as many owners as tables hold it, free + used =
//! total on device and host, no window has lost a block it sees, the budget holds, decodes come first, the
//! first in order moves, every ticket ends exactly once and in time, and every token is the one its sequence
//! would have drawn alone, with nothing cached, shared or moved. So the texts are the same at each depth.
//!
//! With steps in flight also: no placeholder reaches a ticket, no block is published before its tokens are known, a row
//! of a sequence that has ended has no effect, a sequence keeps its place while it runs, and a step that must be alone
//! in flight is.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crds::settings::{PreemptionMode, SchedulingPolicy};
use proptest::prelude::*;

use super::*;
use crate::batch::{Batch, BlockId, BlockMove, Forward, KvGroup, MediaDigest};
use crate::engine::admission::AdmitError;
use crate::engine::beam::BeamSearch;
use crate::engine::config::EngineConfig;
use crate::engine::fake::{ContextHash, Dice, HashModel, Hashes, PreviousToken, Reference, Shape, row_of};
use crate::engine::prompt::{Prompt, Span};
use crate::engine::request::{
    Admitted, BeamParams, BeamRequest, EarlyStopping, GenerateRequest, PoolRequest, StopRules,
};
use crate::engine::ticket::Beam;
use crate::engine::turns::Turns;

const VOCAB_SIZE: usize = 40;
const EOS: u32 = 3;
const PLACEHOLDER: u32 = 4;
const N_STEPS_TOTAL: usize = 2_000_000;
const N_STEPS_PER_EPISODE: usize = 2_000;
const N_WAITING_MAX: usize = 12;
const N_ANSWERS_MAX: usize = 5;
const N_CLIENTS: usize = 3;
const TURNS_PER_SUBMISSION: u64 = 2;

/// One scheduler with its model and everybody who waits for an answer.
struct World {
    limits: Limits,
    scheduler: Scheduler,
    model: HashModel,
    /// Steps that are submitted and not committed, the oldest first.
    in_flight: VecDeque<Submitted>,
    /// The draws of the step submitted last.
    previous: Vec<PreviousToken>,
    /// Where each running sequence has its place.
    places: BTreeMap<SequenceId, u32>,
    tickets: BTreeMap<SequenceId, Expectation>,
    n_arrived: u64,
    turns: Turns,
    has_priorities: bool,
    n_steps: usize,
    seen: Seen,
}

/// A step in flight, with what the model computed for it.
struct Submitted {
    step: Step,
    hashes: Hashes,
    /// One per draw: the hash that it draws from, and the token.
    drawn: Vec<(ContextHash, Option<u32>)>,
}

/// How often what the simulation is for has happened.
#[derive(Debug, Default)]
struct Seen {
    n_preempted: usize,
    n_swapped_in: usize,
    n_copied: usize,
    n_cached_tokens: usize,
    n_freed_blocks: usize,
    n_pooled: usize,
    n_searched: usize,
    /// Steps submitted while another was in flight.
    n_ahead: usize,
    /// Draws of sequences that had ended.
    n_overrun: usize,
    /// Times that a sequence waited for blocks until no step was in flight.
    n_drained: usize,
}

/// What one ticket has and may expect.
#[derive(Clone)]
struct Expectation {
    reference: Reference,
    hash: ContextHash,
    seed: u64,
    /// 0 for those that want a vector.
    n_tokens_left: usize,
    /// What a search has found so far, and all that it will.
    search: Option<(BeamSearch, Vec<Beam>)>,
    /// Steps that it can take were it the first in order.
    work: usize,
    /// The step by which it must have ended. Others that overtake it move it.
    deadline: usize,
    /// Answers that arrived later and come before it.
    n_overtaken: usize,
    /// Submissions that may overtake it.
    n_overtaking_max: usize,
}

/// A request in the simulator's words.
#[derive(Clone, Debug)]
struct Arrival {
    /// Which text the prompt is the beginning of.
    text: usize,
    n_prompt: usize,
    /// The last token of the prompt is its own.
    twist: u32,
    /// An image before the rest of the prompt's tokens.
    image: Option<Image>,
    n: usize,
    priority: i32,
    client: Client,
    /// Later requests that may overtake it.
    n_overtaking_max: u64,
    wants: Wants,
}

/// An image in a prompt. All images have the same placeholder.
#[derive(Clone, Copy, Debug)]
struct Image {
    /// Tokens of text before it.
    n_before: usize,
    n_tokens: usize,
    digest: u8,
}

impl Arrival {
    fn prompt(&self) -> Prompt {
        let token = |idx: usize| ((self.text * 7 + idx * idx) % VOCAB_SIZE) as u32;
        let mut tokens: Vec<u32> = (0..self.n_prompt).map(token).collect();
        if let Some(last) = tokens.last_mut() {
            *last = self.twist;
        }
        let Some(image) = self.image else {
            return tokens.into();
        };
        let after = tokens.split_off(image.n_before.min(tokens.len()));
        Prompt::from(vec![
            Span::Tokens(tokens),
            Span::Media {
                digest: MediaDigest([image.digest; 32]),
                n_tokens: image.n_tokens,
                placeholder: PLACEHOLDER,
            },
            Span::Tokens(after),
        ])
    }

    /// Segments of a prompt, empty if the request names none.
    fn types(&self, prompt: &Prompt) -> Vec<u32> {
        match self.wants {
            Wants::Vector { has_types: true } => prompt.ids().map(|token| token % 2).collect(),
            Wants::Vector { .. } | Wants::Answer { .. } | Wants::Beams { .. } => Vec::new(),
        }
    }

    fn admit(&self, limits: &Limits, prompt: &Prompt, types: &[u32]) -> Result<Admitted, AdmitError> {
        let prompt = prompt.clone();
        match self.wants {
            Wants::Answer { max_tokens } => limits.admit(GenerateRequest {
                client: self.client,
                prompt,
                n: self.n,
                priority: self.priority,
                max_tokens,
                n_overtaking_max: self.n_overtaking_max,
                ..GenerateRequest::default()
            }),
            Wants::Vector { .. } => limits.admit_pooling(PoolRequest {
                client: self.client,
                prompt,
                token_types: types.to_vec(),
                cache_salt: 0,
            }),
            Wants::Beams { params, max_tokens } => limits.admit_beam_search(BeamRequest {
                client: self.client,
                prompt,
                params,
                priority: self.priority,
                max_tokens: Some(max_tokens),
                min_tokens: 0,
                stop_token_ids: Vec::new(),
                ignore_eos: false,
            }),
        }
    }
}

#[derive(Clone, Debug)]
enum Wants {
    Answer { max_tokens: Option<usize> },
    Vector { has_types: bool },
    Beams { params: BeamParams, max_tokens: usize },
}

impl World {
    fn new(limits: Limits, depth: usize) -> World {
        let shape = Shape {
            vocab_size: VOCAB_SIZE,
            block_size: limits.config.block_size,
            groups: limits.groups.clone(),
            whole_prompts: limits.whole_prompts,
            reads_media: limits.reads_media,
        };
        World {
            scheduler: Scheduler::new(&limits, depth),
            model: HashModel::new(shape, limits.config.n_blocks, limits.config.n_host_blocks),
            limits,
            in_flight: VecDeque::new(),
            previous: Vec::new(),
            places: BTreeMap::new(),
            tickets: BTreeMap::new(),
            n_arrived: 0,
            turns: Turns::new(TURNS_PER_SUBMISSION),
            has_priorities: false,
            n_steps: 0,
            seen: Seen::default(),
        }
    }

    /// Queues a request; refused ones vanish, as they would at the door.
    fn arrive(&mut self, arrival: &Arrival) {
        let prompt = arrival.prompt();
        let types = arrival.types(&prompt);
        let admitted = arrival.admit(&self.limits, &prompt, &types);
        let Ok(admitted) = admitted else { return };
        let n_tokens_left = match &admitted.task {
            Task::Generate { stop, .. } | Task::Search { stop, .. } => stop.max_tokens,
            Task::Pool { .. } => 0,
        };
        let groups = &self.limits.groups;
        let search = match &admitted.task {
            Task::Search { params, stop } => Some((
                BeamSearch::new(*params),
                search_alone(groups, &prompt, *params, stop),
            )),
            Task::Generate { .. } | Task::Pool { .. } => None,
        };
        let n_tickets = admitted.n_tickets();
        let submission_turn = self.turns.next(&self.scheduler.present(admitted.client));
        let branches = self.branches(&admitted, submission_turn);
        self.has_priorities |= arrival.priority != 0;
        // The first in order computes at least one token of each step, or of every other one with two in flight, so
        // all the work of those before it and its own is the longest it can take, unless others may come before it
        // later.
        let (reference, hash) = Reference::of(&self.limits.groups, &prompt, &types);
        let work = (prompt.len() + n_tokens_left) * self.scheduler.depth;
        let work_all: usize = self.tickets.values().map(|ticket| ticket.work).sum();
        let expectation = Expectation {
            reference,
            hash,
            seed: 0,
            n_tokens_left,
            search,
            work: work * branches.len() / n_tickets,
            deadline: self.n_steps + work_all + work * branches.len(),
            n_overtaken: 0,
            n_overtaking_max: 0,
        };
        // Later answers of requests before it are overtaken, each by no more requests than its turn is late. One of them
        // may lose its blocks, and computes again what it had.
        for &Branch { id, .. } in branches.iter().take(n_tickets) {
            let lost = self.tickets.range(id..).map(|(_, ticket)| ticket.work).max();
            for (_, overtaken) in self.tickets.range_mut(id..) {
                overtaken.deadline += expectation.work + lost.unwrap_or(0);
                overtaken.n_overtaken += 1;
            }
        }
        for &Branch { id, seed } in branches.iter().take(n_tickets) {
            let expectation = Expectation {
                seed,
                n_overtaking_max: (id.turn - self.turns.now()) as usize,
                ..expectation.clone()
            };
            self.tickets.insert(id, expectation);
        }
        let salt = self.model.prefix_salt(prompt.len());
        let sequence = Sequence::new(admitted, branches, submission_turn, salt);
        self.scheduler.add(sequence);
    }

    /// Ids and seeds of a request's answers, in a submission that has a turn.
    fn branches(&mut self, admitted: &Admitted, submission_turn: u64) -> Vec<Branch> {
        let turns_each = u64::from(!matches!(admitted.task, Task::Search { .. }));
        let first = self.n_arrived;
        self.n_arrived += admitted.n_branches as u64;
        let branch = |arrival: u64| Branch {
            id: SequenceId {
                priority: admitted.priority,
                turn: submission_turn + admitted.n_overtaking_max + (arrival - first) * turns_each,
                arrival,
            },
            seed: arrival * 31,
        };
        (first..self.n_arrived).map(branch).collect()
    }

    /// Cancels the ticket at `idx` of those alive, wrapping around.
    fn cancel(&mut self, idx: usize) {
        if self.tickets.is_empty() {
            return;
        }
        let id = *self.tickets.keys().nth(idx % self.tickets.len()).unwrap();
        self.tickets.remove(&id);
        assert!(self.scheduler.cancel(id).is_some());
        assert!(self.scheduler.cancel(id).is_none(), "cancelled twice");
        self.check_accounting();
    }

    /// Schedules and submits a step, and commits the oldest one if no more may be in flight; `fails` names the draw
    /// that fails, if that many are made.
    fn step(&mut self, fails: Option<usize>) {
        let is_decoding = |sequence: &&Sequence| {
            sequence.n_uncomputed() == 1 && !sequence.is_searching() && !sequence.is_full()
        };
        let running = self.scheduler.running.iter();
        let decoding: Vec<SequenceId> = running.filter(is_decoding).map(Sequence::id).collect();
        let step = self.scheduler.schedule();
        self.note(&step);
        self.check_step(&step, &decoding);
        self.check_accounting();
        let (is_new, is_alone) = (!step.is_empty(), step.is_alone);
        if is_new {
            self.n_steps += 1;
            self.submit(step, fails);
        }
        if !is_new || is_alone || self.in_flight.len() == self.scheduler.depth {
            self.commit();
        }
    }

    fn submit(&mut self, step: Step, fails: Option<usize>) {
        self.seen.n_ahead += self.in_flight.len();
        let mut batch = Batch::default();
        self.scheduler.fill(&mut batch, &step);
        self.check_places(&batch, &step);
        let hashes = self.model.run(&batch, &self.previous);
        let mut drawn = Vec::new();
        self.previous.clear();
        for (logits_idx, row) in step.drawing() {
            let hash = hashes.logits[logits_idx];
            let branches = self.scheduler.sequence(row.id).branches();
            for branch in &branches[..row.n_draws] {
                let token = hash.token(VOCAB_SIZE, branch.seed);
                drawn.push((hash, Some(token)));
                self.previous.push(PreviousToken {
                    draw: logits_idx as u32,
                    place: row_of(&batch, batch.logits_at[logits_idx]).place,
                    token,
                });
            }
        }
        if let Some((_, token)) = fails.and_then(|idx| drawn.get_mut(idx)) {
            *token = None;
        }
        self.scheduler.assume(&step);
        self.check_accounting();
        self.in_flight.push_back(Submitted { step, hashes, drawn });
    }

    /// Commits the oldest step in flight, if there is one.
    fn commit(&mut self) {
        let Some(Submitted {
            step,
            hashes: Hashes { logits, pooled },
            drawn,
        }) = self.in_flight.pop_front()
        else {
            return;
        };
        self.deliver_pooled(&step, &pooled);
        let searched = self.search(&step, &logits);
        let tokens: Vec<Option<Next>> = drawn.iter().map(|(_, token)| token.map(Next::from)).collect();
        let progress = self.scheduler.commit(&step, &tokens);
        self.seen.n_overrun += drawn.len() - progress.len();
        assert!(
            progress.len() == drawn.len() || !step.is_alone,
            "a sequence ended while its step was alone in flight"
        );
        for (id, continuations) in searched {
            self.scheduler.continue_search(id, &continuations);
            if continuations.is_empty() {
                let ticket = self.tickets.remove(&id).expect("texts for a ticket that ended");
                let (search, expected) = ticket.search.expect("texts for a search");
                assert_eq!(search.into_beams(), expected);
                self.seen.n_searched += 1;
            }
        }
        for progress in progress {
            let (hash, token) = drawn[progress.draw];
            assert_eq!(progress.token, token, "another draw's token");
            self.deliver(&progress, hash);
        }
        self.check_accounting();
    }

    /// A sequence keeps its place as long as it runs, and no other one has it.
    fn check_places(&mut self, batch: &Batch, step: &Step) {
        let running = self.scheduler.running.iter();
        let places: BTreeMap<SequenceId, u32> = running
            .map(|sequence| (sequence.id(), sequence.place.expect("it runs")))
            .collect();
        assert_eq!(
            places.values().collect::<HashSet<_>>().len(),
            places.len(),
            "two sequences in one place"
        );
        assert!(
            places
                .values()
                .all(|&place| (place as usize) < self.limits.n_running_max())
        );
        for (row, batch_row) in step.rows.iter().zip(&batch.rows) {
            assert_eq!(places[&row.id], batch_row.place);
            // Texts of a search take over the ids of those that they continue.
            let is_searching = self.scheduler.sequence(row.id).is_searching();
            let was_preempted = step.preempted.contains(&row.id);
            if let Some(before) = self
                .places
                .get(&row.id)
                .filter(|_| !is_searching && !was_preempted)
            {
                assert_eq!(*before, batch_row.place, "a running sequence changed its place");
            }
        }
        self.places = places;
    }

    fn note(&mut self, step: &Step) {
        self.seen.n_preempted += step.preempted.len();
        self.seen.n_drained += usize::from(self.scheduler.is_draining && !step.is_empty());
        for block_move in &step.moves {
            match block_move {
                BlockMove::Copy { .. } => self.seen.n_copied += 1,
                BlockMove::SwapIn { .. } => self.seen.n_swapped_in += 1,
                BlockMove::SwapOut { .. } => {}
            }
        }
        for admission in &step.admitted {
            assert!(
                admission.n_cached <= admission.n_queried,
                "a hit without a question"
            );
            self.seen.n_cached_tokens += admission.n_cached;
        }
    }

    /// Hands a ticket its token, and checks that it is the one it would have got alone.
    fn deliver(&mut self, progress: &Progress, hash: ContextHash) {
        let ticket = self.tickets.get_mut(&progress.id);
        let ticket = ticket.expect("a token for a ticket that ended");
        assert_ne!(progress.token, Some(Batch::PENDING), "a placeholder for a ticket");
        assert_eq!(
            ticket.hash, hash,
            "the cache holds another text than the sequence's"
        );
        let Some(token) = progress.token else {
            self.tickets.remove(&progress.id);
            return;
        };
        assert_eq!(
            token,
            hash.token(VOCAB_SIZE, ticket.seed),
            "another branch's token"
        );
        ticket.hash = ticket.reference.push(token);
        ticket.n_tokens_left -= 1;
        let expected = match token {
            EOS => Some(FinishReason::Eos(EOS)),
            _ if ticket.n_tokens_left == 0 => Some(FinishReason::Length),
            _ => None,
        };
        assert_eq!(progress.finished, expected);
        if expected.is_some() {
            self.tickets.remove(&progress.id);
        }
    }

    /// Continues the searches that draw in this step.
    fn search(&mut self, step: &Step, logits: &[ContextHash]) -> Vec<(SequenceId, Vec<Continuation>)> {
        let mut texts: BTreeMap<SequenceId, Vec<(&Sequence, Vec<f32>)>> = BTreeMap::new();
        for (logits_idx, row) in step.drawing() {
            let hash = logits[logits_idx];
            let Some(sequence) = self.scheduler.find(row.id) else {
                continue;
            };
            if sequence.is_searching() {
                let of_request = texts.entry(sequence.request).or_default();
                of_request.push((sequence, hash.logits(VOCAB_SIZE)));
            }
        }
        let mut searched = Vec::new();
        for (id, texts) in texts {
            let Task::Search { stop, .. } = &texts[0].0.task else {
                continue;
            };
            let ticket = self.tickets.get_mut(&id).expect("a search that ended goes on");
            let (search, _) = ticket.search.as_mut().expect("a search goes on");
            let running: Vec<_> = texts
                .iter()
                .map(|(text, logits)| (text.generated(), &logits[..]))
                .collect();
            searched.push((id, search.advance(&running, stop).unwrap()));
        }
        searched
    }

    fn deliver_pooled(&mut self, step: &Step, pooled: &[ContextHash]) {
        assert_eq!(of_yield(step, Yield::Pooled).count(), pooled.len());
        for (row, hash) in of_yield(step, Yield::Pooled).zip(pooled) {
            let ticket = self.tickets.remove(&row.id);
            let ticket = ticket.expect("a vector for a ticket that ended");
            assert_eq!((ticket.hash, ticket.n_tokens_left), (*hash, 0));
            self.seen.n_pooled += 1;
        }
    }

    fn check_step(&self, step: &Step, decoding: &[SequenceId]) {
        let scheduler = &self.scheduler;
        assert!(
            !step.rows.is_empty() || self.tickets.is_empty() || !self.in_flight.is_empty(),
            "an empty step while sequences wait"
        );
        assert!(step.rows.is_empty() || !self.tickets.is_empty(), "rows of nobody");
        assert!(
            !step.is_alone || self.in_flight.is_empty(),
            "a step that is not alone in flight"
        );
        assert!(
            self.in_flight.is_empty() || step.preempted.is_empty(),
            "a sequence lost its blocks while a step was in flight"
        );
        let n_tokens: usize = step.rows.iter().map(|row| row.n_tokens).sum();
        assert_eq!(n_tokens, step.n_tokens);
        assert!(
            n_tokens <= self.limits.config.max_num_batched_tokens,
            "over budget"
        );
        assert!(
            scheduler.running.len() <= self.limits.n_running_max(),
            "too many run"
        );
        let ids: Vec<SequenceId> = step.rows.iter().map(|row| row.id).collect();
        assert_eq!(
            ids.iter().collect::<HashSet<_>>().len(),
            ids.len(),
            "a sequence twice in a step"
        );
        for row in &step.rows {
            let n_uncomputed = scheduler.sequence(row.id).n_uncomputed();
            assert!(row.n_tokens >= 1 && row.n_tokens <= n_uncomputed);
            self.check_whole(row);
            assert_eq!(row.yields == Yield::Nothing, row.n_tokens < n_uncomputed);
            let is_plain = row.yields == Yield::Nothing || row.n_draws == 1;
            assert!(
                step.is_alone || (is_plain && row.scores.is_empty()),
                "a step that must be alone is not"
            );
        }
        if step.is_empty() {
            return;
        }
        // Whoever decodes gets its token in this step, unless its blocks went to one before it.
        let is_left_out = |id: &&SequenceId| !ids.contains(id) && !step.preempted.contains(id);
        assert!(
            scheduler.is_draining || !decoding.iter().any(|id| is_left_out(&id)),
            "a decode was left out"
        );
        let Some(first) = self.tickets.keys().next() else {
            return;
        };
        let moves = |id: SequenceId| tickets_of(scheduler.sequence(id)).contains(first);
        let is_full = scheduler.find(*first).is_some_and(Sequence::is_full);
        // A prompt that needs one step waits until those before it leave room in the step.
        assert!(
            self.limits.whole_prompts || ids.iter().any(|&id| moves(id)) || is_full || scheduler.is_draining,
            "the first in order stands still"
        );
        assert!(
            !step.preempted.contains(first) || ids.contains(first),
            "the first was preempted"
        );
        self.check_deadlines();
    }

    /// Where prompts are computed in one step, all that a row's prompt lacks is in the row.
    fn check_whole(&self, row: &StepRow) {
        let sequence = self.scheduler.sequence(row.id);
        let n_whole = sequence.prompt().len().saturating_sub(sequence.n_computed());
        assert!(
            !self.limits.whole_prompts || row.n_tokens >= n_whole,
            "a prompt in pieces"
        );
    }

    /// Nobody starves, and nobody is overtaken again and again.
    fn check_deadlines(&self) {
        let is_fifo = !self.limits.whole_prompts && !self.has_priorities;
        for (id, ticket) in self.tickets.iter().filter(|_| is_fifo) {
            assert!(self.n_steps <= ticket.deadline, "ticket {id:?} starves");
            assert!(
                ticket.n_overtaken <= ticket.n_overtaking_max * N_ANSWERS_MAX,
                "{id:?} is overtaken again and again"
            );
        }
    }

    fn check_accounting(&mut self) {
        let Scheduler {
            running,
            waiting,
            cache,
            ..
        } = &self.scheduler;
        let pool = cache.pool();
        assert_eq!(pool.n_free() + pool.n_used(), self.limits.config.n_blocks);
        let mut n_owners = vec![0; self.limits.config.n_blocks];
        for sequence in running.iter().chain(waiting) {
            assert!(
                sequence.tables.n_published() * self.limits.config.block_size <= sequence.tokens().len(),
                "a block was published before its tokens were known"
            );
            for (blocks, group) in sequence.tables.groups().zip(&self.limits.groups) {
                let n_freed = blocks
                    .iter()
                    .take_while(|&&block| block == BlockId::FREED)
                    .count();
                self.seen.n_freed_blocks += n_freed;
                let first_seen = group
                    .window
                    .map_or(0, |window| (sequence.n_computed() + 1).saturating_sub(window));
                assert!(
                    n_freed * self.limits.config.block_size <= first_seen,
                    "a block inside a window was freed"
                );
                for block in &blocks[n_freed..] {
                    n_owners[block.0 as usize] += 1;
                }
            }
        }
        let counted = (0..)
            .map(BlockId)
            .take(self.limits.config.n_blocks)
            .map(|block| pool.n_owners(block));
        assert!(
            counted.eq(n_owners.iter().copied()),
            "owners are not those of the tables"
        );
        assert_eq!(n_owners.iter().filter(|&&n| n > 0).count(), pool.n_used());
        self.check_host();
        self.check_queues();
    }

    fn check_host(&self) {
        let Scheduler {
            running,
            waiting,
            cache,
            ..
        } = &self.scheduler;
        let mut swapped = HashSet::new();
        for sequence in running.iter().chain(waiting) {
            for block in sequence.tables.host_blocks() {
                assert!(swapped.insert(block), "a host block has two owners");
            }
        }
        assert_eq!(
            swapped.len() + cache.n_host_free(),
            self.limits.config.n_host_blocks
        );
    }

    fn check_queues(&self) {
        let Scheduler { running, waiting, .. } = &self.scheduler;
        assert!(
            waiting
                .iter()
                .all(|s| s.tables.is_swapped() || s.n_computed() == 0)
        );
        assert!(
            waiting
                .iter()
                .all(|s| s.pending_draw().is_none() && s.place.is_none())
        );
        for queue in [running.iter().collect::<Vec<_>>(), waiting.iter().collect()] {
            assert!(
                queue.iter().is_sorted_by_key(|sequence| sequence.id()),
                "out of order"
            );
        }
        let ids: HashSet<SequenceId> = running.iter().chain(waiting).flat_map(tickets_of).collect();
        assert!(
            ids.len() == self.tickets.len() && self.tickets.keys().all(|id| ids.contains(id)),
            "tickets and sequences differ"
        );
    }

    /// Steps until no ticket waits. No request arrives, so the remaining work bounds how long that takes.
    fn finish(&mut self) {
        let n_steps_max: usize = self.tickets.values().map(|ticket| ticket.work).sum();
        let n_steps_before = self.n_steps;
        while !self.tickets.is_empty() {
            self.step(None);
            assert!(self.n_steps - n_steps_before <= n_steps_max, "somebody starves");
        }
        while !self.in_flight.is_empty() {
            self.commit();
        }
        assert_eq!(
            (self.scheduler.cache.pool().n_used(), self.scheduler.n_running()),
            (0, 0)
        );
        assert_eq!(self.scheduler.n_waiting(), 0);
        assert_eq!(
            self.scheduler.cache.n_host_free(),
            self.limits.config.n_host_blocks
        );
    }
}

/// Who waits for a sequence.
fn tickets_of(sequence: &Sequence) -> Vec<SequenceId> {
    if sequence.is_searching() {
        return vec![sequence.request];
    }
    sequence.branches().iter().map(|branch| branch.id).collect()
}

/// All that a search finds, in a model without pages.
fn search_alone(groups: &[KvGroup], prompt: &Prompt, params: BeamParams, stop: &StopRules) -> Vec<Beam> {
    let (reference, hash) = Reference::of(groups, prompt, &[]);
    let mut search = BeamSearch::new(params);
    let mut texts = vec![(Vec::new(), reference, hash)];
    loop {
        let logits: Vec<Vec<f32>> = texts.iter().map(|(_, _, hash)| hash.logits(VOCAB_SIZE)).collect();
        let running: Vec<_> = texts
            .iter()
            .zip(&logits)
            .map(|((generated, ..), logits): (&(Vec<u32>, _, _), _)| (&generated[..], &logits[..]))
            .collect();
        let continuations = search.advance(&running, stop).unwrap();
        if continuations.is_empty() {
            return search.into_beams();
        }
        let continued = continuations.into_iter().map(|Continuation { from, token }| {
            let (mut generated, mut reference, _) = texts[from].clone();
            generated.push(token);
            let hash = reference.push(token);
            (generated, reference, hash)
        });
        texts = continued.collect();
    }
}

fn of_yield(step: &Step, yields: Yield) -> impl Iterator<Item = &StepRow> {
    step.rows.iter().filter(move |row| row.yields == yields)
}

fn random_limits(dice: &mut Dice) -> Limits {
    let window = |dice: &mut Dice| (!dice.one_in(3)).then(|| dice.within(1..=12));
    let groups = match dice.below(4) {
        0 | 1 => vec![KvGroup::default()],
        2 => vec![KvGroup { window: window(dice) }],
        _ => (0..dice.within(2..=3))
            .map(|_| KvGroup { window: window(dice) })
            .collect(),
    };
    // A model that needs whole prompts has no prefixes; a setting requests them of any model.
    let has_prefixes = !dice.one_in(12);
    let whole_prompts = !has_prefixes || dice.one_in(8);
    let config = EngineConfig {
        n_blocks: dice.within(1..=24) * groups.len(),
        n_host_blocks: dice.below(3) * dice.within(1..=16),
        block_size: dice.within(1..=6),
        enable_prefix_caching: !dice.one_in(4),
        preemption_mode: [PreemptionMode::Recompute, PreemptionMode::Swap][dice.below(2)],
        scheduling_policy: SchedulingPolicy::Priority,
        max_num_seqs: dice.within(1..=8),
        max_num_batched_tokens: dice.within(1..=20),
        max_model_len: dice.within(2..=60),
        eos_token_ids: [EOS].into(),
        ..EngineConfig::default()
    };
    Limits {
        config,
        groups,
        whole_prompts,
        has_prefixes,
        reads_media: true,
        vocab_size: VOCAB_SIZE,
    }
}

fn random_arrival(dice: &mut Dice, has_priorities: bool) -> Arrival {
    let wants = if dice.one_in(40) {
        Wants::Beams {
            params: BeamParams {
                width: dice.within(1..=4),
                length_penalty: dice.below(5) as f64 - 2.0,
                early_stopping: [
                    EarlyStopping::AtOnce,
                    EarlyStopping::Heuristic,
                    EarlyStopping::Never,
                ][dice.below(3)],
            },
            max_tokens: dice.within(1..=12),
        }
    } else if dice.one_in(6) {
        Wants::Vector {
            has_types: dice.one_in(2),
        }
    } else {
        Wants::Answer {
            max_tokens: (!dice.one_in(3)).then(|| dice.within(1..=30)),
        }
    };
    Arrival {
        client: Client::Key([dice.below(N_CLIENTS) as u8; 32]),
        text: dice.below(4),
        n_prompt: dice.within(1..=40),
        twist: dice.below(VOCAB_SIZE) as u32,
        image: dice.one_in(3).then(|| Image {
            n_before: dice.below(20),
            n_tokens: dice.within(1..=12),
            digest: dice.below(2) as u8,
        }),
        n: if dice.one_in(4) {
            dice.within(2..=N_ANSWERS_MAX)
        } else {
            1
        },
        priority: if has_priorities {
            dice.below(3) as i32 - 1
        } else {
            0
        },
        n_overtaking_max: if dice.one_in(5) { dice.below(8) as u64 } else { 0 },
        wants,
    }
}

/// One world with its own sizes and its own weather.
fn episode(seed: u64, depth: usize) -> World {
    let mut dice = Dice::new(seed);
    let mut world = World::new(random_limits(&mut dice), depth);
    let steps_per_arrival = dice.within(1..=12);
    let steps_per_cancel = dice.within(5..=200);
    let has_priorities = dice.one_in(3);
    for _ in 0..N_STEPS_PER_EPISODE {
        while world.tickets.len() < N_WAITING_MAX && dice.one_in(steps_per_arrival) {
            let arrival = random_arrival(&mut dice, has_priorities);
            world.arrive(&arrival);
        }
        if dice.one_in(steps_per_cancel) {
            world.cancel(dice.below(N_WAITING_MAX));
        }
        let fails = dice.one_in(300).then(|| dice.below(3));
        world.step(fails);
    }
    world.finish();
    world
}

#[test]
fn two_million_steps_one_after_the_other() {
    let seen = two_million_steps(1);
    assert_eq!((seen.n_ahead, seen.n_overrun, seen.n_drained), (0, 0, 0));
}

#[test]
fn two_million_steps_with_two_in_flight() {
    let seen = two_million_steps(2);
    for n_seen in [seen.n_ahead, seen.n_overrun, seen.n_drained] {
        assert!(n_seen > N_STEPS_TOTAL / 100, "{seen:?}");
    }
}

fn two_million_steps(depth: usize) -> Seen {
    let (mut n_steps, mut seed, mut total) = (0, 0, Seen::default());
    while n_steps < N_STEPS_TOTAL {
        let world = catch_unwind(AssertUnwindSafe(|| episode(seed, depth))).unwrap_or_else(|panic| {
            eprintln!("the episode with seed {seed} failed");
            resume_unwind(panic)
        });
        n_steps += world.n_steps;
        seed += 1;
        total.add(&world.seen);
    }
    // The simulation is worth little unless all of it happens all the time.
    for n_seen in [
        total.n_preempted,
        total.n_swapped_in,
        total.n_copied,
        total.n_cached_tokens,
        total.n_freed_blocks,
        total.n_pooled,
    ] {
        assert!(n_seen > N_STEPS_TOTAL / 100, "{total:?} in {n_steps} steps");
    }
    assert!(total.n_searched > 100, "{total:?}");
    total
}

impl Seen {
    fn add(&mut self, other: &Seen) {
        self.n_preempted += other.n_preempted;
        self.n_swapped_in += other.n_swapped_in;
        self.n_copied += other.n_copied;
        self.n_cached_tokens += other.n_cached_tokens;
        self.n_freed_blocks += other.n_freed_blocks;
        self.n_pooled += other.n_pooled;
        self.n_searched += other.n_searched;
        self.n_ahead += other.n_ahead;
        self.n_overrun += other.n_overrun;
        self.n_drained += other.n_drained;
    }
}

#[derive(Clone, Debug)]
enum Op {
    Arrive(Arrival),
    Cancel { idx: usize },
    Step { fails: Option<usize> },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => any::<u64>().prop_map(|seed| Op::Arrive(random_arrival(&mut Dice::new(seed), true))),
        1 => (0..8usize).prop_map(|idx| Op::Cancel { idx }),
        6 => prop::option::weighted(0.05, 0..3usize).prop_map(|fails| Op::Step { fails }),
    ]
}

proptest! {
    #[test]
    fn any_course_of_events_keeps_the_invariants(
        seed in any::<u64>(),
        depth in 1..=2usize,
        ops in prop::collection::vec(op(), 0..120),
    ) {
        let mut world = World::new(random_limits(&mut Dice::new(seed)), depth);
        for op in ops {
            match op {
                Op::Arrive(arrival) => world.arrive(&arrival),
                Op::Cancel { idx } => world.cancel(idx),
                Op::Step { fails } => world.step(fails),
            }
        }
        world.finish();
    }
}
