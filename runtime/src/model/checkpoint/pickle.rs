//! Weights that `torch.save` wrote: which tensor lies where, read without executing anything.
//!
//! Owns both layouts of such a file and the way from a pickled state dict to bytes. `archive` reads the zip
//! archive of torch 1.6 and later, `machine` interprets pickles, `globals` is the closed list of names that a
//! pickle may ask for. Sources: torch/serialization.py (`_save`, `_legacy_save`), torch/_utils.py (`_rebuild_*`)
//! and pickletools.py. A file may share storages between tensors, so the ranges returned here may overlap; they
//! lie within the file, which is all that the reader of safetensors promises too.

mod archive;
mod cursor;
mod globals;
mod limits;
mod machine;

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use archive::Archive;
use cursor::Cursor;
use machine::{Pickle, Storage, Tensor, Value};

use super::safetensors::{Entry, size_bytes};

/// What a file of torch before 1.6 begins with: a pickle of protocol 2 of the number 0x1950a86a20f9469cfc6c.
const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// The version of the older layout, the only one there is.
const LEGACY_VERSION: i64 = 1001;

/// Keys under which trainers keep the weights beside their own state.
const WRAPPERS: [&str; 2] = ["state_dict", "model"];

/// Reads where the tensors of a file are.
///
/// # Errors
/// Why the file is not one of `torch.save`, contains more than weights, or holds a tensor whose numbers do not
/// lie one after another, in words.
pub(in crate::model) fn read_checkpoint(file: &[u8]) -> Result<Vec<Entry>, String> {
    if file.starts_with(LEGACY_MAGIC) {
        read_legacy(file)
    } else if file.starts_with(b"PK\x03\x04") {
        read_archive(file)
    } else {
        Err("it begins like nothing that torch.save writes".to_owned())
    }
}

/// Torch 1.6 and later: an archive of the pickle and one entry for each storage.
fn read_archive(file: &[u8]) -> Result<Vec<Entry>, String> {
    let archive = Archive::read(file)?;
    if let Some(order) = archive.find("byteorder")
        && &file[order.clone()] != b"little"
    {
        return Err("its numbers are not little-endian".to_owned());
    }
    let code = archive.find("data.pkl").ok_or("it has no data.pkl")?;
    let (pickle, rest) = machine::load(&file[code])?;
    if !rest.is_empty() {
        return Err(format!("{} bytes follow its pickle", rest.len()));
    }
    entries(&pickle, |storage| archive.find(&format!("data/{}", storage.key)))
}

/// Torch before 1.6: five pickles (magic number, version, the machine's byte order, the object, the storages'
/// keys), then for each key the number of elements and the elements.
fn read_legacy(file: &[u8]) -> Result<Vec<Entry>, String> {
    let (version, rest) = machine::load(&file[LEGACY_MAGIC.len()..])?;
    if version.root != Value::Int(LEGACY_VERSION) {
        return Err(format!("its version is not {LEGACY_VERSION}"));
    }
    let (system, rest) = machine::load(rest)?;
    if system.get(system.root, "little_endian") != Some(Value::Bool(true)) {
        return Err("its numbers are not little-endian".to_owned());
    }
    let (pickle, rest) = machine::load(rest)?;
    let (keys, rest) = machine::load(rest)?;
    let known: HashMap<&str, &Storage> = pickle.storages.iter().map(|s| (s.key, s)).collect();
    let mut cursor = Cursor::at(file, file.len() - rest.len());
    let mut ranges = HashMap::new();
    for key in keys.list(keys.root).ok_or("its storages are not a list")? {
        let Value::Text(key) = *key else {
            return Err("the key of a storage is not a text".to_owned());
        };
        let storage = known
            .get(key)
            .ok_or_else(|| format!("no tensor has storage {key}"))?;
        if cursor.u64()? != storage.n_elements as u64 {
            return Err(format!("storage {key} has another length than its tensors say"));
        }
        let bytes = cursor.take_range(storage.size_bytes()?)?;
        if ranges.insert(key, bytes).is_some() {
            return Err(format!("storage {key} is there twice"));
        }
    }
    entries(&pickle, |storage| ranges.get(storage.key).cloned())
}

