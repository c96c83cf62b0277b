//! The two inner loops of attention. Lanes are positions of the context for scores and elements of a head for values, so
//! that no sum runs across lanes: each sum is one chain in the order of its terms, whatever the width of a vector.

use crate::cpu::simd::{Element, Simd};

/// The scores of `R` rows and `C` vectors of positions: element `k` of a key is at `keys[c] + k * step`.
///
/// # Safety
/// `n` floats are readable at each row, and `S::LANES` numbers at each of the `n` places of each column.
#[inline(always)]
pub(super) unsafe fn scores<S: Simd, B: Element, const R: usize, const C: usize>(
    simd: S,
    q: [*const f32; R],
    keys: [*const B; C],
    (n, step): (usize, usize),
) -> [[S::V; C]; R] {
    let mut sums = [[simd.splat(0.0); C]; R];
    for k in 0..n {
        let mut key = [simd.splat(0.0); C];
        for c in 0..C {
            // SAFETY: the caller's promise.
            key[c] = unsafe { B::load(simd, keys[c].add(k * step)) };
        }
        for r in 0..R {
            // SAFETY: the caller's promise.
            let q = simd.splat(unsafe { *q[r].add(k) });
            for c in 0..C {
                sums[r][c] = simd.mul_add(q, key[c], sums[r][c]);
            }
        }
    }
    sums
}

/// Adds to `sums` what `R` rows of weights and `C` vectors of the values give, one value after the other.
///
/// # Safety
/// As many weights as values are readable at each row, and `C * S::LANES` numbers `at` elements after each value's start.
#[inline(always)]
pub(super) unsafe fn weigh<S: Simd, B: Element, const R: usize, const C: usize>(
    simd: S,
    weights: [*const f32; R],
    (values, at): (&[*const B], usize),
    sums: &mut [[S::V; C]; R],
) {
    let mut local = *sums;
    for (i, value) in values.iter().enumerate() {
        let mut v = [simd.splat(0.0); C];
        for c in 0..C {
            // SAFETY: the caller's promise.
            v[c] = unsafe { B::load(simd, value.add(at + c * S::LANES)) };
        }
        for r in 0..R {
            // SAFETY: the caller's promise.
            let weight = simd.splat(unsafe { *weights[r].add(i) });
            for c in 0..C {
                local[r][c] = simd.mul_add(weight, v[c], local[r][c]);
            }
        }
    }
    *sums = local;
}
