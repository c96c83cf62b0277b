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
}
