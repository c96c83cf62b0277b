//! Threads that share the tasks of one section after the other.
//!
//! A decode step is a hundred or more sections of some microseconds each, so that what lies between two of them counts:
//! within a step threads wait awake for a short time, tasks are claimed from one counter, and a thread that comes late
//! is not waited for. Nothing is allocated for a section.

use std::any::Any;
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a waiting thread keeps its core. Longer than what lies between two sections of a step.
const SPIN: Duration = Duration::from_micros(30);

/// How long it waits before it sleeps; after [`SPIN`] it offers its core to others. About what falling asleep and
/// waking up cost.
const AWAKE: Duration = Duration::from_micros(200);

/// Rounds of waiting between two looks at the clock.
const ROUNDS: u32 = 32;

/// The work of a section: is called with the thread and the number of the task.
type Task<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// Bits of [`Shared::state`]. Above them is the number of workers inside of the section.
const OPEN: u32 = 1;
const CALLER_SLEEPS: u32 = 2;
const END: u32 = 4;
const INSIDE: u32 = 8;

/// Threads that this process may run at once: its CPUs by affinity and cpuset, and no more than whole CPUs of the
/// control group's quota (either version), because threads of which the quota stops one wait for it together.
/// One if the system reports none.
pub fn available_threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// A caller and its workers.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// [`OPEN`]: tasks may be left. Workers enter an open section and count themselves.
    state: Line<AtomicU32>,
    /// The first task that nobody has claimed.
    next: Line<AtomicUsize>,
    section: Line<Current>,
    /// A caller has the workers.
    is_taken: AtomicBool,
    /// Callers within [`Pool::step`].
    n_steps: AtomicUsize,
    n_asleep: AtomicUsize,
    n_threads: usize,
    spin: Duration,
    lock: Mutex<()>,
    worker: Condvar,
    caller: Condvar,
    /// What the first task that panicked left.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Keeps a value out of its neighbours' cache lines, two of which are fetched together.
#[derive(Debug)]
#[repr(align(128))]
struct Line<T>(T);

/// The section that is open, or was last.
#[derive(Debug)]
struct Current(UnsafeCell<Section>);

#[derive(Debug, Clone, Copy)]
struct Section {
    each: *const Task<'static>,
    n_tasks: usize,
}

// SAFETY: `each` points to a `Sync` value, which any thread may call.
unsafe impl Send for Section {}
// SAFETY: the section is written only by the caller that has the workers, while none of them is inside.
unsafe impl Sync for Current {}

impl Pool {
    /// A pool of `n_threads` threads, the caller's included.
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub(super) fn new(n_threads: usize) -> io::Result<Pool> {
        let nothing: &'static Task<'static> = &|_, _| ();
        let shared = Shared {
            state: Line(AtomicU32::new(0)),
            next: Line(AtomicUsize::new(0)),
            section: Line(Current(UnsafeCell::new(Section {
                each: nothing,
                n_tasks: 0,
            }))),
            is_taken: AtomicBool::new(false),
            n_steps: AtomicUsize::new(0),
            n_asleep: AtomicUsize::new(0),
            n_threads,
            // A thread that keeps a core which another one needs delays what it waits for.
            spin: if n_threads > available_threads() {
                Duration::ZERO
            } else {
                SPIN
            },
            lock: Mutex::new(()),
            worker: Condvar::new(),
            caller: Condvar::new(),
            panic: Mutex::new(None),
        };
        let mut pool = Pool {
            shared: Arc::new(shared),
            workers: Vec::new(),
        };
        for thread in 1..n_threads {
            let shared = Arc::clone(&pool.shared);
            let builder = thread::Builder::new().name(format!("compute-{thread}"));
            pool.workers.push(builder.spawn(move || shared.work(thread))?);
        }
        // Once all sleep, all have started, so that none allocates during a step.
        while pool.shared.n_asleep.load(Acquire) < pool.workers.len() {
            thread::yield_now();
        }
        Ok(pool)
    }

    /// Threads, the caller's included.
    pub(super) fn n_threads(&self) -> usize {
        self.shared.n_threads
    }

    /// Runs `work`, within which workers wait for sections awake.
    pub(super) fn step<R>(&self, work: impl FnOnce() -> R) -> R {
        let n_steps = &self.shared.n_steps;
        n_steps.fetch_add(1, Relaxed);
        let _step = OnDrop(|| {
            n_steps.fetch_sub(1, Relaxed);
        });
        work()
    }

