//! The options of a download, and their checks.

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crds::failure::Failure;

use super::disk::free_bytes;
use super::error::FetchError;
use super::retry::RetryPolicy;
use super::select::Patterns;
use super::token::Token;

/// Files downloaded at once, at most. More connections do not help and look like an attack.
const N_PARALLEL_MAX: usize = 64;

/// What proves that a folder's files are those of its manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// Their sizes: nobody else writes to the volume.
    #[default]
    Sizes,
    /// Their content, which is read at each start: others may write to the volume.
    Contents,
}

/// Whether a model can be served, as far as the JSON files in a folder show.
pub type ConfigurationCheck = fn(&Path) -> Result<(), Failure>;

/// What to download, and how.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// Repository: `owner/name`, or `name` for the oldest ones.
    pub repo: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// Credential for the endpoint.
    pub token: Option<Token>,
    /// Address of the Hub; [`super::DEFAULT_ENDPOINT`] if absent.
    pub endpoint: Option<String>,
    /// Folder for the files, which keep their paths in the repository.
    pub destination: PathBuf,
    /// Which files to download.
    pub patterns: Patterns,
    /// Files downloaded at once.
    pub n_parallel: NonZeroUsize,
    /// An attempt fails after this time without a byte.
    pub stall_timeout: Duration,
    /// When to repeat a failed attempt.
    pub retry: RetryPolicy,
    /// What proves that a complete folder is intact.
    pub verify: Verify,
    /// Checks the configuration before anything else is downloaded.
    pub check: Option<ConfigurationCheck>,
    /// Returns the free bytes of a folder's file system. Tests replace it.
    pub free_bytes: fn(&Path) -> io::Result<u64>,
}

impl FetchOptions {
    /// Downloads the revision `main` of `repo` into `destination`, with the default options.
    pub fn new(repo: impl Into<String>, destination: impl Into<PathBuf>) -> Self {
        Self {
            repo: repo.into(),
            revision: "main".to_owned(),
            token: None,
            endpoint: None,
            destination: destination.into(),
            patterns: Patterns::default(),
            n_parallel: NonZeroUsize::new(4).expect("four is not zero"),
            stall_timeout: Duration::from_secs(60),
            retry: RetryPolicy::default(),
            verify: Verify::default(),
            check: None,
            free_bytes,
        }
    }

    /// # Errors
    /// [`FetchError::InvalidOption`].
    pub(super) fn check(&self) -> Result<(), FetchError> {
        let invalid = |option, value: &str, expected| {
            Err(FetchError::InvalidOption {
                option,
                value: value.to_owned(),
                expected,
            })
        };
        let is_name = |part: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            !part.is_empty() && !part.starts_with('.') && part.bytes().all(allowed)
        };
        let parts: Vec<&str> = self.repo.split('/').collect();
        if parts.len() > 2 || !parts.iter().all(|part| is_name(part)) {
            // No repository begins with a slash: somebody meant a directory, such as one of a claim.
            let expected = match self.repo.starts_with('/') {
                true => "a directory that exists",
                false => "a repository of the form owner/name",
            };
            return invalid("MODEL_NAME", &self.repo, expected);
        }
        if self.revision.is_empty()
            || self
                .revision
                .split('/')
                .any(|part| part.is_empty() || part == "..")
        {
            return invalid("MODEL_REVISION", &self.revision, "a branch, tag or commit");
        }
        if self.n_parallel.get() > N_PARALLEL_MAX {
            return invalid("--parallel", &self.n_parallel.to_string(), "a number up to 64");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_does_not_exist_is_no_directory() {
        let refused = FetchOptions::new("/models/absent", "unused").check();
        assert!(matches!(
            refused,
            Err(FetchError::InvalidOption {
                expected: "a directory that exists",
                ..
            })
        ));
    }

    #[test]
    fn names_that_would_change_an_address_are_refused() {
        for repo in ["", "a/b/c", "../x", "a/..", "a b/c", "a/b?c", "/b", "a/"] {
            let refused = FetchOptions::new(repo, "unused").check();
            assert!(
                matches!(
                    refused,
                    Err(FetchError::InvalidOption {
                        option: "MODEL_NAME",
                        ..
                    })
                ),
                "{repo}"
            );
        }
        for revision in ["", "a//b", "../main"] {
            let options = FetchOptions {
                revision: revision.into(),
                ..FetchOptions::new("a/b", "unused")
            };
            assert!(options.check().is_err(), "{revision}");
        }
        let pull_request = FetchOptions {
            revision: "refs/pr/1".into(),
            ..FetchOptions::new("gpt2", "unused")
        };
        assert!(pull_request.check().is_ok());
    }
}
