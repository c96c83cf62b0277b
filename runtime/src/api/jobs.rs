//! RunPod's jobs: work that is asked for now and fetched later.
//!
//! Owns what jobs there are, their bounds, and worker-vllm's shapes of input and output. A job is done by asking this
//! server's own OpenAI routes, so it can do what they can and nothing else. Must not know HTTP.

pub mod batches;
pub mod input;
pub mod output;
pub mod store;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use store::{JobCounts, Store, StoreLimits};

/// Jobs that are held at a time, ended ones included.
const JOBS_MAX: usize = 2048;
/// Bytes of all inputs and outputs that are held.
const JOB_BYTES_MAX: usize = 256 << 20;

/// How long the results of `/run` are kept.
pub const KEPT_FOR_ASYNC: Duration = Duration::from_secs(30 * 60);
/// How long the results of `/runsync` are kept.
pub const KEPT_FOR_SYNC: Duration = Duration::from_secs(60);

/// What a job asks for, and how long it may take.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// `input` as the client sent it.
    pub input: Map<String, Value>,
    /// Longest time from its start to its end.
    pub execution_timeout: Duration,
    /// Longest time in the queue.
    pub ttl: Duration,
}

/// All jobs of this process.
#[derive(Debug)]
pub struct Jobs {
    store: Mutex<Store<Work>>,
    /// One place for each job that may run.
    pub places: Arc<Semaphore>,
    /// The tasks that do them.
    pub tasks: TaskTracker,
}

impl Jobs {
    /// For as many at a time; the others wait.
    pub fn new(n_running_max: usize) -> Self {
        let limits = StoreLimits {
            n_jobs_max: JOBS_MAX,
            n_bytes_max: JOB_BYTES_MAX,
        };
        Self {
            store: Mutex::new(Store::new(limits)),
            places: Arc::new(Semaphore::new(n_running_max.min(Semaphore::MAX_PERMITS))),
            tasks: TaskTracker::new(),
        }
    }

    /// The jobs; not to be held across an `await`.
    pub fn store(&self) -> MutexGuard<'_, Store<Work>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    pub fn counts(&self) -> JobCounts {
        self.store().counts()
    }

    /// Waits until every job that was taken has ended.
    pub async fn idle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
