//! Numbers and pieces of a file one after another, little-endian; its end is an error.

use std::ops::Range;

/// A place in a file.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    /// At `position` of `bytes`, which may be beyond the end.
    pub(super) fn at(bytes: &'a [u8], position: usize) -> Cursor<'a> {
        Cursor { bytes, position }
    }

    /// Bytes before this place.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// What comes after this place.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.position..).unwrap_or_default()
    }

    /// Where the next `n_bytes` are; moves to their end.
    pub(super) fn take_range(&mut self, n_bytes: usize) -> Result<Range<usize>, String> {
        if n_bytes > self.rest().len() {
            return Err(format!(
                "it has {} bytes, {n_bytes} more were to come at byte {}",
                self.bytes.len(),
                self.position
            ));
        }
        let range = self.position..self.position + n_bytes;
        self.position = range.end;
        Ok(range)
    }

    /// The next `n_bytes`.
    pub(super) fn take(&mut self, n_bytes: usize) -> Result<&'a [u8], String> {
        Ok(&self.bytes[self.take_range(n_bytes)?])
    }

    /// The next bytes as an array.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.take(N)?;
        Ok(bytes.try_into().expect("as many bytes were taken"))
    }

    /// The next byte.
    pub(super) fn u8(&mut self) -> Result<u8, String> {
        self.array().map(u8::from_le_bytes)
    }

    /// The next two bytes.
    pub(super) fn u16(&mut self) -> Result<u16, String> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next four bytes.
    pub(super) fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next eight bytes.
    pub(super) fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }
}
