//! The scheduler: which sequences compute how many tokens in the next step.
//!
//! Continuous batching: every running sequence that decodes gets its token first, then chunks of prompts
//! fill the rest of the token budget, then waiting sequences are admitted in the order of arrival. A pure
//! state machine; it must not know time, the model, sampling or who asked.
//!
//! One order rules it: `running` followed by `waiting` is sorted by arrival. Sequences enter `running` only
//! from the front of `waiting`, and preemption takes the youngest and puts it back there. So the oldest
//! sequence is never preempted and gets a token of every step, which is why none starves.

#[cfg(test)]
mod simulator;

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
            batch.positions.extend(positions.map(|position| position as u32));
            if row.draws {
                batch.logits_at.push(batch.tokens.len() as u32 - 1);
            }
            batch.rows.push(BatchRow {
                query_start,
                query_len: row.n_tokens,
                context_len,
                block_tables: vec![sequence.blocks.blocks().to_vec()],
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::sequence::GenerateRequest;

    const TOKEN: Option<u32> = Some(7);

    fn limits() -> Limits {
        Limits {
            n_blocks: 100,
            block_size: 4,
            max_num_seqs: 8,
            max_num_batched_tokens: 8,
            max_model_len: 100,
            vocab_size: 10,
            eos_token_ids: [9].into(),
        }
    }

    /// A scheduler with one waiting sequence per prompt length, which all may generate 10 tokens.
    fn scheduler(limits: &Limits, n_prompts: &[usize]) -> Scheduler {
        let mut scheduler = Scheduler::new(limits);
        for (id, &n_prompt) in n_prompts.iter().enumerate() {
            let request = GenerateRequest {
                prompt: vec![1; n_prompt],
                max_tokens: Some(10),
                ..GenerateRequest::default()
            };
            let admitted = limits.admit(request).unwrap();
            scheduler.add(Sequence::new(SequenceId(id as u64), admitted, 0));
        }
        scheduler
    }

    /// Runs `n_steps`; each row as `id:tokens`, with `*` if it draws and `-id` for a preemption.
    fn course(scheduler: &mut Scheduler, n_steps: usize) -> String {
        let mut course = Vec::new();
        for _ in 0..n_steps {
            let step = scheduler.schedule();
            let draws = |row: &StepRow| if row.draws { "*" } else { "" };
            let rows = step
                .rows
                .iter()
                .map(|row| format!("{}:{}{}", row.id.0, row.n_tokens, draws(row)));
            let preempted = step.preempted.iter().map(|id| format!("-{}", id.0));
            course.push(rows.chain(preempted).collect::<Vec<_>>().join(" "));
            let n_draws = step.rows.iter().filter(|row| row.draws).count();
            scheduler.commit(&step, &vec![TOKEN; n_draws]);
        }
        course.join(" | ")
    }

    #[test]
    fn decodes_come_first_and_prompts_are_chunked() {
        let mut scheduler = scheduler(&limits(), &[3, 12, 2]);
        assert_eq!(course(&mut scheduler, 3), "0:3* 1:5 | 0:1* 1:7* | 0:1* 1:1* 2:2*");
    }

    #[test]
    fn no_more_run_than_a_step_has_tokens() {
        let limits = Limits {
            max_num_batched_tokens: 2,
            ..limits()
        };
        let mut scheduler = scheduler(&limits, &[1, 1, 1]);
        assert_eq!(course(&mut scheduler, 2), "0:1* 1:1* | 0:1* 1:1*");
        assert_eq!(scheduler.n_waiting(), 1);
    }

    #[test]
    fn the_youngest_is_preempted_and_recomputed_with_what_it_generated() {
        let limits = Limits {
            n_blocks: 4,
            ..limits()
        };
        let mut scheduler = scheduler(&limits, &[3, 3, 3]);
        // Three blocks for three prompts, and one more that the oldest gets.
        assert_eq!(course(&mut scheduler, 1), "0:3* 1:3* 2:2");
        assert_eq!(
            course(&mut scheduler, 3),
            "0:1* 1:1* 2:1* | 0:1* 1:1* -2 | 0:1* 1:1*"
        );
        let front = scheduler.waiting.front().unwrap();
        assert_eq!(
            (front.id, front.generated(), front.n_computed()),
            (SequenceId(2), &[7][..], 0)
        );
        // At its ninth token the oldest needs a third block, and the second gives way too.
        assert_eq!(course(&mut scheduler, 3), "0:1* 1:1* | 0:1* 1:1* | 0:1* -1");
        // The oldest has its ten tokens after three more; the others compute prompt and answer again.
        assert_eq!(course(&mut scheduler, 5), "0:1* | 0:1* | 0:1* | 1:8 | 1:1* 2:4*");
    }

    #[test]
    fn a_waiting_sequence_that_does_not_fit_is_not_overtaken() {
        let limits = Limits {
            n_blocks: 6,
            max_num_batched_tokens: 32,
            ..limits()
        };
        let mut scheduler = scheduler(&limits, &[8, 14, 1]);
        assert_eq!(course(&mut scheduler, 2), "0:8* 1:14* | 0:1* -1");
        assert_eq!((scheduler.n_running(), scheduler.n_waiting()), (1, 2));
    }

    #[test]
    fn what_ends_frees_its_blocks_at_once() {
        let mut scheduler = scheduler(&limits(), &[4, 4]);
        let step = scheduler.schedule();
        assert_eq!(scheduler.pool().n_used(), 2);
        let progress = scheduler.commit(&step, &[Some(9), None]);
        let ended = progress
            .iter()
            .map(|p| (p.id.0, p.token, p.finished))
            .collect::<Vec<_>>();
        assert_eq!(ended, [(0, Some(9), Some(FinishReason::Eos(9))), (1, None, None)]);
        assert_eq!((scheduler.pool().n_used(), scheduler.n_running()), (0, 0));
        assert_eq!(scheduler.schedule(), Step::default());
    }

    #[test]
    fn the_batch_of_a_second_chunk_goes_on_where_the_first_ended() {
        let limits = Limits {
            max_num_batched_tokens: 3,
            ..limits()
        };
        let mut scheduler = scheduler(&limits, &[5]);
        course(&mut scheduler, 1);
        let step = scheduler.schedule();
        let batch = scheduler.batch(&step);
        assert_eq!(
            (batch.tokens.len(), batch.positions, batch.logits_at),
            (2, vec![3, 4], vec![1])
        );
        assert_eq!(
            (batch.rows[0].context_len, batch.rows[0].block_tables[0].len()),
            (5, 2)
        );
    }
}
