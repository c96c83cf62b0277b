//! What the steps of a loaded model cost, and how long each kind of op takes.

use std::time::Duration;

use super::Model;
use crate::batch::{Batch, StepError, StepOutput};
use crate::model::executor::Executor;
use crate::model::program::Costs;

impl Model {
    /// What steps cost, with the weights as they are in memory.
    pub fn costs(&self) -> Costs {
        let program = self.executor.program().clone();
        let kv_bytes = self.executor.kv_cache_dtype().size_bytes() as u64;
        Costs::new(program, self.executor.matrix_bytes(), kv_bytes)
    }

    /// Runs one step as [`Model::compute`] does, and returns the time of each kind of op, in the order of
    /// [`Costs::of_ops`]. Empty for a card, which computes ops later than they are enqueued.
    ///
    /// # Errors
    /// As [`Model::compute`].
    pub fn profile(&mut self, batch: &Batch, output: &mut StepOutput) -> Result<Vec<Duration>, StepError> {
        let n_ops = match &self.executor {
            Executor::Cpu(cpu) => cpu.program().ops.len(),
            #[cfg(feature = "cuda")]
            Executor::Cuda(_) => 0,
        };
        let mut times = vec![Duration::ZERO; n_ops];
        self.step(batch, output, (n_ops > 0).then_some(&mut times))?;
        let mut kinds: Vec<(String, Duration)> = Vec::new();
        for (op, time) in self.executor.program().ops.iter().zip(times) {
            let label = op.label();
            match kinds.iter_mut().find(|(other, _)| *other == label) {
                Some((_, sum)) => *sum += time,
                None => kinds.push((label, time)),
            }
        }
        Ok(kinds.into_iter().map(|(_, time)| time).collect())
    }
}
