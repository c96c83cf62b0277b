//! The progress of a download.
//!
//! Owns the form of a progress line.

use std::sync::{Arc, Mutex, PoisonError};

use crds::failure::Failure;
use serde::{Deserialize, Serialize};

use crate::startup::{StartupStatus, StartupTracker};

/// One line of progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Always `download`.
    pub stage: String,
    /// Bytes on the disk.
    pub bytes_done: u64,
    /// Bytes of all selected files.
    pub bytes_total: u64,
    /// The ratio of both in percent, rounded down.
    pub percent: u8,
    /// Bytes per second over the last ten seconds.
    pub rate_per_second: u64,
    /// Remaining seconds at this rate; absent while no bytes arrive.
    pub eta_seconds: Option<u64>,
    /// The file that was begun last; absent before the first.
    pub file: Option<String>,
    /// The last failure, which is being retried; absent once bytes arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Failure>,
}

/// Counts the bytes of one download. Clones share the count.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    tracker: StartupTracker,
    file: Arc<Mutex<Option<String>>>,
}

impl Meter {
    pub(super) fn new(tracker: StartupTracker) -> Self {
        Self {
            tracker,
            file: Arc::default(),
        }
    }

    pub(super) fn enter(&self, file: &str) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(file.to_owned());
    }

    /// Counts bytes that reached the disk. The download continues, so this clears the problem.
    pub(super) fn add(&self, n_bytes: u64) {
        self.tracker.add(n_bytes);
        self.tracker.set_problem(None);
    }

    pub(super) fn set_problem(&self, problem: Failure) {
        self.tracker.set_problem(Some(problem));
    }

    pub(super) fn retract(&self, n_bytes: u64) {
        self.tracker.retract(n_bytes);
    }

    pub(super) fn bytes_left(&self) -> u64 {
        let StartupStatus {
            bytes_done,
            bytes_total,
            ..
        } = self.tracker.status();
        bytes_total.unwrap_or(bytes_done).saturating_sub(bytes_done)
    }

    pub(super) fn progress(&self) -> Progress {
        let status = self.tracker.status();
        Progress {
            stage: "download".to_owned(),
            bytes_done: status.bytes_done,
            bytes_total: status.bytes_total.unwrap_or(status.bytes_done),
            percent: status.percent.unwrap_or(0),
            rate_per_second: status.rate_per_second,
            eta_seconds: status.eta_seconds,
            file: self.file.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            problem: status.problem,
        }
    }
}
