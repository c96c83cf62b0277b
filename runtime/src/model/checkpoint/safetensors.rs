//! The header of a safetensors file: which tensor lies where.
//!
//! Format: eight bytes of little-endian length, that many bytes of JSON, then the data; an entry maps a
//! name to `dtype`, `shape` and `data_offsets` within the data (github.com/huggingface/safetensors,
//! "Format"). Own code, because the crate adds offsets of the file without checking for overflow. Every
//! number in the header is untrusted: what is returned here lies within the file, and no
//! two tensors overlap.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};

/// Largest header. The format allows 100 MB; the largest published ones have a few megabytes, and what is read of one
/// takes several times its size.
const HEADER_BYTES_MAX: usize = 32 << 20;

/// Bytes of the length of the header, with which a file begins.
pub(super) const LENGTH_BYTES: usize = 8;

/// A tensor of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::model) struct Entry {
    /// Its name.
    pub(in crate::model) name: String,
    /// Its dtype as the file spells it.
    pub(in crate::model) dtype: String,
    /// Its shape.
    pub(in crate::model) shape: Vec<usize>,
    /// Its bytes within the file.
    pub(in crate::model) bytes: Range<usize>,
}

/// Bytes of length and header of a file that begins with `length`; those of the length alone if they do not announce a
/// header that is read.
pub(super) fn head_bytes(length: &[u8]) -> usize {
    let length = length.first_chunk().and_then(|length| header_len(*length));
    LENGTH_BYTES + length.unwrap_or(0)
}

fn header_len(length: [u8; LENGTH_BYTES]) -> Option<usize> {
    let length = usize::try_from(u64::from_le_bytes(length)).ok()?;
    (length <= HEADER_BYTES_MAX).then_some(length)
}

/// Reads the header of a file of `n_file_bytes`, which begins with `head`.
///
/// # Errors
/// Why the file is not one, in words.
pub(in crate::model) fn read_header(head: &[u8], n_file_bytes: usize) -> Result<Vec<Entry>, String> {
    let (length, rest) = head
        .split_first_chunk::<LENGTH_BYTES>()
        .ok_or("it is shorter than 8 bytes")?;
    let length = header_len(*length).ok_or("its header is longer than 32 MiB")?;
    let header = rest.get(..length).ok_or("it ends within its header")?;
    let data = length + LENGTH_BYTES..n_file_bytes;
    let header: Header =
        serde_json::from_slice(header).map_err(|error| format!("its header is not usable: {error}"))?;
    let mut entries = Vec::with_capacity(header.0.len());
    for (name, stored) in header.0 {
        entries.push(read_entry(name, stored, &data)?);
    }
    check_tiling(&mut entries, data)?;
    Ok(entries)
}

/// What a header says of the tensors. It is read straight into this form, because a tree of JSON values would take a
/// hundred times the bytes of a hostile text.
struct Header(Vec<(String, Stored)>);

/// What a header says of one tensor.
#[derive(Deserialize)]
struct Stored {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfTensors;
        impl<'de> Visitor<'de> for OfTensors {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with one entry for each tensor")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Header, M::Error> {
                let mut tensors = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        "__metadata__" => drop(map.next_value::<IgnoredAny>()?),
                        _ => tensors.push((name, map.next_value()?)),
                    }
                }
                Ok(Header(tensors))
            }
        }
        deserializer.deserialize_map(OfTensors)
    }
}

fn read_entry(name: String, stored: Stored, data: &Range<usize>) -> Result<Entry, String> {
    let Stored {
        dtype,
        shape,
        data_offsets: [start, end],
    } = stored;
    if start > end || end > data.len() {
        return Err(format!("the bytes {start}..{end} of {name} are outside the file"));
    }
    if let Some(size) = size_bytes(&dtype) {
        let claimed = shape.iter().try_fold(size, |product, n| product.checked_mul(*n));
        if claimed != Some(end - start) {
            return Err(format!(
                "{name} of shape {shape:?} and dtype {dtype} has {} bytes",
                end - start
            ));
        }
    }
    Ok(Entry {
        dtype,
        shape,
        bytes: data.start + start..data.start + end,
        name,
    })
}

/// Checks that the tensors fill the data, one after another.
fn check_tiling(entries: &mut [Entry], data: Range<usize>) -> Result<(), String> {
    entries.sort_by_key(|entry| (entry.bytes.start, entry.bytes.end));
    let mut end = data.start;
    for entry in entries {
        if entry.bytes.start != end {
            return Err(format!(
                "the bytes of {} overlap others or leave a gap",
                entry.name
            ));
        }
        end = entry.bytes.end;
    }
    if end != data.end {
        return Err(format!(
            "its tensors end at byte {end}, the file at byte {}",
            data.end
        ));
    }
    Ok(())
}

