//! A seeded simulator: arrivals, cancellations and failures drive the scheduler through a million steps.
//!
//! After each step every invariant is checked: no block has two owners, free + used = total, the budget
//! holds, decodes come first, the oldest sequence moves, every ticket ends exactly once and in time, and
//! every text is the one the sequence would have had alone.

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use proptest::prelude::*;

use super::*;
use crate::engine::fake::{ContextHash, Dice, HashModel};
use crate::engine::sequence::GenerateRequest;

const VOCAB_SIZE: usize = 40;
const EOS: u32 = 3;
const N_STEPS_TOTAL: usize = 1_000_000;
const N_STEPS_PER_EPISODE: usize = 2_000;
const N_WAITING_MAX: usize = 12;

/// One scheduler with its model and everybody who waits for an answer.
struct World {
    limits: Limits,
    scheduler: Scheduler,
    model: HashModel,
    tickets: BTreeMap<SequenceId, Expectation>,
    n_arrived: u64,
    n_steps: usize,
    n_preempted: usize,
}

/// What one ticket has and may expect.
struct Expectation {
    hash: ContextHash,
    n_tokens_left: usize,
    /// The step by which it must have ended.
    deadline: usize,
}

impl World {
    fn new(limits: Limits) -> World {
        World {
            scheduler: Scheduler::new(&limits),
            model: HashModel::new(VOCAB_SIZE, limits.n_blocks, limits.block_size),
            limits,
            tickets: BTreeMap::new(),
            n_arrived: 0,
            n_steps: 0,
            n_preempted: 0,
        }
    }

    /// A request with a prompt that no other has; refused ones vanish, as they would at the door.
    fn arrive(&mut self, n_prompt: usize, max_tokens: Option<usize>) {
        let id = SequenceId(self.n_arrived);
        self.n_arrived += 1;
        let prompt: Vec<u32> = (0..n_prompt)
            .map(|idx| ((id.0 as usize * 7 + idx * idx) % VOCAB_SIZE) as u32)
            .collect();
        let hash = ContextHash::of(&prompt);
        let request = GenerateRequest {
            prompt,
            max_tokens,
            ..GenerateRequest::default()
        };
        let Ok(admitted) = self.limits.admit(request) else {
            return;
        };
        let n_tokens_left = admitted.stop.max_tokens;
        // The oldest computes at least one token of each step, so all the work of the older ones and its
        // own is the longest it can take.
        let work_before: usize = self
            .scheduler
            .running
            .iter()
            .chain(&self.scheduler.waiting)
            .map(work)
            .sum();
        let deadline = self.n_steps + work_before + n_prompt + n_tokens_left;
        self.scheduler.add(Sequence::new(id, admitted, 0));
        self.tickets.insert(
            id,
            Expectation {
                hash,
                n_tokens_left,
                deadline,
            },
        );
    }

    /// Cancels the ticket at `idx` of those alive, wrapping around.
    fn cancel(&mut self, idx: usize) {
        if self.tickets.is_empty() {
            return;
        }
        let id = *self.tickets.keys().nth(idx % self.tickets.len()).unwrap();
        self.tickets.remove(&id);
        assert_eq!(self.scheduler.cancel(id).map(|sequence| sequence.id), Some(id));
        assert!(self.scheduler.cancel(id).is_none(), "cancelled twice");
        self.check_accounting();
    }

    /// One step; `fails` names the draw that fails, if that many are made.
    fn step(&mut self, fails: Option<usize>) {
        let decoding: Vec<SequenceId> = self
            .scheduler
            .running
            .iter()
            .filter(|s| s.n_uncomputed() == 1)
            .map(|s| s.id)
            .collect();
        let step = self.scheduler.schedule();
        self.n_steps += 1;
        self.n_preempted += step.preempted.len();
        self.check_step(&step, &decoding);
        self.check_accounting();

        let hashes = self.model.contexts(&self.scheduler.batch(&step));
        let draw = |(idx, hash): (usize, &ContextHash)| (fails != Some(idx)).then(|| hash.token(VOCAB_SIZE));
        let tokens: Vec<Option<u32>> = hashes.iter().enumerate().map(draw).collect();
        let progress = self.scheduler.commit(&step, &tokens);
        assert_eq!(progress.len(), hashes.len());
        for (progress, hash) in progress.into_iter().zip(hashes) {
            self.deliver(progress, hash);
        }
        self.check_accounting();
    }

