//! Faults inside of one kernel.

use cudarc::driver::sys::CUresult;

use crate::card::Arg::{At, Int};
use crate::card::{Card, Shape, each_order, shape};

const ILLEGAL_ADDRESS: CUresult = CUresult::CUDA_ERROR_ILLEGAL_ADDRESS;
const LAUNCH_FAILED: CUresult = CUresult::CUDA_ERROR_LAUNCH_FAILED;

fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| i as f32 + 1.0).collect()
}

/// Runs a kernel of `(out, in)` and returns `out`.
fn mapped(card: &Card, kernel: &str, shape: Shape) -> Result<Vec<f32>, CUresult> {
    let n = shape.block as usize;
    let input = card.upload(&numbers(4 * n));
    let out = card.room::<f32>(n);
    card.run(kernel, shape, &[At(out), At(input)]);
    card.read(out, n)
}

/// The fault of a launch: its status, and a part of what the stand-in says.
fn fails(card: &Card, status: CUresult, says: &str) {
    assert_eq!(card.wait(), status, "seed {}", card.seed());
    let fault = card.fault();
    assert!(fault.contains(says), "{fault}");
}

#[test]
fn a_missing_cp_async_wait_reads_nan() {
    each_order(|card| {
        let shape = shape(1, 64).shared(1024);
        assert_eq!(mapped(card, "cp_async_copy", shape), Ok(numbers(64)));
        let wrong = mapped(card, "cp_async_copy_wrong", shape).expect("it ends");
        assert!(wrong.iter().all(|value| value.is_nan()), "{wrong:?}");
    });
}

#[test]
fn a_missing_syncthreads_reads_nan() {
    each_order(|card| {
        let shape = shape(1, 96).shared(384);
        let right = mapped(card, "neighbour", shape).expect("it ends");
        assert_eq!(right[0], 38.0);
        assert!(right.iter().all(|value| value.is_finite()));
        let wrong = mapped(card, "neighbour_wrong", shape).expect("it ends");
        assert!(wrong.iter().any(|value| value.is_nan()), "seed {}", card.seed());
    });
}

const N_TILES: i32 = 7;

/// Runs a ring of two stages over tiles that go round it more than twice.
fn ring(card: &Card, kernel: &str) -> Result<f32, CUresult> {
    let input = card.upload(&vec![1.0f32; 128 * N_TILES as usize]);
    let out = card.room::<f32>(1);
    card.run(
        kernel,
        shape(1, 64).shared(1024),
        &[At(out), At(input), Int(N_TILES)],
    );
    card.read::<f32>(out, 1).map(|sum| sum[0])
}

#[test]
fn a_ring_that_waits_is_right_under_every_order() {
    each_order(|card| assert_eq!(ring(card, "ring_right"), Ok(128.0 * N_TILES as f32)));
}

#[test]
fn a_missing_wait_for_a_full_stage_reads_nan() {
    each_order(|card| {
        let sum = ring(card, "ring_no_full_wait");
        assert!(sum.map_or(true, f32::is_nan), "seed {}: {sum:?}", card.seed());
    });
}

#[test]
fn a_missing_wait_for_an_empty_stage_is_found() {
    each_order(|card| {
        let sum = ring(card, "ring_no_empty_wait");
        assert_ne!(sum, Ok(128.0 * N_TILES as f32), "seed {}", card.seed());
    });
}

#[test]
fn an_early_release_of_a_stage_is_found() {
    let mut n_found = 0;
    each_order(|card| {
        let sum = ring(card, "ring_early_arrive");
        n_found += u32::from(sum != Ok(128.0 * N_TILES as f32));
    });
    // The loader must run while the reader is in the middle of a tile: some orders do that.
    assert!(n_found > 0 || Card::open(0).is_none());
}

#[test]
fn two_arrivals_where_one_is_counted_are_an_error() {
    each_order(|card| {
        let sum = ring(card, "ring_two_arrivals");
        assert!(sum != Ok(128.0 * N_TILES as f32), "seed {}: {sum:?}", card.seed());
    });
}

#[test]
fn an_mbarrier_without_init_is_an_error() {
    each_order(|card| {
        let out = card.room::<f32>(64);
        card.run("barrier", shape(1, 64), &[At(out)]);
        assert_eq!(card.read(out, 64), Ok(vec![1.0f32; 64]));
        card.run("barrier_wrong", shape(1, 64), &[At(out)]);
        fails(card, LAUNCH_FAILED, "before mbar_init");
    });
}

#[test]
fn a_missing_wait_at_a_named_barrier_is_found() {
    let mut n_found = 0;
    each_order(|card| {
        let out = card.room::<f32>(1);
        card.run("turns", shape(1, 64).shared(16), &[At(out)]);
        assert_eq!(card.read(out, 1), Ok(vec![7.0f32]));
        card.run("turns_wrong", shape(1, 64).shared(16), &[At(out)]);
        n_found += u32::from(card.read(out, 1) != Ok(vec![7.0f32]));
    });
    assert!(n_found > 0 || Card::open(0).is_none());
}

#[test]
fn a_tail_that_is_not_zeroed_becomes_nan() {
    each_order(|card| {
        // The page behind the sequence's end holds what another sequence has left.
        let mut values = numbers(40);
        values.resize(64, f32::NAN);
        let values = card.upload(&values);
        let out = card.room::<f32>(1);
        let args = [At(out), At(values), Int(40), Int(64)];
        card.run("tail", shape(1, 32), &args);
        assert_eq!(card.read(out, 1), Ok(vec![820.0f32]));
        card.run("tail_wrong", shape(1, 32), &args);
        assert!(card.read::<f32>(out, 1).expect("it ends")[0].is_nan());
    });
}

