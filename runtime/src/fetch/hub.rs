//! The Hub's protocol: the files of a repository at a revision, and the bytes of a file from an offset on.
//!
//! Owns addresses, credentials and the meaning of responses. `hf-hub` builds the addresses and the client. The caller
//! verifies the bytes. Must not know the disk.

use std::time::Duration;

use hf_hub::api::tokio::{Api, ApiBuilder, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use reqwest::header::{self, HeaderMap};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Deserialize;

use super::error::{Credentials, FetchError};
use super::options::FetchOptions;
use super::remote_file::{Identity, RemoteFile};
use super::retry::Retries;
use super::token::Token;

/// The default Hub.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Largest listing, in bytes. A listing of 100,000 files is smaller.
const LISTING_BYTES_MAX: usize = 16 << 20;
/// Longest message of the Hub that an error repeats, in characters.
const MESSAGE_CHARS_MAX: usize = 300;

/// The files of a repository at a commit.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<RemoteFile>,
}

/// A request for the bytes of a file.
pub(super) struct FileRequest<'a> {
    pub(super) commit: &'a str,
    pub(super) path: &'a str,
    /// The first byte.
    pub(super) offset: u64,
    /// The ETag of the bytes before `offset`. The server sends the complete file if its ETag differs.
    pub(super) etag: Option<&'a str>,
}

/// One repository on one Hub, at the requested revision.
pub(super) struct HubRepo {
    api: Api,
    endpoint: String,
    repo: String,
    revision: String,
    token: Option<Token>,
    stall_timeout: Duration,
}

impl HubRepo {
    pub(super) fn new(options: &FetchOptions) -> Result<Self, FetchError> {
        let endpoint = options
            .endpoint
            .as_deref()
            .unwrap_or(DEFAULT_ENDPOINT)
            .trim_end_matches('/')
            .to_owned();
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            let expected = "an http:// or https:// address";
            return Err(FetchError::InvalidOption {
                option: "HF_ENDPOINT",
                value: endpoint,
                expected,
            });
        }
        if options.token.is_some() && endpoint.starts_with("http://") {
            tracing::warn!(
                endpoint,
                "the Hub token is sent without encryption: the address is not https"
            );
        }
        // The builder gets no token, because `hf-hub` would then send it with each request, including redirected ones.
        // The cache is never used; without this one, the builder would search for a home folder.
        let api = ApiBuilder::from_cache(Cache::new(options.destination.clone()))
            .with_token(None)
            .with_progress(false)
            .with_endpoint(endpoint.clone())
            .with_user_agent("slipway", env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(|source| FetchError::Client {
                endpoint: endpoint.clone(),
                source: source.into(),
            })?;
        let (repo, revision) = (options.repo.clone(), options.revision.clone());
        Ok(Self {
            api,
            endpoint,
            repo,
            revision,
            token: options.token.clone(),
            stall_timeout: options.stall_timeout,
        })
    }

    /// The current commit of the revision, and its files.
    pub(super) async fn listing(&self, mut retries: Retries) -> Result<Listing, FetchError> {
        loop {
            match self.try_listing().await {
                Ok(listing) => return Ok(listing),
                Err(error) => retries.after(error).await?,
            }
        }
    }

    async fn try_listing(&self) -> Result<Listing, FetchError> {
        let what = "the file listing";
        let request = self.at(&self.revision).info_request().query(&[("blobs", "true")]);
        let mut response = self.send(request, what).await?;
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk(&mut response, what).await? {
            if body.len() + chunk.len() > LISTING_BYTES_MAX {
                return Err(self.invalid_listing(format!("it is longer than {LISTING_BYTES_MAX} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        let info: RepoInfo =
            serde_json::from_slice(&body).map_err(|e| self.invalid_listing(e.to_string()))?;
        // The commit becomes part of each address, so it is checked.
        if info.sha.len() != 40 || !info.sha.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(self.invalid_listing(format!("{:?} is not a commit", info.sha)));
        }
        let files = info
            .siblings
            .into_iter()
            .map(|sibling| self.remote_file(sibling))
            .collect::<Result<_, _>>()?;
        Ok(Listing {
            commit: info.sha,
            files,
        })
    }

    fn remote_file(&self, sibling: Sibling) -> Result<RemoteFile, FetchError> {
        let Sibling {
            rfilename: path,
            size,
            blob_id,
            lfs,
        } = sibling;
        let known = match (lfs, blob_id) {
            (Some(lfs), _) => Some((lfs.size, Identity::Sha256(lfs.sha256))),
            (None, Some(blob_id)) => size.map(|size| (size, Identity::GitBlob(blob_id))),
            (None, None) => None,
        };
        let Some((size, identity)) = known else {
            return Err(self.invalid_listing(format!("{path} has no size or no checksum")));
        };
        Ok(RemoteFile { path, size, identity })
    }

    /// Requests the bytes of a file. The status of the response is 200, 206 or 416.
    ///
    /// # Errors
    /// [`FetchError`] for another status, and for a connection that fails or stalls.
    pub(super) async fn open(&self, request: FileRequest<'_>) -> Result<Response, FetchError> {
        let FileRequest {
            commit,
            path,
            offset,
            etag,
        } = request;
        let url = self.at(commit).url(&url_path(path));
        // Compression would make lengths and offsets meaningless.
        let mut request = self
            .api
            .client()
            .get(url)
            .header(header::ACCEPT_ENCODING, "identity");
        if offset > 0 {
            request = request.header(header::RANGE, format!("bytes={offset}-"));
            if let Some(etag) = etag {
                request = request.header(header::IF_RANGE, etag);
            }
        }
        self.send(request, path).await
    }

    /// The next bytes of a response; an error if none arrive within the stall timeout.
    pub(super) async fn chunk(
        &self,
        response: &mut Response,
        what: &str,
    ) -> Result<Option<bytes::Bytes>, FetchError> {
        self.in_time(response.chunk(), what).await
    }

    async fn send(&self, request: RequestBuilder, what: &str) -> Result<Response, FetchError> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token.secret()),
            None => request,
        };
        let response = self.in_time(request.send(), what).await?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => Ok(response),
            _ => Err(self.refusal(response, what).await),
        }
    }

