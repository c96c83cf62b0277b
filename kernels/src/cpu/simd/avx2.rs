//! Vectors of eight floats with AVX2, FMA and F16C.

use std::arch::x86_64::*;

use super::{Simd, SimdTask};
use crate::cpu::nf4::LEVELS;

/// Proof of AVX2, FMA and F16C: only [`run`] makes one.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// Runs `task` with the features enabled.
///
/// # Safety
/// The processor must have them.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn run<T: SimdTask>(task: T) -> T::Output {
    task.run(Avx2(()))
}

/// The levels of a step of NF4 codes as pairs of bf16, the two columns of a row: of rows 0 to 7, and of rows 8 to 15.
///
/// # Safety
/// The 16 bytes of the step must be readable, and the processor must have AVX2.
#[inline(always)]
pub(super) unsafe fn nf4_pairs(step: *const u8) -> [__m256i; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let both = _mm256_broadcastsi128_si256(_mm_loadu_si128(step.cast()));
        // The lower lane has the lower halves, the upper lane the upper ones.
        let shifted = _mm256_srlv_epi64(both, _mm256_setr_epi64x(0, 0, 4, 4));
        let codes = _mm256_and_si256(shifted, _mm256_set1_epi8(15));
        let table = |bytes: &[u8; 16]| _mm256_broadcastsi128_si256(_mm_loadu_si128(bytes.as_ptr().cast()));
        let low = _mm256_shuffle_epi8(table(&NF4_BYTES[0]), codes);
        let high = _mm256_shuffle_epi8(table(&NF4_BYTES[1]), codes);
        [_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high)]
    }
}

/// The lower and the upper bytes of the levels as bf16.
static NF4_BYTES: [[u8; 16]; 2] = {
    let mut bytes = [[0; 16]; 2];
    let mut i = 0;
    while i < 16 {
        [_, _, bytes[0][i], bytes[1][i]] = LEVELS[i].to_bits().to_le_bytes();
        i += 1;
    }
    bytes
};

impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = 8;
    const TILE_ROWS: usize = 2;
    const N_SUMS: usize = 10;

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        // SAFETY: `self` is proof of AVX.
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m256 {
        // SAFETY: eight floats are readable, and `self` is proof of AVX.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> __m256 {
        // SAFETY: eight u16 are readable, and `self` is proof of AVX2.
        unsafe {
            let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
        }
    }
    #[inline(always)]
    fn widen_bf16_pairs(self, pairs: __m256) -> [__m256; 2] {
        // SAFETY: `self` is proof of AVX2.
        unsafe {
            let pairs = _mm256_castps_si256(pairs);
            let second = _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32 as i32));
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)),
                _mm256_castsi256_ps(second),
            ]
        }
    }
    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> __m256 {
        // SAFETY: eight u16 are readable, and `self` is proof of F16C.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn load_i8(self, from: *const i8) -> __m256 {
        // SAFETY: eight bytes are readable, and `self` is proof of AVX2.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_e4m3(self, from: *const u8) -> __m256 {
        // SAFETY: eight bytes are readable, and `self` is proof of AVX2 and F16C.
        unsafe {
            let words = _mm_cvtepi8_epi16(_mm_loadl_epi64(from.cast()));
            // The sign was extended to bit 14, too.
            let bits = _mm_and_si128(_mm_slli_epi16::<7>(words), _mm_set1_epi16(0xbf80_u16 as i16));
            _mm256_cvtph_ps(bits)
        }
    }
    #[inline(always)]
    unsafe fn load_nf4(self, step: *const u8, first_row: usize) -> [__m256; 2] {
        // SAFETY: the 16 bytes of the step are readable, and `self` is proof of AVX2.
        unsafe {
            let pairs = nf4_pairs(step)[first_row / 8];
            let second = _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32 as i32));
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)),
                _mm256_castsi256_ps(second),
            ]
        }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: __m256) {
        // SAFETY: eight floats are writable, and `self` is proof of AVX.
        unsafe { _mm256_storeu_ps(to, v) }
    }
    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        // SAFETY: a prefetch of any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` is proof of AVX.
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` is proof of AVX.
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` is proof of AVX.
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` is proof of AVX.
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` is proof of AVX.
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` is proof of AVX.
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: `self` is proof of FMA.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        // SAFETY: `self` is proof of AVX.
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    fn exp2_whole(self, a: __m256) -> __m256 {
        // SAFETY: `self` is proof of AVX2.
        unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(a), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
        }
    }
    #[inline]
    fn call<T: SimdTask>(self, task: T) -> T::Output {
        // SAFETY: `self` is proof of the features.
        unsafe { run(task) }
    }
    #[inline(always)]
    fn sum(self, a: __m256) -> f32 {
        // SAFETY: `self` is proof of AVX.
        unsafe {
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_shuffle_ps::<1>(a, a)))
        }
    }
}
