//! The errors of a download, with their reasons and remedies.
//!
//! Owns which errors may be retried, and the mapping to [`crds::failure`]. Must not know how attempts are made.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crds::failure::{Failure, Reason, chain};
use reqwest::StatusCode;
use thiserror::Error;

/// Why a download failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The value of an option is invalid.
    #[error("{option} {value:?} is not {expected}")]
    InvalidOption {
        /// The name of the option.
        option: &'static str,
        /// Its value; never a token.
        value: String,
        /// The expected value.
        expected: &'static str,
    },
    /// A header cannot contain the token.
    #[error("the Hub token from {origin} must be one line of printable ASCII characters")]
    InvalidToken {
        /// Where the token came from.
        origin: String,
    },
    /// The HTTP client cannot be made.
    #[error("cannot make an HTTP client for {endpoint}")]
    Client {
        /// The Hub's address.
        endpoint: String,
        /// The client's error.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The connection failed.
    #[error("the connection to the Hub failed while reading {what}")]
    Connection {
        /// The listing, or a file.
        what: String,
        /// The client's error, without the address, which may contain a signature.
        #[source]
        source: reqwest::Error,
    },
    /// No byte arrived within the stall timeout.
    #[error("no byte of {what} arrived for {} s", timeout.as_secs_f32())]
    Stalled {
        /// The listing, or a file.
        what: String,
        /// The stall timeout.
        timeout: Duration,
    },
    /// The Hub answered with an unexpected status.
    #[error("the Hub answered {status} for {what}")]
    Status {
        /// The listing, or a file.
        what: String,
        /// The status.
        status: StatusCode,
        /// The wait that `Retry-After` requests.
        retry_after: Option<Duration>,
    },
    /// The Hub requires a token, or another one.
    #[error("the Hub denied access to {what} of {repo}: {status}{}", appended(message))]
    Unauthorized {
        /// The repository.
        repo: String,
        /// The listing, or a file.
        what: String,
        /// 401 or 403.
        status: StatusCode,
        /// The Hub's message; may be empty.
        message: String,
        /// Whether the request had a token.
        credentials: Credentials,
        /// The page on which a user requests access.
        page: String,
    },
    /// The repository does not exist, or is private.
    #[error("the repository {repo} does not exist on {endpoint}, or it is private")]
    RepoNotFound {
        /// The repository.
        repo: String,
        /// The Hub's address.
        endpoint: String,
    },
    /// The repository has no such branch, tag or commit.
    #[error("{repo} has no revision {revision:?}")]
    RevisionNotFound {
        /// The repository.
        repo: String,
        /// The requested revision.
        revision: String,
    },
    /// A file does not exist.
    #[error("the Hub has not found {what} of {repo}")]
    FileNotFound {
        /// The repository.
        repo: String,
        /// The listing, or a file.
        what: String,
    },
    /// The patterns select no file.
    #[error("the patterns match none of the {n_files} files of {repo}")]
    NothingSelected {
        /// The repository.
        repo: String,
        /// Files of the repository.
        n_files: usize,
    },
    /// No request may be sent to the Hub, and the folder does not have the files.
    #[error("HF_HUB_OFFLINE is set, and {} contains {found}, not all files of {repo} at {revision}", folder.display())]
    NotDownloaded {
        /// The repository.
        repo: String,
        /// The requested revision.
        revision: String,
        /// The folder.
        folder: PathBuf,
        /// What it contains.
        found: String,
    },
    /// The listing violates the Hub's protocol.
    #[error("the file listing of {repo} is not valid: {problem}")]
    InvalidListing {
        /// The repository.
        repo: String,
        /// What is wrong.
        problem: String,
    },
    /// A response contradicts the request or the listing.
    #[error("the response for {what} {problem}")]
    WrongResponse {
        /// The file.
        what: String,
        /// A verb and its object.
        problem: &'static str,
    },
    /// The content differs from the listing after two downloads.
    #[error("{file} has wrong content: expected {expected}, received {actual}")]
    ChecksumMismatch {
        /// The file.
        file: String,
        /// Size and hash in the listing.
        expected: String,
        /// Size and hash of the received bytes.
        actual: String,
    },
    /// A file of a complete download was changed, and the Hub cannot be reached to replace it.
    #[error("{} no longer has the content of its download, and the Hub is unreachable", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The configuration shows that the model cannot be served.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// The volume has too little free space.
    #[error("{} has too little free space: {needed_bytes} bytes are needed, {free_bytes} are free", path.display())]
    DiskFull {
        /// The destination.
        path: PathBuf,
        /// Bytes that the download still needs.
        needed_bytes: u64,
        /// Free bytes.
        free_bytes: u64,
    },
    /// Another process holds the lock of the destination.
    #[error("another process holds the lock {} for more than {} s", path.display(), waited.as_secs())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long this process waited.
        waited: Duration,
    },
    /// An operation on the file system failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// A verb.
        operation: &'static str,
        /// The object of the verb.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The address for the progress cannot be used.
    #[error("cannot listen on {address}")]
    Listen {
        /// The requested address.
        address: crate::listen::Address,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// All attempts failed.
    #[error("gave up after {n_attempts} attempts")]
    GaveUp {
        /// Consecutive attempts without progress.
        n_attempts: u32,
        /// Why the last one failed.
        #[source]
        source: Box<FetchError>,
    },
}

