//! Numbers of 8 and 4 bits: a group of neighbouring columns of a row shares a scale, and a number is a code times that
//! scale.
//!
//! The scalar reference. Codes are chosen to nearest; every code has a value that bf16 holds exactly, so that widening is
//! exact on every path.

use crate::cpu::nf4::LEVELS;
use crate::cpu::simd::F8E4M3;

/// Columns that share a scale, in memory. The last group of a row may be shorter.
pub const GROUP: usize = 64;

/// How numbers that share a scale are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuantFormat {
    /// Integers from -127 to 127.
    Int8,
    /// Four bits of exponent, three of mantissa, without infinities (OCP FP8, e4m3).
    Fp8,
    /// Sixteen quantiles of the normal distribution (Dettmers et al., QLoRA, 2023, appendix E), rounded to bf16.
    Nf4,
}

/// A number that has no code: NaN or an infinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("element {index} is not finite")]
pub struct NotFinite {
    /// Where it is in the group.
    pub index: usize,
}

/// Half way between a level and the next one.
const NF4_MIDDLES: [f32; 15] = {
    let mut middles = [0.0; 15];
    let mut i = 0;
    while i < 15 {
        middles[i] = (LEVELS[i] + LEVELS[i + 1]) / 2.0;
        i += 1;
    }
    middles
};

/// The largest number of [`QuantFormat::Fp8`].
const FP8_MAX: f32 = 448.0;

impl QuantFormat {
    /// Its short name: `int8`, `fp8` or `nf4`.
    pub fn name(self) -> &'static str {
        match self {
            QuantFormat::Int8 => "int8",
            QuantFormat::Fp8 => "fp8",
            QuantFormat::Nf4 => "nf4",
        }
    }

    /// Bits of a code.
    pub fn bits(self) -> usize {
        match self {
            QuantFormat::Int8 | QuantFormat::Fp8 => 8,
            QuantFormat::Nf4 => 4,
        }
    }

    /// Bytes of a matrix in this format: codes, and a scale in f32 for each group of a row.
    pub fn size_bytes(self, n_rows: usize, n_cols: usize) -> usize {
        n_rows * ((n_cols * self.bits()).div_ceil(8) + n_cols.div_ceil(GROUP) * size_of::<f32>())
    }

    /// The value of the largest code.
    pub(crate) fn value_max(self) -> f32 {
        match self {
            QuantFormat::Int8 => 127.0,
            QuantFormat::Fp8 => FP8_MAX,
            QuantFormat::Nf4 => 1.0,
        }
    }

    /// Writes the codes of a group, one a byte, and returns its scale: a number is about `scale · value(code)`. The largest
    /// number of a group is a code times the scale, and zero is zero. A group whose scale would be subnormal (numbers
    /// below 2e-36) becomes zeros.
    ///
    /// With `scale` as returned, the error of a number `w` is at most
    /// - int8: `scale / 2`, which is 1/254 of the group's largest number,
    /// - fp8: `|w| / 16`, and `scale / 1024` if that is larger,
    /// - nf4: `0.153 · scale`, where `scale` is the group's largest number.
    ///
    /// # Errors
    /// A number is not finite.
    pub fn quantise(self, numbers: &[f32], codes: &mut [u8]) -> Result<f32, NotFinite> {
        let largest = numbers.iter().fold(0.0_f32, |max, w| max.max(w.abs()));
        // A comparison with NaN is false, so the largest number does not show it.
        let sum_is_finite = numbers.iter().fold(0.0_f32, |sum, w| sum + w * 0.0).is_finite();
        if !sum_is_finite {
            let index = numbers.iter().position(|w| !w.is_finite()).unwrap_or(0);
            return Err(NotFinite { index });
        }
        let scale = largest / self.value_max();
        if scale < f32::MIN_POSITIVE {
            codes.fill(self.zero());
            return Ok(0.0);
        }
        let coded = codes.iter_mut().zip(numbers);
        match self {
            QuantFormat::Int8 => coded.for_each(|(code, w)| *code = int8(w / scale)),
            QuantFormat::Fp8 => coded.for_each(|(code, w)| *code = F8E4M3::from_f32(w / scale).code()),
            QuantFormat::Nf4 => coded.for_each(|(code, w)| *code = nf4(w / scale)),
        }
        Ok(scale)
    }

    /// The value of a code; bf16 holds it exactly.
    pub fn value(self, code: u8) -> f32 {
        match self {
            QuantFormat::Int8 => f32::from(code as i8),
            QuantFormat::Fp8 => F8E4M3::of_code(code).to_f32(),
            QuantFormat::Nf4 => LEVELS[usize::from(code & 15)],
        }
    }

    /// The code of zero.
    pub(crate) fn zero(self) -> u8 {
        match self {
            QuantFormat::Int8 | QuantFormat::Fp8 => 0,
            QuantFormat::Nf4 => 7,
        }
    }

    /// Replaces the numbers of a row by those that stay after quantisation in groups of `group` columns.
    ///
    /// # Errors
    /// A number is not finite.
    pub fn round(self, row: &mut [f32], group: usize) -> Result<(), NotFinite> {
        let mut codes = vec![0; group];
        for (idx, numbers) in row.chunks_mut(group).enumerate() {
            let codes = &mut codes[..numbers.len()];
            let scale = self.quantise(numbers, codes).map_err(|error| NotFinite {
                index: idx * group + error.index,
            })?;
            for (number, code) in numbers.iter_mut().zip(codes) {
                *number = self.value(*code) * scale;
            }
        }
        Ok(())
    }
}

/// Rounds to the nearest integer, ties to even: the sum has no bits for fractions.
fn int8(x: f32) -> u8 {
    const SHIFT: f32 = 12_582_912.0;
    (x + SHIFT).to_bits() as u8
}

/// Rounds to the nearest level; the smaller of two that are equally near.
fn nf4(x: f32) -> u8 {
    NF4_MIDDLES.iter().map(|middle| u8::from(x > *middle)).sum()
}

#[cfg(test)]
mod tests;
