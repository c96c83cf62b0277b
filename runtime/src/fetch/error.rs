//! How a download can fail, and which reason and remedy each failure has.
//!
//! Owns the error enum of `fetch`, which errors are worth another attempt, and the one mapping to
//! [`crds::failure`]. Must not know how attempts are made.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crds::failure::{Failure, Reason, chain};
use reqwest::StatusCode;
use thiserror::Error;

/// Why a download ended without a complete model.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetchError {
    /// An option has a value that cannot be used.
    #[error("{option} {value:?} is not {expected}")]
    InvalidOption {
        /// The option as the command line names it.
        option: &'static str,
        /// Its value; never a token.
        value: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// The token has characters that no header can carry.
    #[error("the Hub token from {origin} is not one line of printable ASCII")]
    InvalidToken {
        /// Where the token came from.
        origin: String,
    },
    /// The HTTP client could not be made.
    #[error("cannot set up the connection to {endpoint}")]
    Client {
        /// The Hub's address.
        endpoint: String,
        /// What the client says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A request or its answer broke off.
    #[error("the connection failed while reading {what}")]
    Connection {
        /// Listing or file.
        what: String,
        /// What the client says, without the address, which may be signed.
        #[source]
        source: reqwest::Error,
    },
    /// Nothing arrived for the stall timeout.
    #[error("no byte of {what} arrived for {} s", timeout.as_secs_f32())]
    Stalled {
        /// Listing or file.
        what: String,
        /// The stall timeout.
        timeout: Duration,
    },
    /// The Hub answered with a status that promises nothing.
    #[error("the Hub answered {status} for {what}")]
    Status {
        /// Listing or file.
        what: String,
        /// The status.
        status: StatusCode,
        /// What `Retry-After` asks for.
        retry_after: Option<Duration>,
    },
    /// The Hub wants a token, or a better one.
    #[error("the Hub refused {what} of {repo} with {status}{}", said(message))]
    Unauthorized {
        /// The repository.
        repo: String,
        /// Listing or file.
        what: String,
        /// 401 or 403.
        status: StatusCode,
        /// What the Hub says, possibly nothing.
        message: String,
        /// Whether a token was sent.
        credentials: Credentials,
        /// Page on which access is asked for.
        page: String,
    },
    /// The repository does not exist, or does not to this caller.
    #[error("there is no repository {repo} on {endpoint}, or it is private")]
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
        /// The revision asked for.
        revision: String,
    },
    /// A listed file is not there.
    #[error("{repo} has no {what}")]
    FileNotFound {
        /// The repository.
        repo: String,
        /// The file.
        what: String,
    },
    /// The patterns leave nothing to download.
    #[error("none of the {n_files} files of {repo} fits the patterns")]
    NothingSelected {
        /// The repository.
        repo: String,
        /// Files of the repository.
        n_files: usize,
    },
    /// The listing is not what the Hub's protocol says.
    #[error("the listing of {repo} cannot be used: {problem}")]
    InvalidListing {
        /// The repository.
        repo: String,
        /// What is wrong.
        problem: String,
    },
    /// An answer contradicts the request or the listing.
    #[error("the answer for {what} {problem}")]
    WrongAnswer {
        /// The file.
        what: String,
        /// A verb and its object.
        problem: &'static str,
    },
    /// The content is not what the listing promised, twice.
    #[error("{file} should be {expected} and is {actual}")]
    ChecksumMismatch {
        /// The file.
        file: String,
        /// Identity in the listing.
        expected: String,
        /// Identity of what arrived.
        actual: String,
    },
    /// The volume has too little room.
    #[error("{needed_bytes} bytes are still to be written to {} and {free_bytes} are free", path.display())]
    DiskFull {
        /// The destination.
        path: PathBuf,
        /// Bytes still to be written.
        needed_bytes: u64,
        /// Bytes free.
        free_bytes: u64,
    },
    /// Another process holds the destination for too long.
    #[error("another process has been downloading to {} for {} s", path.display(), waited.as_secs())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long this one waited.
        waited: Duration,
    },
    /// The file system refused an operation.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// A verb.
        operation: &'static str,
        /// Its object.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The address for progress could not be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: std::net::SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The last of several attempts failed like those before.
    #[error("gave up after {n_attempts} attempts")]
    GaveUp {
        /// Attempts in a row without progress.
        n_attempts: u32,
        /// Why the last one failed.
        #[source]
        source: Box<FetchError>,
    },
}

/// Whether a request carried a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// It did.
    Token,
    /// It did not.
    None,
}

