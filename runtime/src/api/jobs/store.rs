//! The states of all jobs: a state machine of bounded size. Its methods receive the time.
//!
//! Must not know the input of a job, nor how it runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
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

/// Bounds of a store. An owner takes no more of each than what is free, so that another owner always finds something.
#[derive(Clone, Copy, Debug)]
pub struct StoreLimits {
    /// Largest number of jobs, ended ones included.
    pub n_jobs_max: usize,
    /// Largest number of bytes of all jobs.
    pub n_bytes_max: usize,
    /// Largest number of jobs that run.
    pub n_running_max: usize,
}

/// Whose a job is: the holder of a key, of which this is a hash, or anybody where no key is required. Jobs of others do
/// not exist for an owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner(pub Option<[u8; 32]>);

/// Bytes of a job beside its work and its output: its id, its times, and its place in the store.
const JOB_BYTES: usize = 512;

/// A job that is not in the store yet.
#[derive(Debug)]
pub struct NewJob<W> {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub owner: Owner,
    /// Its work.
    pub work: W,
    /// Bytes that the work holds.
    pub n_work_bytes: usize,
    /// How long its results are kept after its end.
    pub kept_for: Duration,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With complete output.
    Completed,
    /// With an error of its own input, so that another attempt would fail as well.
    Refused(String),
    /// With an error.
    Failed(String),
    /// It took too long.
    TimedOut(String),
}

/// The permission to run a job once, as soon as it has its turn. It is invalid after the job is cancelled, expired, or
/// queued again.
#[derive(Clone, Debug)]
pub struct Claim<W> {
    /// The job.
    pub id: String,
    /// Its work.
    pub work: Arc<W>,
    /// Cancelled when the job must stop.
    pub cancelled: CancellationToken,
    attempt: Arc<Attempt>,
}

/// One run of a job.
#[derive(Debug)]
struct Attempt {
    /// Attempts have the order in which they were queued.
    number: u64,
    turn: Notify,
}

impl<W> Claim<W> {
    /// Waits until the job may run.
    pub async fn turn(&self) {
        self.attempt.turn.notified().await;
    }
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

/// There is no room for more of this owner's jobs, and none of them has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this replica has no room for another job of this client")]
pub struct StoreFull;

/// Why a job cannot be started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryError {
    /// There is no such job, or it has expired.
    Unknown,
    /// It neither failed nor timed out.
    NotFailed(Status),
    /// It failed because of its input, which is not kept.
    Refused,
}

#[derive(Debug)]
struct Job<W> {
    owner: Owner,
    attempt: Arc<Attempt>,
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
    n_item_bytes: usize,
    n_streamed: usize,
    error: Option<String>,
}

impl<W> Job<W> {
    fn new(new: NewJob<W>, attempt: Arc<Attempt>, now: Instant) -> Self {
        Self {
            owner: new.owner,
            attempt,
            status: Status::InQueue,
            work: Some(Arc::new(new.work)),
            n_work_bytes: new.n_work_bytes,
            cancelled: CancellationToken::new(),
            queued_at: now,
            started_at: None,
            ended_at: None,
            kept_for: new.kept_for,
            items: Vec::new(),
            n_item_bytes: 0,
            n_streamed: 0,
            error: None,
        }
    }

