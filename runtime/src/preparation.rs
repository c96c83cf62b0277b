//! The work that a request needs before the engine: so much at once, in turn per client, with a deadline and an end.
//!
//! Owns the places and their threads, the queue, and the budget of each piece of work. Must not know what the work is.
//!
//! There are two kinds of places. Work begins in one for light work if it looks cheap, and begins again in one for heavy
//! work when it finds that it is not. Threads for heavy work have a low priority, so that a small request and the engine
//! do not wait for it.

mod budget;
mod turns;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::setpriority_process;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::client::Client;
use budget::Place;
pub use budget::{Budget, Stopped};
use turns::Turns;

/// Largest input of work that begins in a place for light work, in bytes.
const LIGHT_BYTES_MAX: usize = 64 << 10;
/// The longest times. A piece of work takes at most a few seconds of a processor, of which it may get little.
const LIMITS: Limits = Limits {
    run: Duration::from_secs(15),
    wait: Duration::from_secs(20),
};
/// Pieces of work that wait for a place of one kind.
const WAITING_MAX: usize = 1024;
/// Places for heavy work, at least: one client never holds all of them while others wait.
const HEAVY_PLACES_MIN: usize = 2;
/// Niceness of the threads for heavy work: beside a thread of the engine, one gets about a quarter of a core.
const HEAVY_NICENESS: i32 = 5;
/// Stack of a thread for work, in bytes. Only used pages take memory.
const STACK_BYTES: usize = 8 << 20;

/// Why work has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unprepared {
    /// The queue is full, or the work waited too long.
    #[error("there is no place for the work")]
    Busy,
    /// The work took too long.
    #[error("the work took longer than {limit_s} s")]
    TimeUp {
        /// The longest time, in seconds.
        limit_s: u64,
    },
    /// The work panicked, or there is no thread for it.
    #[error("the work failed")]
    Failed,
}

/// The places for the work of all requests.
#[derive(Debug)]
pub struct Preparation {
    light: Arc<Lane>,
    heavy: Arc<Lane>,
}

impl Preparation {
    /// Places for `n_places` pieces of work of each kind.
    pub fn new(n_places: usize) -> Self {
        Self::with_limits(n_places, LIMITS)
    }

    fn with_limits(n_places: usize, limits: Limits) -> Self {
        let lane = |place, n_places| {
            Arc::new(Lane {
                place,
                limits,
                turns: Mutex::new(Turns::new(n_places, WAITING_MAX)),
            })
        };
        Self {
            light: lane(Place::Light, n_places),
            heavy: lane(Place::Heavy, n_places.max(HEAVY_PLACES_MIN)),
        }
    }

    /// Runs work of a client, whose input has `n_bytes` bytes, on a thread of its own. Work that turns out to be heavy
    /// begins again. If the returned future is dropped, work that waits does not begin, and work that runs ends when it
    /// next asks its budget.
    ///
    /// # Errors
    /// [`Unprepared`] if the work found no place, took too long or panicked.
    pub async fn run<T, W>(&self, client: Client, n_bytes: usize, work: W) -> Result<T, Unprepared>
    where
        T: Send + 'static,
        W: Fn(&Budget) -> T + Send + Sync + 'static,
    {
        let work: Work<T> = Arc::new(work);
        if n_bytes <= LIGHT_BYTES_MAX
            && let Made::Result(made) = self.light.run(client, n_bytes, Arc::clone(&work)).await?
        {
            return Ok(made);
        }
        match self.heavy.run(client, n_bytes, work).await? {
            Made::Result(made) => Ok(made),
            Made::TooHeavy => Err(Unprepared::Failed),
        }
    }
}

/// The longest times of a piece of work.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// In its place. The client has an answer then, also if the work cannot be interrupted.
    run: Duration,
    /// Waiting for a place.
    wait: Duration,
}

type Work<T> = Arc<dyn Fn(&Budget) -> T + Send + Sync>;

