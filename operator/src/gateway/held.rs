//! Requests that wait for a ready replica: bounded in number for each model and in bytes for all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tokio::sync::OwnedSemaphorePermit;

use super::{body::Budget, directory::Key, error::Error, metrics::Metrics};

/// Most requests that wait for one ModelDeployment.
pub(super) const HELD_MAX: usize = 100;
/// Most bytes of all requests that wait.
const HELD_BYTES_MAX: usize = 64 << 20;

/// The requests that wait.
#[derive(Debug)]
pub(super) struct Waiting {
    counts: Mutex<HashMap<Key, usize>>,
    memory: Budget,
    metrics: Metrics,
}

/// A request that waits, until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    of: Arc<Waiting>,
    key: Key,
    _memory: OwnedSemaphorePermit,
}

impl Waiting {
    /// Nothing waits.
    pub(super) fn new(metrics: Metrics) -> Arc<Waiting> {
        Arc::new(Waiting {
            counts: Mutex::default(),
            memory: Budget::of(HELD_BYTES_MAX),
            metrics,
        })
    }

    /// Lets a request with a body of so many bytes wait.
    ///
    /// # Errors
    /// As many already wait as may.
    pub(super) fn hold(self: &Arc<Waiting>, key: &Key, bytes: usize) -> Result<Held, Error> {
        // A request without a body counts, too.
        let memory = self.memory.take(bytes.max(1)).ok_or(Error::NoMemory)?;
        let mut counts = self.counts.lock().expect("no holder panics");
        let count = counts.entry(key.clone()).or_default();
        if *count >= HELD_MAX {
            return Err(Error::QueueFull {
                key: key.clone(),
                most: HELD_MAX,
            });
        }
        *count += 1;
        self.metrics.held(1);
        Ok(Held {
            of: Arc::clone(self),
            key: key.clone(),
            _memory: memory,
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.metrics.held(-1);
        let mut counts = self.of.counts.lock().expect("no holder panics");
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_and_models_do_not_share_places() {
        let waiting = Waiting::new(Metrics::default());
        let key = |name: &str| Key {
            namespace: "a".into(),
            name: name.into(),
        };
        let mut held: Vec<_> = (0..HELD_MAX)
            .map(|_| waiting.hold(&key("m"), 10).unwrap())
            .collect();
        assert!(matches!(
            waiting.hold(&key("m"), 10),
            Err(Error::QueueFull { .. })
        ));
        assert!(waiting.hold(&key("n"), 10).is_ok());
        held.pop();
        assert!(waiting.hold(&key("m"), 10).is_ok());
        drop(held);
        assert!(waiting.counts.lock().unwrap().is_empty());
        assert_eq!(
            waiting.hold(&key("m"), HELD_BYTES_MAX + 1).unwrap_err(),
            Error::NoMemory
        );
    }
}
