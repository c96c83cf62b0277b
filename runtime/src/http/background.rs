//! Which requests are made by jobs: a client that waits for its answer goes first.

/// Requests of clients that may overtake a request of a job.
const OVERTAKING_MAX: u64 = 256;

tokio::task_local! {
    static IS_JOB: ();
}

/// Does the work of a job. The requests that it makes are in the background.
pub(super) async fn of_job<T>(work: impl Future<Output = T>) -> T {
    IS_JOB.scope((), work).await
}

/// Later requests that may overtake one that this task makes.
pub(super) fn n_overtaking_max() -> u64 {
    IS_JOB.try_with(|()| OVERTAKING_MAX).unwrap_or(0)
}