/// What work in a place made.
enum Made<T> {
    Result(T),
    /// Nothing, because it needs a place for heavy work.
    TooHeavy,
}

type Job = Box<dyn FnOnce() + Send>;

/// Places of one kind.
struct Lane {
    place: Place,
    limits: Limits,
    turns: Mutex<Turns<Client, Job>>,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl Lane {
    fn turns(&self) -> MutexGuard<'_, Turns<Client, Job>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        client: Client,
        n_bytes: usize,
        work: Work<T>,
    ) -> Result<Made<T>, Unprepared> {
        let has_left = Arc::new(AtomicBool::new(false));
        let (started, has_started) = oneshot::channel();
        let (ended, has_ended) = oneshot::channel();
        let (place, limits, left) = (self.place, self.limits, Arc::clone(&has_left));
        let job = move || {
            let budget = Budget::new(place, limits.run, left);
            // Nobody may wait for this any longer.
            let _nobody_waits = started.send(());
            let result = work(&budget);
            drop(work);
            let made = if budget.is_too_heavy() {
                Made::TooHeavy
            } else {
                Made::Result(result)
            };
            let _nobody_waits = ended.send(made);
        };
        let id = self
            .turns()
            .arrive(client, n_bytes, Box::new(job))
            .ok_or(Unprepared::Busy)?;
        let _stay = Stay {
            lane: self,
            client,
            id,
            has_left,
        };
        self.fill();
        match timeout(limits.wait, has_started).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Unprepared::Failed),
            Err(_) => return Err(Unprepared::Busy),
        }
        match timeout(limits.run, has_ended).await {
            Ok(made) => made.map_err(|_| Unprepared::Failed),
            Err(_) => Err(Unprepared::TimeUp {
                limit_s: limits.run.as_secs(),
            }),
        }
    }

    /// Starts threads for the work that may have a place now.
    fn fill(self: &Arc<Self>) {
        loop {
            let Some((client, job)) = self.turns().next() else {
                return;
            };
            let lane = Arc::clone(self);
            let thread = std::thread::Builder::new()
                .name("preparation".to_owned())
                .stack_size(STACK_BYTES);
            if let Err(error) = thread.spawn(move || lane.work(client, job)) {
                tracing::error!(%error, "cannot start a thread to prepare a request");
                self.turns().ended(client);
            }
        }
    }

    /// Works on one job after another while there are some, in one place.
    fn work(&self, client: Client, job: Job) {
        // On Linux a thread has a priority of its own, and this one ends soon; elsewhere the process has one.
        if self.place == Place::Heavy && cfg!(target_os = "linux") {
            let _best_effort = setpriority_process(None, HEAVY_NICENESS);
        }
        let mut next = Some((client, job));
        while let Some((client, job)) = next {
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                tracing::error!("the preparation of a request panicked");
            }
            let mut turns = self.turns();
            turns.ended(client);
            next = turns.next();
        }
    }
}