#[test]
fn a_block_table_that_is_off_by_one_reads_an_illegal_address() {
    each_order(|card| {
        let pages = card.upload(&numbers(4 * 16));
        // Behind the table's end is unset memory.
        let table = card.upload(&[2, 0, 3]);
        let out = card.room::<f32>(3);
        let args = [At(out), At(pages), At(table), Int(3)];
        card.run("pages", shape(1, 32), &args);
        assert_eq!(card.read(out, 3), Ok(vec![33.0f32, 1.0, 49.0]));
        card.run("pages_wrong", shape(1, 32), &args);
        let wrong = card.read::<f32>(out, 3);
        assert_ne!(wrong, Ok(vec![33.0, 1.0, 49.0]), "seed {}", card.seed());
    });
}

#[test]
fn a_counter_that_is_not_reset_spoils_the_next_launch() {
    each_order(|card| {
        for kernel in ["arrivals", "arrivals_wrong"] {
            let (input, counter) = (card.upload(&numbers(9)), card.upload(&[0u32]));
            let (out, partials) = (card.room::<f32>(1), card.room::<f32>(9));
            let args = [At(out), At(partials), At(counter), At(input)];
            card.run(kernel, shape(9, 1), &args);
            assert_eq!(card.read(out, 1), Ok(vec![45.0f32]), "{kernel}");
            card.write(input, &[10.0f32; 9]);
            card.run(kernel, shape(9, 1), &args);
            let expected = if kernel == "arrivals" { 90.0f32 } else { 45.0 };
            assert_eq!(card.read(out, 1), Ok(vec![expected]), "{kernel}");
        }
    });
}

#[test]
fn unset_memory_is_nan() {
    each_order(|card| {
        let input = card.room::<f32>(8);
        let out = card.room::<f32>(8);
        card.run("returns", shape(1, 32), &[At(out), At(input), Int(8)]);
        assert!(
            card.read::<f32>(out, 8)
                .expect("it ends")
                .iter()
                .all(|value| value.is_nan())
        );
    });
}

#[test]
fn a_write_behind_the_end_is_an_illegal_address() {
    each_order(|card| {
        let out = card.room::<f32>(1024);
        card.run("bounds", shape(9, 128), &[At(out), Int(1024)]);
        assert_eq!(card.read(out, 1024), Ok(vec![1.0f32; 1024]));
        card.run("bounds_wrong", shape(9, 128), &[At(out), Int(1024)]);
        fails(card, ILLEGAL_ADDRESS, "behind the end of allocation");
        // The error stays with the context, as on a card.
        assert_eq!(card.wait(), ILLEGAL_ADDRESS);
    });
}

#[test]
fn a_write_behind_shared_memory_is_an_illegal_address() {
    each_order(|card| {
        let out = card.room::<f32>(128);
        let args = [At(out), Int(128)];
        card.run("shared_bounds", shape(1, 128).shared(512), &args);
        assert_eq!(card.read(out, 128), Ok(vec![1.0f32; 128]));
        card.run("shared_bounds_wrong", shape(1, 128).shared(512), &args);
        assert_eq!(card.wait(), ILLEGAL_ADDRESS);
    });
}

#[test]
fn an_index_outside_of_an_array_is_an_illegal_address() {
    each_order(|card| {
        let out = card.room::<f32>(1);
        card.run("array", shape(1, 1), &[At(out), Int(3)]);
        assert_eq!(card.read(out, 1), Ok(vec![3.0f32]));
        card.run("array_wrong", shape(1, 1), &[At(out), Int(3)]);
        fails(card, ILLEGAL_ADDRESS, "outside of a fixed-size array");
    });
}

#[test]
fn divergent_barriers_are_an_error() {
    each_order(|card| {
        let out = card.room::<f32>(64);
        card.run("diverge", shape(1, 64), &[At(out)]);
        assert_eq!(card.read(out, 64), Ok(vec![1.0f32; 64]));
        card.run("diverge_wrong", shape(1, 64), &[At(out)]);
        fails(card, LAUNCH_FAILED, "divergent __syncthreads");
    });
}

#[test]
fn a_thread_that_never_comes_to_the_barrier_is_an_error() {
    each_order(|card| {
        let out = card.room::<f32>(64);
        card.run("missing", shape(1, 64), &[At(out)]);
        assert_eq!(card.read(out, 64), Ok(vec![1.0f32; 64]));
        card.run("missing_wrong", shape(1, 64), &[At(out)]);
        fails(card, LAUNCH_FAILED, "never comes to the barrier");
    });
}

#[test]
fn an_endless_loop_ends_by_the_watchdog() {
    let Some(card) = Card::open(0) else { return };
    card.set("watchdog_seconds", 1);
    let out = card.room::<f32>(1);
    card.run("endless", shape(1, 1), &[At(out)]);
    fails(&card, CUresult::CUDA_ERROR_LAUNCH_TIMEOUT, "an endless loop?");
    card.set("watchdog_seconds", 60);
}

#[test]
fn a_division_by_zero_is_an_error() {
    let Some(card) = Card::open(0) else { return };
    let out = card.room::<i32>(1);
    card.run("divides", shape(1, 1), &[At(out), Int(2)]);
    assert_eq!(card.read(out, 1), Ok(vec![3i32]));
    card.run("divides", shape(1, 1), &[At(out), Int(0)]);
    fails(&card, LAUNCH_FAILED, "divides an integer by zero");
}
