//! Activations in bf16, for processors that multiply such numbers.

/// The bf16 number that is nearest to `v`, ties to even, as bits; NaN stays NaN.
#[inline(always)]
pub(crate) fn rounded(v: f32) -> u16 {
    let bits = v.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
    (if is_nan { bits >> 16 | 0x40 } else { nearest }) as u16
}

/// Two neighbours, the first one in the lower half.
#[inline(always)]
pub(crate) fn pair(first: f32, second: f32) -> u32 {
    u32::from(rounded(first)) | u32::from(rounded(second)) << 16
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    #[test]
    fn rounds_as_half_does() {
        let numbers = (0..=u32::from(u16::MAX)).flat_map(|upper| {
            [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff].map(|lower| f32::from_bits(upper << 16 | lower))
        });
        for v in numbers {
            assert_eq!(rounded(v), bf16::from_f32(v).to_bits(), "{:08x}", v.to_bits());
        }
        assert_eq!(pair(1.0, -2.0), 0xc000_3f80);
    }
}
