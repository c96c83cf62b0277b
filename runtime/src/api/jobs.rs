//! RunPod's jobs: requests whose results a client fetches later.
//!
//! Owns the jobs, their bounds, and worker-vllm's forms of input and output. A job calls this server's own OpenAI routes,
//! so it has exactly their abilities. Must not know HTTP.

pub mod batches;
pub mod input;
pub mod output;
pub mod store;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::value::RawValue;
use tokio_util::task::TaskTracker;

use store::{JobCounts, Store, StoreLimits};

/// Largest number of jobs in the store, ended ones included. One owner alone has at most half of them.
const JOBS_MAX: usize = 4096;
/// Largest number of bytes of all inputs and outputs in the store. One owner alone has at most half of them.
const JOB_BYTES_MAX: usize = 256 << 20;

/// How long the results of `/run` are kept.
pub const KEPT_FOR_ASYNC: Duration = Duration::from_secs(30 * 60);
/// How long the results of `/runsync` are kept.
pub const KEPT_FOR_SYNC: Duration = Duration::from_secs(60);

/// The input of a job, and how long it may take.
#[derive(Debug)]
pub struct Work {
    /// The client's `input`, an object, as it came.
    pub input: Box<RawValue>,
    /// Longest time from its start to its end.
    pub execution_timeout: Duration,
    /// Longest time in the queue.
    pub ttl: Duration,
}

/// All jobs of this process.
#[derive(Debug)]
pub struct Jobs {
    store: Mutex<Store<Work>>,
    /// The tasks that run the jobs.
    pub tasks: TaskTracker,
}

impl Jobs {
    /// A store without jobs. At most `n_running_max` jobs of one owner run at a time, and twice as many of all; the
    /// others wait.
    pub fn new(n_running_max: usize) -> Self {
        let limits = StoreLimits {
            n_jobs_max: JOBS_MAX,
            n_bytes_max: JOB_BYTES_MAX,
            n_running_max: n_running_max.saturating_mul(2),
        };
        Self {
            store: Mutex::new(Store::new(limits)),
            tasks: TaskTracker::new(),
        }
    }

    /// Locks the store. Do not hold the guard across an `await`.
    pub fn store(&self) -> MutexGuard<'_, Store<Work>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers of jobs.
    pub fn counts(&self) -> JobCounts {
        self.store().counts()
    }

    /// Waits until every accepted job has ended.
    pub async fn idle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
