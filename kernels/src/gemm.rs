//! Matrix product with a weight: `y[m, n] = x[m, k] · Wᵀ + bias`, activations and sums in f32.

mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;

use crate::columns::Columns;
use crate::cpu::context::CpuContext;
use crate::error::{Contract, KernelError};
use crate::then::Then;
use crate::weight::Weight;

/// Operands of [`gemm`].
pub struct Gemm<'a> {
    /// Activations. `[m, x_columns.row_stride]`
    pub x: &'a [f32],
    /// Which columns of `x` are multiplied; there are `k`.
    pub x_columns: Columns,
    /// Weight. `[n, k]`
    pub weight: &'a Weight,
    /// Added to every row of the result. `[n]`
    pub bias: Option<&'a [f32]>,
    /// Result. `[m, y_columns.row_stride]`
    pub y: &'a mut [f32],
    /// Which columns of `y` are written; there are `n`.
    pub y_columns: Columns,
    /// What becomes of the products.
    pub then: Then,
}

impl<'a> Gemm<'a> {
    /// A product of whole rows that replaces `y`: `x` is `[m, k]` and `y` is `[m, n]`.
    pub fn of_rows(x: &'a [f32], weight: &'a Weight, bias: Option<&'a [f32]>, y: &'a mut [f32]) -> Gemm<'a> {
        Gemm {
            x,
            x_columns: Columns::all(weight.n_cols()),
            weight,
            bias,
            y,
            y_columns: Columns::all(weight.n_rows()),
            then: Then::Store,
        }
    }
}

/// `y = x · Wᵀ + bias`; `m` follows from the length of `x` and may be zero.
///
/// Each element is one sum in the order of the columns, accumulated in f32 with fused multiply-adds where the processor
/// has them; the error is below `k · 2⁻²⁴ · Σ|x·w|`. Where [`Isa::multiplies_bf16`](crate::Isa::multiplies_bf16) and the
/// weight is bf16, the activations are rounded to bf16 first, which adds at most `2⁻⁹ · Σ|x·w|`. AMX adds the products of
/// even and of odd columns of 32 apart, and neither it nor `vdpbf16ps` knows numbers below the smallest normal one.
///
/// # Errors
/// The lengths of `x`, `bias` or `y` do not agree with the weight, or it is not packed.
pub fn gemm(context: &CpuContext, op: Gemm<'_>) -> Result<(), KernelError> {
    let (n, k) = (op.weight.n_rows(), op.weight.n_cols());
    let m = op.x_columns.check(Contract("gemm"), "x", op.x.len(), k)?;
    op.y_columns.check(Contract("gemm"), "y", op.y.len(), n)?;
    Contract("gemm").len("y", op.y.len(), m * op.y_columns.row_stride)?;
    if let Some(bias) = op.bias {
        Contract("gemm").len("bias", bias.len(), n)?;
    }
    Contract("gemm").range(k <= K_MAX, "k", k, "at most 2^24")?;
    let panels = op.weight.panels("gemm")?;
    cpu::run(context, op, panels);
    Ok(())
}

/// Beyond this many columns the error bound is no longer worth having.
const K_MAX: usize = 1 << 24;

#[cfg(test)]
mod tests {
    use half::bf16;
    use proptest::prelude::*;

    use super::*;
    use crate::cpu::isa::Isa;
    use crate::weight::DType;
    use crate::weight::tests::weight_of;

    /// A packed weight; with the rounded values.
    fn packed(dtype: DType, n_cols: usize, values: &[f32]) -> (Weight, Vec<f64>) {
        let (mut weight, rounded) = weight_of(dtype, n_cols, values);
        weight.pack();
        (weight, rounded)
    }

