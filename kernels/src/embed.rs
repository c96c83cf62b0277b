//! Rows of a table, widened: token ids become activations.

mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;

use crate::cpu::context::CpuContext;
use crate::error::{Contract, KernelError};
use crate::then::Then;
use crate::weight::Weight;

/// Operands of [`embed`].
pub struct Embed<'a> {
    /// The table.
    pub table: &'a Weight,
    /// Rows of it. `[n]`
    pub ids: &'a [u32],
    /// Result. `[n, table.n_cols()]`
    pub out: &'a mut [f32],
    /// What becomes of the rows.
    pub then: Then,
}

/// `out[i] = table[ids[i]]`, widened to f32 (exact).
///
/// # Errors
/// An id is not below the table's rows, `out` has another length, or the table is quantised; nothing was written then.
pub fn embed(context: &CpuContext, op: Embed<'_>) -> Result<(), KernelError> {
    Contract("embed").len("out", op.out.len(), op.ids.len() * op.table.n_cols())?;
    for &id in op.ids {
        let inside = (id as usize) < op.table.n_rows();
        Contract("embed").range(inside, "id", id as usize, "below the table's rows")?;
    }
    if op.table.format().is_some() {
        return Err(KernelError::Layout {
            op: "embed",
            must_be: "of a dtype, but it is quantised",
        });
    }
    cpu::run(context, op);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weight::DType;
    use crate::weight::tests::weight_of;

    fn run(
        context: &CpuContext,
        table: &Weight,
        ids: &[u32],
        then: Then,
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        embed(
            context,
            Embed {
                table,
                ids,
                out,
                then,
            },
        )
    }

    #[test]
    fn refuses_a_quantised_table() {
        let context = CpuContext::new(1).unwrap();
        let table = Weight::quantised(crate::weight::QuantFormat::Int8, 3, 5).unwrap();
        let refused = run(&context, &table, &[2], Then::Store, &mut [0.0; 5]);
        assert!(matches!(refused, Err(KernelError::Layout { op: "embed", .. })));
    }

    #[test]
    fn gathers_rows_of_every_dtype() {
        let context = CpuContext::new(1).unwrap();
        let values: Vec<f32> = (0..15).map(|i| i as f32 * 0.3).collect();
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let (mut table, rounded) = weight_of(dtype, 5, &values);
            for is_packed in [false, true] {
                if is_packed {
                    table.pack();
                }
                let mut out = [f32::NAN; 15];
                run(&context, &table, &[2, 0, 2], Then::Store, &mut out).unwrap();
                let want = [&rounded[10..], &rounded[..5], &rounded[10..]].concat();
                assert_eq!(out.map(f64::from).to_vec(), want, "{dtype:?} {is_packed}");
                let mut out = [1.0; 15];
                run(&context, &table, &[2, 0, 2], Then::AddTo { scale: 1.0 }, &mut out).unwrap();
                let sum = want.iter().map(|v| 1.0 + *v as f32);
                assert_eq!(out.to_vec(), sum.collect::<Vec<_>>(), "{dtype:?} {is_packed}");
            }
        }
    }

    #[test]
    fn refuses_an_id_beyond_the_table() {
        let context = CpuContext::new(1).unwrap();
        let (table, _) = weight_of(DType::F32, 2, &[1.0; 6]);
        let refused = run(&context, &table, &[1, 3], Then::Store, &mut [0.0; 4]);
        assert!(matches!(refused, Err(KernelError::Range { got: 3, .. })));
        assert!(run(&context, &table, &[1], Then::Store, &mut [0.0; 4]).is_err());
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn the_device_gathers_rows_of_every_dtype() {
        use crate::cuda::testing::{downloaded, each_order, uploaded};
        use crate::weight::Matrix;
        each_order(|gpu| {
            for (dtype, n_cols) in [DType::F32, DType::F16, DType::BF16]
                .into_iter()
                .flat_map(|dtype| [5, 7, 36, 600].map(|n_cols| (dtype, n_cols)))
            {
                let values: Vec<f32> = (0..3 * n_cols).map(|i| i as f32 * 0.3).collect();
                let (table, rounded) = weight_of(dtype, n_cols, &values);
                let (_memory, table) = Matrix::upload(gpu, &table).unwrap();
                let ids = uploaded(gpu, &[2, 0, 7, 2]);
                let out = uploaded(gpu, &vec![1.0; 4 * n_cols]);
                let then = [Then::Store, Then::AddTo { scale: 0.5 }];
                for (then, sum) in then.into_iter().zip([(0.0, 1.0), (1.0, 0.5)]) {
                    gpu.upload(&vec![1.0; 4 * n_cols], out.view()).unwrap();
                    let op = cuda::Embed {
                        table,
                        ids: ids.view(),
                        out: out.view(),
                        then,
                    };
                    cuda::embed(gpu, op).unwrap();
                    let got = downloaded(gpu, out.view());
                    for (row, got) in [2, 0, 7, 2].into_iter().zip(got.chunks_exact(n_cols)) {
                        if row == 7 {
                            assert!(got.iter().all(|v| v.is_nan()), "beyond the table");
                            continue;
                        }
                        let row = &rounded[row * n_cols..][..n_cols];
                        let want: Vec<f32> = row.iter().map(|v| sum.0 + sum.1 * *v as f32).collect();
                        assert_eq!(got, want, "{dtype:?} {n_cols} {then:?}");
                    }
                }
            }
        });
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn the_device_replaces_ids_that_were_not_known() {
        use crate::cuda::testing::{downloaded, each_order, uploaded};
        each_order(|gpu| {
            let ids: Vec<u32> = (0..300).collect();
            let previous: Vec<i32> = (0..300).map(|i| if i % 3 == 0 { i / 3 } else { -1 }).collect();
            let (ids, previous) = (uploaded(gpu, &ids), uploaded(gpu, &previous));
            let drawn = uploaded(gpu, &(0..99).map(|i| 1000 + i).collect::<Vec<u32>>());
            let op = cuda::ResolveIds {
                ids: ids.view(),
                previous: previous.view(),
                drawn: drawn.view(),
            };
            cuda::resolve_ids(gpu, op).unwrap();
            for (i, got) in (0_u32..).zip(downloaded(gpu, ids.view())) {
                let want = if i % 3 == 0 && i < 297 { 1000 + i / 3 } else { i };
                assert_eq!(got, want);
            }
        });
    }
}
