//! The zip archive around a pickle: where its entries are.
//!
//! Only what `torch.save` writes: entries that are stored, not compressed, below one top folder. Format: PKWARE's
//! APPNOTE.TXT 6.3, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.14 to 4.3.16 (its end) and
//! 4.5.3 (sizes of 64 bits). The central directory counts; of a local header only its length and name are used.

use std::collections::HashMap;
use std::ops::Range;

use super::cursor::Cursor;
use super::limits::N_TENSORS_MAX;

/// Most entries: the storages, and a few small ones.
const N_ENTRIES_MAX: usize = N_TENSORS_MAX + 64;

/// Bytes of the record at the end, without the comment that may follow.
const END_BYTES: usize = 22;

/// A file whose entries have been found.
#[derive(Debug)]
pub(super) struct Archive<'a> {
    top: &'a str,
    entries: HashMap<&'a str, Range<usize>>,
}

/// Where the central directory is.
#[derive(Debug)]
struct Directory {
    offset: u64,
    size: u64,
    n_entries: u64,
}

impl<'a> Archive<'a> {
    /// Reads the central directory.
    ///
    /// # Errors
    /// Why the file is not such an archive, in words.
    pub(super) fn read(file: &'a [u8]) -> Result<Archive<'a>, String> {
        let directory = find_directory(file)?;
        let start = directory.offset;
        let end = start
            .checked_add(directory.size)
            .filter(|end| *end <= file.len() as u64);
        let end = end.ok_or("its directory is outside the file")?;
        if directory.n_entries > N_ENTRIES_MAX as u64 {
            return Err(format!(
                "it has {} entries, at most {N_ENTRIES_MAX} are read",
                directory.n_entries
            ));
        }
        let mut cursor = Cursor::at(&file[..end as usize], start as usize);
        let mut entries = HashMap::new();
        for _ in 0..directory.n_entries {
            let (name, place) = read_entry(file, &mut cursor)?;
            if entries.insert(name, place).is_some() {
                return Err(format!("{name} is there twice"));
            }
        }
        let mut tops = entries.keys().filter_map(|name| name.strip_suffix("/data.pkl"));
        let top = tops.next().ok_or("it has no data.pkl")?;
        if tops.next().is_some() {
            return Err("it has more than one data.pkl".to_owned());
        }
        Ok(Archive { top, entries })
    }

    /// Where the content of an entry below the top folder is.
    pub(super) fn find(&self, name: &str) -> Option<Range<usize>> {
        let name = format!("{}/{name}", self.top);
        self.entries.get(name.as_str()).cloned()
    }
}

/// The record at the end of the file holds where the directory is; if that takes 64 bits, another record before it holds it.
fn find_directory(file: &[u8]) -> Result<Directory, String> {
    let comments = 0..=usize::from(u16::MAX).min(file.len().saturating_sub(END_BYTES));
    let is_end = |at: usize, comment_len: usize| {
        let record = &file[at..];
        record.starts_with(b"PK\x05\x06")
            && record[END_BYTES - 2..END_BYTES] == (comment_len as u16).to_le_bytes()
    };
    let at = comments
        .filter_map(|comment_len| Some((file.len().checked_sub(END_BYTES + comment_len)?, comment_len)))
        .find_map(|(at, comment_len)| is_end(at, comment_len).then_some(at))
        .ok_or("it is an archive without an end")?;
    let mut record = Cursor::at(file, at + 8);
    let _entries_here = record.u16()?;
    let (n_entries, size, offset) = (record.u16()?, record.u32()?, record.u32()?);
    if n_entries != u16::MAX && size != u32::MAX && offset != u32::MAX {
        return Ok(Directory {
            offset: offset.into(),
            size: size.into(),
            n_entries: n_entries.into(),
        });
    }
    let locator = at
        .checked_sub(20)
        .ok_or("it is an archive without an end of 64 bits")?;
    let mut locator = Cursor::at(file, locator);
    expect(&mut locator, b"PK\x06\x07", "the place of the end of 64 bits")?;
    locator.take(4)?;
    let mut record = Cursor::at(file, usize::try_from(locator.u64()?).unwrap_or(usize::MAX));
    expect(&mut record, b"PK\x06\x06", "the end of 64 bits")?;
    record.take(28)?;
    Ok(Directory {
        n_entries: record.u64()?,
        size: record.u64()?,
        offset: record.u64()?,
    })
}

/// Reads a row of the directory: the name of an entry, and where its content is.
fn read_entry<'a>(file: &'a [u8], row: &mut Cursor<'a>) -> Result<(&'a str, Range<usize>), String> {
    expect(row, b"PK\x01\x02", "an entry of its directory")?;
    row.take(4)?;
    let (flags, method) = (row.u16()?, row.u16()?);
    row.take(8)?;
    let (stored_bytes, n_bytes) = (row.u32()?, row.u32()?);
    let lengths = [row.u16()?, row.u16()?, row.u16()?].map(usize::from);
    row.take(8)?;
    let header = row.u32()?;
    let name = std::str::from_utf8(row.take(lengths[0])?).map_err(|_| "the name of an entry is not UTF-8")?;
    let extra = row.take(lengths[1])?;
    row.take(lengths[2])?;
    let (n_bytes, stored_bytes, header) = wide(extra, [n_bytes, stored_bytes, header])?;
    let is_encrypted = flags & 1 != 0;
    if method != 0 || is_encrypted || stored_bytes != n_bytes {
        return Err(format!(
            "{name} is compressed or encrypted; torch.save stores it as it is"
        ));
    }
    let place = content(file, name, header)?;
    let bytes = usize::try_from(n_bytes).unwrap_or(usize::MAX);
    Ok((name, Cursor::at(file, place).take_range(bytes)?))
}

/// Where the content of an entry starts: after the header at `header`, which has the same name.
fn content(file: &[u8], name: &str, header: u64) -> Result<usize, String> {
    let mut header = Cursor::at(file, usize::try_from(header).unwrap_or(usize::MAX));
    expect(&mut header, b"PK\x03\x04", "the header of an entry")?;
    header.take(22)?;
    let (name_bytes, extra_bytes) = (header.u16()?, header.u16()?);
    if header.take(name_bytes.into())? != name.as_bytes() {
        return Err(format!("the header of {name} has another name"));
    }
    header.take(extra_bytes.into())?;
    Ok(header.position())
}

/// Size, stored size and place of an entry; those that are too large for 32 bits are in its extra field.
fn wide(extra: &[u8], narrow: [u32; 3]) -> Result<(u64, u64, u64), String> {
    const WIDE: u16 = 1;
    let mut fields = Cursor::at(extra, 0);
    let mut wide = Cursor::at(&[], 0);
    while fields.rest().len() >= 4 {
        let (kind, len) = (fields.u16()?, fields.u16()?);
        let field = fields.take(len.into())?;
        if kind == WIDE {
            wide = Cursor::at(field, 0);
        }
    }
    let mut number = |narrow: u32| {
        if narrow == u32::MAX {
            wide.u64()
        } else {
            Ok(narrow.into())
        }
    };
    Ok((number(narrow[0])?, number(narrow[1])?, number(narrow[2])?))
}

fn expect(cursor: &mut Cursor<'_>, signature: &[u8; 4], what: &str) -> Result<(), String> {
    let at = cursor.position();
    match cursor.array::<4>() {
        Ok(found) if found == *signature => Ok(()),
        _ => Err(format!("{what} was to be at byte {at}")),
    }
}
