//! How many rows of a tile are computed at once.

use crate::cpu::simd::Simd;

/// Rows up to which numbers are widened as they are read. More rows read them widened from a strip.
pub(super) const ROWS_DIRECT: usize = 8;
/// Rows so few that they need more vectors at a time to keep the processor busy.
pub(super) const ROWS_FEW: usize = 2;

/// Rows of the next register tile where `left` rows are left: with two vectors, as many sums as there are registers for.
pub(super) fn block_rows<S: Simd>(left: usize) -> usize {
    match (S::TILE_ROWS, left) {
        (4, 8..) => 8,
        (2, 6..8 | 9..) => 6,
        (2 | 4, 4..) => 4,
        (_, 2..) => 2,
        _ => 1,
    }
}

/// Does something for all rows, some at a time: their number is a constant.
macro_rules! each_row_block {
    ($S:ident, $n_rows:expr, |$row:ident, $R:ident| $do:block) => {{
        let n_rows = $n_rows;
        let mut $row = 0;
        while $row < n_rows {
            let n = block_rows::<$S>(n_rows - $row);
            match n {
                8 => {
                    const $R: usize = 8;
                    $do
                }
                6 => {
                    const $R: usize = 6;
                    $do
                }
                4 => {
                    const $R: usize = 4;
                    $do
                }
                2 => {
                    const $R: usize = 2;
                    $do
                }
                _ => {
                    const $R: usize = 1;
                    $do
                }
            }
            $row += n;
        }
    }};
}
pub(super) use each_row_block;
