//! Quantised weights: panels of codes with their scales, written row after row.
//!
//! A weight in 16 bits is never whole in memory: rows become codes at their places in a panel as they are written. Two
//! neighbouring columns of a panel lie together, a *step*. Codes of 8 bits are `[2][16]`: one column, then the other. Of
//! codes of 4 bits, a step has 16 bytes ([`nf4::place`]).

use super::{DType, GROUP, PANEL_ROWS, QuantFormat, Quantised, Weight};
use crate::cpu::buffer::Buffer;
use crate::cpu::nf4;
use crate::error::{Contract, KernelError};

impl QuantFormat {
    /// The codes of e4m3 are read as f16 with an exponent that is smaller by 8, so their scales are larger.
    pub(crate) fn scale_factor(self) -> f32 {
        match self {
            QuantFormat::Fp8 => 256.0,
            QuantFormat::Int8 | QuantFormat::Nf4 => 1.0,
        }
    }
}

impl Weight {
    /// A matrix of zeros in a format of 8 or 4 bits, to be filled by [`Weight::write_rows`], which quantises. Products on the
    /// CPU read it without [`Weight::pack`]; no other op reads it. Its dtype is f32: that of what is computed with.
    ///
    /// # Errors
    /// A size is zero, or there is no memory for it.
    pub fn quantised(format: QuantFormat, n_rows: usize, n_cols: usize) -> Result<Weight, KernelError> {
        Contract("weight").range(n_rows > 0, "n_rows", n_rows, "at least 1")?;
        Contract("weight").range(n_cols > 0, "n_cols", n_cols, "at least 1")?;
        let memory = || KernelError::Memory {
            what: "weight",
            size_bytes: u128::MAX,
        };
        let row_stride = n_cols.checked_next_multiple_of(GROUP).ok_or_else(memory)?;
        let n_numbers = n_rows
            .checked_next_multiple_of(PANEL_ROWS)
            .and_then(|n_rows| n_rows.checked_mul(row_stride))
            .filter(|n| *n <= usize::MAX / 4)
            .ok_or_else(memory)?;
        let scales = Buffer::zeroed("scales of a weight", n_numbers / GROUP * size_of::<f32>())?;
        Ok(Weight {
            buffer: Buffer::zeroed("weight", n_numbers * format.bits() / 8)?,
            dtype: DType::F32,
            n_rows,
            n_cols,
            row_stride,
            is_packed: true,
            quantised: Some(Quantised { format, scales }),
        })
    }

    /// The format of a quantised weight.
    pub fn format(&self) -> Option<QuantFormat> {
        self.quantised.as_ref().map(|quantised| quantised.format)
    }