/// The stay of one piece of work in a lane; its end ends the work.
struct Stay<'a> {
    lane: &'a Lane,
    client: Client,
    id: u64,
    has_left: Arc<AtomicBool>,
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        self.has_left.store(true, Ordering::Relaxed);
        let unstarted = self.lane.turns().leave(self.client, self.id);
        // Its input may be large, so the lock is free before it is dropped.
        drop(unstarted);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    use super::*;

    const CLIENT: Client = Client::Inside;

    /// Work that waits for a message, and says when it began.
    fn held() -> (
        impl Fn(&Budget) + Send + Sync,
        mpsc::Receiver<()>,
        mpsc::Sender<()>,
    ) {
        let (begins, has_begun) = mpsc::channel();
        let (end, may_end) = mpsc::channel::<()>();
        let may_end = Mutex::new(may_end);
        let work = move |_: &Budget| {
            begins.send(()).unwrap();
            may_end.lock().unwrap().recv().unwrap();
        };
        (work, has_begun, end)
    }

    async fn received(receiver: mpsc::Receiver<()>) {
        tokio::task::spawn_blocking(move || receiver.recv().unwrap())
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn work_that_is_too_heavy_begins_again_in_another_place() {
        let preparation = Preparation::new(1);
        let n_begun = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&n_begun);
        let heavy = move |budget: &Budget| {
            count.fetch_add(1, Ordering::SeqCst);
            budget.begin_heavy().map(|()| "done")
        };
        assert_eq!(preparation.run(CLIENT, 10, heavy).await, Ok(Ok("done")));
        assert_eq!(n_begun.load(Ordering::SeqCst), 2);
        let first = move |budget: &Budget| budget.begin_heavy();
        let large = LIGHT_BYTES_MAX + 1;
        assert_eq!(preparation.run(CLIENT, large, first).await, Ok(Ok(())));
    }

    #[tokio::test]
    async fn light_work_does_not_wait_for_heavy_work() {
        let preparation = Arc::new(Preparation::new(1));
        let large = LIGHT_BYTES_MAX + 1;
        let holds = (0..HEAVY_PLACES_MIN).map(|_| held());
        let mut ends = Vec::new();
        for (work, has_begun, end) in holds.collect::<Vec<_>>() {
            let preparation = Arc::clone(&preparation);
            let running = tokio::spawn(async move { preparation.run(CLIENT, large, work).await });
            received(has_begun).await;
            ends.push((running, end));
        }
        assert_eq!(preparation.run(CLIENT, 10, |_| 7).await, Ok(7));
        for (running, end) in ends {
            end.send(()).unwrap();
            assert_eq!(running.await.unwrap(), Ok(()));
        }
    }

    #[tokio::test]
    async fn work_of_a_client_that_left_does_not_begin_or_ends() {
        let preparation = Arc::new(Preparation::new(1));
        let (work, has_begun, end) = held();
        let (left, has_left) = mpsc::channel();
        let until_left = move |budget: &Budget| {
            work(budget);
            left.send(budget.check()).unwrap();
        };
        let mut running = Box::pin(preparation.run(CLIENT, 10, until_left));
        assert!(futures::poll!(running.as_mut()).is_pending());
        received(has_begun).await;
        let begun = Arc::new(AtomicBool::new(false));
        let begins = Arc::clone(&begun);
        let mut waiting =
            Box::pin(preparation.run(CLIENT, 10, move |_| begins.store(true, Ordering::SeqCst)));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        drop(waiting);
        drop(running);
        end.send(()).unwrap();
        let stopped = tokio::task::spawn_blocking(move || has_left.recv().unwrap());
        assert_eq!(stopped.await.unwrap(), Err(Stopped::ClientLeft));
        // The only place is free again.
        assert_eq!(preparation.run(CLIENT, 10, |_| 7).await, Ok(7));
        assert!(!begun.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_panic_ends_only_its_own_work() {
        let preparation = Preparation::new(1);
        let panics = |_: &Budget| -> u32 { panic!("a bug") };
        assert_eq!(preparation.run(CLIENT, 10, panics).await, Err(Unprepared::Failed));
        assert_eq!(preparation.run(CLIENT, 10, |_| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn a_client_has_an_answer_when_the_time_is_over() {
        let short = Duration::from_millis(20);
        let preparation = Preparation::with_limits(
            1,
            Limits {
                run: short,
                wait: short,
            },
        );
        let (work, _has_begun, end) = held();
        let ended = preparation.run(CLIENT, 10, work).await;
        assert_eq!(ended, Err(Unprepared::TimeUp { limit_s: 0 }));
        // The work holds its place to its end, so others wait.
        assert_eq!(preparation.run(CLIENT, 10, |_| 7).await, Err(Unprepared::Busy));
        end.send(()).unwrap();
    }
}
