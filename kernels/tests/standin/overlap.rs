//! Kernels that begin before the one in front of them has ended.

use cudarc::driver::sys::CUresult;

use crate::card::Arg::{At, Int};
use crate::card::{Card, each_order, shape};

const N: usize = 200;

/// `second` reads what `twice` writes, in memory that already holds numbers, and may begin before it has ended.
fn chain(card: &Card, second: &str, shared: u32) -> Result<Vec<f32>, CUresult> {
    let input = card.upload(&vec![3.0f32; N]);
    let middle = card.upload(&vec![1.0f32; N]);
    let out = card.room::<f32>(N);
    card.run("twice", shape(2, 128), &[At(middle), At(input), Int(N as i32)]);
    let overlapping = shape(2, 128).shared(shared).overlapping();
    card.run(second, overlapping, &[At(out), At(middle), Int(N as i32)]);
    card.read(out, N)
}

#[test]
fn a_kernel_that_waits_may_overlap() {
    each_order(|card| {
        assert_eq!(chain(card, "twice", 0), Ok(vec![12.0; N]));
        assert_eq!(chain(card, "returns", 0), Ok(vec![12.0; N]));
        assert_eq!(card.get("checked_overlaps"), 2, "seed {}", card.seed());
    });
}

#[test]
fn a_read_before_the_wait_for_the_grid_is_nan() {
    each_order(|card| {
        let wrong = chain(card, "twice_wrong", 0).expect("it ends");
        assert!(wrong.iter().any(|value| value.is_nan()), "seed {}", card.seed());
    });
}

#[test]
fn a_copy_issued_before_the_wait_for_the_grid_is_nan() {
    each_order(|card| {
        assert_eq!(chain(card, "copies_early", 1024), Ok(vec![12.0; N]));
        let wrong = chain(card, "copies_early_wrong", 1024).expect("it ends");
        assert!(wrong.iter().any(|value| value.is_nan()), "seed {}", card.seed());
    });
}

#[test]
fn a_read_of_what_an_earlier_kernel_of_the_chain_writes_is_nan() {
    each_order(|card| {
        let (input, first) = (card.upload(&vec![3.0f32; N]), card.upload(&vec![1.0f32; N]));
        let (second, out) = (card.room::<f32>(N), card.room::<f32>(N));
        let n = Int(N as i32);
        card.run("twice", shape(2, 128), &[At(first), At(input), n]);
        // It lets the next kernel begin before it has waited itself, so the first may still run under the third.
        card.run("twice", shape(2, 128).overlapping(), &[At(second), At(input), n]);
        card.run(
            "twice_wrong",
            shape(2, 128).overlapping(),
            &[At(out), At(first), n],
        );
        let wrong = card.read::<f32>(out, N).expect("it ends");
        assert!(wrong.iter().any(|value| value.is_nan()), "seed {}", card.seed());
    });
}

#[test]
fn a_buffer_that_two_kernels_of_the_chain_write_keeps_its_values() {
    each_order(|card| {
        let (first, second) = (card.upload(&vec![3.0f32; N]), card.upload(&vec![1.0f32; N]));
        let out = card.room::<f32>(N);
        let n = Int(N as i32);
        card.run("twice", shape(2, 128), &[At(second), At(first), n]);
        for (to, from) in [(first, second), (second, first), (first, second), (out, first)] {
            card.run("twice", shape(2, 128).overlapping(), &[At(to), At(from), n]);
        }
        assert_eq!(card.read(out, N), Ok(vec![96.0f32; N]), "seed {}", card.seed());
    });
}

#[test]
fn a_thread_that_returns_without_the_wait_is_an_error() {
    each_order(|card| {
        assert_eq!(
            chain(card, "returns_wrong", 0),
            Err(CUresult::CUDA_ERROR_LAUNCH_FAILED)
        );
        let fault = card.fault();
        assert!(fault.contains("returned without gdc_wait"), "{fault}");
    });
}

#[test]
fn a_write_before_the_wait_is_an_error() {
    each_order(|card| {
        let input = card.upload(&vec![3.0f32; N]);
        let out = card.upload(&vec![1.0f32; N]);
        let n = Int(N as i32);
        card.run("twice", shape(2, 128), &[At(out), At(input), n]);
        card.run("clear", shape(1, 256).overlapping(), &[At(out), n]);
        assert_eq!(card.read(out, N), Ok(vec![0.0f32; N]));
        card.run("clear_wrong", shape(1, 256).overlapping(), &[At(out), n]);
        assert_eq!(card.wait(), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
        let fault = card.fault();
        assert!(fault.contains("before gdc_wait writes"), "{fault}");
    });
}

#[test]
fn a_card_before_hopper_refuses_to_overlap() {
    let Some(card) = Card::open(0) else { return };
    card.set("capability", 89);
    let out = card.room::<f32>(N);
    let status = card.launch("clear", shape(1, 256).overlapping(), &[At(out), Int(N as i32)]);
    assert_eq!(status, CUresult::CUDA_ERROR_NOT_SUPPORTED);
}
