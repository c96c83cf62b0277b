//! Weights in memory: rows of one dtype, each starting on a cache line, or panels of rows for products on the CPU.

#[cfg(feature = "cuda")]
mod cuda;
mod panels;
mod quant;
mod quantised;
mod scales;

use half::{bf16, f16};

use crate::cpu::buffer::Buffer;
use crate::error::{Contract, KernelError};

#[cfg(feature = "cuda")]
pub use cuda::{Matrix, MatrixList};
pub(crate) use panels::{PANEL_ROWS, Panels};
pub use quant::{GROUP, NotFinite, QuantFormat};
pub(crate) use scales::{Quantised, Scales};

/// How a number is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an f32.
    BF16,
}

impl DType {
    /// Bytes of one number.
    pub fn size_bytes(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::BF16 => 2,
        }
    }

    /// Its usual name: `float32`, `float16` or `bfloat16`.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "float32",
            DType::F16 => "float16",
            DType::BF16 => "bfloat16",
        }
    }

    /// The numbers of little-endian `bytes`, widened to f32 (exact).
    ///
    /// # Errors
    /// The bytes do not divide into elements.
    pub fn widen(self, bytes: &[u8]) -> Result<Vec<f32>, KernelError> {
        Contract("widen").range(
            bytes.len().is_multiple_of(self.size_bytes()),
            "bytes",
            bytes.len(),
            "a whole number of elements",
        )?;
        Ok(match self {
            DType::F32 => bytes.chunks_exact(4).map(read_f32).collect(),
            DType::F16 => bytes.chunks_exact(2).map(|b| read_f16(b).to_f32()).collect(),
            DType::BF16 => bytes.chunks_exact(2).map(|b| read_bf16(b).to_f32()).collect(),
        })
    }
}

/// A weight matrix `[n_rows, n_cols]` in its stored dtype.
///
/// It is written row after row: rows start on a 64-byte line, and the space after a row's last element is zero. A
/// product on the CPU reads it in panels, which [`Weight::pack`] makes of the rows in place.
#[derive(Debug)]
pub struct Weight {
    /// Rows up to full panels.
    buffer: Buffer,
    dtype: DType,
    n_rows: usize,
    n_cols: usize,
    row_stride: usize,
    is_packed: bool,
    /// Codes have the place of numbers then.
    quantised: Option<Quantised>,
}

/// The numbers of a weight, typed.
#[derive(Clone, Copy)]
pub(crate) enum Elements<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    BF16(&'a [bf16]),
}

impl Weight {
    /// A matrix of zeros, to be filled by [`Weight::write_rows`].
    ///
    /// # Errors
    /// A size is zero, or there is no memory for it.
    pub fn zeroed(dtype: DType, n_rows: usize, n_cols: usize) -> Result<Weight, KernelError> {
        Contract("weight").range(n_rows > 0, "n_rows", n_rows, "at least 1")?;
        Contract("weight").range(n_cols > 0, "n_cols", n_cols, "at least 1")?;
        let row_stride = n_cols
            .checked_next_multiple_of(64 / dtype.size_bytes())
            .filter(|stride| *stride <= usize::MAX / 4)
            .ok_or(KernelError::Memory {
                what: "weight",
                size_bytes: u128::MAX,
            })?;
        let size_bytes = n_rows
            .checked_next_multiple_of(PANEL_ROWS)
            .and_then(|n_rows| n_rows.checked_mul(row_stride * dtype.size_bytes()))
            .ok_or(KernelError::Memory {
                what: "weight",
                size_bytes: u128::MAX,
            })?;
        let buffer = Buffer::zeroed("weight", size_bytes)?;
        Ok(Weight {
            buffer,
            dtype,
            n_rows,
            n_cols,
            row_stride,
            is_packed: false,
            quantised: None,
        })
    }

    /// Rows: the length of an output of a product with this weight.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Columns: the length of an input.
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// How the numbers are stored.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Bytes of the numbers, without the space between rows; of a quantised weight, those of codes and scales.
    pub fn size_bytes(&self) -> usize {
        match self.format() {
            Some(format) => format.size_bytes(self.n_rows, self.n_cols),
            None => self.n_rows * self.n_cols * self.dtype().size_bytes(),
        }
    }