/// Bytes of an element, for dtypes whose elements are bytes; others are never read.
pub(super) fn size_bytes(dtype: &str) -> Option<usize> {
    match dtype {
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => Some(1),
        "I16" | "U16" | "F16" | "BF16" => Some(2),
        "I32" | "U32" | "F32" => Some(4),
        "I64" | "U64" | "F64" => Some(8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries_of(file: &[u8]) -> Result<Vec<Entry>, String> {
        read_header(file, file.len())
    }

    /// A file of a header and `n_data` bytes.
    fn file(header: &str, n_data: usize) -> Vec<u8> {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.resize(file.len() + n_data, 7);
        file
    }

    #[test]
    fn finds_tensors_in_the_order_of_the_file() {
        let header = r#"{"b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
            "__metadata__": {"format": "pt"}, "a": {"dtype": "BF16", "shape": [1, 2], "data_offsets": [0, 4]}}"#;
        let entries = entries_of(&file(header, 12)).unwrap();
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let start = header.len() + 8;
        assert_eq!(
            (entries[0].bytes.clone(), entries[1].bytes.clone()),
            (start..start + 4, start + 4..start + 12)
        );
        assert_eq!(
            (entries[0].shape.as_slice(), entries[0].dtype.as_str()),
            (&[1, 2][..], "BF16")
        );
    }

    #[track_caller]
    fn check_refused(file: &[u8], reason: &str) {
        let refused = entries_of(file).unwrap_err();
        assert!(refused.contains(reason), "{refused}");
    }

    #[test]
    fn lies_are_refused() {
        check_refused(&[], "shorter");
        check_refused(&[1; 7], "shorter");
        check_refused(&[0xff; 64], "32 MiB");
        check_refused(&file("{}", 0)[..9], "within its header");
        check_refused(&file("[1, 2]", 0), "an object with one entry for each tensor");
        check_refused(&file(&"[".repeat(100_000), 0), "not usable");
        check_refused(&file(r#"{"a": 1}"#, 0), "struct Stored");
        check_refused(&file(r#"{"a": {"shape": []}}"#, 0), "missing field `dtype`");
        check_refused(&file("{}", 3), "end at byte 10");
        let with = |entry: &str| file(&format!(r#"{{"a": {{"dtype": "F32", {entry}}}}}"#), 8);
        assert!(entries_of(&with(r#""shape": [2], "data_offsets": [0, 8]"#)).is_ok());
        for (entry, reason) in [
            (r#""shape": [2]"#, "missing field `data_offsets`"),
            (r#""shape": [-2], "data_offsets": [0, 8]"#, "expected usize"),
            (r#""shape": [2], "data_offsets": [0, 8, 8]"#, "not usable"),
            (r#""shape": [2], "data_offsets": [8, 0]"#, "outside the file"),
            (r#""shape": [2], "data_offsets": [0, 9]"#, "outside the file"),
            (
                r#""shape": [2], "data_offsets": [0, 18446744073709551615]"#,
                "outside the file",
            ),
            (r#""shape": [3], "data_offsets": [0, 8]"#, "has 8 bytes"),
            (
                r#""shape": [4611686018427387904, 4], "data_offsets": [0, 8]"#,
                "has 8 bytes",
            ),
            (r#""shape": [1], "data_offsets": [4, 8]"#, "gap"),
            (r#""shape": [1], "data_offsets": [0, 4]"#, "the file at byte"),
        ] {
            check_refused(&with(entry), reason);
        }
        let overlapping = r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            "b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}"#;
        check_refused(&file(overlapping, 8), "overlap");
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = entries_of(&bytes);
            let header = String::from_utf8_lossy(&bytes);
            let _ = entries_of(&file(&header, 8));
        }

        #[test]
        fn any_offsets_lie_in_the_file_or_are_refused(offsets in any::<[u64; 4]>(), shape in any::<[u64; 2]>()) {
            let [a, b, c, d] = offsets;
            let header = format!(
                r#"{{"a": {{"dtype": "U8", "shape": {shape:?}, "data_offsets": [{a}, {b}]}},
                    "b": {{"dtype": "X", "shape": [], "data_offsets": [{c}, {d}]}}}}"#
            );
            let bytes = file(&header, 16);
            for entry in entries_of(&bytes).unwrap_or_default() {
                prop_assert!(entry.bytes.end <= bytes.len());
            }
        }
    }
}
