//! The states of all jobs: a state machine of bounded size. Its methods receive the time.
//!
//! Must not know the input of a job, nor how it runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// State of a job, by RunPod's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It waits.
    InQueue,
    /// It runs.
    InProgress,
    /// It ended, and its output is complete.
    Completed,
    /// It ended with an error.
    Failed,
    /// A client cancelled it, or emptied the queue.
    Cancelled,
    /// It waited or ran longer than allowed.
    TimedOut,
}

impl Status {
    /// RunPod's name.
    pub fn label(self) -> &'static str {
        match self {
            Status::InQueue => "IN_QUEUE",
            Status::InProgress => "IN_PROGRESS",
            Status::Completed => "COMPLETED",
            Status::Failed => "FAILED",
            Status::Cancelled => "CANCELLED",
            Status::TimedOut => "TIMED_OUT",
        }
    }

    /// Whether the job has ended.
    pub fn is_final(self) -> bool {
        !matches!(self, Status::InQueue | Status::InProgress)
    }
}

/// Bounds of a store.
#[derive(Clone, Copy, Debug)]
pub struct StoreLimits {
    /// Largest number of jobs, ended ones included.
    pub n_jobs_max: usize,
    /// Largest number of bytes of all inputs and outputs.
    pub n_bytes_max: usize,
}

/// A job that is not in the store yet.
#[derive(Debug)]
pub struct NewJob<W> {
    /// Its id.
    pub id: String,
    /// Its work.
    pub work: W,
    /// Size of the work, bytes.
    pub n_work_bytes: usize,
    /// How long its results are kept after its end.
    pub kept_for: Duration,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With complete output.
    Completed,
    /// With an error.
    Failed(String),
    /// It took too long.
    TimedOut(String),
}

/// The permission to run a job once. It is invalid after the job is cancelled, expired, or started again.
#[derive(Clone, Debug)]
pub struct Claim<W> {
    /// The job.
    pub id: String,
    /// Its work.
    pub work: Arc<W>,
    /// Cancelled when the job must stop.
    pub cancelled: CancellationToken,
    attempt: u32,
}

/// The state of a job for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The job.
    pub id: String,
    /// Its state.
    pub status: Status,
    /// Time in the queue, after its end.
    pub delay: Option<Duration>,
    /// Time of the run, after its end.
    pub execution: Option<Duration>,
    /// Output, each item a JSON text: the complete output of a completed job, or the new output of a streamed one.
    pub items: Vec<String>,
    /// Why it failed.
    pub error: Option<String>,
}

/// Numbers of jobs: those in the store now, and those that ended since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// Waiting now.
    pub n_queued: usize,
    /// Running now.
    pub n_running: usize,
    /// Completed since the start.
    pub n_completed: u64,
    /// Failed or timed out since the start.
    pub n_failed: u64,
    /// Started again since the start.
    pub n_retried: u64,
}

/// The store is full, and none of its jobs has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this replica has no room for another job")]
pub struct StoreFull;

/// Why a job cannot be started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryError {
    /// There is no such job, or it has expired.
    Unknown,
    /// It neither failed nor timed out.
    NotFailed(Status),
}

#[derive(Debug)]
struct Job<W> {
    attempt: u32,
    status: Status,
    /// Kept while the job may still be run.
    work: Option<Arc<W>>,
    n_work_bytes: usize,
    cancelled: CancellationToken,
    queued_at: Instant,
    started_at: Option<Instant>,
    ended_at: Option<Instant>,
    kept_for: Duration,
    items: Vec<String>,
    n_streamed: usize,
    error: Option<String>,
}

impl<W> Job<W> {
    fn n_bytes(&self) -> usize {
        let work = if self.work.is_some() { self.n_work_bytes } else { 0 };
        let items: usize = self.items.iter().map(String::len).sum();
        work + items + self.error.as_ref().map_or(0, String::len)
    }

    fn end(&mut self, status: Status, error: Option<String>, now: Instant) {
        self.status = status;
        self.error = error;
        self.ended_at = Some(now);
        self.cancelled.cancel();
        if !matches!(status, Status::Failed | Status::TimedOut) {
            self.work = None;
        }
    }

