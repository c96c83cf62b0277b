//! The one inner loop of matrix products and attention scores: rows against rows.

use super::Simd;

/// A number as it is stored, widened to f32 when loaded.
pub(crate) trait Element: Copy + Send + Sync {
    /// The `S::LANES` elements at `from`, widened.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::V;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const f32) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { simd.load(from) }
    }
}

impl Element for half::bf16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const half::bf16) -> S::V {
        // SAFETY: the caller's promise; bf16 is a transparent u16.
        unsafe { simd.load_bf16(from.cast()) }
    }
}

impl Element for half::f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const half::f16) -> S::V {
        // SAFETY: the caller's promise; f16 is a transparent u16.
        unsafe { simd.load_f16(from.cast()) }
    }
}

/// How far ahead of a weight stream to ask for cache lines: about the latency of memory at the rate one
/// core reads (a page is 4 KiB; hardware prefetchers stop at its end).
const PREFETCH_BYTES: usize = 1024;

/// Where the rows of a tile start.
pub(crate) struct DotRows<W, const X_ROWS: usize, const W_ROWS: usize> {
    /// Rows of activations.
    pub(crate) x: [*const f32; X_ROWS],
    /// Rows of weights or keys.
    pub(crate) w: [*const W; W_ROWS],
}

/// Adds to `sums[i][j]`, lane by lane, the products of `n_steps` vectors of `x[i]` and `w[j]`.
///
/// Lane `l` of a sum takes the elements `l`, `l + LANES`, … in that order, whatever the tile's shape: this
/// is what makes every product of the engine independent of how many rows are computed at once.
///
/// # Safety
/// `n_steps * S::LANES` elements must be readable at each pointer.
#[inline(always)]
pub(crate) unsafe fn dot_tile<S: Simd, W: Element, const X_ROWS: usize, const W_ROWS: usize>(
    simd: S,
    rows: DotRows<W, X_ROWS, W_ROWS>,
    n_steps: usize,
    sums: &mut [[S::V; W_ROWS]; X_ROWS],
) {
    let DotRows { x, w } = rows;
    let mut local = *sums;
    for step in 0..n_steps {
        let at = step * S::LANES;
        // SAFETY: `at + LANES` elements are readable at each pointer, by the caller's promise; a prefetch
        // beyond the end is harmless, and its address is computed without leaving the wrapping rules.
        unsafe {
            let mut x_now = [simd.splat(0.0); X_ROWS];
            for i in 0..X_ROWS {
                x_now[i] = simd.load(x[i].add(at));
            }
            for j in 0..W_ROWS {
                if X_ROWS == 1 {
                    simd.prefetch(w[j].add(at).cast::<u8>().wrapping_add(PREFETCH_BYTES));
                }
                let w_now = W::load(simd, w[j].add(at));
                for i in 0..X_ROWS {
                    local[i][j] = simd.mul_add(x_now[i], w_now, local[i][j]);
                }
            }
        }
    }
    *sums = local;
}
