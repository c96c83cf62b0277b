//! Where ops run: a pool of threads and the instruction set chosen for this machine.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};
use std::thread;

use super::isa::Isa;
use super::pool::Pool;
use super::simd::{self, SimdTask};
use crate::error::KernelError;

/// Most threads a context may have; beyond it a setting is a mistake, not a wish.
const N_THREADS_MAX: usize = 1024;

/// The threads and the instruction set of one engine; the first parameter of every op.
#[derive(Debug)]
pub struct CpuContext {
    pool: Pool,
    isa: Isa,
    /// Working memory of each thread, and one more for tasks that run where they are made. All grow to the most that an
    /// op has needed and are kept, so that an op that was run before allocates nothing.
    scratch: Vec<Mutex<Vec<f32>>>,
    /// Floats that each of them has.
    scratch_floats: AtomicUsize,
    /// Working memory that all threads of an op share.
    shared: Mutex<Vec<f32>>,
}

impl CpuContext {
    /// A context of `n_threads` threads with the best instruction set of this machine.
    ///
    /// # Errors
    /// No thread, too many, or the operating system refuses them.
    pub fn new(n_threads: usize) -> Result<CpuContext, KernelError> {
        CpuContext::with_isa(n_threads, Isa::best())
    }

    /// A context that uses `isa`, so that tests can compare the paths.
    ///
    /// # Errors
    /// As [`CpuContext::new`], and an `isa` that this processor does not have.
    pub fn with_isa(n_threads: usize, isa: Isa) -> Result<CpuContext, KernelError> {
        if n_threads == 0 || n_threads > N_THREADS_MAX {
            return Err(KernelError::Range {
                op: "context",
                operand: "n_threads",
                got: n_threads,
                rule: "1 to 1024",
            });
        }
        if !Isa::available().contains(&isa) {
            return Err(KernelError::MissingIsa { isa: isa.name() });
        }
        let pool = Pool::new(n_threads).map_err(|error| KernelError::Threads {
            n_threads,
            reason: error.to_string(),
        })?;
        let scratch = (0..=n_threads).map(|_| Mutex::default()).collect();
        Ok(CpuContext {
            pool,
            isa,
            scratch,
            scratch_floats: AtomicUsize::new(0),
            shared: Mutex::default(),
        })
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Threads that compute; the caller of an op is one of them.
    pub fn n_threads(&self) -> usize {
        self.pool.n_threads()
    }

    /// Runs a step: until `work` ends, threads that wait for an op stay awake for a short time.
    pub fn step<R>(&self, work: impl FnOnce() -> R) -> R {
        self.pool.step(work)
    }

    /// Runs work that is no op, such as loading: parallel iterators of rayon within it have as many threads as this
    /// context. Those threads have ended when this returns.
    pub fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        let mut threads = Vec::new();
        let spawn = |thread: rayon::ThreadBuilder| {
            let builder = thread::Builder::new().name(format!("load-{}", thread.index()));
            threads.push(builder.spawn(|| thread.run())?);
            Ok(())
        };
        let builder = rayon::ThreadPoolBuilder::new().num_threads(self.n_threads());
        let Ok(pool) = builder.spawn_handler(spawn).build() else {
            // Rayon's own threads then.
            return work();
        };
        let done = pool.install(work);
        drop(pool);
        // A thread frees and takes memory while it ends, which must not fall into a step.
        threads.into_iter().for_each(|thread| drop(thread.join()));
        done
    }

    /// Runs `task` with the instructions of this context.
    pub(crate) fn run<T: SimdTask>(&self, task: T) -> T::Output {
        // SAFETY: `with_isa` refused every instruction set that this processor does not have.
        unsafe { simd::run(self.isa, task) }
    }

    /// Runs `task` with the instructions of this context, those for products of bf16 numbers included.
    pub(crate) fn run_with_bf16<T: SimdTask>(&self, task: T) -> T::Output {
        // SAFETY: as above.
        unsafe { simd::run_with_bf16(self.isa, task) }
    }

    /// Calls `each` for `0..n_tasks`, on the pool if there is more than one task.
    pub(crate) fn for_each(&self, n_tasks: usize, each: impl Fn(usize) + Sync + Send) {
        self.pool.run(n_tasks, &|_, task| each(task));
    }

    /// The same with `n_floats` floats of working memory on a cache line, which hold what earlier tasks left.
    pub(crate) fn for_each_with_scratch(
        &self,
        n_tasks: usize,
        n_floats: usize,
        each: impl Fn(&mut [f32], usize) + Sync + Send,
    ) {
        self.reserve_scratch(n_floats + LINE_FLOATS);
        self.pool.run(n_tasks, &|thread, idx| {
            let mut memory = self.scratch[thread]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let first = memory.as_ptr().align_offset(LINE_FLOATS * size_of::<f32>());
            each(&mut memory[first.min(LINE_FLOATS)..][..n_floats], idx);
        });
    }

    /// Calls `work` with `n_floats` floats on a cache line, which hold anything. They are kept for the next call, except
    /// where another op has them at present.
    pub(crate) fn with_shared_scratch<R>(&self, n_floats: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
        let mut own = Vec::new();
        let mut kept = match self.shared.try_lock() {
            Ok(kept) => Some(kept),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        let memory = kept.as_deref_mut().unwrap_or(&mut own);
        if memory.len() < n_floats + LINE_FLOATS {
            memory.resize(with_room(n_floats + LINE_FLOATS), 0.0);
        }
        let first = memory.as_ptr().align_offset(LINE_FLOATS * size_of::<f32>());
        work(&mut memory[first.min(LINE_FLOATS)..][..n_floats])
    }

    /// Gives every thread working memory of at least `n_floats`.
    fn reserve_scratch(&self, n_floats: usize) {
        if self.scratch_floats.load(Ordering::Acquire) >= n_floats {
            return;
        }
        let n_floats = with_room(n_floats);
        for slot in &self.scratch {
            let mut memory = slot.lock().unwrap_or_else(PoisonError::into_inner);
            if memory.len() < n_floats {
                memory.resize(n_floats, 0.0);
            }
        }
        self.scratch_floats.fetch_max(n_floats, Ordering::Release);
    }
}

/// Floats of working memory for an op that needs `n`, with room to spare: an expert gets more rows in one step than in
/// another. At least 256 KiB.
fn with_room(n: usize) -> usize {
    n.next_power_of_two().max(1 << 16)
}

/// Floats of a cache line.
const LINE_FLOATS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_cannot_be_started() {
        assert!(matches!(
            CpuContext::new(0),
            Err(KernelError::Range { got: 0, .. })
        ));
        assert!(matches!(
            CpuContext::new(N_THREADS_MAX + 1),
            Err(KernelError::Range { .. })
        ));
    }

    #[test]
    fn takes_the_best_instruction_set() {
        let context = CpuContext::new(2).unwrap();
        assert_eq!(context.isa(), Isa::best());
        assert!(!context.isa().multiplies_bf16());
        assert_eq!(context.n_threads(), 2);
    }
}
