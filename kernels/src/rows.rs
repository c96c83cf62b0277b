//! Rows of activations moved without arithmetic, and their mean.

mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;

use crate::columns::Columns;
use crate::error::{Contract, KernelError};

/// `out[i] = x[rows[i]]`; `x` is `[m, d]` and `out` is `[rows.len(), d]`.
///
/// # Errors
/// `x` is not whole rows, or a row is beyond `x`; nothing was written then.
pub fn gather_rows(x: &[f32], rows: &[u32], out: &mut [f32]) -> Result<(), KernelError> {
    let Some(d) = out.len().checked_div(rows.len()) else {
        return Contract("gather_rows").len("out", out.len(), 0);
    };
    Contract("gather_rows").range(d > 0, "d", d, "at least 1")?;
    Contract("gather_rows").len("out", out.len(), rows.len() * d)?;
    Contract("gather_rows").len("x", x.len(), x.len() / d * d)?;
    for &row in rows {
        let inside = (row as usize) < x.len() / d;
        Contract("gather_rows").range(inside, "row", row as usize, "below the rows of x")?;
    }
    cpu::gather_rows(x, rows, out);
    Ok(())
}

/// Operands of [`copy_columns`].
pub struct CopyColumns<'a> {
    /// Rows that are read. `[m, x_columns.row_stride]`
    pub x: &'a [f32],
    /// Which columns of `x`.
    pub x_columns: Columns,
    /// How many columns.
    pub width: usize,
    /// Rows that are written. `[m, out_columns.row_stride]`
    pub out: &'a mut [f32],
    /// Which columns of `out`.
    pub out_columns: Columns,
}

/// Copies `width` columns of each row; the other columns of `out` stay as they are.
///
/// # Errors
/// The shapes do not agree; nothing was written then.
pub fn copy_columns(op: CopyColumns<'_>) -> Result<(), KernelError> {
    let m = op
        .x_columns
        .check(Contract("copy_columns"), "x", op.x.len(), op.width)?;
    op.out_columns
        .check(Contract("copy_columns"), "out", op.out.len(), op.width)?;
    Contract("copy_columns").len("out", op.out.len(), m * op.out_columns.row_stride)?;
    cpu::copy_columns(op);
    Ok(())
}

