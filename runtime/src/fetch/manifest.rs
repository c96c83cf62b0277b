//! The record of a complete download, `manifest.json`.
//!
//! Owns its form, its reading, and its comparison with options and files. Must not know how it is written.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::options::FetchOptions;
use super::remote_file::RemoteFile;
use super::select::Patterns;

/// Name of the record of a complete download. A repository's own file of this name is not downloaded.
pub const MANIFEST_FILE: &str = "manifest.json";

/// Largest manifest, bytes: that of a hundred thousand files.
pub(super) const MANIFEST_BYTES_MAX: u64 = 16 << 20;

/// The content of `manifest.json`, which is written after all its files are verified and on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Repository, `owner/name`.
    pub repo: String,
    /// Requested revision: branch, tag or commit.
    pub revision: String,
    /// Commit of the revision.
    pub commit: String,
    /// Patterns that selected the files.
    pub patterns: Patterns,
    /// The files.
    pub files: Vec<RemoteFile>,
    /// Sum of their sizes.
    pub bytes: u64,
    /// When the download was complete: Unix time in seconds.
    pub finished_at: u64,
}

impl Manifest {
    /// Reads the manifest of a folder that [`super::fetch`] filled; `None` if it does not exist or is damaged.
    pub fn read(folder: &Path) -> Option<Self> {
        let path = folder.join(MANIFEST_FILE);
        let metadata = fs::metadata(&path).ok()?;
        let is_readable = metadata.is_file() && metadata.len() <= MANIFEST_BYTES_MAX;
        Self::parse(&fs::read(path).ok().filter(|_| is_readable)?)
    }

    /// Parses a manifest; `None` if it is damaged.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text)
            .inspect_err(|error| tracing::warn!(%error, "ignoring a damaged manifest"))
            .ok()
    }

    /// Whether this is the download of `options`, if their revision still has the same commit.
    pub(super) fn satisfies(&self, options: &FetchOptions) -> bool {
        let Self {
            repo,
            revision,
            commit,
            patterns,
            files: _,
            bytes: _,
            finished_at: _,
        } = self;
        let is_revision = *revision == options.revision || *commit == options.revision;
        *repo == options.repo && is_revision && *patterns == options.patterns
    }

    /// Whether it contains `file` with the same content.
    pub(super) fn contains(&self, file: &RemoteFile) -> bool {
        self.files.contains(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            repo: "acme/m".into(),
            revision: "main".into(),
            commit: "c".repeat(40),
            patterns: Patterns::default(),
            files: Vec::new(),
            bytes: 0,
            finished_at: 1_700_000_000,
        }
    }

    #[test]
    fn a_manifest_satisfies_its_revision_and_its_commit() {
        let mut options = FetchOptions::new("acme/m", "unused");
        assert!(manifest().satisfies(&options));
        options.revision = "c".repeat(40);
        assert!(manifest().satisfies(&options));
        options.revision = "v2".into();
        assert!(!manifest().satisfies(&options));
    }

    #[test]
    fn other_patterns_or_another_repository_are_another_download() {
        let mut options = FetchOptions::new("acme/m", "unused");
        options.patterns.ignore.push("*.txt".into());
        assert!(!manifest().satisfies(&options));
        assert!(!manifest().satisfies(&FetchOptions::new("acme/n", "unused")));
    }
}
