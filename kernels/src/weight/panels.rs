//! The layout that products on the CPU read: panels of 16 rows, column after column.
//!
//! In a panel, as many neighbouring columns of a row as the dtype's *pair* lie side by side, then those of the next row:
//! `[row_stride / pair][16][pair]`. A vector then holds one column of neighbouring rows, so no sum runs across lanes, and
//! a panel is one stream of memory. Pairs of bf16 are what `vdpbf16ps` and AMX multiply. Rows up to a full panel and
//! columns up to `row_stride` are zeros. A panel takes the bytes that its rows took, so packing is in place.

use rayon::prelude::*;

use super::{DType, GROUP, Scales, Weight};
use crate::error::KernelError;

/// Rows of a panel: the results of a tile are as many columns of `y`.
pub(crate) const PANEL_ROWS: usize = 16;

impl DType {
    /// Neighbouring columns of a row that lie side by side in a panel.
    fn pair(self) -> usize {
        match self {
            DType::F32 | DType::F16 => 1,
            DType::BF16 => 2,
        }
    }
}

/// The panels of a weight.
#[derive(Clone, Copy)]
pub(crate) struct Panels<'a> {
    /// All of them, one after another. The first starts on a page, the others on a line.
    pub(crate) bytes: &'a [u8],
    /// Bytes of one.
    pub(crate) panel_bytes: usize,
    /// How the numbers are stored, where they have no scales.
    pub(crate) dtype: DType,
    /// The scales of quantised numbers.
    pub(crate) scales: Option<Scales<'a>>,
}

/// Where the numbers of a row are among a weight's: runs of `run` neighbours, whose starts are `step` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowPlace {
    /// The first number.
    pub(crate) first: usize,
    /// Neighbours.
    pub(crate) run: usize,
    /// Numbers from the start of a run to that of the next.
    pub(crate) step: usize,
}

impl Weight {
    /// Puts the numbers into the layout of products on the CPU, in place. The weight can be read by `gemm` and `embed`
    /// then, and no longer be written. Works on the threads of the pool that it is called on.
    pub fn pack(&mut self) {
        if self.is_packed {
            return;
        }
        self.is_packed = true;
        let (dtype, n_cols) = (self.dtype, self.row_stride);
        match (dtype, dtype.pair()) {
            (DType::F32, _) | (DType::BF16, 2) => {
                pack::<u32>(self.buffer.as_mut_slice(), n_cols * dtype.size_bytes() / 4)
            }
            _ => pack::<u16>(self.buffer.as_mut_slice(), n_cols),
        }
    }

    /// Whether [`Weight::pack`] was called.
    pub fn is_packed(&self) -> bool {
        self.is_packed
    }

    /// The panels.
    ///
    /// # Errors
    /// The weight is not packed.
    pub(crate) fn panels(&self, op: &'static str) -> Result<Panels<'_>, KernelError> {
        self.require_packed(op, true)?;
        let bits = self
            .format()
            .map_or(8 * self.dtype.size_bytes(), |format| format.bits());
        Ok(Panels {
            bytes: self.buffer.as_slice(),
            panel_bytes: PANEL_ROWS * self.row_stride * bits / 8,
            dtype: self.dtype,
            scales: self
                .quantised
                .as_ref()
                .map(|quantised| quantised.scales(self.row_stride / GROUP * PANEL_ROWS)),
        })
    }

    /// Where the numbers of a row are, in either layout.
    pub(crate) fn row_place(&self, row: usize) -> RowPlace {
        let stride = self.row_stride;
        if !self.is_packed {
            return RowPlace {
                first: row * stride,
                run: stride,
                step: stride,
            };
        }
        let pair = self.dtype.pair();
        let (panel, row) = (row / PANEL_ROWS, row % PANEL_ROWS);
        RowPlace {
            first: panel * PANEL_ROWS * stride + row * pair,
            run: pair,
            step: PANEL_ROWS * pair,
        }
    }
}

/// Turns every panel of rows of `n_cols` units into columns of units.
fn pack<T: bytemuck::Pod + Send + Sync>(all: &mut [T], n_cols: usize) {
    let turn = |rows: &mut Vec<T>, panel: &mut [T]| {
        rows.clear();
        rows.extend_from_slice(panel);
        for (column, to) in panel.chunks_exact_mut(PANEL_ROWS).enumerate() {
            for (row, to) in to.iter_mut().enumerate() {
                *to = rows[row * n_cols + column];
            }
        }
    };
    all.par_chunks_exact_mut(PANEL_ROWS * n_cols)
        .for_each_init(Vec::new, turn);
}

#[cfg(test)]
mod tests {
    use crate::weight::DType;
    use crate::weight::tests::{weight_of, widened};

    #[test]
    fn a_packed_weight_has_the_same_rows_and_zeros_after_them() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let values: Vec<f32> = (0..21 * 37).map(|i| i as f32).collect();
            let (mut weight, rounded) = weight_of(dtype, 37, &values);
            let stored = widened(&weight);
            weight.pack();
            weight.pack();
            let packed = widened(&weight);
            assert_eq!(packed.len(), stored.len());
            for row in 0..32 {
                let place = weight.row_place(row);
                for column in 0..weight.row_stride {
                    let at = place.first + column / place.run * place.step + column % place.run;
                    let want = (row < 21 && column < 37).then(|| rounded[row * 37 + column] as f32);
                    assert_eq!(packed[at], want.unwrap_or(0.0), "{dtype:?} [{row}, {column}]");
                }
            }
        }
    }

    #[test]
    fn the_columns_of_a_panel_follow_one_another() {
        let values: Vec<f32> = (0..16 * 64).map(|i| i as f32 / 8.0).collect();
        let (mut weight, _) = weight_of(DType::BF16, 64, &values);
        weight.pack();
        let packed = widened(&weight);
        assert_eq!(packed[..4], [0.0, 0.125, 8.0, 8.125]);
        assert_eq!(packed[32..34], [0.25, 0.375]);
    }

    #[test]
    fn a_packed_weight_is_written_no_more() {
        let (mut weight, _) = weight_of(DType::F32, 16, &[1.5; 48]);
        assert!(weight.panels("test").is_err());
        weight.pack();
        assert!(weight.is_packed() && weight.panels("test").is_ok());
        assert!(weight.stored_rows(0, 1, DType::F32).is_none());
        assert!(weight.write_rows(0, DType::F32, &[0; 64]).is_err());
        assert!(weight.fill_uniform(1, 1.0).is_err());
    }
}
