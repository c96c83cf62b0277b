//! What a piece of work may still use. The work asks between its parts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The kind of a place, which follows from what work costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// For work of some milliseconds.
    Light,
    /// For all other work. Its threads have a low priority.
    Heavy,
}

/// Why work must end before it is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// The place is for light work.
    #[error("the work is too heavy for a place for light work")]
    TooHeavy,
    /// Nobody waits for the result.
    #[error("the client left")]
    ClientLeft,
    /// The time of the place is over.
    #[error("the work took longer than {limit_s} s")]
    TimeUp {
        /// The longest time, in seconds.
        limit_s: u64,
    },
}

/// What a piece of work may still use.
#[derive(Debug)]
pub struct Budget {
    place: Place,
    limit: Duration,
    started_at: Instant,
    /// Whether the client left.
    has_left: Arc<AtomicBool>,
    is_too_heavy: AtomicBool,
}

impl Budget {
    /// A budget that begins now. `has_left` becomes true when the client leaves.
    pub(super) fn new(place: Place, limit: Duration, has_left: Arc<AtomicBool>) -> Self {
        Self {
            place,
            limit,
            started_at: Instant::now(),
            has_left,
            is_too_heavy: AtomicBool::new(false),
        }
    }

    /// A budget without end, for work that is not a client's.
    pub fn unlimited() -> Self {
        Self::new(Place::Heavy, Duration::MAX, Arc::default())
    }

    /// A budget without end in a place for light work.
    #[cfg(test)]
    pub(crate) fn light() -> Self {
        Self::new(Place::Light, Duration::MAX, Arc::default())
    }

    /// Whether the work may go on.
    ///
    /// # Errors
    /// [`Stopped`] if the client left or the time is over.
    pub fn check(&self) -> Result<(), Stopped> {
        if self.has_left.load(Ordering::Relaxed) {
            return Err(Stopped::ClientLeft);
        }
        if self.started_at.elapsed() > self.limit {
            let limit_s = self.limit.as_secs();
            return Err(Stopped::TimeUp { limit_s });
        }
        Ok(())
    }

    /// Whether the work may go on with a part that takes longer than some milliseconds. In a place for light work it
    /// may not: it begins again in a place for heavy work.
    ///
    /// # Errors
    /// [`Stopped`] for work in a place for light work, or as from [`Budget::check`].
    pub fn begin_heavy(&self) -> Result<(), Stopped> {
        if self.place == Place::Light {
            self.is_too_heavy.store(true, Ordering::Relaxed);
            return Err(Stopped::TooHeavy);
        }
        self.check()
    }

    /// Whether the work stopped because its place is for light work.
    pub(super) fn is_too_heavy(&self) -> bool {
        self.is_too_heavy.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_ends_with_its_time_or_its_client() {
        assert_eq!(Budget::unlimited().check(), Ok(()));
        let spent = Budget::new(Place::Heavy, Duration::ZERO, Arc::default());
        while spent.started_at.elapsed().is_zero() {}
        assert_eq!(spent.check(), Err(Stopped::TimeUp { limit_s: 0 }));
        let has_left = Arc::new(AtomicBool::new(false));
        let budget = Budget::new(Place::Heavy, Duration::MAX, Arc::clone(&has_left));
        assert_eq!(budget.begin_heavy(), Ok(()));
        has_left.store(true, Ordering::Relaxed);
        assert_eq!(budget.check(), Err(Stopped::ClientLeft));
        assert_eq!(budget.begin_heavy(), Err(Stopped::ClientLeft));
    }

    #[test]
    fn heavy_work_needs_a_place_for_it() {
        let light = Budget::new(Place::Light, Duration::MAX, Arc::default());
        assert_eq!(light.check(), Ok(()));
        assert!(!light.is_too_heavy());
        assert_eq!(light.begin_heavy(), Err(Stopped::TooHeavy));
        assert!(light.is_too_heavy());
    }
}