/// Whether a request had a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// It had one.
    Token,
    /// It had none.
    None,
}

impl FetchError {
    /// Whether a later attempt may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connection { source, .. } => !source.is_builder(),
            Self::Stalled { .. } | Self::WrongResponse { .. } | Self::GaveUp { .. } => true,
            Self::Status { status, .. } => {
                status.is_server_error()
                    || [
                        StatusCode::REQUEST_TIMEOUT,
                        StatusCode::TOO_EARLY,
                        StatusCode::TOO_MANY_REQUESTS,
                    ]
                    .contains(status)
            }
            Self::InvalidOption { .. }
            | Self::InvalidToken { .. }
            | Self::Client { .. }
            | Self::Unauthorized { .. }
            | Self::RepoNotFound { .. }
            | Self::RevisionNotFound { .. }
            | Self::FileNotFound { .. }
            | Self::NothingSelected { .. }
            | Self::NotDownloaded { .. }
            | Self::InvalidListing { .. }
            | Self::ChecksumMismatch { .. }
            | Self::Changed { .. }
            | Self::Refused(_)
            | Self::DiskFull { .. }
            | Self::Locked { .. }
            | Self::Io { .. }
            | Self::Listen { .. } => false,
        }
    }

    /// The wait that the Hub requests.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The reason, the message of this error and its causes, and the remedy, for the termination message.
    pub fn failure(&self) -> Failure {
        Failure::new(self.reason(), chain(self), self.remedy())
    }

    fn reason(&self) -> Reason {
        match self {
            Self::InvalidOption { .. }
            | Self::InvalidToken { .. }
            | Self::Listen { .. }
            | Self::NothingSelected { .. }
            | Self::NotDownloaded { .. } => Reason::InvalidSetting,
            Self::Unauthorized { .. } => Reason::DownloadUnauthorized,
            Self::RepoNotFound { .. } | Self::RevisionNotFound { .. } | Self::FileNotFound { .. } => {
                Reason::DownloadNotFound
            }
            Self::Stalled { .. } | Self::Locked { .. } => Reason::DownloadStalled,
            Self::DiskFull { .. } => Reason::DiskFull,
            Self::ChecksumMismatch { .. } | Self::Changed { .. } => Reason::ChecksumMismatch,
            Self::Client { .. }
            | Self::Connection { .. }
            | Self::Status { .. }
            | Self::InvalidListing { .. }
            | Self::WrongResponse { .. }
            | Self::Io { .. } => Reason::DownloadFailed,
            Self::Refused(failure) => failure.reason,
            Self::GaveUp { source, .. } => source.reason(),
        }
    }

    fn remedy(&self) -> String {
        match self {
            Self::InvalidOption { option, expected, .. } => format!("Set {option} to {expected}."),
            Self::InvalidToken { .. } => {
                "Store only the token in the Secret of spec.model.tokenSecretRef, without quotes or line breaks."
                    .to_owned()
            }
            Self::Unauthorized { credentials: Credentials::None, page, .. } => format!(
                "Set spec.model.tokenSecretRef to a Secret with a Hub token that can read the repository. If the \
                 repository is gated, request access on {page} first."
            ),
            Self::Unauthorized { credentials: Credentials::Token, page, .. } => format!(
                "Request access on {page} with the account of the token in spec.model.tokenSecretRef, or store \
                 another token there that can read the repository."
            ),
            Self::RepoNotFound { .. } => "Check the spelling of spec.model. If the repository is private, set \
                 spec.model.tokenSecretRef to a Secret with a Hub token that can read it."
                .to_owned(),
            Self::RevisionNotFound { repo, .. } => {
                format!("Set the revision to a branch, tag or commit of {repo}.")
            }
            Self::FileNotFound { .. } => "The repository may have changed during the download. Try again.".to_owned(),
            Self::NothingSelected { .. } => {
                "Change the allow and ignore patterns, or choose a repository with safetensors weights.".to_owned()
            }
            Self::NotDownloaded { .. } => {
                "Set MODEL_NAME and MODEL_REVISION to what was downloaded, or unset HF_HUB_OFFLINE.".to_owned()
            }
            Self::Connection { source, .. } if is_about_certificate(source) => {
                "Set spec.caBundle to a ConfigMap with the certificate of the authority that signed the Hub's \
                 certificate, or outside a cluster SSL_CERT_FILE to a file with it."
                    .to_owned()
            }
            Self::Stalled { .. } | Self::Connection { .. } | Self::Status { .. } | Self::WrongResponse { .. } => {
                "Check HF_ENDPOINT, and the network and proxy between the cluster and the Hub. The next start \
                 continues the download."
                    .to_owned()
            }
            Self::DiskFull { needed_bytes, free_bytes, .. } => format!(
                "Increase spec.cache.size by at least {} GiB.",
                needed_bytes.saturating_sub(*free_bytes).div_ceil(1 << 30).max(1)
            ),
            Self::ChecksumMismatch { .. } => {
                "A proxy or mirror between the cluster and the Hub changes files. Bypass it or clear its cache.".to_owned()
            }
            Self::Changed { path } => format!(
                "Restore access to the Hub, so that {} is downloaded again; find out who else writes to the volume.",
                path.display()
            ),
            Self::Locked { path, .. } => format!(
                "End the process that holds {}. Its end releases the lock.",
                path.display()
            ),
            Self::Client { .. } | Self::InvalidListing { .. } => {
                "Set HF_ENDPOINT to the address of a server that supports the Hub's protocol.".to_owned()
            }
            Self::Io { .. } => "Check that the cache volume is mounted and writable by the pod's user.".to_owned(),
            Self::Listen { .. } => "Choose a free address for --progress-listen.".to_owned(),
            Self::Refused(failure) => failure.remedy.clone(),
            Self::GaveUp { source, .. } => source.remedy(),
        }
    }
}

