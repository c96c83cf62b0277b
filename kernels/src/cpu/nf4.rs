//! NormalFloat numbers of 4 bits (Dettmers et al., QLoRA, 2023, appendix E): quantiles of the normal distribution.

use half::bf16;

/// The levels by code.
const QUANTILES: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// The levels as they are computed with.
pub(crate) const LEVELS: [f32; 16] = {
    let mut levels = QUANTILES;
    let mut i = 0;
    while i < 16 {
        levels[i] = bf16::from_f32_const(QUANTILES[i]).to_f32_const();
        i += 1;
    }
    levels
};

/// Where in a step of codes, two columns of 16 rows in 16 bytes, the first column of a row is: the byte, and by how many bits
/// in it the code is shifted. The second column is in the next byte. In this order vectors of 8 rows become pairs of bf16
/// without crossing lanes: byte `8a + 2b + column` holds row `8a + b` in its lower half and row `8a + 4 + b` in its upper
/// one (`b < 4`).
pub(crate) fn place(row: usize) -> (usize, usize) {
    (row / 8 * 8 + row % 4 * 2, row % 8 / 4 * 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The levels are means of neighbouring quantiles, taken to ±1 by the largest one; seven below zero, eight above.
    #[test]
    fn the_levels_are_quantiles_of_the_normal_distribution() {
        fn density(x: f64) -> f64 {
            (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
        }
        // The quantile of `p` above 1/2, by steps of the density.
        fn quantile(p: f64) -> f64 {
            let (step, mut x, mut below) = (1e-5, 0.0, 0.5);
            while below < p {
                below += step * density(x + step / 2.0);
                x += step;
            }
            x
        }
        let offset = (1.0 - 1.0 / 32.0 + 1.0 - 1.0 / 30.0) / 2.0;
        let largest = quantile(offset);
        let level = |i: usize, n: usize| {
            let p = offset + (0.5 - offset) * i as f64 / n as f64;
            quantile(p) / largest
        };
        for i in 0..8 {
            assert!((f64::from(QUANTILES[15 - i]) - level(i, 8)).abs() < 1e-4, "{i}");
        }
        for i in 0..7 {
            assert!((f64::from(-QUANTILES[i]) - level(i, 7)).abs() < 1e-4, "{i}");
        }
    }
}
