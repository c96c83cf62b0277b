//! Streams through the engine with its scheduler and its sampler: what a user of a busy replica gets.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::BenchError;
use super::machine::Limits;
use super::report::{Rates, Served};
use super::statistics::Spread;
use crate::batch::{Batch, Forward, Tap};
use crate::engine::{Engine, Event, GenerateRequest, SamplingParams, Ticket};
use crate::model::{Cost, Costs, Model, Results, StepShape};

/// Streams that begin at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streams {
    pub(super) n_streams: usize,
    pub(super) n_prompt: usize,
    pub(super) n_output: usize,
}

/// The steps of an engine so far.
#[derive(Clone, Default)]
pub(super) struct StepLog {
    steps: Arc<Mutex<Vec<Step>>>,
}

/// A step of the engine.
struct Step {
    collected_at: Instant,
    rows: Vec<Row>,
}

/// A sequence in a step.
#[derive(Clone, Copy)]
struct Row {
    query_len: usize,
    context_len: usize,
    /// New tokens that belong to the prompt.
    n_prompt: usize,
    results: Results,
}

/// What one run of all streams came to.
pub(super) struct Run {
    /// From the first request to the last token.
    seconds: f64,
    streams: Vec<Times>,
}

/// When a stream got its tokens.
struct Times {
    queued_at: Instant,
    tokens_at: Vec<Instant>,
}

impl StepLog {
    /// A model whose steps are written down.
    pub(super) fn of(&self, model: Model) -> Box<dyn Forward + Send> {
        let steps = Arc::clone(&self.steps);
        Box::new(Tap::new(model, move |batch, _| {
            let step = Step {
                collected_at: Instant::now(),
                rows: rows(batch),
            };
            steps.lock().unwrap_or_else(PoisonError::into_inner).push(step);
            Ok(())
        }))
    }