/// `out = mean of the rows of x`, added up from zero in their order; `x` is `[m, out.len()]`, with at least one row.
///
/// # Errors
/// `x` is not whole rows, or there are none.
pub fn mean_of_rows(x: &[f32], out: &mut [f32]) -> Result<(), KernelError> {
    let d = out.len();
    Contract("mean_of_rows").range(d > 0, "d", d, "at least 1")?;
    Contract("mean_of_rows").range(x.len() >= d, "x", x.len(), "at least one row")?;
    Contract("mean_of_rows").len("x", x.len(), x.len() / d * d)?;
    cpu::mean_of_rows(x, out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_gathered_in_any_order() {
        let x = [0.0, 1.0, 10.0, 11.0, 20.0, 21.0];
        let mut out = [0.0; 8];
        gather_rows(&x, &[2, 0, 0, 1], &mut out).unwrap();
        assert_eq!(out, [20.0, 21.0, 0.0, 1.0, 0.0, 1.0, 10.0, 11.0]);
        assert!(gather_rows(&x, &[], &mut []).is_ok());
        for (rows, n_out) in [(&[3][..], 2), (&[0], 4), (&[0, 1], 3), (&[], 2), (&[0], 0)] {
            assert!(
                gather_rows(&x, rows, &mut vec![0.0; n_out]).is_err(),
                "{rows:?} {n_out}"
            );
        }
    }

    #[test]
    fn only_the_columns_are_copied() {
        let x = [0.0, 1.0, 2.0, 10.0, 11.0, 12.0];
        let columns = |row_stride, first| Columns { row_stride, first };
        let copy = |out: &mut [f32], x_columns, out_columns| {
            copy_columns(CopyColumns {
                x: &x,
                x_columns,
                width: 2,
                out,
                out_columns,
            })
        };
        let mut out = [-1.0; 8];
        copy(&mut out, columns(3, 1), columns(4, 2)).unwrap();
        assert_eq!(out, [-1.0, -1.0, 1.0, 2.0, -1.0, -1.0, 11.0, 12.0]);
        assert!(copy(&mut out, columns(3, 2), columns(4, 2)).is_err());
        assert!(copy(&mut out, columns(3, 1), columns(4, 3)).is_err());
        assert!(copy(&mut out, columns(2, 0), columns(4, 0)).is_err());
        assert!(copy(&mut out, columns(0, 0), columns(4, 0)).is_err());
    }

    #[test]
    fn the_mean_of_rows() {
        let mut out = [f32::NAN; 2];
        mean_of_rows(&[1.0, -2.0, 2.0, 4.0, 6.0, 1.0], &mut out).unwrap();
        assert_eq!(out, [3.0, 1.0]);
        assert!(mean_of_rows(&[], &mut out).is_err());
        assert!(mean_of_rows(&[1.0; 3], &mut out).is_err());
        assert!(mean_of_rows(&[], &mut []).is_err());
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn the_device_gathers_rows() {
        use crate::cuda::testing::{downloaded, each_order, uploaded};
        each_order(|gpu| {
            for d in [1, 5, 8, 700] {
                let x: Vec<f32> = (0..3 * d).map(|i| i as f32).collect();
                let (on_device, rows) = (uploaded(gpu, &x), uploaded(gpu, &[2, 0, 3, 0]));
                let out = gpu.alloc(4 * d).unwrap();
                let op = cuda::GatherRows {
                    x: on_device.view(),
                    rows: rows.view(),
                    out: out.view(),
                };
                cuda::gather_rows(gpu, op).unwrap();
                let got = downloaded(gpu, out.view());
                let row = |i: usize| &x[i * d..(i + 1) * d];
                assert_eq!(got[..2 * d], [row(2), row(0)].concat());
                assert!(got[2 * d..3 * d].iter().all(|v| v.is_nan()), "beyond x");
                assert_eq!(got[3 * d..], *row(0));
                let short = cuda::GatherRows {
                    out: out.view().range(0..4 * d - 1),
                    ..op
                };
                assert!(cuda::gather_rows(gpu, short).is_err());
            }
        });
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn the_device_copies_the_columns_of_heads_only() {
        use crate::columns::HeadColumns;
        use crate::cuda::testing::{downloaded, each_order, uploaded};
        each_order(|gpu| {
            let x: Vec<f32> = (0..3 * 80).map(|i| i as f32).collect();
            let (on_device, out) = (uploaded(gpu, &x), uploaded(gpu, &[-1.0; 3 * 150]));
            let op = cuda::CopyHeads {
                x: on_device.view(),
                x_at: HeadColumns {
                    row_stride: 80,
                    first: 2,
                    step: 39,
                },
                n_heads: 2,
                width: 33,
                out: out.view(),
                out_at: HeadColumns {
                    row_stride: 150,
                    first: 10,
                    step: 70,
                },
            };
            cuda::copy_heads(gpu, op).unwrap();
            for (i, got) in downloaded(gpu, out.view()).into_iter().enumerate() {
                let (row, column) = (i / 150, i % 150);
                let (head, at) = (column.saturating_sub(10) / 70, column.saturating_sub(10) % 70);
                let is_copied = column >= 10 && at < 33 && head < 2;
                let want = if is_copied {
                    (row * 80 + 2 + head * 39 + at) as f32
                } else {
                    -1.0
                };
                assert_eq!(got, want, "{row} {column}");
            }
            assert!(cuda::copy_heads(gpu, cuda::CopyHeads { n_heads: 3, ..op }).is_err());
        });
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn the_device_averages_rows() {
        use crate::cuda::testing::{downloaded, each_order, uploaded};
        each_order(|gpu| {
            let d = 131;
            let x: Vec<f32> = (0..9 * d).map(|i| (i * 7 % 31) as f32 * 0.3).collect();
            let rows = [(0_u32, 1_u32), (2, 5), (0, 9), (8, 1), (8, 2), (3, 0)];
            let on_device = uploaded(gpu, &x);
            let first = uploaded(gpu, &rows.map(|rows| rows.0));
            let n_rows = uploaded(gpu, &rows.map(|rows| rows.1));
            let out = gpu.alloc(6 * d).unwrap();
            let op = cuda::MeanOfRows {
                x: on_device.view(),
                first: first.view(),
                n_rows: n_rows.view(),
                out: out.view(),
            };
            cuda::mean_of_rows(gpu, op).unwrap();
            let got = downloaded(gpu, out.view());
            for ((first, n), got) in rows.into_iter().zip(got.chunks_exact(d)) {
                if n == 0 || first + n > 9 {
                    assert!(got.iter().all(|v| v.is_nan()), "no such rows");
                    continue;
                }
                let mut want = vec![0.0; d];
                mean_of_rows(&x[first as usize * d..(first + n) as usize * d], &mut want).unwrap();
                assert_eq!(got, want, "in the order of the CPU");
            }
        });
    }
}
