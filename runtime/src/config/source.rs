//! Where model files come from: a directory, or a repository of the hub.

use std::fmt;
use std::path::{Path, PathBuf};

use crds::modeldeployment::HuggingFace;

/// Where model files come from.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelSource {
    /// This directory.
    Directory(PathBuf),
    /// A download.
    Repository(Repository),
}

/// A repository of the hub.
#[derive(Clone, PartialEq)]
pub struct Repository {
    /// `owner/name`.
    pub repo: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// Address of the hub, if it is not the public one.
    pub endpoint: Option<String>,
    /// Token for the hub.
    pub token: Option<String>,
    /// Patterns of files to download.
    pub allow_patterns: Vec<String>,
    /// Patterns of files not to download.
    pub ignore_patterns: Vec<String>,
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Repository({}@{})", self.repo, self.revision)
    }
}

/// The hub, and the patterns of a ModelDeployment for the files of its model.
pub(super) struct Hub {
    pub(super) endpoint: Option<String>,
    pub(super) token: Option<String>,
    pub(super) allow_patterns: Vec<String>,
    pub(super) ignore_patterns: Vec<String>,
}

impl Hub {
    pub(super) fn new(repository: HuggingFace, token: Option<String>) -> Self {
        Self {
            endpoint: repository.endpoint,
            token,
            allow_patterns: repository.allow_patterns,
            ignore_patterns: repository.ignore_patterns,
        }
    }

    /// The directory with this name, if there is one, else the repository.
    pub(super) fn source(&self, name: &str, revision: String) -> ModelSource {
        if Path::new(name).is_dir() {
            return ModelSource::Directory(name.into());
        }
        ModelSource::Repository(Repository {
            repo: name.to_string(),
            revision,
            endpoint: self.endpoint.clone(),
            token: self.token.clone(),
            allow_patterns: self.allow_patterns.clone(),
            ignore_patterns: self.ignore_patterns.clone(),
        })
    }
}