/// Makes an [`FetchError::Io`], for `map_err`.
pub(super) fn cannot(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FetchError {
    move |source| FetchError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

/// Whether a connection failed because this side does not trust the certificate of the other side.
fn is_about_certificate(error: &reqwest::Error) -> bool {
    chain(error).to_ascii_lowercase().contains("certificate")
}

/// A message as the end of another.
fn appended(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_the_message_of_all_causes_and_the_reason_of_the_first() {
        let stalled = FetchError::Stalled {
            what: "model.safetensors".to_owned(),
            timeout: Duration::from_secs(60),
        };
        let failure = FetchError::GaveUp {
            n_attempts: 6,
            source: Box::new(stalled),
        }
        .failure();
        assert_eq!(failure.reason, Reason::DownloadStalled);
        insta::assert_snapshot!(failure.message, @"gave up after 6 attempts: no byte of model.safetensors arrived for 60 s");
    }

    #[test]
    fn a_refusal_names_the_secret_and_the_page() {
        let refusal = |credentials| FetchError::Unauthorized {
            repo: "acme/gated".to_owned(),
            what: "config.json".to_owned(),
            status: StatusCode::UNAUTHORIZED,
            message: "Access is restricted.".to_owned(),
            credentials,
            page: "https://hub.example/acme/gated".to_owned(),
        };
        let failure = refusal(Credentials::None).failure();
        assert_eq!(failure.reason, Reason::DownloadUnauthorized);
        insta::assert_snapshot!(failure.message, @"the Hub denied access to config.json of acme/gated: 401 Unauthorized: Access is restricted.");
        for failure in [failure, refusal(Credentials::Token).failure()] {
            assert!(
                failure.remedy.contains("spec.model.tokenSecretRef"),
                "{}",
                failure.remedy
            );
            assert!(
                failure.remedy.contains("https://hub.example/acme/gated"),
                "{}",
                failure.remedy
            );
        }
    }

    #[test]
    fn the_remedy_of_a_full_disk_names_the_missing_space() {
        let full = FetchError::DiskFull {
            path: "/cache".into(),
            needed_bytes: 17 << 30,
            free_bytes: 10 << 30,
        };
        assert!(full.failure().remedy.contains("7 GiB"));
    }
}