    fn view(&self, id: &str, items: Vec<String>) -> View {
        let until = self.started_at.or(self.ended_at);
        View {
            id: id.to_string(),
            status: self.status,
            delay: until.map(|until| until.saturating_duration_since(self.queued_at)),
            execution: self
                .started_at
                .zip(self.ended_at)
                .map(|(start, end)| end.saturating_duration_since(start)),
            items,
            error: self.error.clone(),
        }
    }
}

/// All jobs of this process. `W` is the work of a job.
#[derive(Debug)]
pub struct Store<W> {
    limits: StoreLimits,
    jobs: BTreeMap<String, Job<W>>,
    n_bytes: usize,
    totals: JobCounts,
}

impl<W> Store<W> {
    /// A store without jobs.
    pub fn new(limits: StoreLimits) -> Self {
        Self {
            limits,
            jobs: BTreeMap::new(),
            n_bytes: 0,
            totals: JobCounts::default(),
        }
    }

    /// Adds a job to the queue.
    ///
    /// # Errors
    /// [`StoreFull`] if there is no room, and no ended job that can be removed.
    pub fn submit(&mut self, new: NewJob<W>, now: Instant) -> Result<Claim<W>, StoreFull> {
        self.expire(now);
        while self.jobs.len() >= self.limits.n_jobs_max {
            self.remove_oldest().ok_or(StoreFull)?;
        }
        self.make_room(new.n_work_bytes)?;
        let job = Job {
            attempt: 0,
            status: Status::InQueue,
            work: Some(Arc::new(new.work)),
            n_work_bytes: new.n_work_bytes,
            cancelled: CancellationToken::new(),
            queued_at: now,
            started_at: None,
            ended_at: None,
            kept_for: new.kept_for,
            items: Vec::new(),
            n_streamed: 0,
            error: None,
        };
        let claim = claim(&new.id, &job).expect("the job has its work");
        self.n_bytes += job.n_work_bytes;
        self.jobs.insert(new.id, job);
        Ok(claim)
    }

    /// Takes the job out of the queue. Returns false if it must not run any more.
    pub fn start(&mut self, claim: &Claim<W>, now: Instant) -> bool {
        let Some(job) = self.claimed(claim).filter(|job| job.status == Status::InQueue) else {
            return false;
        };
        job.status = Status::InProgress;
        job.started_at = Some(now);
        true
    }

    /// Adds an item, a JSON text, to the output of a running job. Items of other jobs are dropped.
    ///
    /// # Errors
    /// [`StoreFull`] if there is no room.
    pub fn push(&mut self, claim: &Claim<W>, item: String) -> Result<(), StoreFull> {
        if self.claimed(claim).is_none() {
            return Ok(());
        }
        self.make_room(item.len())?;
        self.n_bytes += item.len();
        let job = self.claimed(claim).expect("only ended jobs were removed");
        job.items.push(item);
        Ok(())
    }

    /// Ends a job that runs or waits. Other jobs do not change.
    pub fn finish(&mut self, claim: &Claim<W>, end: End, now: Instant) {
        let (status, error) = match end {
            End::Completed => (Status::Completed, None),
            End::Failed(error) => (Status::Failed, Some(error)),
            End::TimedOut(error) => (Status::TimedOut, Some(error)),
        };
        let Some(job) = self.claimed(claim) else { return };
        let n_before = job.n_bytes();
        job.end(status, error, now);
        let n_after = job.n_bytes();
        self.n_bytes = self.n_bytes - n_before + n_after;
        match status {
            Status::Completed => self.totals.n_completed += 1,
            _ => self.totals.n_failed += 1,
        }
    }

    /// Cancels a job unless it has ended. Returns its state, or `None` if there is no such job.
    pub fn cancel(&mut self, id: &str, now: Instant) -> Option<Status> {
        self.expire(now);
        let job = self.jobs.get_mut(id)?;
        if !job.status.is_final() {
            let n_before = job.n_bytes();
            job.end(Status::Cancelled, None, now);
            self.n_bytes = self.n_bytes - n_before + job.n_bytes();
        }
        Some(job.status)
    }