    /// The memory of `n_rows` rows from `first_row` on, where a file of `dtype` holds just these bytes: rows without gaps,
    /// little-endian. `None` if they are to be converted, have gaps, or do not fit; [`Weight::write_rows`] writes such rows.
    pub fn stored_rows(&mut self, first_row: usize, n_rows: usize, dtype: DType) -> Option<&mut [u8]> {
        let is_same = dtype == self.dtype && cfg!(target_endian = "little");
        if self.is_packed || !is_same || self.row_stride != self.n_cols {
            return None;
        }
        let row_bytes = self.n_cols * dtype.size_bytes();
        let end = first_row.checked_add(n_rows).filter(|end| *end <= self.n_rows)?;
        let stored: &mut [u8] = self.buffer.as_mut_slice();
        stored.get_mut(first_row * row_bytes..end * row_bytes)
    }

    /// Writes rows from `first_row` on, converting from `dtype` (to nearest, ties to even).
    /// `bytes` holds the rows without gaps, little-endian.
    ///
    /// # Errors
    /// `bytes` does not divide into rows, they do not fit, the weight is packed, or it is quantised and a number is not
    /// finite; the rows before that one are written then.
    pub fn write_rows(&mut self, first_row: usize, dtype: DType, bytes: &[u8]) -> Result<(), KernelError> {
        if self.quantised.is_none() {
            self.require_packed("write_rows", false)?;
        }
        let row_bytes = self.n_cols * dtype.size_bytes();
        let n_rows = bytes.len() / row_bytes;
        Contract("write_rows").len("bytes", bytes.len(), n_rows * row_bytes)?;
        Contract("write_rows").range(
            first_row
                .checked_add(n_rows)
                .is_some_and(|end| end <= self.n_rows),
            "first_row",
            first_row,
            "such that the rows fit",
        )?;
        if self.quantised.is_some() {
            for (idx, row) in bytes.chunks_exact(row_bytes).enumerate() {
                self.write_quantised(first_row + idx, &dtype.widen(row)?)?;
            }
            return Ok(());
        }
        let own = self.dtype;
        let stored: &mut [u8] = self.buffer.as_mut_slice();
        let rows = stored
            .chunks_exact_mut(self.row_stride * own.size_bytes())
            .skip(first_row);
        for (to, from) in rows.zip(bytes.chunks_exact(row_bytes)) {
            convert_row(own, &mut to[..self.n_cols * own.size_bytes()], dtype, from);
        }
        Ok(())
    }

    /// Fills the matrix with numbers that are uniform between `-amplitude` and `amplitude`. The same seed gives the same
    /// numbers, up to the rounding of the dtype.
    ///
    /// # Errors
    /// The weight is packed.
    pub fn fill_uniform(&mut self, seed: u64, amplitude: f32) -> Result<(), KernelError> {
        let (dtype, n_rows, n_cols) = (self.dtype, self.n_rows, self.n_cols);
        if self.quantised.is_some() {
            let mut numbers = vec![0; n_cols * size_of::<f32>()];
            for row in 0..n_rows {
                let seed = seed.wrapping_add(mixed(row as u64));
                write_uniform(&mut numbers, seed, |v| (v * amplitude).to_le_bytes());
                self.write_rows(row, DType::F32, &numbers)?;
            }
            return Ok(());
        }
        self.require_packed("fill_uniform", false)?;
        let size = dtype.size_bytes();
        let stored: &mut [u8] = self.buffer.as_mut_slice();
        let rows = stored.chunks_exact_mut(self.row_stride * size).take(n_rows);
        for (row, to) in rows.enumerate() {
            let to = &mut to[..n_cols * size];
            let seed = seed.wrapping_add(mixed(row as u64));
            match dtype {
                DType::F32 => write_uniform(to, seed, |v| (v * amplitude).to_ne_bytes()),
                DType::F16 => write_uniform(to, seed, |v| f16::from_f32(v * amplitude).to_ne_bytes()),
                DType::BF16 => write_uniform(to, seed, |v| bf16::from_f32(v * amplitude).to_ne_bytes()),
            }
        }
        Ok(())
    }

    /// The rows as bytes, with the space after each.
    ///
    /// # Errors
    /// The weight is packed.
    #[cfg(feature = "cuda")]
    pub fn stored_bytes(&self) -> Result<&[u8], KernelError> {
        self.require_packed("stored_bytes", false)?;
        let size_bytes = self.n_rows * self.row_stride * self.dtype.size_bytes();
        Ok(&self.buffer.as_slice()[..size_bytes])
    }

