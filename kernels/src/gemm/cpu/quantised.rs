//! Panels of 8 and 4 bits (`weight/quantised.rs`), whose sums are multiplied by a scale per row and group of columns.

use super::storage::{F32, Storage};
use crate::cpu::simd::Simd;
use crate::weight::PANEL_ROWS;

/// Integers, a column after the other.
#[derive(Clone, Copy)]
pub(super) struct Int8;

impl Storage for Int8 {
    const STEP_BYTES: usize = 2 * PANEL_ROWS;
    const IS_SCALED: bool = true;
    type Widened = ScaledF32;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, step: *const u8, first_row: usize) -> [S::V; 2] {
        // SAFETY: within the step.
        unsafe {
            let first = step.cast::<i8>().add(first_row);
            [simd.load_i8(first), simd.load_i8(first.add(PANEL_ROWS))]
        }
    }
}

/// e4m3, a column after the other.
#[derive(Clone, Copy)]
pub(super) struct Fp8;

impl Storage for Fp8 {
    const STEP_BYTES: usize = 2 * PANEL_ROWS;
    const IS_SCALED: bool = true;
    type Widened = ScaledF32;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, step: *const u8, first_row: usize) -> [S::V; 2] {
        // SAFETY: within the step.
        unsafe {
            let first = step.add(first_row);
            [simd.load_e4m3(first), simd.load_e4m3(first.add(PANEL_ROWS))]
        }
    }
}

/// Levels of NF4, two codes a byte.
#[derive(Clone, Copy)]
pub(super) struct Nf4;

impl Storage for Nf4 {
    const STEP_BYTES: usize = PANEL_ROWS;
    const IS_SCALED: bool = true;
    type Widened = ScaledF32;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, step: *const u8, first_row: usize) -> [S::V; 2] {
        // SAFETY: within the step.
        unsafe { simd.load_nf4(step, first_row) }
    }
}

/// What they are once they are widened.
#[derive(Clone, Copy)]
pub(super) struct ScaledF32;

impl Storage for ScaledF32 {
    const STEP_BYTES: usize = F32::STEP_BYTES;
    const IS_SCALED: bool = true;
    const IS_DIRECT: bool = true;
    type Widened = ScaledF32;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, step: *const u8, first_row: usize) -> [S::V; 2] {
        // SAFETY: the caller's promise.
        unsafe { F32::load(simd, step, first_row) }
    }
}

#[cfg(test)]
mod tests {
    use crate::columns::Columns;
    use crate::cpu::context::CpuContext;
    use crate::cpu::isa::Isa;
    use crate::gemm::{Gemm, gemm};
    use crate::then::Then;
    use crate::weight::{DType, GROUP, QuantFormat, Weight};

    const FORMATS: [QuantFormat; 3] = [QuantFormat::Int8, QuantFormat::Fp8, QuantFormat::Nf4];

    fn numbers(seed: usize, n: usize) -> Vec<f32> {
        (0..n)
            .map(|i| ((i * 7919 + seed * 104_729) as f32 * 0.37).sin())
            .collect()
    }

    /// A weight and what its numbers were rounded to.
    fn quantised(format: QuantFormat, n_cols: usize, values: &[f32]) -> (Weight, Vec<f32>) {
        let mut weight = Weight::quantised(format, values.len() / n_cols, n_cols).unwrap();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        weight.write_rows(0, DType::F32, &bytes).unwrap();
        let mut rounded = values.to_vec();
        for row in rounded.chunks_mut(n_cols) {
            format.round(row, GROUP).unwrap();
        }
        (weight, rounded)
    }

    fn product(context: &CpuContext, x: &[f32], weight: &Weight, bias: Option<&[f32]>) -> Vec<f32> {
        let mut y = vec![f32::NAN; x.len() / weight.n_cols() * weight.n_rows()];
        gemm(context, Gemm::of_rows(x, weight, bias, &mut y)).unwrap();
        y
    }

