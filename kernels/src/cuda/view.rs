//! A range of the device's memory, as ops take it.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use super::element::Element;

/// Elements at an address of the device.
///
/// It is a number, not a borrow: the owner of the [`super::DeviceBuffer`] keeps it until the work with its views is done.
pub struct View<T> {
    address: u64,
    len: usize,
    element: PhantomData<fn() -> T>,
}

impl<T> Clone for View<T> {
    fn clone(&self) -> View<T> {
        *self
    }
}

impl<T> Copy for View<T> {}

impl<T: Element> fmt::Debug for View<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}; {}] at {:#x}", T::NAME, self.len, self.address)
    }
}

impl<T: Element> View<T> {
    /// `len` elements at an address of the device.
    pub(super) fn new(address: u64, len: usize) -> View<T> {
        View {
            address,
            len,
            element: PhantomData,
        }
    }

    /// Address of the first element.
    pub fn address(self) -> u64 {
        self.address
    }

    /// Elements.
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether it has no element.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Bytes.
    pub fn size_bytes(self) -> usize {
        self.len * size_of::<T>()
    }

    /// A part of it.
    ///
    /// # Panics
    /// The range does not lie inside, as for slices.
    pub fn range(self, range: Range<usize>) -> View<T> {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "range {range:?} of a view of {} elements",
            self.len
        );
        View::new(
            self.address + (range.start * size_of::<T>()) as u64,
            range.end - range.start,
        )
    }

    /// The same bytes as elements of another type.
    ///
    /// # Panics
    /// The bytes do not divide into elements, or the address is not aligned for them.
    pub fn cast<U: Element>(self) -> View<U> {
        assert!(
            self.size_bytes().is_multiple_of(size_of::<U>())
                && self.address.is_multiple_of(align_of::<U>() as u64),
            "{self:?} as {}",
            U::NAME
        );
        View::new(self.address, self.size_bytes() / size_of::<U>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_counted_in_elements() {
        let view = View::<f32>::new(0x1000, 10);
        let part = view.range(2..5);
        assert_eq!((part.address(), part.len(), part.size_bytes()), (0x1008, 3, 12));
        assert!(view.range(10..10).is_empty());
        assert_eq!(part.cast::<u8>().len(), 12);
        assert_eq!(part.cast::<u8>().cast::<u32>().len(), 3);
        assert_eq!(format!("{part:?}"), "[f32; 3] at 0x1008");
    }

    #[test]
    #[should_panic(expected = "range 2..11")]
    fn a_range_lies_inside() {
        let _ = View::<f32>::new(0x1000, 10).range(2..11);
    }

    #[test]
    #[should_panic(expected = "as u32")]
    fn a_cast_keeps_the_alignment() {
        let _ = View::<u8>::new(0x1001, 8).cast::<u32>();
    }
}
