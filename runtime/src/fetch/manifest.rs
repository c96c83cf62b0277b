//! The record that a download is complete, and what it brought.
//!
//! Owns `manifest.json`: its form and the questions asked of it. Must not know how it is written.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::hub::RemoteFile;
use super::select::Patterns;
use super::{FetchOptions, MANIFEST_FILE};

/// The content of `manifest.json`, written after every file of it is whole and on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Repository, `owner/name`.
    pub repo: String,
    /// Revision asked for: branch, tag or commit.
    pub revision: String,
    /// Commit that it stood for.
    pub commit: String,
    /// Patterns that chose the files.
    pub patterns: Patterns,
    /// The files, by path.
    pub files: Vec<RemoteFile>,
    /// Sum of their sizes.
    pub bytes: u64,
    /// When the last file was whole: Unix time in seconds.
    pub finished_at: u64,
}

impl Manifest {
    /// The record in a folder that [`super::fetch`] filled; `None` where there is none, or none that can be read.
    pub fn read(folder: &Path) -> Option<Self> {
        let text = fs::read(folder.join(MANIFEST_FILE)).ok()?;
        serde_json::from_slice(&text)
            .inspect_err(|error| tracing::warn!(%error, "the manifest is damaged and is left aside"))
            .ok()
    }

    /// Whether this is what `options` ask for, as long as the revision still means the same commit.
    pub(super) fn answers(&self, options: &FetchOptions) -> bool {
        let Self {
            repo,
            revision,
            commit,
            patterns,
            files: _,
            bytes: _,
            finished_at: _,
        } = self;
        let revision_fits = *revision == options.revision || *commit == options.revision;
        *repo == options.repo && revision_fits && *patterns == options.patterns
    }

    /// Whether `file` is part of it with the same content.
    pub(super) fn vouches_for(&self, file: &RemoteFile) -> bool {
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
    fn a_manifest_answers_its_revision_and_its_commit() {
        let mut options = FetchOptions::new("acme/m", "unused");
        assert!(manifest().answers(&options));
        options.revision = "c".repeat(40);
        assert!(manifest().answers(&options));
        options.revision = "v2".into();
        assert!(!manifest().answers(&options));
    }

    #[test]
    fn other_patterns_or_another_repository_are_another_download() {
        let mut options = FetchOptions::new("acme/m", "unused");
        options.patterns.ignore.push("*.txt".into());
        assert!(!manifest().answers(&options));
        assert!(!manifest().answers(&FetchOptions::new("acme/n", "unused")));
    }
}
