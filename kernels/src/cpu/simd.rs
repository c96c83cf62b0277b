//! The vector instructions that the ops are written in, and the three sets that provide them.
//!
//! An op is written once, generic over [`Simd`]; [`run`] compiles it once per instruction set, each copy
//! with that set's features enabled, and calls the one that the context chose.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod element;
mod fp8;
mod portable;

pub(crate) use element::Element;
pub(crate) use fp8::{F8E4M3, F8E5M2};

use super::isa::Isa;

/// One op's work, to be compiled for every instruction set.
pub(crate) trait SimdTask {
    /// What the work returns.
    type Output;

    /// Does the work. Implementations are `#[inline(always)]`, so that they take on the features of the
    /// function that [`run`] calls them from.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Vectors of `LANES` floats. A value of the type is proof that the processor has the instructions.
pub(crate) trait Simd: Copy + Send + Sync {
    /// A vector.
    type V: Copy;
    /// Floats in a vector, at most [`LANES_MAX`].
    const LANES: usize;
    /// Rows of a register tile of attention scores: 1, 2 or 4.
    const TILE_ROWS: usize;
    /// Vectors of sums that leave enough registers for the operands of a matrix product.
    const N_SUMS: usize;

    /// All lanes `value`.
    fn splat(self, value: f32) -> Self::V;
    /// The `LANES` floats at `from`.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load(self, from: *const f32) -> Self::V;
    /// The `LANES` bf16 numbers at `from`, widened.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load_bf16(self, from: *const u16) -> Self::V;
    /// Pairs of bf16 numbers, widened: the first numbers of all pairs, and the second ones.
    fn widen_bf16_pairs(self, pairs: Self::V) -> [Self::V; 2];
    /// The `LANES` f16 numbers at `from`, widened.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load_f16(self, from: *const u16) -> Self::V;
    /// The `LANES` integers at `from`, widened.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load_i8(self, from: *const i8) -> Self::V;
    /// The `LANES` e4m3 numbers at `from`, widened and divided by 256 (exact). The two codes of NaN are read as numbers.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load_e4m3(self, from: *const u8) -> Self::V;
    /// The levels of rows `first_row .. first_row + LANES` of a step of NF4 codes, in the order of [`nf4::place`](crate::cpu::nf4::place): those of its first column, and of its second one.
    ///
    /// # Safety
    /// The 16 bytes of the step must be readable; `first_row` is 0, or 8 where there are 8 lanes.
    unsafe fn load_nf4(self, step: *const u8, first_row: usize) -> [Self::V; 2];
    /// Writes the lanes to `to`.
    ///
    /// # Safety
    /// `LANES` floats must be writable there.
    unsafe fn store(self, to: *mut f32, v: Self::V);
    /// Asks for the cache line at `at`, which may lie outside any allocation.
    fn prefetch(self, at: *const u8);

    /// `a + b`
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// The larger of each pair.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller of each pair.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, in one rounding where the set has it.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `sum` with the products of pairs of bf16 numbers: in each lane the first ones and the second ones. The order of the
    /// two, and the rounding between them, are the set's.
    #[inline(always)]
    fn add_bf16_products(self, sum: Self::V, a: Self::V, b: Self::V) -> Self::V {
        let (a, b) = (self.widen_bf16_pairs(a), self.widen_bf16_pairs(b));
        self.mul_add(a[1], b[1], self.mul_add(a[0], b[0], sum))
    }
    /// Each lane rounded to an integer.
    fn round(self, a: Self::V) -> Self::V;
    /// `2^a` for integers `a` in `-126 ..= 127`, and zero for -127.
    fn exp2_whole(self, a: Self::V) -> Self::V;
    /// Does `task` in a function of its own.
    fn call<T: SimdTask>(self, task: T) -> T::Output;
    /// The sum of the lanes, in one fixed order.
    fn sum(self, a: Self::V) -> f32;

    /// The first `LANES` floats of `from`.
    #[inline(always)]
    fn load_slice(self, from: &[f32]) -> Self::V {
        assert!(from.len() >= Self::LANES);
        // SAFETY: the slice is long enough.
        unsafe { self.load(from.as_ptr()) }
    }

    /// The floats of `from`, at most `LANES`; the other lanes are zero.
    #[inline(always)]
    fn load_partial(self, from: &[f32]) -> Self::V {
        let mut lanes = [0.0; LANES_MAX];
        lanes[..from.len()].copy_from_slice(from);
        self.load_slice(&lanes)
    }

    /// Writes the lanes to the first `LANES` floats of `to`.
    #[inline(always)]
    fn store_slice(self, to: &mut [f32], v: Self::V) {
        assert!(to.len() >= Self::LANES);
        // SAFETY: the slice is long enough.
        unsafe { self.store(to.as_mut_ptr(), v) }
    }

    /// Writes as many lanes as `to` has room for, at most `LANES`.
    #[inline(always)]
    fn store_partial(self, to: &mut [f32], v: Self::V) {
        let mut lanes = [0.0; LANES_MAX];
        self.store_slice(&mut lanes, v);
        let n = to.len();
        to.copy_from_slice(&lanes[..n]);
    }

