//! MXFP4: blocks of 32 four-bit numbers that share a scale (Open Compute Project, "Microscaling Formats (MX)
//! v1.0", sections 5.3 and 6).

/// Numbers of a block.
pub(super) const BLOCK: usize = 32;

/// The sixteen numbers of four bits: a sign, two bits of exponent, one of mantissa.
const E2M1: [f32; 16] = [
    0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0,
];

/// Numbers as little-endian f32. Those that are normal fit bf16 without rounding: two bits and an exponent.
/// `blocks` has two numbers in a byte, the first in the low half; `scales` a power of two per block, biased by
/// 127. Lengths: `16 n` and `n` in, `128 n` bytes out.
pub(super) fn to_f32(blocks: &[u8], scales: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 * blocks.len());
    for (block, &scale) in blocks.chunks_exact(BLOCK / 2).zip(scales) {
        let scale = 2_f32.powi(i32::from(scale) - 127);
        for byte in block {
            for half in [byte & 15, byte >> 4] {
                out.extend((E2M1[usize::from(half)] * scale).to_le_bytes());
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_low_half_comes_first_and_scales_are_powers_of_two() {
        let mut blocks = [0_u8; 32];
        blocks[0] = 0x72;
        blocks[16] = 0x9f;
        let numbers: Vec<f32> = to_f32(&blocks, &[127, 124])
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        assert_eq!(numbers.len(), 64);
        assert_eq!((numbers[0], numbers[1], numbers[2]), (1.0, 6.0, 0.0));
        assert_eq!((numbers[32], numbers[33]), (-0.75, -0.0625));
    }
}
