//! Pooled vectors: one event, when the prompt is computed.

use std::time::Instant;

use super::Replies;
use crate::engine::scheduler::Scheduler;
use crate::engine::step::{Step, Yield};
use crate::engine::ticket::Event;

impl Replies {
    /// Sends every pooled vector of a committed step to its ticket.
    ///
    /// # Panics
    /// If there is not one vector per row that yields one.
    pub(in crate::engine) fn send_pooled(
        &mut self,
        scheduler: &Scheduler,
        step: &Step,
        vectors: Vec<Vec<f32>>,
    ) {
        let now = Instant::now();
        let rows = step.rows.iter().filter(|row| row.yields == Yield::Pooled);
        let ids: Vec<_> = rows.map(|row| row.id).collect();
        assert_eq!(
            vectors.len(),
            ids.len(),
            "the model returned another number of vectors"
        );
        let mut ends = Vec::new();
        for (id, vector) in ids.into_iter().zip(vectors) {
            let recipient = self.forget(id).into_recipient();
            self.gauge.counters.prompt_tokens.add(recipient.n_prompt);
            ends.push((recipient, Event::Pooled(vector)));
        }
        self.send_ends(scheduler, ends, now);
    }
}
