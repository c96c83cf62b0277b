//! Vectors of sixteen floats with AVX-512 F, BW, DQ and VL.

use std::arch::x86_64::*;

use super::avx2::nf4_pairs;
use super::{Simd, SimdTask};

/// Proof of AVX-512 F, BW, DQ and VL (and of AVX2, FMA and F16C), and of AVX512-BF16 where `BF16` says so: only [`run`] and
/// [`run_with_bf16`] make one.
#[derive(Clone, Copy)]
pub(crate) struct Avx512<const BF16: bool>(());

/// Runs `task` with the features enabled.
///
/// # Safety
/// The processor must have them.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(crate) unsafe fn run<T: SimdTask>(task: T) -> T::Output {
    task.run(Avx512::<false>(()))
}

/// Runs `task` with the features and AVX512-BF16 enabled.
///
/// # Safety
/// The processor must have them.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
pub(crate) unsafe fn run_with_bf16<T: SimdTask>(task: T) -> T::Output {
    task.run(Avx512::<true>(()))
}

impl<const BF16: bool> Simd for Avx512<BF16> {
    type V = __m512;
    const LANES: usize = 16;
    const TILE_ROWS: usize = 4;
    const N_SUMS: usize = 24;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        // SAFETY: `self` is proof of AVX-512.
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        // SAFETY: sixteen floats are readable, and `self` is proof of AVX-512.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> __m512 {
        // SAFETY: sixteen u16 are readable, and `self` is proof of AVX-512.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }
    #[inline(always)]
    fn widen_bf16_pairs(self, pairs: __m512) -> [__m512; 2] {
        // SAFETY: `self` is proof of AVX-512.
        unsafe {
            let pairs = _mm512_castps_si512(pairs);
            let second = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32));
            [
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)),
                _mm512_castsi512_ps(second),
            ]
        }
    }
    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> __m512 {
        // SAFETY: sixteen u16 are readable, and `self` is proof of AVX-512.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn load_i8(self, from: *const i8) -> __m512 {
        // SAFETY: sixteen bytes are readable, and `self` is proof of AVX-512.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_e4m3(self, from: *const u8) -> __m512 {
        // SAFETY: sixteen bytes are readable, and `self` is proof of AVX2 and AVX-512.
        unsafe {
            let words = _mm256_cvtepi8_epi16(_mm_loadu_si128(from.cast()));
            // The sign was extended to bit 14, too.
            let bits = _mm256_and_si256(
                _mm256_slli_epi16::<7>(words),
                _mm256_set1_epi16(0xbf80_u16 as i16),
            );
            _mm512_cvtph_ps(bits)
        }
    }
    #[inline(always)]
    unsafe fn load_nf4(self, step: *const u8, _first_row: usize) -> [__m512; 2] {
        // SAFETY: the 16 bytes of the step are readable, and `self` is proof of AVX2 and AVX-512.
        unsafe {
            let [first, second] = nf4_pairs(step);
            let pairs = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(first), second);
            let second = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32));
            [
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)),
                _mm512_castsi512_ps(second),
            ]
        }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: __m512) {
        // SAFETY: sixteen floats are writable, and `self` is proof of AVX-512.
        unsafe { _mm512_storeu_ps(to, v) }
    }
    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        // SAFETY: a prefetch of any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` is proof of AVX-512.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` is proof of AVX-512.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` is proof of AVX-512.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` is proof of AVX-512.
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` is proof of AVX-512.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` is proof of AVX-512.
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: `self` is proof of AVX-512.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn add_bf16_products(self, sum: __m512, a: __m512, b: __m512) -> __m512 {
        if !BF16 {
            let (a, b) = (self.widen_bf16_pairs(a), self.widen_bf16_pairs(b));
            return self.mul_add(a[1], b[1], self.mul_add(a[0], b[0], sum));
        }
        // SAFETY: `self` is proof of AVX512-BF16; both types are 64 bytes of any value.
        unsafe {
            let (a, b) = (
                std::mem::transmute::<__m512, __m512bh>(a),
                std::mem::transmute::<__m512, __m512bh>(b),
            );
            _mm512_dpbf16_ps(sum, a, b)
        }
    }
    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        // SAFETY: `self` is proof of AVX-512.
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    fn exp2_whole(self, a: __m512) -> __m512 {
        // SAFETY: `self` is proof of AVX-512.
        unsafe {
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(a), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
        }
    }
    #[inline]
    fn call<T: SimdTask>(self, task: T) -> T::Output {
        // SAFETY: `self` is proof of the features.
        unsafe { if BF16 { run_with_bf16(task) } else { run(task) } }
    }
    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        // Not _mm512_reduce_add_ps, which leaves the order to the compiler.
        // SAFETY: `self` is proof of AVX-512.
        unsafe {
            let a = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_shuffle_ps::<1>(a, a)))
        }
    }
}