    /// Quantises a row and writes it to its panel.
    pub(super) fn write_quantised(&mut self, row: usize, numbers: &[f32]) -> Result<(), KernelError> {
        let Some(Quantised { format, scales }) = &mut self.quantised else {
            return Err(KernelError::Layout {
                op: "write_rows",
                must_be: "quantised",
            });
        };
        let format = *format;
        let n_groups = self.row_stride / GROUP;
        let (panel, lane) = (row / PANEL_ROWS, row % PANEL_ROWS);
        let panel_bytes = PANEL_ROWS * self.row_stride * format.bits() / 8;
        let stored: &mut [u8] = self.buffer.as_mut_slice();
        let stored = &mut stored[panel * panel_bytes..][..panel_bytes];
        let scales: &mut [f32] = scales.as_mut_slice();
        let scales = &mut scales[panel * n_groups * PANEL_ROWS..][..n_groups * PANEL_ROWS];
        let mut codes = [0; GROUP];
        let groups = numbers
            .chunks(GROUP)
            .zip(stored.chunks_exact_mut(panel_bytes / n_groups));
        for (group, (numbers, stored)) in groups.enumerate() {
            let codes = &mut codes[..numbers.len()];
            let scale = format
                .quantise(numbers, codes)
                .map_err(|error| KernelError::NotFinite {
                    row,
                    column: group * GROUP + error.index,
                })?;
            scales[group * PANEL_ROWS + lane] = scale * format.scale_factor();
            if format.bits() == 8 {
                let places = stored[lane..].iter_mut().step_by(PANEL_ROWS);
                places.zip(codes).for_each(|(to, code)| *to = *code);
                continue;
            }
            let (first, shift) = nf4::place(lane);
            for (step, codes) in codes.chunks(2).enumerate() {
                for (column, code) in codes.iter().enumerate() {
                    let to = &mut stored[step * PANEL_ROWS + first + column];
                    *to = (*to & !(15 << shift)) | (code << shift);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_quantised_where_they_are_written() {
        let numbers: Vec<f32> = (0..21 * 70).map(|i| (i as f32 * 0.7).sin()).collect();
        for format in [QuantFormat::Int8, QuantFormat::Fp8, QuantFormat::Nf4] {
            let mut weight = Weight::quantised(format, 21, 70).unwrap();
            let bytes: Vec<u8> = numbers.iter().flat_map(|v| v.to_le_bytes()).collect();
            // In an order of their own, and one twice.
            for row in [20, 3].into_iter().chain(0..21) {
                weight
                    .write_rows(row, DType::F32, &bytes[row * 70 * 4..(row + 1) * 70 * 4])
                    .unwrap();
            }
            assert!(weight.is_packed() && weight.format() == Some(format));
            assert_eq!(
                weight.size_bytes(),
                21 * (70 * format.bits() / 8 + 2 * 4),
                "{format:?}"
            );
            let panels = weight.panels("test").unwrap();
            let scales = panels.scales.unwrap();
            for (row, numbers) in numbers.chunks(70).enumerate() {
                let mut rounded = numbers.to_vec();
                format.round(&mut rounded, GROUP).unwrap();
                for (column, want) in rounded.iter().enumerate() {
                    let (panel, lane) = (row / 16, row % 16);
                    let stored = &panels.bytes[panel * panels.panel_bytes..][..panels.panel_bytes];
                    let code = if format.bits() == 8 {
                        stored[column * 16 + lane]
                    } else {
                        let (first, shift) = nf4::place(lane);
                        stored[column / 2 * 16 + first + column % 2] >> shift & 15
                    };
                    let at = panel * scales.panel_floats + column / GROUP * 16 + lane;
                    let scale = scales.floats[at] / format.scale_factor();
                    assert_eq!(format.value(code) * scale, *want, "{format:?} [{row}, {column}]");
                }
            }
        }
    }

    #[test]
    fn refuses_what_does_not_fit_and_what_is_not_finite() {
        let mut weight = Weight::quantised(QuantFormat::Int8, 2, 3).unwrap();
        assert!(weight.write_rows(1, DType::F32, &[0; 24]).is_err());
        assert!(weight.stored_rows(0, 1, DType::F32).is_none());
        let infinite = [1.0, 2.0, f32::INFINITY].map(f32::to_le_bytes).concat();
        assert_eq!(
            weight.write_rows(1, DType::F32, &infinite),
            Err(KernelError::NotFinite { row: 1, column: 2 })
        );
        assert!(Weight::quantised(QuantFormat::Nf4, 0, 3).is_err());
        assert!(Weight::quantised(QuantFormat::Nf4, usize::MAX, 64).is_err());
    }

    #[test]
    fn made_up_numbers_are_those_of_the_other_dtypes() {
        let mut weight = Weight::quantised(QuantFormat::Int8, 5, 21).unwrap();
        weight.fill_uniform(7, 0.5).unwrap();
        let panels = weight.panels("test").unwrap();
        assert!(
            panels.bytes[..16 * 21]
                .chunks(16)
                .all(|column| column[5..] == [0; 11])
        );
        assert!(panels.bytes.iter().any(|code| *code == 127 || *code == 0x81));
    }
}