    /// Cancels every job of the queue, and returns their number.
    pub fn purge(&mut self, now: Instant) -> usize {
        let queued = |(id, job): (&String, &Job<W>)| (job.status == Status::InQueue).then(|| id.clone());
        let queued: Vec<String> = self.jobs.iter().filter_map(queued).collect();
        for id in &queued {
            self.cancel(id, now);
        }
        queued.len()
    }

    /// Puts a job that failed or timed out into the queue again, without its output.
    ///
    /// # Errors
    /// [`RetryError`] if there is no such job, or it neither failed nor timed out.
    pub fn retry(&mut self, id: &str, now: Instant) -> Result<Claim<W>, RetryError> {
        self.expire(now);
        let job = self.jobs.get_mut(id).ok_or(RetryError::Unknown)?;
        let n_before = job.n_bytes();
        if !matches!(job.status, Status::Failed | Status::TimedOut) {
            return Err(RetryError::NotFailed(job.status));
        }
        *job = Job {
            attempt: job.attempt + 1,
            status: Status::InQueue,
            work: job.work.take(),
            n_work_bytes: job.n_work_bytes,
            cancelled: CancellationToken::new(),
            queued_at: now,
            started_at: None,
            ended_at: None,
            kept_for: job.kept_for,
            items: Vec::new(),
            n_streamed: 0,
            error: None,
        };
        self.n_bytes = self.n_bytes - n_before + job.n_bytes();
        self.totals.n_retried += 1;
        claim(id, job).ok_or(RetryError::Unknown)
    }

    /// The state of a job, with the output of a completed one.
    pub fn view(&mut self, id: &str, now: Instant) -> Option<View> {
        self.expire(now);
        let job = self.jobs.get(id)?;
        let items = match job.status {
            Status::Completed => job.items.clone(),
            _ => Vec::new(),
        };
        Some(job.view(id, items))
    }

    /// The state of a job, with the output that earlier calls did not return.
    pub fn stream(&mut self, id: &str, now: Instant) -> Option<View> {
        self.expire(now);
        let job = self.jobs.get_mut(id)?;
        let news = job.items[job.n_streamed..].to_vec();
        job.n_streamed = job.items.len();
        Some(job.view(id, news))
    }

    /// Changes how long the results of a job are kept after its end.
    pub fn keep(&mut self, id: &str, kept_for: Duration) {
        if let Some(job) = self.jobs.get_mut(id) {
            job.kept_for = kept_for;
        }
    }

    /// Numbers of jobs.
    pub fn counts(&self) -> JobCounts {
        let n = |status| self.jobs.values().filter(|job| job.status == status).count();
        JobCounts {
            n_queued: n(Status::InQueue),
            n_running: n(Status::InProgress),
            ..self.totals
        }
    }

    /// Removes the jobs whose results have expired.
    fn expire(&mut self, now: Instant) {
        let is_old = |job: &Job<W>| {
            let ended_at = job.ended_at?;
            Some(now.saturating_duration_since(ended_at) >= job.kept_for)
        };
        let n_bytes = &mut self.n_bytes;
        self.jobs.retain(|_, job| {
            let stays = !is_old(job).unwrap_or(false);
            if !stays {
                *n_bytes -= job.n_bytes();
            }
            stays
        });
    }

    fn make_room(&mut self, n_bytes: usize) -> Result<(), StoreFull> {
        while self.n_bytes + n_bytes > self.limits.n_bytes_max {
            self.remove_oldest().ok_or(StoreFull)?;
        }
        Ok(())
    }

    /// Removes the job that ended first.
    fn remove_oldest(&mut self) -> Option<()> {
        let ended = self.jobs.iter().filter_map(|(id, job)| Some((job.ended_at?, id)));
        let id = ended.min()?.1.clone();
        let job = self.jobs.remove(&id)?;
        self.n_bytes -= job.n_bytes();
        Some(())
    }

