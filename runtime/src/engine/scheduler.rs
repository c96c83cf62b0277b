//! The scheduler: which sequences compute how many tokens in the next step.
//!
//! Continuous batching: every running sequence that decodes gets its token first, then chunks of prompts
//! fill the rest of the token budget, then waiting sequences are admitted in the order of arrival. A pure
//! state machine; it must not know time, the model, sampling or who asked.
//!
//! One order rules it: `running` followed by `waiting` is sorted by arrival. Sequences enter `running` only
//! from the front of `waiting`, and preemption takes the youngest and puts it back there. So the oldest
//! sequence is never preempted and gets a token of every step, which is why none starves.

use std::collections::VecDeque;

use super::admission::Limits;
use super::batch::{Batch, BatchRow};
use super::blocks::BlockPool;
use super::sequence::{Sequence, SequenceId};
use super::ticket::FinishReason;

/// The sequences of one engine, from admission to their end.
#[derive(Debug)]
pub struct Scheduler {
    n_running_max: usize,
    n_step_tokens_max: usize,
    pool: BlockPool,
    running: Vec<Sequence>,
    waiting: VecDeque<Sequence>,
}

/// What to compute next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// One row per sequence: those that decode first.
    pub rows: Vec<StepRow>,
    /// Tokens of all rows.
    pub n_tokens: usize,
    /// Sequences that lost their blocks to older ones and wait again, youngest first.
    pub preempted: Vec<SequenceId>,
}

/// One sequence's part of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepRow {
    /// The sequence.
    pub id: SequenceId,
    /// Its next tokens to compute, at least 1.
    pub n_tokens: usize,
    /// All its tokens are computed then, so the next one is drawn.
    pub draws: bool,
}

/// What a step did to one sequence that drew.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// The sequence.
    pub id: SequenceId,
    /// The token it drew; `None`: none could be drawn, and the sequence is gone.
    pub token: Option<u32>,
    /// Why it ended; its blocks are free already. `None`: it goes on, or failed.
    pub finished: Option<FinishReason>,
    /// Tokens it has generated.
    pub n_generated: usize,
}

