//! Sections of every size, from several callers, with tasks that have tasks or panic.

use std::sync::atomic::AtomicU32;

use super::*;

/// Small numbers from a seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % n
    }
}

/// Runs a section and says how often each task ran.
fn counts(pool: &Pool, n_tasks: usize) -> Vec<u32> {
    let counts: Vec<AtomicU32> = (0..n_tasks).map(|_| AtomicU32::new(0)).collect();
    pool.run(n_tasks, &|thread, task| {
        assert!(thread <= pool.n_threads());
        counts[task].fetch_add(1, Relaxed);
    });
    counts.into_iter().map(AtomicU32::into_inner).collect()
}

#[test]
fn runs_each_task_once_whatever_the_sizes() {
    for seed in 0..8 {
        let mut numbers = Numbers(seed);
        let pool = Pool::new(1 + numbers.below(5)).unwrap();
        for _ in 0..50 {
            let mut sections = || {
                for _ in 0..numbers.below(20) {
                    let n_tasks = numbers.below(70);
                    assert_eq!(counts(&pool, n_tasks), vec![1; n_tasks], "seed {seed}");
                }
            };
            // Within a step workers are awake, outside of it they sleep.
            pool.step(&mut sections);
            sections();
        }
    }
}

#[test]
fn what_tasks_write_is_there_afterwards() {
    let pool = Pool::new(4).unwrap();
    let mut cells = [const { Mutex::new(0) }; 33];
    for round in 1..500 {
        pool.step(|| pool.run(cells.len(), &|_, task| *cells[task].lock().unwrap() += task));
        for (task, cell) in cells.iter_mut().enumerate() {
            assert_eq!(*cell.get_mut().unwrap(), task * round);
        }
    }
}

#[test]
fn tasks_of_tasks_run_where_they_are_made() {
    let pool = Pool::new(3).unwrap();
    let n = AtomicUsize::new(0);
    pool.run(7, &|_, _| {
        pool.run(5, &|thread, _| {
            assert_eq!(thread, 3);
            n.fetch_add(1, Relaxed);
        });
    });
    assert_eq!(n.into_inner(), 35);
}

#[test]
fn serves_several_callers() {
    let pool = Pool::new(3).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    assert_eq!(pool.step(|| counts(&pool, 9)), [1; 9]);
                }
            });
        }
    });
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
    let pool = Pool::new(3).unwrap();
    for bad in 0..20 {
        let section = || pool.run(20, &|_, task| assert_ne!(task, bad, "the task {bad}"));
        let panic = catch_unwind(AssertUnwindSafe(section)).unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.contains(&format!("the task {bad}")), "{message}");
        assert_eq!(counts(&pool, 30), [1; 30]);
    }
}
