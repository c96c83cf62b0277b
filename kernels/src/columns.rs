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

/// Where the columns of each head start in the rows of a matrix.
#[cfg(feature = "cuda")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadColumns {
    /// Elements of a row.
    pub row_stride: usize,
    /// Column of the first head.
    pub first: usize,
    /// Columns from one head to the next.
    pub step: usize,
}

#[cfg(feature = "cuda")]
impl HeadColumns {
    /// Checks that `n_heads` heads of `width` columns are within the rows; returns the number of rows.
    pub(crate) fn check(
        self,
        op: Contract,
        operand: &'static str,
        n_elements: usize,
        (n_heads, width): (usize, usize),
    ) -> Result<usize, KernelError> {
        op.range(n_heads > 0, "n_heads", n_heads, "at least 1")?;
        let last = (n_heads - 1).checked_mul(self.step);
        let last = last.and_then(|last| last.checked_add(self.first));
        op.range(last.is_some(), "step", self.step, "such that the heads fit")?;
        let columns = Columns {
            row_stride: self.row_stride,
            first: last.unwrap_or_default(),
        };
        columns.check(op, operand, n_elements, width)
    }
}
