//! Files of settings: read as text and as YAML.

use std::path::Path;

use serde_json::Value;

use super::ConfigError;

/// The documents of a YAML file; at least one, and null for an empty one.
pub(super) fn read_yaml(path: &Path) -> Result<Vec<Value>, ConfigError> {
    let text = read(path)?;
    let mut documents: Vec<Value> =
        serde_saphyr::from_multiple(&text).map_err(|error| ConfigError::Yaml {
            path: path.into(),
            reason: error.to_string(),
        })?;
    if documents.is_empty() {
        documents.push(Value::Null);
    }
    Ok(documents)
}

/// The text of a file.
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.into(),
        source,
    })
}