    /// The job of a claim that is still valid.
    fn claimed(&mut self, claim: &Claim<W>) -> Option<&mut Job<W>> {
        self.jobs
            .get_mut(&claim.id)
            .filter(|job| job.attempt == claim.attempt && !job.status.is_final())
    }
}

fn claim<W>(id: &str, job: &Job<W>) -> Option<Claim<W>> {
    Some(Claim {
        id: id.to_string(),
        work: Arc::clone(job.work.as_ref()?),
        cancelled: job.cancelled.clone(),
        attempt: job.attempt,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: StoreLimits = StoreLimits {
        n_jobs_max: 4,
        n_bytes_max: 100,
    };
    const MINUTE: Duration = Duration::from_secs(60);

    fn submitted(store: &mut Store<()>, id: &str, now: Instant) -> Claim<()> {
        store.submit(job(id, 10), now).unwrap()
    }

    fn job(id: &str, n_work_bytes: usize) -> NewJob<()> {
        NewJob {
            id: id.into(),
            work: (),
            n_work_bytes,
            kept_for: MINUTE,
        }
    }

    #[test]
    fn a_job_is_queued_runs_and_expires() {
        let (mut store, t0) = (Store::new(LIMITS), Instant::now());
        let claim = submitted(&mut store, "a", t0);
        assert_eq!(store.view("a", t0).unwrap().status, Status::InQueue);
        let t1 = t0 + Duration::from_millis(30);
        assert!(store.start(&claim, t1));
        store.push(&claim, "1".into()).unwrap();
        store.push(&claim, "2".into()).unwrap();
        assert_eq!(store.stream("a", t1).unwrap().items, ["1", "2"]);
        assert_eq!(store.stream("a", t1).unwrap().items, [""; 0]);
        store.push(&claim, "3".into()).unwrap();
        let t2 = t1 + Duration::from_millis(500);
        store.finish(&claim, End::Completed, t2);
        assert_eq!(store.stream("a", t2).unwrap().items, ["3"], "the rest");
        let view = store.view("a", t2).unwrap();
        assert_eq!(view.items, ["1", "2", "3"]);
        assert_eq!((view.delay, view.execution), (Some(t1 - t0), Some(t2 - t1)));
        assert!(store.view("a", t2 + MINUTE - Duration::from_millis(1)).is_some());
        assert_eq!(store.view("a", t2 + MINUTE), None);
        assert_eq!(store.counts().n_completed, 1);
    }

    #[test]
    fn a_cancelled_job_is_not_started_and_its_claim_is_invalid() {
        let (mut store, now) = (Store::new(LIMITS), Instant::now());
        let claim = submitted(&mut store, "a", now);
        assert_eq!(store.cancel("a", now), Some(Status::Cancelled));
        assert!(claim.cancelled.is_cancelled());
        assert!(!store.start(&claim, now));
        store.finish(&claim, End::Completed, now);
        assert_eq!(store.view("a", now).unwrap().status, Status::Cancelled);
        assert_eq!(store.cancel("nobody", now), None);
    }

    #[test]
    fn only_queued_jobs_are_purged_and_only_failed_ones_are_started_again() {
        let (mut store, now) = (Store::new(LIMITS), Instant::now());
        let running = submitted(&mut store, "a", now);
        submitted(&mut store, "b", now);
        store.start(&running, now);
        assert_eq!(store.purge(now), 1);
        assert_eq!(
            store.retry("b", now).unwrap_err(),
            RetryError::NotFailed(Status::Cancelled)
        );
        store.finish(&running, End::Failed("no".into()), now);
        assert_eq!(store.view("a", now).unwrap().error.as_deref(), Some("no"));
        let again = store.retry("a", now).unwrap();
        assert!(!store.start(&running, now), "the first attempt is over");
        assert!(store.start(&again, now));
        assert_eq!(store.retry("c", now).unwrap_err(), RetryError::Unknown);
    }

    #[test]
    fn the_job_that_ended_first_makes_room_and_running_jobs_do_not() {
        let (mut store, now) = (Store::new(LIMITS), Instant::now());
        for id in ["a", "b", "c", "d"] {
            submitted(&mut store, id, now);
        }
        assert_eq!(store.submit(job("e", 1), now).unwrap_err(), StoreFull);
        store.cancel("b", now);
        store.cancel("a", now + Duration::from_millis(1));
        submitted(&mut store, "e", now);
        assert!(store.view("b", now).is_none() && store.view("a", now).is_some());
        let large = store.submit(job("f", 99), now);
        assert_eq!(large.unwrap_err(), StoreFull, "bytes count, too");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Submit(usize),
        Start(usize),
        Push(usize, usize),
        Finish(usize, End),
        Cancel(usize),
        Purge,
        Retry(usize),
        Look(usize),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let end = prop_oneof![
            Just(End::Completed),
            Just(End::Failed("no".into())),
            Just(End::TimedOut("late".into()))
        ];
        prop_oneof![
            (0_usize..60).prop_map(Step::Submit),
            (0_usize..8).prop_map(Step::Start),
            (0_usize..8, 0_usize..40).prop_map(|(job, n)| Step::Push(job, n)),
            (0_usize..8, end).prop_map(|(job, end)| Step::Finish(job, end)),
            (0_usize..8).prop_map(Step::Cancel),
            Just(Step::Purge),
            (0_usize..8).prop_map(Step::Retry),
            (0_usize..8).prop_map(Step::Look),
            (0_u64..40).prop_map(Step::Wait),
        ]
    }

    fn take(store: &mut Store<()>, claims: &mut Vec<Claim<()>>, step: Step, now: &mut Instant) {
        let of = |claims: &[Claim<()>], job: usize| {
            (!claims.is_empty()).then(|| claims[claims.len() - 1 - job % claims.len()].clone())
        };
        match step {
            Step::Submit(n) => {
                let id = claims.len().to_string();
                claims.extend(store.submit(job(&id, n), *now));
            }
            Step::Wait(s) => *now += Duration::from_secs(s),
            Step::Purge => {
                store.purge(*now);
                assert_eq!(store.counts().n_queued, 0);
            }
            Step::Start(job) | Step::Cancel(job) | Step::Retry(job) | Step::Look(job) => {
                let Some(claim) = of(claims, job) else { return };
                let before = store.jobs.get(&claim.id).map(|job| job.status);
                match step {
                    Step::Start(_) if store.start(&claim, *now) => assert_eq!(before, Some(Status::InQueue)),
                    Step::Cancel(_) => {
                        store.cancel(&claim.id, *now);
                    }
                    Step::Retry(_) => claims.extend(store.retry(&claim.id, *now)),
                    Step::Look(_) => {
                        store.stream(&claim.id, *now);
                    }
                    _ => {}
                }
            }
            Step::Push(job, n) => {
                if let Some(claim) = of(claims, job) {
                    let _full = store.push(&claim, "x".repeat(n));
                }
            }
            Step::Finish(job, end) => {
                if let Some(claim) = of(claims, job) {
                    store.finish(&claim, end, *now);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn after_any_steps_the_bounds_and_the_sums_hold(steps in prop::collection::vec(step(), 0..200)) {
            let (mut store, mut claims, mut now) = (Store::new(LIMITS), Vec::new(), Instant::now());
            for step in steps {
                take(&mut store, &mut claims, step, &mut now);
                prop_assert!(store.jobs.len() <= LIMITS.n_jobs_max);
                prop_assert_eq!(store.n_bytes, store.jobs.values().map(Job::n_bytes).sum::<usize>());
                // An error of four bytes may come on top.
                prop_assert!(store.n_bytes <= LIMITS.n_bytes_max + 4 * LIMITS.n_jobs_max);
                for job in store.jobs.values() {
                    prop_assert_eq!(job.status.is_final(), job.ended_at.is_some());
                    prop_assert_eq!(job.status.is_final(), job.cancelled.is_cancelled());
                    prop_assert!(job.n_streamed <= job.items.len());
                    let may_run_again = matches!(
                        job.status, Status::InQueue | Status::InProgress | Status::Failed | Status::TimedOut
                    );
                    prop_assert_eq!(job.work.is_some(), may_run_again);
                }
            }
        }
    }
}
