//! Requests that wait for a ready replica: bounded in number for each model and in bytes for all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Instant,
};

use crds::demand::{DemandStatus, HeldRequests};
use tokio::sync::OwnedSemaphorePermit;

use super::{body::Budget, directory::Key, error::Error, metrics::Metrics};

/// Most requests that wait for one ModelDeployment.
pub(super) const HELD_MAX: usize = 100;
/// Most bytes of all requests that wait.
const HELD_BYTES_MAX: usize = 64 << 20;

/// The requests that wait.
#[derive(Debug)]
pub(super) struct Waiting {
    counts: Mutex<HashMap<Key, Count>>,
    memory: Budget,
    metrics: Metrics,
}

/// The requests that wait for one ModelDeployment, at least one.
#[derive(Clone, Copy, Debug)]
struct Count {
    n_requests: usize,
    since: Instant,
}

/// A request that waits, until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    of: Arc<Waiting>,
    key: Key,
    _memory: Option<OwnedSemaphorePermit>,
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
        if counts.get(key).is_some_and(|count| count.n_requests >= HELD_MAX) {
            return Err(Error::QueueFull {
                key: key.clone(),
                most: HELD_MAX,
            });
        }
        Ok(self.add(&mut counts, key, Some(memory)))
    }

    /// Lets a request wait again that has waited before: it keeps its place, whoever came meanwhile.
    pub(super) fn hold_again(self: &Arc<Waiting>, key: &Key) -> Held {
        let mut counts = self.counts.lock().expect("no holder panics");
        self.add(&mut counts, key, None)
    }

    fn add(
        self: &Arc<Waiting>,
        counts: &mut HashMap<Key, Count>,
        key: &Key,
        memory: Option<OwnedSemaphorePermit>,
    ) -> Held {
        let count = counts.entry(key.clone()).or_insert_with(|| Count {
            n_requests: 0,
            since: Instant::now(),
        });
        count.n_requests += 1;
        self.metrics.held(1);
        Held {
            of: Arc::clone(self),
            key: key.clone(),
            _memory: memory,
        }
    }

    /// What the operator reads.
    pub(super) fn demand(&self) -> DemandStatus {
        let counts = self.counts.lock().expect("no holder panics");
        let held = counts.iter().map(|(key, count)| HeldRequests {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            requests: count.n_requests as u64,
            since_milliseconds: u64::try_from(count.since.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
        DemandStatus { held: held.collect() }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.metrics.held(-1);
        let mut counts = self.of.counts.lock().expect("no holder panics");
        if let Some(count) = counts.get_mut(&self.key) {
            count.n_requests -= 1;
            if count.n_requests == 0 {
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
        let again = waiting.hold_again(&key("m"));
        let demand = waiting.demand().held;
        assert_eq!(
            (demand[0].name.as_str(), demand[0].requests),
            ("m", HELD_MAX as u64)
        );
        drop((held, again));
        assert!(waiting.counts.lock().unwrap().is_empty());
        assert_eq!(
            waiting.hold(&key("m"), HELD_BYTES_MAX + 1).unwrap_err(),
            Error::NoMemory
        );
    }
}
