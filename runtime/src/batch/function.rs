//! A model that is a function of the batch, computed when its step is collected.
//!
//! For tests, examples and measurements of what surrounds a model.

use std::sync::Arc;

use super::{Batch, DrawSpec, Forward, StepError, StepOutput};

/// A model of depth 1 made of a function.
pub struct FunctionModel<F> {
    vocab_size: usize,
    whole_prompts: bool,
    compute: F,
    submitted: Option<Arc<Batch>>,
}

impl<F: FnMut(&Batch) -> Result<StepOutput, StepError>> FunctionModel<F> {
    /// A model with rows of `vocab_size` logits and one group of layers that sees the complete context.
    pub fn new(vocab_size: usize, compute: F) -> FunctionModel<F> {
        FunctionModel {
            vocab_size,
            whole_prompts: false,
            compute,
            submitted: None,
        }
    }

    /// The same model, which needs each prompt in one step.
    pub fn with_whole_prompts(self) -> FunctionModel<F> {
        FunctionModel {
            whole_prompts: true,
            ..self
        }
    }
}

impl<F: FnMut(&Batch) -> Result<StepOutput, StepError>> Forward for FunctionModel<F> {
    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn whole_prompts(&self) -> bool {
        self.whole_prompts
    }

    fn submit(&mut self, batch: Arc<Batch>, _: &[DrawSpec<'_>]) -> Result<(), StepError> {
        self.submitted = Some(batch);
        Ok(())
    }

    fn collect(&mut self) -> Result<StepOutput, StepError> {
        let batch = self.submitted.take().ok_or_else(StepError::not_submitted)?;
        (self.compute)(&batch)
    }
}