impl FetchError {
    /// Whether another attempt may succeed, or, given up, may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connection { source, .. } => !source.is_builder(),
            Self::Stalled { .. } | Self::WrongAnswer { .. } | Self::GaveUp { .. } => true,
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
            | Self::InvalidListing { .. }
            | Self::ChecksumMismatch { .. }
            | Self::DiskFull { .. }
            | Self::Locked { .. }
            | Self::Io { .. }
            | Self::Listen { .. } => false,
        }
    }

    /// How long the Hub asked to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Reason, full message (this error and its causes) and remedy, for the termination message.
    pub fn failure(&self) -> Failure {
        Failure::new(self.reason(), chain(self), self.remedy())
    }

    fn reason(&self) -> Reason {
        match self {
            Self::InvalidOption { .. }
            | Self::InvalidToken { .. }
            | Self::Listen { .. }
            | Self::NothingSelected { .. } => Reason::InvalidSetting,
            Self::Unauthorized { .. } => Reason::DownloadUnauthorized,
            Self::RepoNotFound { .. } | Self::RevisionNotFound { .. } | Self::FileNotFound { .. } => {
                Reason::DownloadNotFound
            }
            Self::Stalled { .. } | Self::Locked { .. } => Reason::DownloadStalled,
            Self::DiskFull { .. } => Reason::DiskFull,
            Self::ChecksumMismatch { .. } => Reason::ChecksumMismatch,
            Self::Client { .. }
            | Self::Connection { .. }
            | Self::Status { .. }
            | Self::InvalidListing { .. }
            | Self::WrongAnswer { .. }
            | Self::Io { .. } => Reason::DownloadFailed,
            Self::GaveUp { source, .. } => source.reason(),
        }
    }

    fn remedy(&self) -> String {
        match self {
            Self::InvalidOption { option, expected, .. } => format!("Set {option} to {expected}."),
            Self::InvalidToken { .. } => {
                "Put the token alone, without quotes or line breaks, into the Secret of spec.model.tokenSecretRef."
                    .to_owned()
            }
            Self::Unauthorized { credentials: Credentials::None, page, .. } => format!(
                "Set spec.model.tokenSecretRef to a Secret with a Hub token that may read the repository; if it is \
                 gated, first ask for access on {page}."
            ),
            Self::Unauthorized { credentials: Credentials::Token, page, .. } => format!(
                "Ask for access on {page} with the account of the token in spec.model.tokenSecretRef, or put a \
                 valid token with read permission there."
            ),
            Self::RepoNotFound { .. } => "Check spec.model for spelling; if the repository is private, set \
                 spec.model.tokenSecretRef to a token that may read it."
                .to_owned(),
            Self::RevisionNotFound { repo, .. } => {
                format!("Set the revision to a branch, tag or commit of {repo}.")
            }
            Self::FileNotFound { .. } => "The repository changed during the download: try again.".to_owned(),
            Self::NothingSelected { .. } => {
                "Widen the allow patterns, or choose a repository with safetensors weights.".to_owned()
            }
            Self::Stalled { .. } | Self::Connection { .. } | Self::Status { .. } | Self::WrongAnswer { .. } => {
                "Check the network, proxy and HF_ENDPOINT between the cluster and the Hub; the next start goes on \
                 where this one stopped."
                    .to_owned()
            }
            Self::DiskFull { needed_bytes, free_bytes, .. } => format!(
                "Give the cache at least {} GiB more (spec.cache.size).",
                needed_bytes.saturating_sub(*free_bytes).div_ceil(1 << 30).max(1)
            ),
            Self::ChecksumMismatch { .. } => {
                "A proxy or mirror between the cluster and the Hub alters files: bypass or clear it.".to_owned()
            }
            Self::Locked { path, .. } => format!(
                "Find the process that holds {}; the lock goes away when it ends.",
                path.display()
            ),
            Self::Client { .. } | Self::InvalidListing { .. } => {
                "Check that HF_ENDPOINT is the address of a server with the Hub's protocol.".to_owned()
            }
            Self::Io { .. } => "Check that the cache volume is mounted and writable by the pod's user.".to_owned(),
            Self::Listen { .. } => "Choose a free address for --progress-listen.".to_owned(),
            Self::GaveUp { source, .. } => source.remedy(),
        }
    }
}

/// An `Io` error, for `map_err`.
pub(super) fn cannot(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FetchError {
    move |source| FetchError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

fn said(message: &str) -> String {
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
    fn a_failure_tells_the_whole_chain_and_the_reason_of_its_root() {
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
        insta::assert_snapshot!(failure.message, @"the Hub refused config.json of acme/gated with 401 Unauthorized: Access is restricted.");
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
    fn a_full_disk_says_how_much_is_missing() {
        let full = FetchError::DiskFull {
            path: "/cache".into(),
            needed_bytes: 17 << 30,
            free_bytes: 10 << 30,
        };
        assert!(full.failure().remedy.contains("7 GiB"));
    }
}