    /// Calls `each(thread, task)` for all tasks. Thread 0 is the caller. Where the workers are not free, because a task has
    /// tasks itself or another caller has them, all tasks run here, and the thread is `n_threads`.
    ///
    /// # Panics
    /// If a task does, after all threads have ended theirs; tasks that nobody has begun are left out.
    pub(super) fn run(&self, n_tasks: usize, each: &Task<'_>) {
        let shared = &*self.shared;
        if n_tasks <= 1 || self.workers.is_empty() || shared.is_taken.swap(true, Acquire) {
            return (0..n_tasks).for_each(|task| each(shared.n_threads, task));
        }
        let taken = OnDrop(|| shared.is_taken.store(false, Release));
        // SAFETY: only the lifetime changes. Nobody uses the reference after `close`, which waits for all workers.
        let each = unsafe { std::mem::transmute::<&Task<'_>, &'static Task<'static>>(each) };
        // SAFETY: this caller has the workers, and none is inside: the last caller has waited for that.
        unsafe { *shared.section.0.0.get() = Section { each, n_tasks } };
        shared.next.0.store(0, Relaxed);
        shared.state.0.store(OPEN, SeqCst);
        shared.wake(n_tasks - 1);
        shared.run_tasks(0);
        shared.close();
        let panic = shared.panicked().take();
        drop(taken);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state.0.fetch_or(END, SeqCst);
        drop(self.shared.locked());
        self.shared.worker.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of tasks and has none of its own.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// The life of a worker.
    fn work(&self, thread: usize) {
        loop {
            let state = self.await_section();
            if state & END != 0 {
                return;
            }
            let entered = self
                .state
                .0
                .compare_exchange(state, state + INSIDE, Acquire, Relaxed);
            if entered.is_ok() {
                self.run_tasks(thread);
                self.leave();
            }
        }
    }

    /// The state once a section is open or the pool ends.
    fn await_section(&self) -> u32 {
        let mut patience = Patience::new(self.spin);
        while self.n_steps.load(Relaxed) > 0 && patience.is_left() {
            let state = self.state.0.load(Relaxed);
            if state & (OPEN | END) != 0 {
                return state;
            }
        }
        let mut guard = self.locked();
        // In one order with the caller's store of `OPEN` and its look at this number: one of the two sees the other.
        self.n_asleep.fetch_add(1, SeqCst);
        loop {
            let state = self.state.0.load(SeqCst);
            if state & (OPEN | END) != 0 {
                self.n_asleep.fetch_sub(1, SeqCst);
                return state;
            }
            guard = self.worker.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Wakes up to `n` workers.
    fn wake(&self, n: usize) {
        let n = self.n_asleep.load(SeqCst).min(n);
        if n > 0 {
            // Who counted itself has the lock until it sleeps.
            drop(self.locked());
            (0..n).for_each(|_| self.worker.notify_one());
        }
    }

    /// Runs tasks until none is left. Must be called by the caller or by a worker that is inside.
    fn run_tasks(&self, thread: usize) {
        // SAFETY: the section is not written before this thread has left it.
        let Section { each, n_tasks } = unsafe { *self.section.0.0.get() };
        let run = || {
            // SAFETY: what `each` borrows lives until the caller returns, which waits for this thread.
            let each = unsafe { &*each };
            while let Some(tasks) = self.claim(n_tasks) {
                tasks.for_each(|task| each(thread, task));
            }
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            self.next.0.store(n_tasks, Relaxed);
            self.panicked().get_or_insert(panic);
        }
    }

    /// Takes a share of the tasks that are left: few claims at first, and at last an end of all threads close together.
    fn claim(&self, n_tasks: usize) -> Option<Range<usize>> {
        let share = |first: usize| n_tasks.saturating_sub(first).div_ceil(2 * self.n_threads);
        let take = |first: usize| (first < n_tasks).then(|| first + share(first));
        let first = self.next.0.fetch_update(Relaxed, Relaxed, take).ok()?;
        Some(first..first + share(first))
    }

    /// A worker leaves and closes the section, since no task is left to claim.
    fn leave(&self) {
        let mut state = self.state.0.load(Relaxed);
        while let Err(now) = {
            let left = (state - INSIDE) & !OPEN;
            self.state.0.compare_exchange_weak(state, left, Release, Relaxed)
        } {
            state = now;
        }
        if state & CALLER_SLEEPS != 0 && state / INSIDE == 1 {
            drop(self.locked());
            self.caller.notify_one();
        }
    }

    /// Lets nobody in any more and waits until all workers are out.
    fn close(&self) {
        let mut state = self.state.0.fetch_and(!OPEN, AcqRel);
        let mut patience = Patience::new(self.spin);
        while state / INSIDE > 0 && patience.is_left() {
            state = self.state.0.load(Acquire);
        }
        if state / INSIDE > 0 {
            let mut guard = self.locked();
            let mut state = self.state.0.fetch_or(CALLER_SLEEPS, AcqRel);
            while state / INSIDE > 0 {
                guard = self.caller.wait(guard).unwrap_or_else(PoisonError::into_inner);
                state = self.state.0.load(Acquire);
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn panicked(&self) -> MutexGuard<'_, Option<Box<dyn Any + Send>>> {
        self.panic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much longer a thread waits awake.
struct Patience {
    spin: Duration,
    round: u32,
    since: Option<Instant>,
}

impl Patience {
    fn new(spin: Duration) -> Patience {
        Patience {
            spin,
            round: 0,
            since: None,
        }
    }

    /// Waits for a moment; `false` if the thread should sleep.
    fn is_left(&mut self) -> bool {
        self.round += 1;
        if !self.round.is_multiple_of(ROUNDS) && !self.spin.is_zero() {
            spin_loop();
            return true;
        }
        let waited = self.since.get_or_insert_with(Instant::now).elapsed();
        if waited >= self.spin {
            thread::yield_now();
        }
        waited < AWAKE
    }
}

/// Runs when it is dropped, also by a panic.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[cfg(test)]
mod tests;
