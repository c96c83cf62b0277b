//! The bytes of events that clients have not read yet, of each answer and of all.
//!
//! The engine never waits for a reader, so it counts what it keeps for them, and ends an answer that nobody reads. Must
//! not know what the events are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of one answer that wait for a client at most.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Bytes of all answers that wait for clients at most; above it, answers end of which more than the mean waits.
const ALL_BYTES_MAX: usize = 64 << 20;

/// The unread bytes of all answers.
#[derive(Clone, Debug, Default)]
pub(super) struct UnreadTotal(Arc<AtomicUsize>);

/// The unread bytes of one answer, shared by the two ends of its channel.
#[derive(Debug)]
pub(super) struct Unread {
    n_bytes: AtomicUsize,
    total: UnreadTotal,
}

impl UnreadTotal {
    /// The count of a new answer.
    pub(super) fn answer(&self) -> Arc<Unread> {
        Arc::new(Unread {
            n_bytes: AtomicUsize::new(0),
            total: self.clone(),
        })
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Unread {
    /// An event was sent.
    pub(super) fn sent(&self, n_bytes: usize) {
        self.n_bytes.fetch_add(n_bytes, Ordering::Relaxed);
        self.total.0.fetch_add(n_bytes, Ordering::Relaxed);
    }

    /// An event was read.
    pub(super) fn read(&self, n_bytes: usize) {
        self.n_bytes.fetch_sub(n_bytes, Ordering::Relaxed);
        self.total.0.fetch_sub(n_bytes, Ordering::Relaxed);
    }

    /// More waits for the client than may, where `n_answers` are made.
    pub(super) fn is_too_much(&self, n_answers: usize) -> bool {
        let (n_bytes, all) = (self.n_bytes.load(Ordering::Relaxed), self.total.get());
        n_bytes > ANSWER_BYTES_MAX || (all > ALL_BYTES_MAX && n_bytes > all / n_answers.max(1))
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let n_bytes = *self.n_bytes.get_mut();
        self.total.0.fetch_sub(n_bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_nobody_reads_is_too_much_alone_or_among_many() {
        let total = UnreadTotal::default();
        let alone = total.answer();
        alone.sent(ANSWER_BYTES_MAX);
        assert!(!alone.is_too_much(1));
        alone.sent(1);
        assert!(alone.is_too_much(1));
        drop(alone);
        assert_eq!(total.get(), 0);
        let unread: Vec<_> = (0..100).map(|_| total.answer()).collect();
        unread.iter().for_each(|answer| answer.sent(1 << 20));
        let polite = total.answer();
        polite.sent(1000);
        assert!(unread.iter().all(|answer| answer.is_too_much(101)));
        assert!(!polite.is_too_much(101), "its client reads");
        unread.iter().for_each(|answer| answer.read(1 << 20));
        assert_eq!(total.get(), 1000);
    }
}
