//! Numbers of eight bits in the formats of the Open Compute Project (OCP OFP8, revision 1.0, 2023).

use half::f16;

use super::{Element, LANES_MAX, Simd};

/// Four bits of exponent, three of mantissa, no infinities: up to 448.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct F8E4M3(u8);

/// Five bits of exponent, two of mantissa: the upper half of an f16, up to 57,344.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct F8E5M2(u8);

// SAFETY: a byte, of which every value is valid.
unsafe impl bytemuck::Zeroable for F8E4M3 {}
// SAFETY: as above.
unsafe impl bytemuck::Pod for F8E4M3 {}
// SAFETY: as above.
unsafe impl bytemuck::Zeroable for F8E5M2 {}
// SAFETY: as above.
unsafe impl bytemuck::Pod for F8E5M2 {}

/// What an f16 with the fields of an e4m3 lacks: the difference of the biases.
const UNSCALE: f32 = 256.0;

impl F8E4M3 {
    /// The nearest number, the even one of two; beyond 448 that is 448. NaN stays NaN.
    pub(crate) fn from_f32(x: f32) -> F8E4M3 {
        F8E4M3(nearest::<3, 7>(x, 0x7E, 0x7F))
    }

    /// The number with this code.
    pub(crate) fn of_code(code: u8) -> F8E4M3 {
        F8E4M3(code)
    }

    /// Its code.
    pub(crate) fn code(self) -> u8 {
        self.0
    }

    /// The bits of an f16 that is 2^-8 times the number, of which only NaN has another exponent.
    #[inline(always)]
    fn scaled_half(self) -> u16 {
        let bits = u16::from(self.0);
        let nan = if bits & 0x7F == 0x7F { 0x7C00 } else { 0 };
        (bits & 0x80) << 8 | (bits & 0x7F) << 7 | nan
    }

    /// The number, exactly.
    #[inline(always)]
    pub(crate) fn to_f32(self) -> f32 {
        f16::from_bits(self.scaled_half()).to_f32() * UNSCALE
    }
}

impl F8E5M2 {
    /// The nearest number, the even one of two; beyond 57,344 that is 57,344. NaN stays NaN.
    pub(crate) fn from_f32(x: f32) -> F8E5M2 {
        F8E5M2(nearest::<2, 15>(x, 0x7B, 0x7F))
    }

    /// The number, exactly.
    #[inline(always)]
    pub(crate) fn to_f32(self) -> f32 {
        f16::from_bits(u16::from(self.0) << 8).to_f32()
    }
}

/// The code of the number nearest to `x` of a format with so many bits of mantissa and such a bias, at most `max`.
#[inline(always)]
fn nearest<const MANTISSA: u32, const BIAS: u32>(x: f32, max: u8, nan: u8) -> u8 {
    let bits = x.to_bits();
    let sign = ((bits >> 24) & 0x80) as u8;
    let abs = bits & 0x7FFF_FFFF;
    if abs > 0x7F80_0000 {
        return sign | nan;
    }
    let code = if abs < (128 - BIAS) << 23 {
        // Subnormal: adding a power of two whose last place is the format's rounds there.
        let one = f32::from_bits((127 + 23 + 1 - BIAS - MANTISSA) << 23);
        (f32::from_bits(abs) + one).to_bits() - one.to_bits()
    } else {
        let dropped = 23 - MANTISSA;
        let is_odd = (abs >> dropped) & 1;
        let rounded = abs + (1 << (dropped - 1)) - 1 + is_odd;
        (rounded >> dropped) - ((127 - BIAS) << MANTISSA)
    };
    sign | code.min(u32::from(max)) as u8
}

impl Element for F8E4M3 {
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const F8E4M3) -> S::V {
        let mut halves = [0_u16; LANES_MAX];
        for i in 0..S::LANES {
            // SAFETY: the caller's promise.
            halves[i] = unsafe { *from.add(i) }.scaled_half();
        }
        // SAFETY: `LANES_MAX` elements are readable.
        let v = unsafe { simd.load_f16(halves.as_ptr()) };
        simd.mul(v, simd.splat(UNSCALE))
    }
}

