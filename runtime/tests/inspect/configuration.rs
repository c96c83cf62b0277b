//! Checkpoint folders of the fixtures without their weights: config.json and what else is JSON.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

/// The configuration of a fixture.
pub(crate) fn configuration(name: &str) -> TempDir {
    #[derive(serde::Deserialize)]
    struct Description {
        files: BTreeMap<String, Value>,
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/oracle/checkpoints");
    let json = std::fs::read(root.join(format!("{name}.json"))).unwrap();
    let description: Description = serde_json::from_slice(&json).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (file, content) in description
        .files
        .iter()
        .filter(|(_, content)| !content.is_string())
    {
        let path = dir.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content.to_string()).unwrap();
    }
    dir
}