    async fn in_time<T>(
        &self,
        step: impl Future<Output = Result<T, reqwest::Error>>,
        what: &str,
    ) -> Result<T, FetchError> {
        let what = || what.to_owned();
        match tokio::time::timeout(self.stall_timeout, step).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(FetchError::Connection {
                what: what(),
                source: error.without_url(),
            }),
            Err(_elapsed) => Err(FetchError::Stalled {
                what: what(),
                timeout: self.stall_timeout,
            }),
        }
    }

    /// The error of a response without content. Without a token, the Hub answers 401 for both missing and private
    /// repositories; `X-Error-Code` distinguishes gated from unknown ones.
    async fn refusal(&self, response: Response, what: &str) -> FetchError {
        let status = response.status();
        let code = header_text(response.headers(), "x-error-code").unwrap_or_default();
        let retry_after = header_text(response.headers(), "retry-after")
            .and_then(|seconds| seconds.trim().parse().ok())
            .map(Duration::from_secs);
        let message: String = header_text(response.headers(), "x-error-message")
            .unwrap_or_default()
            .chars()
            .take(MESSAGE_CHARS_MAX)
            .collect();
        let repo = self.repo.clone();
        match (code.as_str(), status) {
            ("RepoNotFound", _) => FetchError::RepoNotFound {
                repo,
                endpoint: self.endpoint.clone(),
            },
            ("RevisionNotFound", _) => FetchError::RevisionNotFound {
                repo,
                revision: self.revision.clone(),
            },
            ("EntryNotFound", _) => FetchError::FileNotFound {
                repo,
                what: what.to_owned(),
            },
            ("GatedRepo", _) | (_, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                FetchError::Unauthorized {
                    page: format!("{}/{repo}", self.endpoint),
                    repo,
                    what: what.to_owned(),
                    status,
                    message,
                    credentials: if self.token.is_some() {
                        Credentials::Token
                    } else {
                        Credentials::None
                    },
                }
            }
            (_, StatusCode::NOT_FOUND) => FetchError::FileNotFound {
                repo,
                what: what.to_owned(),
            },
            _ => FetchError::Status {
                what: what.to_owned(),
                status,
                retry_after,
            },
        }
    }

    fn at(&self, revision: &str) -> ApiRepo {
        self.api.repo(Repo::with_revision(
            self.repo.clone(),
            RepoType::Model,
            url_path(revision),
        ))
    }

    fn invalid_listing(&self, problem: String) -> FetchError {
        FetchError::InvalidListing {
            repo: self.repo.clone(),
            problem,
        }
    }
}

#[derive(Deserialize)]
struct RepoInfo {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

/// Percent-encodes a path, because `hf-hub` does not. Slashes stay; `hf-hub` encodes them in a revision.
fn url_path(path: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    path.bytes()
        .map(|byte| {
            if keep(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

/// The text of a header; `None` if it is absent or not text.
pub(super) fn header_text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_encoded() {
        let options = FetchOptions::new("acme/m", "unused");
        let repo = HubRepo::new(&options).unwrap().at("refs/pr/1#x");
        assert_eq!(
            repo.url(&url_path("a b/ü?.json")),
            format!("{DEFAULT_ENDPOINT}/acme/m/resolve/refs%2Fpr%2F1%23x/a%20b/%C3%BC%3F.json")
        );
    }
}