    /// The numbers, typed, in the order of [`Weight::row_place`].
    pub(crate) fn elements(&self) -> Elements<'_> {
        match self.dtype {
            DType::F32 => Elements::F32(self.buffer.as_slice()),
            DType::F16 => Elements::F16(self.buffer.as_slice()),
            DType::BF16 => Elements::BF16(self.buffer.as_slice()),
        }
    }

    /// Returns an error of `op` unless the weight is packed, or is not.
    fn require_packed(&self, op: &'static str, is_packed: bool) -> Result<(), KernelError> {
        match (self.is_packed, is_packed) {
            (true, false) => Err(KernelError::Layout {
                op,
                must_be: "stored row after row, but it is packed",
            }),
            (false, true) => Err(KernelError::Layout {
                op,
                must_be: "packed into panels (Weight::pack)",
            }),
            _ => Ok(()),
        }
    }
}

/// Writes elements of `N` bytes that `stored` makes of numbers between -1 and 1: splitmix64, four numbers of 16 bits a
/// word.
fn write_uniform<const N: usize>(to: &mut [u8], seed: u64, stored: impl Fn(f32) -> [u8; N]) {
    for (i, to) in to.chunks_mut(4 * N).enumerate() {
        let word = mixed(seed.wrapping_add((i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        for (j, to) in to.chunks_exact_mut(N).enumerate() {
            let bits = (word >> (16 * j)) as u16 as i16;
            to.copy_from_slice(&stored(f32::from(bits) * (1.0 / 32_768.0)));
        }
    }
}

/// The finaliser of splitmix64.
fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Converts one row between little-endian dtypes.
fn convert_row(to_dtype: DType, to: &mut [u8], from_dtype: DType, from: &[u8]) {
    match (from_dtype, to_dtype) {
        (DType::F32, DType::F32) | (DType::F16, DType::F16) | (DType::BF16, DType::BF16) => {
            copy_native(to_dtype, to, from);
        }
        (DType::F32, DType::F16) => convert(to, from, |b| f16::from_f32(read_f32(b)).to_ne_bytes()),
        (DType::F32, DType::BF16) => convert(to, from, |b| bf16::from_f32(read_f32(b)).to_ne_bytes()),
        (DType::F16, DType::F32) => convert(to, from, |b| read_f16(b).to_f32().to_ne_bytes()),
        (DType::BF16, DType::F32) => convert(to, from, |b| read_bf16(b).to_f32().to_ne_bytes()),
        (DType::F16, DType::BF16) => {
            convert(to, from, |b| bf16::from_f32(read_f16(b).to_f32()).to_ne_bytes());
        }
        (DType::BF16, DType::F16) => {
            convert(to, from, |b| f16::from_f32(read_bf16(b).to_f32()).to_ne_bytes());
        }
    }
}

/// Applies `each` from elements of two or four bytes to elements of `N` bytes.
fn convert<const N: usize>(to: &mut [u8], from: &[u8], each: impl Fn(&[u8]) -> [u8; N]) {
    let from_size = from.len() / (to.len() / N);
    for (to, from) in to.chunks_exact_mut(N).zip(from.chunks_exact(from_size)) {
        to.copy_from_slice(&each(from));
    }
}

/// Copies little-endian elements into this machine's order.
fn copy_native(dtype: DType, to: &mut [u8], from: &[u8]) {
    to.copy_from_slice(from);
    if cfg!(target_endian = "big") {
        to.chunks_exact_mut(dtype.size_bytes()).for_each(<[u8]>::reverse);
    }
}

fn read_f32(b: &[u8]) -> f32 {
    f32::from_le_bytes([b[0], b[1], b[2], b[3]])
}

fn read_f16(b: &[u8]) -> f16 {
    f16::from_le_bytes([b[0], b[1]])
}

fn read_bf16(b: &[u8]) -> bf16 {
    bf16::from_le_bytes([b[0], b[1]])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A weight of `values`, rounded to `dtype`; with the rounded values, for references.
    pub(crate) fn weight_of(dtype: DType, n_cols: usize, values: &[f32]) -> (Weight, Vec<f64>) {
        let mut weight = Weight::zeroed(dtype, values.len() / n_cols, n_cols).unwrap();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        weight.write_rows(0, DType::F32, &bytes).unwrap();
        let rounded = values
            .iter()
            .map(|&v| match dtype {
                DType::F32 => f64::from(v),
                DType::F16 => f16::from_f32(v).to_f64(),
                DType::BF16 => bf16::from_f32(v).to_f64(),
            })
            .collect();
        (weight, rounded)
    }

    /// All stored numbers, in their order.
    pub(super) fn widened(weight: &Weight) -> Vec<f32> {
        match weight.elements() {
            Elements::F32(all) => all.to_vec(),
            Elements::F16(all) => all.iter().map(|v| v.to_f32()).collect(),
            Elements::BF16(all) => all.iter().map(|v| v.to_f32()).collect(),
        }
    }

    #[test]
    fn rows_start_on_lines_and_end_in_zeros() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let (weight, _) = weight_of(dtype, 5, &[1.5; 15]);
            assert_eq!(weight.row_stride * dtype.size_bytes(), 64);
            assert_eq!(weight.size_bytes(), 15 * dtype.size_bytes());
            for row in widened(&weight).chunks(weight.row_stride).take(3) {
                assert!(row[..5].iter().all(|&v| v == 1.5) && row[5..].iter().all(|&v| v == 0.0));
            }
        }
    }

    #[test]
    fn rows_without_gaps_of_the_same_dtype_are_shown_as_stored() {
        let (mut weight, _) = weight_of(DType::F32, 16, &[1.5; 48]);
        let shown = weight.stored_rows(1, 2, DType::F32).unwrap();
        assert_eq!(shown, [1.5_f32; 32].map(f32::to_le_bytes).as_flattened());
        assert!(weight.stored_rows(1, 3, DType::F32).is_none());
        assert!(weight.stored_rows(usize::MAX, 1, DType::F32).is_none());
        assert!(weight.stored_rows(0, 1, DType::BF16).is_none());
        let (mut weight, _) = weight_of(DType::F32, 15, &[1.5; 45]);
        assert!(weight.stored_rows(0, 1, DType::F32).is_none());
    }

    #[test]
    fn converts_between_all_dtypes() {
        for from in [DType::F32, DType::F16, DType::BF16] {
            for to in [DType::F32, DType::F16, DType::BF16] {
                let mut bytes = vec![0; 3 * from.size_bytes()];
                let numbers: Vec<u8> = [1.0_f32, -2.5, 0.375]
                    .iter()
                    .flat_map(|v| v.to_le_bytes())
                    .collect();
                convert_row(from, &mut bytes, DType::F32, &numbers);
                let mut converted = vec![0; 3 * to.size_bytes()];
                convert_row(to, &mut converted, from, &bytes);
                assert_eq!(
                    to.widen(&converted).unwrap(),
                    [1.0, -2.5, 0.375],
                    "{from:?} to {to:?}"
                );
            }
        }
    }

    #[test]
    fn a_seed_gives_the_same_numbers_in_every_dtype_and_leaves_the_gaps_zero() {
        let filled = |dtype, seed| {
            let mut weight = Weight::zeroed(dtype, 50, 21).unwrap();
            weight.fill_uniform(seed, 0.5).unwrap();
            let mut rows = widened(&weight);
            rows.truncate(50 * 32);
            rows
        };
        let wide = filled(DType::F32, 7);
        assert_eq!(wide, filled(DType::F32, 7));
        assert_ne!(wide, filled(DType::F32, 8));
        assert!(wide.iter().all(|v| v.abs() <= 0.5));
        let mean = wide.iter().sum::<f32>() / (50.0 * 21.0);
        assert!(mean.abs() < 0.05, "{mean}");
        for row in wide.chunks(32) {
            assert!(row[..21].iter().any(|&v| v != row[0]) && row[21..].iter().all(|&v| v == 0.0));
        }
        for (narrow, wide) in filled(DType::BF16, 7).chunks(32).zip(wide.chunks(32)) {
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= b.abs() / 128.0;
            assert!(narrow[..21].iter().zip(&wide[..21]).all(close));
        }
    }

    #[test]
    fn refuses_rows_that_do_not_fit() {
        let mut weight = Weight::zeroed(DType::F32, 2, 3).unwrap();
        assert!(weight.write_rows(0, DType::F32, &[0; 11]).is_err());
        assert!(weight.write_rows(1, DType::F32, &[0; 24]).is_err());
        assert!(weight.write_rows(usize::MAX, DType::F32, &[0; 12]).is_err());
        assert!(Weight::zeroed(DType::F32, 0, 3).is_err());
        assert!(Weight::zeroed(DType::F32, usize::MAX, 64).is_err());
    }
}
