//! A buffer that several threads write at once, each its own part.

use std::marker::PhantomData;

/// A mutable slice that hands out parts which the borrow checker cannot see to be disjoint, such as
/// column blocks of a row-major matrix.
pub(crate) struct DisjointMut<'a> {
    start: *mut f32,
    len: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: the only access is `part`, whose caller promises that no two live parts overlap.
unsafe impl Send for DisjointMut<'_> {}
// SAFETY: as above.
unsafe impl Sync for DisjointMut<'_> {}

impl<'a> DisjointMut<'a> {
    /// Borrows the slice for as long as parts of it are written.
    pub(crate) fn new(all: &'a mut [f32]) -> DisjointMut<'a> {
        DisjointMut {
            start: all.as_mut_ptr(),
            len: all.len(),
            borrow: PhantomData,
        }
    }

    /// The elements `at .. at + len`.
    ///
    /// # Panics
    /// The part is not within the buffer.
    ///
    /// # Safety
    /// No other part that overlaps this one may be alive.
    #[allow(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub(crate) unsafe fn part(&self, at: usize, len: usize) -> &mut [f32] {
        assert!(
            at.checked_add(len).is_some_and(|end| end <= self.len),
            "part outside the buffer"
        );
        // SAFETY: within the slice this was made from (checked above), which stays mutably borrowed for
        // 'a, and not aliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), len) }
    }
}
