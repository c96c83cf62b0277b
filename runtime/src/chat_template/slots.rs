//! How many templates of requests are rendered at once.

use std::sync::{Condvar, Mutex, PoisonError};

/// Limits how many renderings run at once, because each may use its bound of memory and time.
pub(super) struct Slots {
    n_max: usize,
    n_taken: Mutex<usize>,
    freed: Condvar,
}

/// A place among them, which is free again when it is dropped.
pub(super) struct Slot<'a>(&'a Slots);

impl Slots {
    pub(super) const fn new(n_max: usize) -> Self {
        Self {
            n_max,
            n_taken: Mutex::new(0),
            freed: Condvar::new(),
        }
    }

    /// Waits for a free slot.
    pub(super) fn take(&self) -> Slot<'_> {
        let taken = self.n_taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = self
            .freed
            .wait_while(taken, |n| *n >= self.n_max)
            .unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Slot(self)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.n_taken.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.freed.notify_one();
    }
}
