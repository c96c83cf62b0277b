//! Numbers as they are stored, widened to f32 when they are loaded.

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
