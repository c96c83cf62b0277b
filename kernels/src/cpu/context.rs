//! Where ops run: a pool of threads and the instruction set chosen for this machine.

use rayon::ThreadPool;
use rayon::prelude::*;

use super::isa::Isa;
use super::simd::{self, SimdTask};
use crate::error::KernelError;

/// Most threads a context may have; beyond it a setting is a mistake, not a wish.
const N_THREADS_MAX: usize = 1024;

/// The threads and the instruction set of one engine; the first parameter of every op.
#[derive(Debug)]
pub struct CpuContext {
    pool: ThreadPool,
    isa: Isa,
}

impl CpuContext {
    /// A context of `n_threads` threads with the best instruction set of this machine.
    ///
    /// # Errors
    /// No thread, too many, or the operating system refuses them.
    pub fn new(n_threads: usize) -> Result<CpuContext, KernelError> {
        let isa = *Isa::available()
            .last()
            .expect("the portable path is always there");
        CpuContext::with_isa(n_threads, isa)
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
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(n_threads)
            .thread_name(|idx| format!("compute-{idx}"))
            .build()
            .map_err(|error| KernelError::Threads {
                n_threads,
                reason: error.to_string(),
            })?;
        Ok(CpuContext { pool, isa })
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Threads in the pool.
    pub fn n_threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs `work` on a thread of the pool, so that the ops inside need not enter it one by one.
    pub fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }

    /// Runs `task` with the instructions of this context.
    pub(crate) fn run<T: SimdTask>(&self, task: T) -> T::Output {
        // SAFETY: `with_isa` refused every instruction set that this processor does not have.
        unsafe { simd::run(self.isa, task) }
    }

    /// Calls `each` for `0..n_tasks` with working memory that `init` makes and later tasks find as it was
    /// left; on the pool if there is more than one task.
    pub(crate) fn for_each_with<T>(
        &self,
        n_tasks: usize,
        init: impl Fn() -> T + Sync + Send,
        each: impl Fn(&mut T, usize) + Sync + Send,
    ) {
        if n_tasks <= 1 || self.n_threads() == 1 {
            let mut memory = init();
            (0..n_tasks).for_each(|idx| each(&mut memory, idx));
        } else {
            self.pool
                .install(|| (0..n_tasks).into_par_iter().for_each_init(init, each));
        }
    }

    /// Calls `each` for `0..n_tasks`, on the pool if there is more than one task.
    pub(crate) fn for_each(&self, n_tasks: usize, each: impl Fn(usize) + Sync + Send) {
        self.for_each_with(n_tasks, || (), |(), idx| each(idx));
    }
}

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
        assert_eq!(Some(&context.isa()), Isa::available().last());
        assert_eq!(context.n_threads(), 2);
    }
}
