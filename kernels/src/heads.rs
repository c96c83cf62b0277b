//! Where heads lie in the rows of an activation.

use crate::error::{Contract, KernelError};

/// Heads side by side, somewhere in each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Elements of a row.
    pub row_stride: usize,
    /// First element of the first head in its row.
    pub first: usize,
    /// Heads.
    pub n_heads: usize,
    /// Elements from one head to the next.
    pub head_dim: usize,
}

impl Heads {
    /// A row that is one head.
    pub fn whole(width: usize) -> Heads {
        Heads {
            row_stride: width,
            first: 0,
            n_heads: 1,
            head_dim: width,
        }
    }

    /// All heads together as one.
    #[cfg(feature = "cuda")]
    pub(crate) fn as_one(self) -> Heads {
        Heads {
            n_heads: 1,
            head_dim: self.width(),
            ..self
        }
    }

    /// Elements from the first head to the end of the last one.
    pub(crate) fn width(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Checks that the heads are within the rows of `x`, which has `n_elements`; returns the number of rows.
    pub(crate) fn check(&self, op: &'static str, n_elements: usize) -> Result<usize, KernelError> {
        Contract(op).range(self.head_dim > 0, "head_dim", self.head_dim, "at least 1")?;
        Contract(op).range(self.n_heads > 0, "n_heads", self.n_heads, "at least 1")?;
        let end = self
            .n_heads
            .checked_mul(self.head_dim)
            .and_then(|width| width.checked_add(self.first));
        Contract(op).range(
            end.is_some_and(|end| end <= self.row_stride),
            "row_stride",
            self.row_stride,
            "at least first + n_heads * head_dim",
        )?;
        let n_rows = n_elements / self.row_stride;
        Contract(op).len("x", n_elements, n_rows * self.row_stride)?;
        Ok(n_rows)
    }
}
