//! Recorded decode steps: one for each padded number of sequences.

use std::collections::HashMap;

use kernels::KernelError;
use kernels::cuda::{Gpu, Graph};

use crate::batch::Batch;
use crate::model::graph_mode::GraphMode;

/// Most sequences of a recorded step.
const N_ROWS_MAX: usize = 512;

/// Recorded steps, by the number of their sequences.
pub(super) struct Graphs {
    mode: GraphMode,
    recorded: HashMap<usize, Option<Graph>>,
}

impl Graphs {
    /// No step is recorded yet.
    pub(super) fn new(mode: GraphMode) -> Graphs {
        Graphs {
            mode,
            recorded: HashMap::new(),
        }
    }

    /// Forgets all steps, because memory that they use is gone.
    pub(super) fn clear(&mut self) {
        self.recorded.clear();
    }

    /// The padded number of a batch's sequences; `None` if its step is not recorded.
    pub(super) fn bucket(&self, batch: &Batch) -> Option<usize> {
        let GraphMode::Decode { max_context_len } = self.mode else {
            return None;
        };
        let n_rows = batch.rows.len();
        let is_recorded = batch
            .rows
            .iter()
            .all(|row| row.query_len == 1 && row.context_len <= max_context_len);
        let draws_all = batch.logits_at.len() == n_rows;
        (is_recorded && draws_all && (1..=N_ROWS_MAX).contains(&n_rows)).then(|| padded(n_rows))
    }

    /// Enqueues the step of a bucket. The first time it is enqueued op by op, which loads all its kernels: loading is not
    /// allowed while a step is recorded. The second time it is recorded.
    ///
    /// # Errors
    /// As `enqueue`, or the step cannot be recorded.
    pub(super) fn run(
        &mut self,
        gpu: &Gpu,
        bucket: usize,
        enqueue: impl FnOnce() -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        match self.recorded.get_mut(&bucket) {
            None => {
                self.recorded.insert(bucket, None);
                enqueue()
            }
            Some(recorded) => {
                let graph = match recorded {
                    Some(graph) => graph,
                    None => recorded.insert(gpu.capture(enqueue)?),
                };
                Ok(gpu.replay(graph)?)
            }
        }
    }
}

/// The number of sequences that a step is padded to: 1, 2, 4, 8, then steps of 8 to 256, and of 16 above.
pub(super) fn padded(n_rows: usize) -> usize {
    match n_rows {
        0..=8 => n_rows.next_power_of_two(),
        9..=256 => n_rows.next_multiple_of(8),
        _ => n_rows.next_multiple_of(16),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_padded_by_little_and_to_few_sizes() {
        let sizes: std::collections::BTreeSet<usize> = (1..=N_ROWS_MAX).map(padded).collect();
        assert_eq!(sizes.len(), 4 + 31 + 16);
        for n_rows in 1..=N_ROWS_MAX {
            let size = padded(n_rows);
            assert!(n_rows <= size && size - n_rows < 16, "{n_rows} {size}");
        }
    }
}