    /// `e^a`: `2^n · e^r` with `a = n·ln 2 + r`, `|r| ≤ ln 2 / 2`, and the Taylor polynomial of degree 7
    /// for `e^r`, whose remainder there is below 2⁻²⁷. Below -87.7 it is 0, above 88 it is the value at 88.
    #[inline(always)]
    fn exp(self, a: Self::V) -> Self::V {
        let a = self.min(self.max(a, self.splat(EXP_MIN)), self.splat(88.0));
        let n = self.round(self.mul(a, self.splat(std::f32::consts::LOG2_E)));
        // ln 2 in two parts (Cody and Waite): n times the first is exact.
        let r = self.mul_add(n, self.splat(-355.0 / 512.0), a);
        let r = self.mul_add(n, self.splat(2.121_944_4e-4), r);
        let mut p = self.splat(1.0 / 5040.0);
        for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = self.mul_add(p, r, self.splat(coefficient));
        }
        self.mul(p, self.exp2_whole(n))
    }

    /// `tanh(a) = 1 - 2 / (e^(2a) + 1)`; the error is below 3e-7.
    #[inline(always)]
    fn tanh(self, a: Self::V) -> Self::V {
        let one = self.splat(1.0);
        let grown = self.exp(self.add(a, a));
        self.sub(one, self.div(self.splat(2.0), self.add(grown, one)))
    }
}

/// Lanes of the widest set.
pub(crate) const LANES_MAX: usize = 16;

/// Where [`Simd::exp`] is zero: `n` is -127 there. A masked score must weigh exactly nothing.
const EXP_MIN: f32 = -88.0;

/// Runs `task` with the instructions of `isa`.
///
/// # Safety
/// The processor must have `isa`.
pub(crate) unsafe fn run<T: SimdTask>(isa: Isa, task: T) -> T::Output {
    match isa {
        Isa::Portable => task.run(portable::Portable),
        // SAFETY: the processor has the features of the set, by this function's condition.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2::run(task) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Bf16 | Isa::AmxBf16 => unsafe { avx512::run(task) },
        #[cfg(not(target_arch = "x86_64"))]
        _ => unreachable!("no such processor has {}", isa.name()),
    }
}

/// The same, with the instructions for products of bf16 numbers, which `isa` must have.
///
/// # Safety
/// The processor must have `isa`.
pub(crate) unsafe fn run_with_bf16<T: SimdTask>(isa: Isa, task: T) -> T::Output {
    match isa {
        // SAFETY: the processor has the features of the set, by this function's condition.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Bf16 => unsafe { avx512::run_with_bf16(task) },
        // The same work in other instructions, so that tests of it need no such processor.
        // SAFETY: as above.
        #[cfg(test)]
        _ => unsafe { run(isa, task) },
        #[cfg(not(test))]
        _ => unreachable!("{} has no products of bf16 numbers", isa.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies `exp` to full vectors.
    struct Exp(Vec<f32>);

    impl SimdTask for Exp {
        type Output = Vec<f32>;

        fn run<S: Simd>(self, simd: S) -> Vec<f32> {
            let mut out = vec![0.0; self.0.len()];
            for (from, to) in self.0.chunks(S::LANES).zip(out.chunks_mut(S::LANES)) {
                simd.store_partial(to, simd.exp(simd.load_partial(from)));
            }
            out
        }
    }

    /// Sums a vector of consecutive numbers.
    struct Sum;

    impl SimdTask for Sum {
        type Output = (f32, usize);

        fn run<S: Simd>(self, simd: S) -> Self::Output {
            let numbers: Vec<f32> = (0..S::LANES).map(|i| i as f32).collect();
            (simd.sum(simd.load_slice(&numbers)), S::LANES)
        }
    }

    #[test]
    fn a_sum_takes_every_lane_once() {
        for isa in Isa::available() {
            // SAFETY: available.
            let (sum, n_lanes) = unsafe { run(isa, Sum) };
            assert_eq!(sum, (n_lanes * (n_lanes - 1) / 2) as f32, "{isa:?}");
        }
    }

    #[test]
    fn exp_is_within_two_ulp() {
        let inputs: Vec<f32> = (-86_000..88_000).map(|i| i as f32 * 1e-3).collect();
        for isa in Isa::available() {
            // SAFETY: available.
            let outputs = unsafe { run(isa, Exp(inputs.clone())) };
            for (&a, &got) in inputs.iter().zip(&outputs) {
                let want = f64::from(a).exp();
                let error = (f64::from(got) - want).abs() / want;
                assert!(
                    error < 2.5 * f64::from(f32::EPSILON),
                    "{isa:?}: exp({a}) = {got}, want {want}"
                );
            }
        }
    }

    #[test]
    fn exp_of_the_masked_score_is_nothing() {
        for isa in Isa::available() {
            // SAFETY: available.
            let outputs = unsafe { run(isa, Exp(vec![f32::NEG_INFINITY, -1e30, 0.0])) };
            assert_eq!(outputs, [0.0, 0.0, 1.0], "{isa:?}");
        }
    }
}