    /// The same job in the queue again, without its output.
    fn queue_again(&mut self, attempt: Arc<Attempt>, now: Instant) {
        self.attempt = attempt;
        self.status = Status::InQueue;
        self.cancelled = CancellationToken::new();
        self.queued_at = now;
        (self.started_at, self.ended_at, self.error) = (None, None, None);
        (self.items, self.n_item_bytes, self.n_streamed) = (Vec::new(), 0, 0);
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

    /// What it takes of the store.
    fn share(&self) -> Share {
        let work = if self.work.is_some() { self.n_work_bytes } else { 0 };
        let error = self.error.as_ref().map_or(0, String::len);
        Share {
            n_jobs: 1,
            n_bytes: JOB_BYTES + work + self.n_item_bytes + error,
            n_running: usize::from(self.status == Status::InProgress),
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

/// What some jobs take of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    n_jobs: usize,
    n_bytes: usize,
    n_running: usize,
}

impl Share {
    fn plus(self, other: Self) -> Self {
        Self {
            n_jobs: self.n_jobs + other.n_jobs,
            n_bytes: self.n_bytes + other.n_bytes,
            n_running: self.n_running + other.n_running,
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            n_jobs: self.n_jobs - other.n_jobs,
            n_bytes: self.n_bytes - other.n_bytes,
            n_running: self.n_running - other.n_running,
        }
    }
}

/// All jobs of this process. `W` is the work of a job.
#[derive(Debug)]
pub struct Store<W> {
    limits: StoreLimits,
    jobs: BTreeMap<String, Job<W>>,
    /// What each owner of a job takes.
    shares: BTreeMap<Owner, Share>,
    all: Share,
    n_attempts: u64,
    totals: JobCounts,
}

impl<W> Store<W> {
    /// A store without jobs.
    pub fn new(limits: StoreLimits) -> Self {
        Self {
            limits,
            jobs: BTreeMap::new(),
            shares: BTreeMap::new(),
            all: Share::default(),
            n_attempts: 0,
            totals: JobCounts::default(),
        }
    }

    /// Adds a job to the queue.
    ///
    /// # Errors
    /// [`StoreFull`] if there is no room for another job of its owner, and no ended one that can be removed.
    pub fn submit(&mut self, new: NewJob<W>, now: Instant) -> Result<Claim<W>, StoreFull> {
        self.expire(now);
        let added = Share {
            n_jobs: 1,
            n_bytes: JOB_BYTES + new.n_work_bytes,
            n_running: 0,
        };
        self.make_room(new.owner, added)?;
        let (id, attempt) = (new.id.clone(), self.next_attempt());
        let job = Job::new(new, attempt, now);
        let claim = claim(&id, &job).expect("the job has its work");
        self.recount(job.owner, Share::default(), job.share());
        self.jobs.insert(id, job);
        self.start_queued(now);
        Ok(claim)
    }

    /// Ends a job that had no turn in its time. Returns false if it has had it, or has ended.
    pub fn give_up_waiting(&mut self, claim: &Claim<W>, error: &str, now: Instant) -> bool {
        let waits = self
            .claimed(claim)
            .is_some_and(|job| job.status == Status::InQueue);
        if waits {
            self.finish(claim, End::TimedOut(error.to_owned()), now);
        }
        waits
    }

    /// Adds an item, a JSON text, to the output of a running job. Items of other jobs are dropped.
    ///
    /// # Errors
    /// [`StoreFull`] if there is no room.
    pub fn push(&mut self, claim: &Claim<W>, item: String) -> Result<(), StoreFull> {
        let Some(owner) = self.claimed(claim).map(|job| job.owner) else {
            return Ok(());
        };
        let added = Share {
            n_bytes: item.len(),
            ..Share::default()
        };
        self.make_room(owner, added)?;
        self.change(&claim.id, |job| {
            job.n_item_bytes += item.len();
            job.items.push(item);
        });
        Ok(())
    }

    /// Ends a job that runs or waits. Other jobs only get their turn.
    pub fn finish(&mut self, claim: &Claim<W>, end: End, now: Instant) {
        if self.claimed(claim).is_none() {
            return;
        }
        let is_refused = matches!(end, End::Refused(_));
        let (status, error) = match end {
            End::Completed => (Status::Completed, None),
            End::Refused(error) | End::Failed(error) => (Status::Failed, Some(error)),
            End::TimedOut(error) => (Status::TimedOut, Some(error)),
        };
        self.change(&claim.id, |job| {
            job.end(status, error, now);
            if is_refused {
                job.work = None;
            }
        });
        match status {
            Status::Completed => self.totals.n_completed += 1,
            _ => self.totals.n_failed += 1,
        }
        self.start_queued(now);
    }

    /// Cancels a job of an owner unless it has ended. Returns its state, or `None` if there is no such job.
    pub fn cancel(&mut self, owner: Owner, id: &str, now: Instant) -> Option<Status> {
        self.expire(now);
        let status = self.owned(owner, id)?.status;
        if status.is_final() {
            return Some(status);
        }
        self.change(id, |job| job.end(Status::Cancelled, None, now));
        self.start_queued(now);
        Some(Status::Cancelled)
    }

    /// Cancels every job of an owner that is in the queue, and returns their number.
    pub fn purge(&mut self, owner: Owner, now: Instant) -> usize {
        let is_queued = |job: &Job<W>| job.owner == owner && job.status == Status::InQueue;
        let queued = self.jobs.iter().filter(|(_, job)| is_queued(job));
        let queued: Vec<String> = queued.map(|(id, _)| id.clone()).collect();
        for id in &queued {
            self.change(id, |job| job.end(Status::Cancelled, None, now));
        }
        queued.len()
    }

    /// Puts a job of an owner that failed or timed out into the queue again, without its output.
    ///
    /// # Errors
    /// [`RetryError`] if there is no such job, or it cannot be run again.
    pub fn retry(&mut self, owner: Owner, id: &str, now: Instant) -> Result<Claim<W>, RetryError> {
        self.expire(now);
        let attempt = self.next_attempt();
        let job = self.owned(owner, id).ok_or(RetryError::Unknown)?;
        if !matches!(job.status, Status::Failed | Status::TimedOut) {
            return Err(RetryError::NotFailed(job.status));
        }
        if job.work.is_none() {
            return Err(RetryError::Refused);
        }
        self.change(id, |job| job.queue_again(attempt, now));
        self.totals.n_retried += 1;
        let claim = self.jobs.get(id).and_then(|job| claim(id, job));
        self.start_queued(now);
        claim.ok_or(RetryError::Unknown)
    }

    /// The state of an owner's job, with the output of a completed one.
    pub fn view(&mut self, owner: Owner, id: &str, now: Instant) -> Option<View> {
        self.expire(now);
        let job = self.owned(owner, id)?;
        let items = match job.status {
            Status::Completed => job.items.clone(),
            _ => Vec::new(),
        };
        Some(job.view(id, items))
    }

    /// The state of an owner's job, with the output that earlier calls did not return.
    pub fn stream(&mut self, owner: Owner, id: &str, now: Instant) -> Option<View> {
        self.expire(now);
        self.owned(owner, id)?;
        let job = self.jobs.get_mut(id)?;
        let news = job.items[job.n_streamed..].to_vec();
        job.n_streamed = job.items.len();
        Some(job.view(id, news))
    }

    /// Changes how long the results of an owner's job are kept after its end.
    pub fn keep(&mut self, owner: Owner, id: &str, kept_for: Duration) {
        if self.owned(owner, id).is_some() {
            self.change(id, |job| job.kept_for = kept_for);
        }
    }

    /// Numbers of jobs.
    pub fn counts(&self) -> JobCounts {
        let n_queued = self.jobs.values().filter(|job| job.status == Status::InQueue);
        JobCounts {
            n_queued: n_queued.count(),
            n_running: self.all.n_running,
            ..self.totals
        }
    }

    /// Lets queued jobs run, as long as there are places: of the owner with the fewest running jobs first, and of one
    /// owner in the order of the queue.
    fn start_queued(&mut self, now: Instant) {
        while let Some(id) = self.next_queued() {
            self.change(&id, |job| {
                job.status = Status::InProgress;
                job.started_at = Some(now);
                job.attempt.turn.notify_one();
            });
        }
    }

    fn next_queued(&self) -> Option<String> {
        let n_running = |owner: Owner| self.shares.get(&owner).map_or(0, |share| share.n_running);
        let queued = self.jobs.iter().filter(|(_, job)| job.status == Status::InQueue);
        let next = queued.min_by_key(|(_, job)| (n_running(job.owner), job.attempt.number));
        let (id, job) = next?;
        let may_run = n_running(job.owner) + self.all.n_running < self.limits.n_running_max;
        may_run.then(|| id.clone())
    }

    /// Removes the jobs whose results have expired.
    fn expire(&mut self, now: Instant) {
        let is_old = |job: &Job<W>| {
            let ended_at = job.ended_at?;
            Some(now.saturating_duration_since(ended_at) >= job.kept_for)
        };
        let old = self.jobs.iter().filter(|(_, job)| is_old(job) == Some(true));
        let old: Vec<String> = old.map(|(id, _)| id.clone()).collect();
        for id in old {
            self.remove(&id);
        }
    }

    /// Removes jobs of an owner that have ended, the first ones first, until there is room for more of it: an owner
    /// takes no more than what is free.
    fn make_room(&mut self, owner: Owner, added: Share) -> Result<(), StoreFull> {
        loop {
            let own = self.shares.get(&owner).copied().unwrap_or_default();
            let needed = self.all.plus(own).plus(added);
            if needed.n_jobs <= self.limits.n_jobs_max && needed.n_bytes <= self.limits.n_bytes_max {
                return Ok(());
            }
            let of_owner = self.jobs.iter().filter(|(_, job)| job.owner == owner);
            let ended = of_owner.filter_map(|(id, job)| Some((job.ended_at?, id)));
            let first = ended.min().map(|(_, id)| id.clone()).ok_or(StoreFull)?;
            self.remove(&first);
        }
    }

    fn remove(&mut self, id: &str) {
        if let Some(job) = self.jobs.remove(id) {
            self.recount(job.owner, job.share(), Share::default());
        }
    }

    /// Changes a job, and counts what it takes.
    fn change(&mut self, id: &str, change: impl FnOnce(&mut Job<W>)) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let before = job.share();
        change(job);
        let (owner, after) = (job.owner, job.share());
        self.recount(owner, before, after);
    }

    fn recount(&mut self, owner: Owner, before: Share, after: Share) {
        self.all = self.all.plus(after).minus(before);
        let share = self.shares.entry(owner).or_default();
        *share = share.plus(after).minus(before);
        if *share == Share::default() {
            self.shares.remove(&owner);
        }
    }

    fn next_attempt(&mut self) -> Arc<Attempt> {
        self.n_attempts += 1;
        Arc::new(Attempt {
            number: self.n_attempts,
            turn: Notify::new(),
        })
    }

    fn owned(&self, owner: Owner, id: &str) -> Option<&Job<W>> {
        self.jobs.get(id).filter(|job| job.owner == owner)
    }

    /// The job of a claim that is still valid.
    fn claimed(&self, claim: &Claim<W>) -> Option<&Job<W>> {
        self.jobs
            .get(&claim.id)
            .filter(|job| Arc::ptr_eq(&job.attempt, &claim.attempt) && !job.status.is_final())
    }
}

fn claim<W>(id: &str, job: &Job<W>) -> Option<Claim<W>> {
    Some(Claim {
        id: id.to_string(),
        work: Arc::clone(job.work.as_ref()?),
        cancelled: job.cancelled.clone(),
        attempt: Arc::clone(&job.attempt),
    })
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use proptest::prelude::*;

    use super::*;

    /// An owner alone gets half of it.
    const LIMITS: StoreLimits = StoreLimits {
        n_jobs_max: 8,
        n_bytes_max: 8 * JOB_BYTES + 200,
        n_running_max: 2,
    };
    const MINUTE: Duration = Duration::from_secs(60);
    const A: Owner = Owner(None);
    const B: Owner = Owner(Some([1; 32]));

    fn submitted(store: &mut Store<()>, id: &str, now: Instant) -> Claim<()> {
        store.submit(job(A, id, 10), now).unwrap()
    }

    fn job(owner: Owner, id: &str, n_work_bytes: usize) -> NewJob<()> {
        NewJob {
            id: id.into(),
            owner,
            work: (),
            n_work_bytes,
            kept_for: MINUTE,
        }
    }

    fn has_turn(claim: &Claim<()>) -> bool {
        claim.turn().now_or_never().is_some()
    }

    #[test]
    fn a_job_is_queued_runs_and_expires() {
        let (mut store, t0) = (Store::new(LIMITS), Instant::now());
        let before = submitted(&mut store, "before", t0);
        let claim = submitted(&mut store, "a", t0);
        assert_eq!(store.view(A, "a", t0).unwrap().status, Status::InQueue);
        assert!(has_turn(&before) && !has_turn(&claim));
        let t1 = t0 + Duration::from_millis(30);
        store.finish(&before, End::Completed, t1);
        assert!(has_turn(&claim));
        store.push(&claim, "1".into()).unwrap();
        store.push(&claim, "2".into()).unwrap();
        assert_eq!(store.stream(A, "a", t1).unwrap().items, ["1", "2"]);
        assert_eq!(store.stream(A, "a", t1).unwrap().items, [""; 0]);
        store.push(&claim, "3".into()).unwrap();
        let t2 = t1 + Duration::from_millis(500);
        store.finish(&claim, End::Completed, t2);
        assert_eq!(store.stream(A, "a", t2).unwrap().items, ["3"], "the rest");
        let view = store.view(A, "a", t2).unwrap();
        assert_eq!(view.items, ["1", "2", "3"]);
        assert_eq!((view.delay, view.execution), (Some(t1 - t0), Some(t2 - t1)));
        assert!(
            store
                .view(A, "a", t2 + MINUTE - Duration::from_millis(1))
                .is_some()
        );
        assert_eq!(store.view(A, "a", t2 + MINUTE), None);
        assert_eq!(store.counts().n_completed, 2);
    }

    #[test]
    fn a_cancelled_job_gets_no_turn_and_its_claim_is_invalid() {
        let (mut store, now) = (Store::new(LIMITS), Instant::now());
        let running = submitted(&mut store, "running", now);
        let claim = submitted(&mut store, "a", now);
        assert_eq!(store.cancel(A, "a", now), Some(Status::Cancelled));
        assert!(claim.cancelled.is_cancelled());
        store.finish(&running, End::Completed, now);
        assert!(!has_turn(&claim));
        store.finish(&claim, End::Completed, now);
        assert!(!store.give_up_waiting(&claim, "late", now));
        assert_eq!(store.view(A, "a", now).unwrap().status, Status::Cancelled);
        assert_eq!(store.cancel(A, "nobody", now), None);
    }

    #[test]
    fn only_queued_jobs_are_purged_and_only_failed_ones_are_started_again() {
        let (mut store, now) = (Store::new(LIMITS), Instant::now());
        let running = submitted(&mut store, "a", now);
        submitted(&mut store, "b", now);
        assert_eq!(store.purge(A, now), 1);
        let retry = |store: &mut Store<()>, id| store.retry(A, id, now);
        assert_eq!(
            retry(&mut store, "b").unwrap_err(),
            RetryError::NotFailed(Status::Cancelled)
        );
        store.finish(&running, End::Failed("no".into()), now);
        assert_eq!(store.view(A, "a", now).unwrap().error.as_deref(), Some("no"));
        let again = retry(&mut store, "a").unwrap();
        store.finish(&running, End::Completed, now);
        assert_eq!(
            store.view(A, "a", now).unwrap().status,
            Status::InProgress,
            "the first attempt is over"
        );
        assert!(has_turn(&again));
        assert_eq!(retry(&mut store, "c").unwrap_err(), RetryError::Unknown);
        store.finish(&again, End::Refused("bad input".into()), now);
        assert_eq!(retry(&mut store, "a").unwrap_err(), RetryError::Refused);
        assert_eq!(
            store.all.n_bytes,
            2 * JOB_BYTES + "bad input".len(),
            "no input is kept"
        );
    }

    #[test]
    fn the_job_that_ended_first_makes_room_and_running_jobs_do_not() {
        let (mut store, now) = (Store::new(LIMITS), Instant::now());
        for id in ["a", "b", "c", "d"] {
            submitted(&mut store, id, now);
        }
        assert_eq!(store.submit(job(A, "e", 1), now).unwrap_err(), StoreFull);
        store.cancel(A, "b", now);
        store.cancel(A, "a", now + Duration::from_millis(1));
        submitted(&mut store, "e", now);
        assert!(store.view(A, "b", now).is_none() && store.view(A, "a", now).is_some());
        let large = store.submit(job(A, "f", 700), now);
        assert_eq!(large.unwrap_err(), StoreFull, "bytes count, too");
    }

    #[test]
    fn an_owner_finds_room_and_a_turn_beside_one_who_takes_all_and_sees_only_its_own_jobs() {
        let (mut store, now) = (Store::new(LIMITS), Instant::now());
        let ended = submitted(&mut store, "ended", now);
        store.finish(&ended, End::Completed, now);
        let own = store.submit(job(B, "own", 10), now).unwrap();
        assert!(has_turn(&own));
        store.finish(&own, End::Completed, now);
        while store
            .submit(job(B, &format!("b{}", store.jobs.len()), 10), now)
            .is_ok()
        {}
        assert!(
            store.view(A, "ended", now).is_some(),
            "the results of others stay"
        );
        assert!(store.view(B, "own", now).is_none(), "its own make room");
        let other = submitted(&mut store, "a", now);
        assert!(has_turn(&other), "one of B runs, and one of A");
        assert_eq!(store.view(B, "a", now), None);
        assert_eq!(store.stream(B, "a", now), None);
        assert_eq!(store.cancel(B, "a", now), None);
        assert_eq!(store.retry(B, "ended", now).unwrap_err(), RetryError::Unknown);
        store.keep(B, "ended", Duration::ZERO);
        assert!(store.view(A, "ended", now).is_some());
        let queued = store.counts().n_queued;
        submitted(&mut store, "waits", now);
        assert_eq!(store.purge(B, now), queued);
        assert_eq!(store.view(A, "waits", now).unwrap().status, Status::InQueue);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Submit(Owner, usize),
        GiveUp(usize),
        Push(usize, usize),
        Finish(usize, End),
        Cancel(Owner, usize),
        Purge(Owner),
        Retry(Owner, usize),
        Look(Owner, usize),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let end = prop_oneof![
            Just(End::Completed),
            Just(End::Refused("bad".into())),
            Just(End::Failed("no".into())),
            Just(End::TimedOut("late".into()))
        ];
        let owner = || prop_oneof![Just(A), Just(B), Just(Owner(Some([2; 32])))];
        prop_oneof![
            (owner(), 0_usize..60).prop_map(|(owner, n)| Step::Submit(owner, n)),
            (0_usize..8).prop_map(Step::GiveUp),
            (0_usize..8, 0_usize..40).prop_map(|(job, n)| Step::Push(job, n)),
            (0_usize..8, end).prop_map(|(job, end)| Step::Finish(job, end)),
            (owner(), 0_usize..8).prop_map(|(owner, job)| Step::Cancel(owner, job)),
            owner().prop_map(Step::Purge),
            (owner(), 0_usize..8).prop_map(|(owner, job)| Step::Retry(owner, job)),
            (owner(), 0_usize..8).prop_map(|(owner, job)| Step::Look(owner, job)),
            (0_u64..40).prop_map(Step::Wait),
        ]
    }

    fn take(store: &mut Store<()>, claims: &mut Vec<Claim<()>>, step: Step, now: &mut Instant) {
        let claimed = |claims: &[Claim<()>], job: usize| {
            (!claims.is_empty()).then(|| claims[claims.len() - 1 - job % claims.len()].clone())
        };
        match step {
            Step::Submit(owner, n) => {
                let id = claims.len().to_string();
                claims.extend(store.submit(job(owner, &id, n), *now));
            }
            Step::Wait(s) => *now += Duration::from_secs(s),
            Step::Purge(owner) => {
                store.purge(owner, *now);
                let queued = store.jobs.values().filter(|job| job.status == Status::InQueue);
                assert_eq!(queued.filter(|job| job.owner == owner).count(), 0);
            }
            Step::GiveUp(job) | Step::Push(job, _) | Step::Finish(job, _) => {
                let Some(claim) = claimed(claims, job) else { return };
                match step {
                    Step::Push(_, n) => {
                        let _full = store.push(&claim, "x".repeat(n));
                    }
                    Step::Finish(_, end) => store.finish(&claim, end, *now),
                    _ => {
                        store.give_up_waiting(&claim, "late", *now);
                    }
                }
            }
            Step::Cancel(owner, job) | Step::Retry(owner, job) | Step::Look(owner, job) => {
                let Some(Claim { id, .. }) = claimed(claims, job) else {
                    return;
                };
                match step {
                    Step::Cancel(..) => {
                        store.cancel(owner, &id, *now);
                    }
                    Step::Retry(..) => claims.extend(store.retry(owner, &id, *now)),
                    _ => {
                        store.stream(owner, &id, *now);
                    }
                }
            }
        }
    }

    fn sum<'a>(jobs: impl Iterator<Item = &'a Job<()>>) -> Share {
        jobs.map(Job::share).fold(Share::default(), Share::plus)
    }

    proptest! {
        #[test]
        fn after_any_steps_the_bounds_and_the_sums_hold(steps in prop::collection::vec(step(), 0..200)) {
            let (mut store, mut claims, mut now) = (Store::new(LIMITS), Vec::new(), Instant::now());
            for step in steps {
                take(&mut store, &mut claims, step, &mut now);
                prop_assert_eq!(store.all, sum(store.jobs.values()));
                for (owner, share) in &store.shares {
                    prop_assert_eq!(*share, sum(store.jobs.values().filter(|job| job.owner == *owner)));
                }
                prop_assert!(store.all.n_jobs <= LIMITS.n_jobs_max);
                prop_assert!(store.all.n_running <= LIMITS.n_running_max);
                // An error of four bytes may come on top.
                prop_assert!(store.all.n_bytes <= LIMITS.n_bytes_max + 4 * LIMITS.n_jobs_max);
                prop_assert!(store.next_queued().is_none(), "a place is free, and a job waits");
                for job in store.jobs.values() {
                    prop_assert_eq!(job.status.is_final(), job.ended_at.is_some());
                    prop_assert_eq!(job.status.is_final(), job.cancelled.is_cancelled());
                    prop_assert!(job.n_streamed <= job.items.len());
                    let may_run_again = matches!(
                        job.status, Status::InQueue | Status::InProgress | Status::Failed | Status::TimedOut
                    );
                    prop_assert!(job.work.is_none() || may_run_again);
                    prop_assert!(job.work.is_some() || job.status.is_final());
                }
            }
        }
    }
}
