//! Steps of a model without an engine: prompts in parts, and one token of each of some sequences.

use std::time::{Duration, Instant};

use super::machine::Limits;
use super::report::{OpTime, Phase, PhaseKind, Rates};
use super::statistics::Spread;
use crate::batch::{Batch, BatchRow, BlockId, BlockMove, Forward, StepError, StepOutput};
use crate::model::{Cost, Costs, Model, OpCost, Results, StepLimits, StepShape, Task};

/// Sequences whose steps are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) kind: PhaseKind,
    pub(super) n_sequences: usize,
    /// New tokens of each.
    pub(super) n_new: usize,
    /// Tokens of each after the last step.
    pub(super) context_len: usize,
}

/// A model with a cache for the largest of the shapes.
pub(super) struct Steps<'a> {
    model: &'a mut Model,
    costs: Costs,
    layout: Layout,
    output: StepOutput,
}

/// How sequences become batches.
#[derive(Clone, Copy, Debug)]
struct Layout {
    block_size: usize,
    n_groups: usize,
    /// New tokens of a step at most.
    n_tokens_max: usize,
    vocab_size: usize,
    pools: bool,
}

/// What was measured of a shape.
pub(super) struct Measured {
    pub(super) shape: Shape,
    pub(super) seconds: Vec<f64>,
    pub(super) cost: Cost,
    /// Equal ops and their times, one for each run of a profile.
    pub(super) ops: Vec<(OpCost, Vec<f64>)>,
}

/// Measurements of a shape at least, unless one takes longer than there is time for.
const N_RUNS_MIN: usize = 3;
/// Runs of a profile.
const N_PROFILES: usize = 3;

impl Shape {
    /// A prompt.
    pub(super) fn prefill(n_tokens: usize) -> Shape {
        Shape {
            kind: PhaseKind::Prefill,
            n_sequences: 1,
            n_new: n_tokens,
            context_len: n_tokens,
        }
    }

    /// One token of each sequence.
    pub(super) fn decode(n_sequences: usize, context_len: usize) -> Shape {
        Shape {
            kind: PhaseKind::Decode,
            n_sequences,
            n_new: 1,
            context_len,
        }
    }
}

impl Shape {
    /// What it is, in words.
    pub(super) fn title(self) -> String {
        self.kind.title(self.n_sequences, self.context_len)
    }
}

impl<'a> Steps<'a> {
    /// Takes the memory for shapes of which there is at least one, computed in steps of up to `n_tokens_max` tokens. The
    /// cache is written once, because memory that was never written is read from one page.
    pub(super) fn new(
        model: &'a mut Model,
        shapes: &[Shape],
        (block_size, n_tokens_max): (usize, usize),
    ) -> Result<Steps<'a>, super::BenchError> {
        let largest = |of: fn(&Shape) -> usize| shapes.iter().map(of).max().unwrap_or(1);
        let context_len = largest(|shape| shape.context_len);
        let n_sequences = largest(|shape| shape.n_sequences);
        let is_whole = model.whole_prompts();
        let n_tokens_max = if is_whole { context_len } else { n_tokens_max };
        let layout = Layout {
            block_size,
            n_groups: model.kv_groups().len(),
            n_tokens_max: n_tokens_max.max(n_sequences),
            vocab_size: model.info().vocab_size,
            pools: model.info().task != Task::Generate,
        };
        model.reserve(&StepLimits {
            n_tokens: layout.n_tokens_max,
            n_sequences,
            n_logits: n_sequences,
            context_len,
            block_size,
        })?;
        let of_shape = |shape: &Shape| shape.n_sequences * shape.context_len.div_ceil(block_size);
        let n_blocks = layout.n_groups * shapes.iter().map(of_shape).max().unwrap_or(1);
        model.allocate_cache(n_blocks, block_size, 0)?;
        let costs = model.costs();
        let mut steps = Steps {
            model,
            costs,
            layout,
            output: StepOutput::default(),
        };
        steps.fill(n_blocks)?;
        Ok(steps)
    }

    /// Writes every block.
    fn fill(&mut self, n_blocks: usize) -> Result<(), StepError> {
        let n_tokens = self.layout.block_size.min(self.layout.n_tokens_max);
        for batch in self.layout.batches(Shape::prefill(n_tokens)) {
            self.model.compute(&batch, &mut self.output)?;
        }
        let others = 1..n_blocks as u32;
        let mut batches = self.layout.batches(Shape::prefill(1));
        batches[0].moves = others
            .map(|to| BlockMove::Copy {
                from: BlockId(0),
                to: BlockId(to),
            })
            .collect();
        self.model.compute(&batches[0], &mut self.output)
    }

    /// Measures a shape again and again for `time`, after a run that warms up. Calls `progress` with the number of runs.
    pub(super) fn measure(
        &mut self,
        shape: Shape,
        time: Duration,
        progress: &dyn Fn(usize),
    ) -> Result<Measured, StepError> {
        let batches = self.layout.batches(shape);
        let warm_up = self.run(&batches)?;
        let n_runs_min = if warm_up > time { 1 } else { N_RUNS_MIN };
        let mut seconds = Vec::new();
        let begun = Instant::now();
        while seconds.len() < n_runs_min || begun.elapsed() < time {
            seconds.push(self.run(&batches)?.as_secs_f64());
            progress(seconds.len());
        }
        let mut cost = Cost::default();
        for (part, results) in self.layout.parts(shape) {
            cost += self.costs.of_step(part, results);
        }
        Ok(Measured {
            shape,
            seconds,
            cost,
            ops: Vec::new(),
        })
    }

    /// Adds the times of ops. Empty for a card.
    pub(super) fn profile(&mut self, measured: &mut Measured) -> Result<(), StepError> {
        let batches = self.layout.batches(measured.shape);
        for (part, results) in self.layout.parts(measured.shape) {
            let ops = self.costs.of_ops(part, results);
            if measured.ops.is_empty() {
                measured.ops = ops.into_iter().map(|op| (op, Vec::new())).collect();
            } else {
                let sums = measured.ops.iter_mut();
                sums.zip(ops).for_each(|((sum, _), op)| sum.cost += op.cost);
            }
        }
        for _ in 0..N_PROFILES {
            let mut times: Vec<Duration> = Vec::new();
            for batch in &batches {
                let of_step = self.model.profile(batch, &mut self.output)?;
                times.resize(of_step.len(), Duration::ZERO);
                times.iter_mut().zip(of_step).for_each(|(sum, time)| *sum += time);
            }
            for ((_, all), time) in measured.ops.iter_mut().zip(times) {
                all.push(time.as_secs_f64());
            }
        }
        Ok(())
    }

    fn run(&mut self, batches: &[Batch]) -> Result<Duration, StepError> {
        let begun = Instant::now();
        for batch in batches {
            self.model.compute(batch, &mut self.output)?;
        }
        Ok(begun.elapsed())
    }
}

