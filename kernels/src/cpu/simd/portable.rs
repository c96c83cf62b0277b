//! Vectors of eight floats in plain Rust; the compiler turns them into what the target always has.

use half::{bf16, f16};

use super::{Simd, SimdTask};
use crate::cpu::nf4;

/// Every processor.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

type V = [f32; 8];

#[inline(always)]
fn map2(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Portable {
    type V = V;
    const LANES: usize = 8;
    const TILE_ROWS: usize = 1;
    const N_SUMS: usize = 12;

    #[inline(always)]
    fn splat(self, value: f32) -> V {
        [value; 8]
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> V {
        // SAFETY: eight floats are readable; the read needs no alignment.
        unsafe { from.cast::<V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> V {
        // SAFETY: eight u16 are readable; the read needs no alignment.
        let bits = unsafe { from.cast::<[u16; 8]>().read_unaligned() };
        bits.map(|b| bf16::from_bits(b).to_f32())
    }
    #[inline(always)]
    fn widen_bf16_pairs(self, pairs: V) -> [V; 2] {
        [16, 0].map(|n_bits| pairs.map(|pair| f32::from_bits(pair.to_bits() << n_bits & 0xffff_0000)))
    }
    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> V {
        // SAFETY: eight u16 are readable; the read needs no alignment.
        let bits = unsafe { from.cast::<[u16; 8]>().read_unaligned() };
        bits.map(|b| f16::from_bits(b).to_f32_const())
    }
    #[inline(always)]
    unsafe fn load_i8(self, from: *const i8) -> V {
        // SAFETY: eight bytes are readable.
        unsafe { from.cast::<[i8; 8]>().read() }.map(f32::from)
    }
    #[inline(always)]
    unsafe fn load_e4m3(self, from: *const u8) -> V {
        // SAFETY: eight bytes are readable.
        let codes = unsafe { from.cast::<[u8; 8]>().read() };
        let f16_bits = |code: u8| (u16::from(code & 0x80) << 8) | (u16::from(code & 0x7f) << 7);
        codes.map(|code| f16::from_bits(f16_bits(code)).to_f32())
    }
    #[inline(always)]
    unsafe fn load_nf4(self, step: *const u8, first_row: usize) -> [V; 2] {
        // SAFETY: the 16 bytes of the step are readable.
        let codes = unsafe { step.cast::<[u8; 16]>().read() };
        [0, 1].map(|column| {
            std::array::from_fn(|row| {
                let (first, shift) = nf4::place(first_row + row);
                nf4::LEVELS[usize::from(codes[first + column] >> shift & 15)]
            })
        })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: V) {
        // SAFETY: eight floats are writable; the write needs no alignment.
        unsafe { to.cast::<V>().write_unaligned(v) }
    }
    #[inline(always)]
    fn prefetch(self, _at: *const u8) {}

    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        map2(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        map2(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        map2(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        map2(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        map2(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        map2(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn mul_add(self, a: V, b: V, c: V) -> V {
        // Not f32::mul_add: without the instruction that is a slow call into the maths library.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn round(self, a: V) -> V {
        // Adding 1.5·2²³ leaves no bits for a fraction, for |a| < 2²².
        a.map(|a| (a + 12_582_912.0) - 12_582_912.0)
    }
    #[inline(always)]
    fn exp2_whole(self, a: V) -> V {
        a.map(|a| f32::from_bits(((a as i32 + 127) << 23) as u32))
    }
    #[inline(never)]
    fn call<T: SimdTask>(self, task: T) -> T::Output {
        task.run(self)
    }
    #[inline(always)]
    fn sum(self, a: V) -> f32 {
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }
}