    fn take(&self) -> Vec<Step> {
        std::mem::take(&mut *self.steps.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Forgets what was before.
    pub(super) fn clear(&self) {
        self.take();
    }
}

fn rows(batch: &Batch) -> Vec<Row> {
    let rows = batch.rows.iter().map(|row| {
        let tokens = row.query_start..row.query_start + row.query_len;
        let is_requested = batch.logits_at.iter().any(|at| tokens.contains(&(*at as usize)));
        Row {
            query_len: row.query_len,
            context_len: row.context_len,
            n_prompt: row
                .prompt_len
                .min(row.context_len)
                .saturating_sub(row.context_len - row.query_len),
            results: if is_requested {
                Results::Requested
            } else {
                Results::None
            },
        }
    });
    rows.collect()
}

impl Streams {
    /// Serves all streams once. `salt` makes the prompts of each run others, so that no cached prefix helps.
    pub(super) async fn run(
        self,
        engine: &Engine,
        vocab_size: usize,
        salt: usize,
    ) -> Result<Run, BenchError> {
        let request = |stream: usize| GenerateRequest {
            prompt: self.prompt(vocab_size, salt * self.n_streams + stream).into(),
            sampling: Arc::new(SamplingParams {
                temperature: 0.0,
                ..SamplingParams::default()
            }),
            max_tokens: Some(self.n_output),
            ignore_eos: true,
            ..GenerateRequest::default()
        };
        let begun = Instant::now();
        let tickets = engine.submit((0..self.n_streams).map(request).collect())?;
        let streams = futures::future::try_join_all(tickets.into_iter().map(times)).await?;
        let ends = streams.iter().filter_map(|stream| stream.tokens_at.last());
        let last = ends.max().copied().unwrap_or(begun);
        Ok(Run {
            seconds: last.duration_since(begun).as_secs_f64(),
            streams,
        })
    }

    /// Tokens of a generator; the first one differs from stream to stream as far as the vocabulary allows.
    fn prompt(self, vocab_size: usize, stream: usize) -> Vec<u32> {
        let token = |at: usize| (stream + at * (2 * stream + 31)) % vocab_size;
        (0..self.n_prompt).map(|at| token(at) as u32).collect()
    }

    /// What all runs came to; `None` of none.
    pub(super) fn served(
        self,
        runs: &[Run],
        log: &StepLog,
        costs: &Costs,
        limits: Option<&Limits>,
    ) -> Option<Served> {
        let steps = log.take();
        let seconds: f64 = runs.iter().map(|run| run.seconds).sum();
        let streams: Vec<&Times> = runs.iter().flat_map(|run| &run.streams).collect();
        let n_tokens: usize = streams.iter().map(|stream| stream.tokens_at.len()).sum();
        let first_token_ms = streams.iter().filter_map(|stream| {
            let first = stream.tokens_at.first()?;
            Some(1e3 * first.duration_since(stream.queued_at).as_secs_f64())
        });
        let gaps: Vec<Gap> = streams.iter().flat_map(|stream| stream.gaps(&steps)).collect();
        let longest = gaps.iter().max_by(|a, b| a.ms.total_cmp(&b.ms));
        let mut cost = Cost::default();
        steps.iter().for_each(|step| cost += step.cost(costs));
        Some(Served {
            streams: self.n_streams,
            prompt_tokens: self.n_prompt,
            output_tokens: self.n_output,
            runs: runs.len(),
            tokens_per_s: n_tokens as f64 / seconds,
            first_token_ms: Spread::of(first_token_ms.collect())?,
            gap_ms: Spread::of(gaps.iter().map(|gap| gap.ms).collect()),
            prompt_tokens_in_gap: Spread::of(gaps.iter().map(|gap| gap.n_prompt as f64).collect()),
            prompt_tokens_in_longest_gap: longest.map(|gap| gap.n_prompt),
            steps: steps.len(),
            rates: Rates::of(cost, seconds, limits),
        })
    }
}

/// Reads a ticket to its end.
async fn times(mut ticket: Ticket) -> Result<Times, BenchError> {
    let mut tokens_at = Vec::new();
    while let Some(event) = ticket.next().await {
        match event {
            Event::Token { .. } | Event::Finished { last: Some(_), .. } => {
                tokens_at.extend(ticket.timing().last_event_at);
            }
            Event::Failed(failure) => return Err(failure.into()),
            Event::Prompt(_) | Event::Finished { .. } | Event::Beams(_) | Event::Pooled(_) => {}
        }
    }
    Ok(Times {
        queued_at: ticket.timing().queued_at,
        tokens_at,
    })
}

/// The time between two tokens of a stream.
struct Gap {
    ms: f64,
    /// Tokens of prompts that were computed meanwhile, all of other streams.
    n_prompt: usize,
}

impl Times {
    fn gaps(&self, steps: &[Step]) -> Vec<Gap> {
        let gap = |pair: &[Instant]| {
            let first = steps.partition_point(|step| step.collected_at <= pair[0]);
            let end = steps.partition_point(|step| step.collected_at <= pair[1]);
            let rows = steps[first..end].iter().flat_map(|step| &step.rows);
            Gap {
                ms: 1e3 * pair[1].duration_since(pair[0]).as_secs_f64(),
                n_prompt: rows.map(|row| row.n_prompt).sum(),
            }
        };
        self.tokens_at.windows(2).map(gap).collect()
    }
}

impl Step {
    /// Weights are read once for all rows; everything else is each row's own.
    fn cost(&self, costs: &Costs) -> Cost {
        let mut total = Cost::default();
        for row in &self.rows {
            let shape = StepShape {
                n_sequences: 1,
                query_len: row.query_len,
                context_len: row.context_len,
            };
            let cost = costs.of_step(shape, row.results);
            let weight_bytes = total.weight_bytes.max(cost.weight_bytes);
            total += cost;
            total.weight_bytes = weight_bytes;
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::batch::BatchRow;

    /// A row of a step: new tokens, tokens after it, tokens of the prompt.
    fn row(query_start: usize, (query_len, context_len, prompt_len): (usize, usize, usize)) -> BatchRow {
        BatchRow {
            query_start,
            query_len,
            context_len,
            prompt_len,
            ..BatchRow::default()
        }
    }

    #[test]
    fn tokens_of_prompts_are_told_from_answers() {
        // The first part of a prompt of 9, the last part of one of 4, and the second token of an answer.
        let batch = Batch {
            rows: vec![row(0, (5, 5, 9)), row(5, (2, 4, 4)), row(7, (1, 6, 5))],
            logits_at: vec![6, 7],
            ..Batch::default()
        };
        let found: Vec<_> = rows(&batch)
            .iter()
            .map(|row| (row.n_prompt, row.results))
            .collect();
        assert_eq!(
            found,
            [
                (5, Results::None),
                (2, Results::Requested),
                (0, Results::Requested)
            ]
        );
    }

    #[test]
    fn a_gap_counts_the_prompts_between_its_tokens() {
        let begun = Instant::now();
        let at = |ms: u64| begun + Duration::from_millis(ms);
        let step = |ms: u64, n_prompt: usize| Step {
            collected_at: at(ms),
            rows: vec![Row {
                query_len: n_prompt + 1,
                context_len: n_prompt + 1,
                n_prompt,
                results: Results::None,
            }],
        };
        let steps = [step(10, 100), step(20, 7), step(29, 8), step(40, 0), step(90, 50)];
        let stream = Times {
            queued_at: begun,
            tokens_at: vec![at(11), at(30), at(41)],
        };
        let gaps: Vec<_> = stream
            .gaps(&steps)
            .iter()
            .map(|gap| (gap.ms, gap.n_prompt))
            .collect();
        assert_eq!(gaps, [(19.0, 15), (11.0, 0)]);
    }

    #[test]
    fn prompts_of_streams_begin_differently() {
        let streams = Streams {
            n_streams: 8,
            n_prompt: 3,
            n_output: 1,
        };
        let prompts: std::collections::BTreeSet<u32> =
            (0..50).map(|stream| streams.prompt(64, stream)[0]).collect();
        assert_eq!(prompts.len(), 50);
        assert!(streams.prompt(7, 1000).iter().all(|token| *token < 7));
    }
}
