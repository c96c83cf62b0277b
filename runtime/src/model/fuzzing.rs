//! What the fuzz targets call of the model's readers.

use super::checkpoint::{Entry, read_checkpoint, read_header};
use super::config::Fields;
use super::families;

/// Reads the header of a safetensors file.
pub fn safetensors(file: &[u8]) {
    check_within(file, &read_header(file, file.len()).unwrap_or_default());
}

/// Reads a file of torch.save.
pub fn pickle(file: &[u8]) {
    check_within(file, &read_checkpoint(file).unwrap_or_default());
}

fn check_within(file: &[u8], entries: &[Entry]) {
    for entry in entries {
        assert!(
            file.get(entry.bytes.clone()).is_some(),
            "{entry:?} is outside the file"
        );
    }
}

/// Describes the decoder of a config.json, and lists its tensors.
pub fn config(json: &[u8]) {
    let Ok(config) = Fields::from_bytes(json) else {
        return;
    };
    if let Ok(spec) = families::describe(&config) {
        let (_, weights) = spec.numbered();
        assert!(!weights.tensors().is_empty(), "{spec:?} has no tensors");
    }
}