/// The tensors of a pickled state dict by name; `locate` returns where in the file a storage is.
fn entries<'a>(
    pickle: &'a Pickle<'_>,
    locate: impl Fn(&'a Storage<'_>) -> Option<Range<usize>>,
) -> Result<Vec<Entry>, String> {
    let (mut names, mut entries) = (HashSet::new(), Vec::new());
    for (key, value) in state_dict(pickle)? {
        let Value::Tensor(tensor_idx) = value else {
            continue;
        };
        let Value::Text(name) = key else {
            return Err("the name of a tensor is not a text".to_owned());
        };
        if !names.insert(name) {
            return Err(format!("{name} is there twice"));
        }
        let tensor = &pickle.tensors[tensor_idx];
        let storage = &pickle.storages[tensor.storage_idx];
        let place = locate(storage).ok_or_else(|| format!("{name}: storage {} is missing", storage.key))?;
        if place.len() != storage.size_bytes()? {
            return Err(format!(
                "{name}: storage {} has {} bytes, {} elements were said",
                storage.key,
                place.len(),
                storage.n_elements
            ));
        }
        entries.push(Entry {
            bytes: byte_range(tensor, place).map_err(|reason| format!("{name} {reason}"))?,
            dtype: tensor.dtype.to_owned(),
            shape: tensor.shape.clone(),
            name: name.to_owned(),
        });
    }
    if entries.is_empty() {
        return Err("it holds no tensors by name".to_owned());
    }
    Ok(entries)
}

/// The pairs of the dict that holds the weights, which may be wrapped in others.
fn state_dict<'a>(pickle: &'a Pickle<'_>) -> Result<impl Iterator<Item = (Value<'a>, Value<'a>)>, String> {
    let mut dict = pickle.root;
    // As often as there are wrappers: a dict may contain itself.
    for _ in WRAPPERS {
        let inner = WRAPPERS.iter().find_map(|key| pickle.get(dict, key));
        match inner {
            Some(inner @ Value::Dict(_)) => dict = inner,
            _ => break,
        }
    }
    pickle
        .pairs(dict)
        .ok_or_else(|| "it is not a dict of tensors".to_owned())
}

/// The bytes of a tensor whose storage lies at `place`.
fn byte_range(tensor: &Tensor, place: Range<usize>) -> Result<Range<usize>, String> {
    let size = size_bytes(tensor.dtype).ok_or("has elements that are not whole bytes")?;
    let n_bytes = tensor
        .shape
        .iter()
        .try_fold(size, |product, n| product.checked_mul(*n));
    let start = tensor.offset.checked_mul(size);
    let end = start.zip(n_bytes).and_then(|(start, n)| start.checked_add(n));
    let (Some(start), Some(end)) = (start, end.filter(|end| *end <= place.len())) else {
        return Err(format!(
            "of shape {:?} at {} is outside its storage",
            tensor.shape, tensor.offset
        ));
    };
    if !is_contiguous(tensor) {
        return Err(format!(
            "of shape {:?} has strides {:?}; save it with .contiguous()",
            tensor.shape, tensor.strides
        ));
    }
    Ok(place.start + start..place.start + end)
}

/// Whether the elements lie one after another, rows first. The product of the shape does not overflow.
fn is_contiguous(tensor: &Tensor) -> bool {
    if tensor.shape.contains(&0) {
        return true;
    }
    let mut expected = 1;
    let mut dimensions = tensor.shape.iter().zip(&tensor.strides).rev();
    dimensions.all(|(&n, &stride)| {
        let fits = n == 1 || stride == expected;
        expected *= n;
        fits
    })
}

#[cfg(test)]
mod tests;
