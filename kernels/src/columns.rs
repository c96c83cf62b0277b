//! Where a matrix lies within wider rows.

use crate::error::{Contract, KernelError};

/// Neighbouring columns of every row of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    /// Elements of a row.
    pub row_stride: usize,
    /// First of the columns.
    pub first: usize,
}

impl Columns {
    /// All columns of rows of `width` elements.
    pub fn all(width: usize) -> Columns {
        Columns {
            row_stride: width,
            first: 0,
        }
    }

    /// Checks that `width` columns are within the rows of `n_elements`; returns the number of rows.
    pub(crate) fn check(
        self,
        op: Contract,
        operand: &'static str,
        n_elements: usize,
        width: usize,
    ) -> Result<usize, KernelError> {
        let end = self.first.checked_add(width);
        op.range(
            self.row_stride > 0 && end.is_some_and(|end| end <= self.row_stride),
            "row_stride",
            self.row_stride,
            "at least 1 and at least the end of the columns",
        )?;
        let n_rows = n_elements / self.row_stride;
        op.len(operand, n_elements, n_rows * self.row_stride)?;
        Ok(n_rows)
    }
}