impl Element for F8E5M2 {
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const F8E5M2) -> S::V {
        let mut halves = [0_u16; LANES_MAX];
        for i in 0..S::LANES {
            // SAFETY: the caller's promise.
            halves[i] = u16::from(unsafe { (*from.add(i)).0 }) << 8;
        }
        // SAFETY: `LANES_MAX` elements are readable.
        unsafe { simd.load_f16(halves.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SimdTask, run};
    use super::*;
    use crate::cpu::isa::Isa;

    /// Widens all 256 numbers.
    struct WidenAll<W>(fn(u8) -> W);

    impl<W: Element> SimdTask for WidenAll<W> {
        type Output = Vec<f32>;

        fn run<S: Simd>(self, simd: S) -> Vec<f32> {
            let numbers: Vec<W> = (0..=255).map(self.0).collect();
            let mut out = vec![0.0; 256];
            for (from, to) in numbers.chunks(S::LANES).zip(out.chunks_mut(S::LANES)) {
                // SAFETY: 256 is a multiple of the lanes.
                simd.store_slice(to, unsafe { W::load(simd, from.as_ptr()) });
            }
            out
        }
    }

    /// The value of a code, from the definition of the format; NaN where it has none that is finite.
    fn value(code: u8, mantissa: u32, bias: i32, max: u8) -> f64 {
        if code & 0x7F > max {
            return f64::NAN;
        }
        let sign = if code & 0x80 == 0 { 1.0 } else { -1.0 };
        let exponent = i32::from((code & 0x7F) >> mantissa);
        let fraction = f64::from(code & ((1 << mantissa) - 1)) / f64::from(1 << mantissa);
        let (whole, exponent) = if exponent == 0 { (0.0, 1) } else { (1.0, exponent) };
        sign * (whole + fraction) * 2.0_f64.powi(exponent - bias)
    }

    /// From a code to a number, and to its value.
    type OfCode<W> = (fn(u8) -> W, fn(W) -> f32);

    /// A format: its mantissa, its bias and the code of its largest number.
    type Format = (u32, i32, u8);

    fn check<W: Element>((of, widen): OfCode<W>, rounded: fn(f32) -> u8, (mantissa, bias, max): Format) {
        let values: Vec<f64> = (0..=255).map(|code| value(code, mantissa, bias, max)).collect();
        for isa in Isa::available() {
            // SAFETY: available.
            let widened = unsafe { run(isa, WidenAll(of)) };
            for (code, (got, want)) in widened.iter().zip(&values).enumerate() {
                let is_infinite = (code & 0x7F) as u8 == max + 1 && mantissa == 2;
                let alone = widen(of(code as u8));
                assert!(alone == *got || alone.is_nan() && got.is_nan(), "{code:#x}");
                assert!(
                    f64::from(*got) == *want || want.is_nan() && (got.is_nan() || is_infinite),
                    "{isa:?}: {code:#x} is {got}, not {want}"
                );
            }
        }
        assert!(value(rounded(f32::NAN), mantissa, bias, max).is_nan());
        let finite: Vec<u8> = (0..=max).collect();
        for pair in finite.windows(2) {
            let (low, high) = (values[usize::from(pair[0])], values[usize::from(pair[1])]);
            let middle = ((low + high) / 2.0) as f32;
            let even = pair[pair[0] as usize % 2];
            let (below, above) = (middle.next_down(), middle.next_up());
            assert_eq!([low as f32, below, middle].map(rounded), [pair[0], pair[0], even]);
            assert_eq!([above, high as f32].map(rounded), [pair[1]; 2]);
            assert_eq!(rounded(-above), pair[1] | 0x80);
        }
        for beyond in [values[usize::from(max)] as f32 * 1.5, f32::MAX, f32::INFINITY] {
            assert_eq!([beyond, -beyond].map(rounded), [max, max | 0x80]);
        }
    }

    #[test]
    fn numbers_are_widened_exactly_and_rounded_to_the_nearest() {
        check((F8E4M3, F8E4M3::to_f32), |x| F8E4M3::from_f32(x).0, (3, 7, 0x7E));
        check((F8E5M2, F8E5M2::to_f32), |x| F8E5M2::from_f32(x).0, (2, 15, 0x7B));
    }
}
