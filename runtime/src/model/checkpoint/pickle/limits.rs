//! The limit from which the limits of archives and pickles follow.

/// Most tensors of a file; the largest published files have some thousands.
pub(super) const N_TENSORS_MAX: usize = 1 << 16;