impl Scheduler {
    /// A scheduler with nothing to do.
    pub fn new(limits: &Limits) -> Scheduler {
        Scheduler {
            n_running_max: limits.n_running_max(),
            n_step_tokens_max: limits.max_num_batched_tokens,
            pool: BlockPool::new(limits.n_blocks, limits.block_size),
            running: Vec::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Queues a sequence that [`Limits::admit`] accepted.
    ///
    /// # Panics
    /// If a younger sequence was queued before.
    pub fn add(&mut self, sequence: Sequence) {
        let youngest = self.waiting.back().or(self.running.last());
        assert!(
            youngest.is_none_or(|last| last.id < sequence.id),
            "sequences arrive in the order of their ids"
        );
        self.waiting.push_back(sequence);
    }

    /// Takes a sequence out and frees its blocks; `None` if it is not here.
    pub fn cancel(&mut self, id: SequenceId) -> Option<Sequence> {
        if let Ok(idx) = self.running.binary_search_by_key(&id, |sequence| sequence.id) {
            return Some(self.remove_running(idx));
        }
        let idx = self
            .waiting
            .binary_search_by_key(&id, |sequence| sequence.id)
            .ok()?;
        self.waiting.remove(idx)
    }

    /// Decides the next step and takes the blocks it needs; every step must be committed before the next.
    /// Empty only if there is no sequence at all.
    pub fn schedule(&mut self) -> Step {
        let mut step = Step::default();
        self.schedule_decodes(&mut step);
        self.schedule_prefills(&mut step);
        // Blocks are short right after a preemption: what was just freed belongs to the older ones.
        if step.preempted.is_empty() {
            self.admit_waiting(&mut step);
        }
        step
    }

    /// The arrays the model needs for `step`.
    pub fn batch(&self, step: &Step) -> Batch {
        let mut batch = Batch::default();
        for row in &step.rows {
            let sequence = self.sequence(row.id);
            let query_start = batch.tokens.len();
            let context_len = sequence.n_computed() + row.n_tokens;
            let positions = sequence.n_computed()..context_len;
            batch
                .tokens
                .extend_from_slice(&sequence.tokens()[positions.clone()]);
            for position in positions {
                batch.positions.push(position as u32);
                batch.slots.push(self.pool.slot(&sequence.blocks, position));
            }
            if row.draws {
                batch.logits_at.push(batch.tokens.len() as u32 - 1);
            }
            let block_table = sequence.blocks.blocks().to_vec();
            batch.rows.push(BatchRow {
                query_start,
                query_len: row.n_tokens,
                context_len,
                block_table,
            });
        }
        batch
    }

    /// Records that `step` was computed. `tokens` has one entry per row that draws, in order; `None`: no
    /// token could be drawn, and the sequence is dropped.
    ///
    /// # Panics
    /// If `tokens` does not match the step's rows.
    pub fn commit(&mut self, step: &Step, tokens: &[Option<u32>]) -> Vec<Progress> {
        let mut tokens = tokens.iter();
        let mut progress = Vec::new();
        for row in &step.rows {
            let idx = self.running_idx(row.id);
            self.running[idx].computed(row.n_tokens);
            if row.draws {
                let token = *tokens.next().expect("one draw per row that draws");
                progress.push(self.advance(idx, token));
            }
        }
        assert!(tokens.next().is_none(), "more draws than rows that draw");
        progress
    }

    /// A running sequence.
    ///
    /// # Panics
    /// If it does not run.
    pub fn sequence(&self, id: SequenceId) -> &Sequence {
        &self.running[self.running_idx(id)]
    }

    /// Sequences that hold blocks.
    pub fn n_running(&self) -> usize {
        self.running.len()
    }

    /// Sequences that wait for a place.
    pub fn n_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The blocks of the cache.
    pub fn pool(&self) -> &BlockPool {
        &self.pool
    }

    /// One token for every running sequence that misses just one. It may need a new block, and takes it
    /// from the youngest if none is free.
    fn schedule_decodes(&mut self, step: &mut Step) {
        let mut idx = 0;
        while idx < self.running.len() {
            if self.running[idx].n_uncomputed() == 1 && self.make_room(idx, step) {
                self.push_row(idx, step);
            }
            idx += 1;
        }
    }

    /// Makes room for all tokens of `running[idx]`; false if it had to be preempted itself.
    fn make_room(&mut self, idx: usize, step: &mut Step) -> bool {
        while idx < self.running.len() {
            let sequence = &mut self.running[idx];
            let n_tokens = sequence.tokens().len();
            if self.pool.grow(&mut sequence.blocks, n_tokens).is_ok() {
                return true;
            }
            self.preempt_youngest(step);
        }
        false
    }

    /// Takes the youngest running sequence's blocks; its tokens will be computed again.
    fn preempt_youngest(&mut self, step: &mut Step) {
        let mut sequence = self.running.pop().expect("a sequence asked for room");
        // The oldest never gives way: admission made sure that it fits alone.
        assert!(
            !self.running.is_empty(),
            "a sequence was admitted that does not fit alone"
        );
        self.pool.release(&mut sequence.blocks);
        sequence.uncompute();
        step.preempted.push(sequence.id);
        self.waiting.push_front(sequence);
    }

    /// Chunks of the prompts that are not computed yet. Their blocks were taken at admission.
    fn schedule_prefills(&mut self, step: &mut Step) {
        for idx in 0..self.running.len() {
            if self.running[idx].n_uncomputed() > 1 && self.budget_left(step) > 0 {
                self.push_row(idx, step);
            }
        }
    }

    /// Admits from the front of the queue while there are places, budget and blocks for all tokens known.
    fn admit_waiting(&mut self, step: &mut Step) {
        while self.running.len() < self.n_running_max && self.budget_left(step) > 0 {
            let Some(mut sequence) = self.waiting.pop_front() else {
                return;
            };
            let n_tokens = sequence.tokens().len();
            if self.pool.grow(&mut sequence.blocks, n_tokens).is_err() {
                self.waiting.push_front(sequence);
                return;
            }
            self.running.push(sequence);
            self.push_row(self.running.len() - 1, step);
        }
    }

    fn push_row(&self, idx: usize, step: &mut Step) {
        let sequence = &self.running[idx];
        let n_tokens = sequence.n_uncomputed().min(self.budget_left(step));
        step.rows.push(StepRow {
            id: sequence.id,
            n_tokens,
            draws: n_tokens == sequence.n_uncomputed(),
        });
        step.n_tokens += n_tokens;
    }

    fn budget_left(&self, step: &Step) -> usize {
        self.n_step_tokens_max - step.n_tokens
    }

    /// Gives `running[idx]` its drawn token, and removes it if that ends it.
    fn advance(&mut self, idx: usize, token: Option<u32>) -> Progress {
        let sequence = &mut self.running[idx];
        let finished = token.and_then(|token| sequence.push(token));
        let progress = Progress {
            id: sequence.id,
            token,
            finished,
            n_generated: sequence.generated().len(),
        };
        if finished.is_some() || token.is_none() {
            self.remove_running(idx);
        }
        progress
    }

    fn remove_running(&mut self, idx: usize) -> Sequence {
        let mut sequence = self.running.remove(idx);
        self.pool.release(&mut sequence.blocks);
        sequence
    }

    fn running_idx(&self, id: SequenceId) -> usize {
        let found = self.running.binary_search_by_key(&id, |sequence| sequence.id);
        found.expect("a scheduled sequence runs until its step is committed")
    }
}
