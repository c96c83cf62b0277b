//! A model with a function that sees each step's batch and output, and may change the output.
//!
//! For tests: the one wrapper of a model, at any depth.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Batch, DrawSpec, Forward, KvGroup, LateInput, StepError, StepOutput};

/// A model whose outputs pass through a function.
pub struct Tap<M, F> {
    model: M,
    tap: F,
    in_flight: VecDeque<Arc<Batch>>,
}

impl<M: Forward, F: FnMut(&Batch, &mut StepOutput) -> Result<(), StepError>> Tap<M, F> {
    /// Calls `tap` for every step of `model`, when it is collected.
    pub fn new(model: M, tap: F) -> Tap<M, F> {
        Tap {
            model,
            tap,
            in_flight: VecDeque::new(),
        }
    }
}

impl<M: Forward, F: FnMut(&Batch, &mut StepOutput) -> Result<(), StepError>> Forward for Tap<M, F> {
    fn vocab_size(&self) -> usize {
        self.model.vocab_size()
    }

    fn kv_groups(&self) -> Vec<KvGroup> {
        self.model.kv_groups()
    }

    fn whole_prompts(&self) -> bool {
        self.model.whole_prompts()
    }

    fn reads_media(&self) -> bool {
        self.model.reads_media()
    }

    fn prefix_salt(&self, prompt_len: usize) -> u64 {
        self.model.prefix_salt(prompt_len)
    }

    fn depth(&self) -> usize {
        self.model.depth()
    }

    fn submit(&mut self, batch: Arc<Batch>, draws: &[DrawSpec<'_>]) -> Result<(), StepError> {
        self.in_flight.push_back(Arc::clone(&batch));
        self.model.submit(batch, draws)
    }

    fn late(&mut self, inputs: &[LateInput<'_>]) -> Result<(), StepError> {
        self.model.late(inputs)
    }

    fn collect(&mut self) -> Result<StepOutput, StepError> {
        let mut output = self.model.collect()?;
        let batch = self.in_flight.pop_front().ok_or_else(StepError::not_submitted)?;
        (self.tap)(&batch, &mut output)?;
        Ok(output)
    }
}