    /// Compares every path with f64 arithmetic on the rounded weights, and each row of a batch with the row alone.
    fn check(format: QuantFormat, (m, n, k): (usize, usize, usize)) {
        let (x, bias) = (numbers(1, m * k), numbers(2, n));
        let (weight, rounded) = quantised(format, k, &numbers(3, n * k));
        for isa in Isa::available() {
            let context = CpuContext::with_isa(2, isa).unwrap();
            let y = product(&context, &x, &weight, Some(&bias));
            for i in 0..m {
                let x = &x[i * k..(i + 1) * k];
                for j in 0..n {
                    let w = &rounded[j * k..(j + 1) * k];
                    let products = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                    let size: f64 = products.clone().map(f64::abs).sum::<f64>() + 1.0;
                    let want = products.sum::<f64>() + f64::from(bias[j]);
                    let got = f64::from(y[i * n + j]);
                    let tolerance = f64::from(f32::EPSILON) * size * (GROUP + k / GROUP + 4) as f64;
                    assert!(
                        (got - want).abs() <= tolerance,
                        "{isa:?} {format:?} [{i}, {j}] {got} {want}"
                    );
                }
                let alone = product(&context, x, &weight, Some(&bias));
                assert_eq!(alone, y[i * n..(i + 1) * n], "{isa:?} {format:?} row {i} of {m}");
            }
        }
    }

    #[test]
    fn shapes_of_every_path() {
        for format in FORMATS {
            for m in [1, 2, 3, 4, 5, 6, 7, 13, 40] {
                check(format, (m, 37, 200));
            }
            check(format, (1, 1, 1));
            check(format, (2, 150, 64));
            check(format, (30, 16, 1100));
            check(format, (1, 2500, 515));
        }
    }

    #[test]
    fn every_code_is_read_as_its_value() {
        let context = |isa| CpuContext::with_isa(1, isa).unwrap();
        for format in FORMATS {
            // A row per code and one that makes the scale of its group 1.
            let codes: Vec<u8> = (0..1_u32 << format.bits())
                .map(|code| code as u8)
                .filter(|code| format.value(*code).abs() <= format.value_max())
                .collect();
            let values: Vec<f32> = codes
                .iter()
                .flat_map(|code| [format.value(*code), format.value_max()])
                .collect();
            let (weight, _) = quantised(format, 2, &values);
            for isa in Isa::available() {
                let y = product(&context(isa), &[1.0, 0.0], &weight, None);
                let want: Vec<f32> = codes.iter().map(|code| format.value(*code)).collect();
                assert_eq!(y, want, "{isa:?} {format:?}");
            }
        }
    }

    #[test]
    fn columns_of_wider_rows_and_sums_are_as_for_other_weights() {
        let (n, k) = (37, 130);
        let context = CpuContext::new(2).unwrap();
        for format in FORMATS {
            let (weight, _) = quantised(format, k, &numbers(3, n * k));
            for m in [1, 6, 20] {
                let x = numbers(1, m * (k + 9));
                let narrow: Vec<f32> = x.chunks(k + 9).flat_map(|row| &row[4..4 + k]).copied().collect();
                let want = product(&context, &narrow, &weight, None);
                let before = numbers(4, m * n);
                let mut y = before.clone();
                let op = Gemm {
                    x: &x,
                    x_columns: Columns {
                        row_stride: k + 9,
                        first: 4,
                    },
                    then: Then::AddTo { scale: 0.5 },
                    ..Gemm::of_rows(&[], &weight, None, &mut y)
                };
                gemm(&context, op).unwrap();
                for ((y, before), want) in y.iter().zip(&before).zip(&want) {
                    assert_eq!(*y, before + 0.5 * want, "{format:?} {m}");
                }
            }
        }
    }

    #[test]
    fn one_bad_row_stays_one_bad_row() {
        let context = CpuContext::new(2).unwrap();
        for format in FORMATS {
            let (weight, _) = quantised(format, 70, &numbers(3, 40 * 70));
            let mut x = numbers(1, 21 * 70);
            x[3 * 70 + 5] = f32::NAN;
            let y = product(&context, &x, &weight, None);
            for (i, row) in y.chunks(40).enumerate() {
                assert!(row.iter().all(|v| v.is_nan() == (i == 3)), "{format:?} {i}");
            }
        }
    }
}