impl Layout {
    /// The steps of a shape, and what is requested of each.
    fn parts(self, shape: Shape) -> Vec<(StepShape, Results)> {
        let first = shape.context_len - shape.n_new;
        let starts = (0..shape.n_new).step_by(self.n_tokens_max);
        let parts = starts.map(|start| {
            let query_len = self.n_tokens_max.min(shape.n_new - start);
            let step = StepShape {
                n_sequences: shape.n_sequences,
                query_len,
                context_len: first + start + query_len,
            };
            let is_last = start + query_len == shape.n_new;
            (
                step,
                if is_last {
                    Results::Requested
                } else {
                    Results::None
                },
            )
        });
        parts.collect()
    }

    /// The same as batches.
    fn batches(self, shape: Shape) -> Vec<Batch> {
        let parts = self.parts(shape).into_iter();
        parts
            .map(|(step, results)| self.batch(step, results, shape.context_len))
            .collect()
    }

    fn batch(self, step: StepShape, results: Results, len: usize) -> Batch {
        let mut batch = Batch::default();
        let n_blocks = len.div_ceil(self.block_size);
        for idx in 0..step.n_sequences {
            let query_start = batch.tokens.len();
            for position in step.context_len - step.query_len..step.context_len {
                batch
                    .tokens
                    .push(((97 * idx + 31 * position) % self.vocab_size) as u32);
                batch.positions.push(position as u32);
            }
            if results == Results::Requested {
                if self.pools {
                    batch.pooled_rows.push(idx as u32);
                } else {
                    batch.logits_at.push(batch.tokens.len() as u32 - 1);
                }
            }
            let table = |group: usize| {
                let first = (idx * self.n_groups + group) * n_blocks;
                (first..first + n_blocks)
                    .map(|block| BlockId(block as u32))
                    .collect()
            };
            batch.rows.push(BatchRow {
                place: idx as u32,
                query_start,
                query_len: step.query_len,
                context_len: step.context_len,
                prompt_len: len,
                block_tables: (0..self.n_groups).map(table).collect(),
            });
        }
        batch
    }
}

impl Measured {
    /// What was measured, compared with the limits.
    pub(super) fn phase(self, limits: Option<&Limits>) -> Option<Phase> {
        let Shape {
            kind,
            n_sequences,
            n_new,
            context_len,
        } = self.shape;
        let runs = self.seconds.len();
        let ms = Spread::of(self.seconds.iter().map(|seconds| 1e3 * seconds).collect())?;
        let seconds = ms.p50 / 1e3;
        Some(Phase {
            kind,
            sequences: n_sequences,
            new_tokens: n_new,
            context_len,
            tokens_per_s: (n_sequences * n_new) as f64 / seconds,
            ms,
            runs,
            rates: Rates::of(self.cost, seconds, limits),
            ops: op_times(self.ops, limits),
        })
    }
}

/// The ops that took time, the longest first.
fn op_times(ops: Vec<(OpCost, Vec<f64>)>, limits: Option<&Limits>) -> Vec<OpTime> {
    let medians = ops.into_iter().filter_map(|(op, seconds)| {
        let median = Spread::of(seconds)?.p50;
        (median > 0.0).then_some((op, median))
    });
    let medians: Vec<(OpCost, f64)> = medians.collect();
    let total: f64 = medians.iter().map(|(_, seconds)| seconds).sum();
    let mut times: Vec<OpTime> = medians
        .into_iter()
        .map(|(op, seconds)| OpTime {
            op: op.op,
            count: op.n,
            ms: 1e3 * seconds,
            share: seconds / total,
            rates: Rates::of(op.cost, seconds, limits),
        })
        .collect();
    times.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    times
}
