//! How many requests each replica has: those of this gateway at once, those of others from the replica's own count.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use tokio::{sync::watch, time::interval};

use super::directory::Directory;
use crate::{names::CONTROL_PORT, probe::Probe};

/// Time between two questions to a replica.
const PERIOD: Duration = Duration::from_secs(2);
/// Replicas that are asked at the same time.
const CONCURRENCY: usize = 32;
/// A replica that got no request for so long is not asked.
const IDLE_AFTER: Duration = Duration::from_secs(60);

/// The counts of all replicas.
#[derive(Debug, Default)]
pub(super) struct Loads(Mutex<HashMap<SocketAddr, Load>>);

#[derive(Debug)]
struct Load {
    sent: Arc<AtomicUsize>,
    used_at: Instant,
    polled: Option<Polled>,
}

/// What a replica said, and how many requests of this gateway it had then.
#[derive(Clone, Copy, Debug)]
struct Polled {
    n_requests: usize,
    n_sent: usize,
}

/// A request that a replica has; the count goes back when it is dropped.
#[derive(Debug)]
pub(super) struct Sent(Arc<AtomicUsize>);

impl Drop for Sent {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Loads {
    /// Requests that run or wait at a replica.
    pub(super) fn n_requests(&self, replica: SocketAddr) -> usize {
        let loads = self.0.lock().expect("no holder panics");
        let Some(load) = loads.get(&replica) else {
            return 0;
        };
        let n_sent = load.sent.load(Ordering::Relaxed);
        match load.polled {
            Some(polled) => (polled.n_requests + n_sent)
                .saturating_sub(polled.n_sent)
                .max(n_sent),
            None => n_sent,
        }
    }

    /// Counts a request to a replica.
    pub(super) fn sent(&self, replica: SocketAddr) -> Sent {
        let mut loads = self.0.lock().expect("no holder panics");
        let load = loads.entry(replica).or_insert_with(|| Load {
            sent: Arc::default(),
            used_at: Instant::now(),
            polled: None,
        });
        load.used_at = Instant::now();
        load.sent.fetch_add(1, Ordering::Relaxed);
        Sent(Arc::clone(&load.sent))
    }

    fn polled(&self, replica: SocketAddr, n_requests: Option<usize>) {
        let mut loads = self.0.lock().expect("no holder panics");
        if let Some(load) = loads.get_mut(&replica) {
            let n_sent = load.sent.load(Ordering::Relaxed);
            // A replica that does not answer has at least what was sent to it.
            load.polled = n_requests.map(|n_requests| Polled { n_requests, n_sent });
        }
    }

    /// The replicas in use that are worth a question. Forgets those that are gone.
    fn in_use(&self, directory: &Directory) -> Vec<SocketAddr> {
        let shared = directory.all().filter(|backend| backend.replicas.len() > 1);
        let known: BTreeSet<_> = directory.all().flat_map(|backend| &backend.replicas).collect();
        let mut loads = self.0.lock().expect("no holder panics");
        loads.retain(|replica, load| known.contains(replica) || load.sent.load(Ordering::Relaxed) > 0);
        let is_used = |replica: &&SocketAddr| {
            let load = loads.get(*replica);
            load.is_some_and(|load| load.used_at.elapsed() < IDLE_AFTER)
        };
        let used = shared.filter(|backend| backend.replicas.iter().any(|replica| is_used(&replica)));
        used.flat_map(|backend| backend.replicas.clone()).collect()
    }
}

/// Asks replicas in use for their counts, for ever.
pub(super) async fn poll(loads: Arc<Loads>, directory: watch::Receiver<Arc<Directory>>) {
    let Ok(probe) = Probe::new() else {
        return std::future::pending().await;
    };
    let mut ticks = interval(PERIOD);
    loop {
        ticks.tick().await;
        let current = Arc::clone(&directory.borrow());
        let replicas = loads.in_use(&current);
        stream::iter(replicas)
            .for_each_concurrent(CONCURRENCY, |replica| {
                let (probe, loads) = (&probe, &loads);
                async move { loads.polled(replica, ask(probe, replica).await) }
            })
            .await;
    }
}

async fn ask(probe: &Probe, replica: SocketAddr) -> Option<usize> {
    let load = probe.load(replica.ip(), CONTROL_PORT).await?;
    usize::try_from(load.running + load.waiting).ok()
}

#[cfg(test)]
mod tests {
    use super::super::directory::tests::{model, slice};
    use super::*;

    #[test]
    fn own_requests_count_at_once_and_those_of_others_with_the_next_answer() {
        let (loads, replica) = (Loads::default(), "10.0.0.1:8000".parse().unwrap());
        assert_eq!(loads.n_requests(replica), 0);
        let first = loads.sent(replica);
        loads.polled(replica, Some(5));
        assert_eq!(loads.n_requests(replica), 5);
        let second = loads.sent(replica);
        assert_eq!(loads.n_requests(replica), 6);
        drop(first);
        assert_eq!(loads.n_requests(replica), 5);
        loads.polled(replica, None);
        assert_eq!(loads.n_requests(replica), 1);
        drop(second);
        assert_eq!(loads.n_requests(replica), 0);
    }

    #[test]
    fn only_replicas_in_use_that_have_others_beside_them_are_asked() {
        let models = [model(("a", "one"), &["m"], 0), model(("a", "two"), &["n"], 0)];
        let slices = [
            slice(("a", "one"), &["10.0.0.1"], &[]),
            slice(("a", "two"), &["10.0.0.2", "10.0.0.3"], &[]),
        ];
        let directory = Directory::of(&models, &slices);
        let loads = Loads::default();
        assert!(loads.in_use(&directory).is_empty());
        drop(loads.sent("10.0.0.1:8000".parse().unwrap()));
        drop(loads.sent("10.0.0.3:8000".parse().unwrap()));
        drop(loads.sent("10.0.0.9:8000".parse().unwrap()));
        assert_eq!(loads.in_use(&directory).len(), 2);
        assert_eq!(loads.0.lock().unwrap().len(), 2, "10.0.0.9 is gone");
    }
}