    /// Hands a ticket its token, and checks that it is the one it would have got alone.
    fn deliver(&mut self, progress: Progress, hash: ContextHash) {
        let ticket = self
            .tickets
            .get_mut(&progress.id)
            .expect("a token for a ticket that ended");
        assert_eq!(
            ticket.hash, hash,
            "the cache holds another text than the sequence's"
        );
        let Some(token) = progress.token else {
            self.tickets.remove(&progress.id);
            return;
        };
        ticket.hash = hash.then(token);
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

    fn check_step(&self, step: &Step, decoding: &[SequenceId]) {
        let scheduler = &self.scheduler;
        assert_eq!(
            step.rows.is_empty(),
            self.tickets.is_empty(),
            "an empty step while sequences wait"
        );
        let n_tokens: usize = step.rows.iter().map(|row| row.n_tokens).sum();
        assert_eq!(n_tokens, step.n_tokens);
        assert!(n_tokens <= self.limits.max_num_batched_tokens, "over budget");
        assert!(
            scheduler.running.len() <= self.limits.max_num_seqs,
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
            assert_eq!(row.draws, row.n_tokens == n_uncomputed);
        }
        let survivors: Vec<SequenceId> = decoding
            .iter()
            .copied()
            .filter(|id| !step.preempted.contains(id))
            .collect();
        assert_eq!(ids[..survivors.len()], survivors, "decodes do not come first");
        // Nobody decoding was left out, and the oldest sequence moves.
        if let Some(oldest) = self.tickets.keys().next() {
            assert!(ids.contains(oldest), "the oldest sequence stands still");
            assert!(
                !step.preempted.contains(oldest),
                "the oldest sequence was preempted"
            );
        }
        for (id, ticket) in &self.tickets {
            assert!(self.n_steps <= ticket.deadline, "ticket {} starves", id.0);
        }
    }

    fn check_accounting(&self) {
        let Scheduler {
            running,
            waiting,
            pool,
            ..
        } = &self.scheduler;
        assert_eq!(
            pool.n_free() + pool.n_used(),
            self.limits.n_blocks,
            "free + used is not the total"
        );
        let mut owned = vec![false; self.limits.n_blocks];
        for block in running.iter().flat_map(|sequence| sequence.blocks.blocks()) {
            assert!(!owned[block.0 as usize], "block {} has two owners", block.0);
            owned[block.0 as usize] = true;
        }
        assert_eq!(owned.iter().filter(|&&is_owned| is_owned).count(), pool.n_used());
        assert!(
            waiting
                .iter()
                .all(|s| s.blocks.blocks().is_empty() && s.n_computed() == 0)
        );
        let ids = running.iter().chain(waiting).map(|sequence| sequence.id);
        assert!(
            ids.eq(self.tickets.keys().copied()),
            "tickets and sequences differ, or are out of order"
        );
    }

    /// Steps until nobody waits any more; the deadlines bound how long that takes.
    fn finish(&mut self) {
        while !self.tickets.is_empty() {
            self.step(None);
        }
        assert_eq!((self.scheduler.pool.n_used(), self.scheduler.n_running()), (0, 0));
        assert_eq!(self.scheduler.n_waiting(), 0);
    }
}

/// Tokens a sequence can still have to compute, were it preempted now.
fn work(sequence: &Sequence) -> usize {
    sequence.prompt().len() + sequence.stop.max_tokens
}

fn random_limits(dice: &mut Dice) -> Limits {
    Limits {
        n_blocks: dice.within(1..=24),
        block_size: dice.within(1..=6),
        max_num_seqs: dice.within(1..=8),
        max_num_batched_tokens: dice.within(1..=20),
        max_model_len: dice.within(2..=60),
        vocab_size: VOCAB_SIZE,
        eos_token_ids: [EOS].into(),
    }
}

/// One world with its own sizes and its own weather.
fn episode(seed: u64) -> World {
    let mut dice = Dice::new(seed);
    let mut world = World::new(random_limits(&mut dice));
    let steps_per_arrival = dice.within(1..=12);
    let steps_per_cancel = dice.within(5..=200);
    for _ in 0..N_STEPS_PER_EPISODE {
        while world.tickets.len() < N_WAITING_MAX && dice.one_in(steps_per_arrival) {
            let n_prompt = dice.within(1..=40);
            let max_tokens = (!dice.one_in(3)).then(|| dice.within(1..=30));
            world.arrive(n_prompt, max_tokens);
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
fn a_million_steps() {
    let (mut n_steps, mut n_preempted, mut seed) = (0, 0, 0);
    while n_steps < N_STEPS_TOTAL {
        let world = catch_unwind(AssertUnwindSafe(|| episode(seed))).unwrap_or_else(|panic| {
            eprintln!("the episode with seed {seed} failed");
            resume_unwind(panic)
        });
        n_steps += world.n_steps;
        n_preempted += world.n_preempted;
        seed += 1;
    }
    // The simulation is worth little unless it preempts all the time.
    assert!(
        n_preempted > N_STEPS_TOTAL / 100,
        "{n_preempted} preemptions in {n_steps} steps"
    );
}

#[derive(Clone, Debug)]
enum Op {
    Arrive {
        n_prompt: usize,
        max_tokens: Option<usize>,
    },
    Cancel {
        idx: usize,
    },
    Step {
        fails: Option<usize>,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (0..30usize, prop::option::of(0..20usize))
            .prop_map(|(n_prompt, max_tokens)| Op::Arrive { n_prompt, max_tokens }),
        1 => (0..8usize).prop_map(|idx| Op::Cancel { idx }),
        6 => prop::option::weighted(0.05, 0..3usize).prop_map(|fails| Op::Step { fails }),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    (1..16usize, 1..5usize, 1..6usize, 1..12usize, 1..40usize).prop_map(
        |(n_blocks, block_size, max_num_seqs, max_num_batched_tokens, max_model_len)| Limits {
            n_blocks,
            block_size,
            max_num_seqs,
            max_num_batched_tokens,
            max_model_len,
            vocab_size: VOCAB_SIZE,
            eos_token_ids: [EOS].into(),
        },
    )
}

proptest! {
    #[test]
    fn any_course_of_events_keeps_the_invariants(limits in limits(), ops in prop::collection::vec(op(), 0..120)) {
        let mut world = World::new(limits);
        for op in ops {
            match op {
                Op::Arrive { n_prompt, max_tokens } => world.arrive(n_prompt, max_tokens),
                Op::Cancel { idx } => world.cancel(idx),
                Op::Step { fails } => world.step(fails),
            }
        }
        world.finish();
    }
}