    /// Pseudo-random numbers in -1..1, the same for the same seed.
    pub(super) fn numbers(seed: u64, n: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        (0..n)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    fn product(context: &CpuContext, x: &[f32], weight: &Weight, bias: Option<&[f32]>) -> Vec<f32> {
        let mut y = vec![f32::NAN; x.len() / weight.n_cols() * weight.n_rows()];
        gemm(context, Gemm::of_rows(x, weight, bias, &mut y)).unwrap();
        y
    }

    /// Every path that this processor has; says which ones it lacks.
    fn paths() -> Vec<Isa> {
        let available = Isa::available();
        for isa in Isa::ALL.iter().filter(|isa| !available.contains(isa)) {
            eprintln!("not run: this processor has no {}", isa.name());
        }
        available
    }

    /// Compares every path with f64 arithmetic, and each row of a batch with the row alone.
    fn check(dtype: DType, (m, n, k): (usize, usize, usize)) {
        let x = numbers(1, m * k);
        let bias = numbers(2, n);
        let (weight, w) = packed(dtype, k, &numbers(3, n * k));
        for isa in paths() {
            let context = CpuContext::with_isa(2, isa).unwrap();
            let rounds = dtype == DType::BF16 && isa.multiplies_bf16();
            let taken = |x: f32| {
                if rounds {
                    bf16::from_f32(x).to_f64()
                } else {
                    f64::from(x)
                }
            };
            let y = product(&context, &x, &weight, Some(&bias));
            for i in 0..m {
                for j in 0..n {
                    let products = (0..k).map(|l| taken(x[i * k + l]) * w[j * k + l]);
                    let size: f64 = products.clone().map(f64::abs).sum::<f64>() + 1.0;
                    let want = products.sum::<f64>() + f64::from(bias[j]);
                    let tolerance = f64::from(f32::EPSILON) * size * (k as f64 / 8.0 + 8.0);
                    let got = f64::from(y[i * n + j]);
                    assert!(
                        (got - want).abs() <= tolerance,
                        "{isa:?} {dtype:?} [{i}, {j}] {got} {want}"
                    );
                }
                let alone = product(&context, &x[i * k..(i + 1) * k], &weight, Some(&bias));
                assert_eq!(alone, y[i * n..(i + 1) * n], "{isa:?} {dtype:?} row {i} of {m}");
            }
        }
    }

    #[test]
    fn whole_blocks() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            check(dtype, (19, 64, 1088));
        }
    }

    #[test]
    fn more_rows_than_a_block() {
        check(DType::BF16, (cpu::ROWS_AT_ONCE + 3, 37, 72));
    }

    #[test]
    fn thin_products_split_over_threads() {
        check(DType::BF16, (1, 2500, 515));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn odd_shapes(m in 1_usize..24, n in 1_usize..40, k in 1_usize..90, which in 0_usize..3) {
            check([DType::F32, DType::F16, DType::BF16][which], (m, n, k));
        }
    }

    #[test]
    fn nothing_in_nothing_out() {
        let (weight, _) = packed(DType::F32, 2, &[1.0; 6]);
        let context = CpuContext::new(1).unwrap();
        assert_eq!(product(&context, &[], &weight, None), []);
    }

    #[test]
    fn columns_of_wider_rows_give_the_same_bits_and_leave_the_others() {
        let (n, k) = (37, 72);
        let (weight, _) = packed(DType::BF16, k, &numbers(3, n * k));
        let bias = numbers(2, n);
        let context = CpuContext::new(2).unwrap();
        for m in [1, 5, 16, 17, cpu::ROWS_AT_ONCE + 3] {
            let x = numbers(1, m * (k + 9));
            let narrow: Vec<f32> = x.chunks(k + 9).flat_map(|row| &row[4..4 + k]).copied().collect();
            let want = product(&context, &narrow, &weight, Some(&bias));
            let before = numbers(4, m * (n + 5));
            for then in [Then::Store, Then::AddTo { scale: 0.7 }] {
                let mut y = before.clone();
                let op = Gemm {
                    x: &x,
                    x_columns: Columns {
                        row_stride: k + 9,
                        first: 4,
                    },
                    weight: &weight,
                    bias: Some(&bias),
                    y: &mut y,
                    y_columns: Columns {
                        row_stride: n + 5,
                        first: 3,
                    },
                    then,
                };
                gemm(&context, op).unwrap();
                for (i, (&got, &old)) in y.iter().zip(&before).enumerate() {
                    let (row, column) = (i / (n + 5), i % (n + 5));
                    let expected = match column.checked_sub(3).filter(|j| *j < n) {
                        None => old,
                        Some(j) => match then {
                            Then::Store => want[row * n + j],
                            Then::AddTo { scale } => old + scale * want[row * n + j],
                        },
                    };
                    assert_eq!(got, expected, "{then:?} [{row}, {column}] of {m}");
                }
            }
        }
    }

    #[test]
    fn one_bad_row_stays_one_bad_row() {
        let (weight, _) = packed(DType::BF16, 20, &numbers(3, 40 * 20));
        let context = CpuContext::new(2).unwrap();
        let mut x = numbers(1, 21 * 20);
        x[3 * 20 + 5] = f32::NAN;
        let y = product(&context, &x, &weight, None);
        for (i, row) in y.chunks(40).enumerate() {
            assert_eq!(row.iter().all(|v| v.is_nan()), i == 3);
            assert_eq!(row.iter().any(|v| v.is_nan()), i == 3);
        }
    }

    #[test]
    fn refuses_lengths_that_disagree() {
        let (weight, _) = packed(DType::F32, 2, &[1.0; 6]);
        let context = CpuContext::new(1).unwrap();
        let mut y = [0.0; 3];
        let odd = gemm(&context, Gemm::of_rows(&[1.0; 3], &weight, None, &mut y));
        assert!(matches!(odd, Err(KernelError::Length { operand: "x", .. })));
        let long = gemm(&context, Gemm::of_rows(&[1.0; 4], &weight, None, &mut y));
        assert!(matches!(
            long,
            Err(KernelError::Length {
                operand: "y",
                want: 6,
                ..
            })
        ));
        let bias = gemm(&context, Gemm::of_rows(&[1.0; 2], &weight, Some(&[0.0]), &mut y));
        assert!(matches!(bias, Err(KernelError::Length { operand: "bias", .. })));
        let beyond = Gemm {
            x_columns: Columns {
                row_stride: 2,
                first: 1,
            },
            ..Gemm::of_rows(&[1.0; 2], &weight, None, &mut y)
        };
        assert!(matches!(
            gemm(&context, beyond),
            Err(KernelError::Range { got: 2, .. })
        ));
    }
}
