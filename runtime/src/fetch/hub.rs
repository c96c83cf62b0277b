//! The Hub's protocol: what a repository holds at a revision, and a file's bytes from an offset on.
//!
//! Owns addresses, credentials and the meaning of answers. `hf-hub` builds the addresses and the client; the
//! bytes, their order and their safety are the caller's. Must not know the disk.

use std::time::Duration;

use hf_hub::api::tokio::{Api, ApiBuilder, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use reqwest::header::{self, HeaderMap};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::FetchOptions;
use super::error::{Credentials, FetchError};
use super::retry::Retries;

/// The Hub that is meant when no endpoint is given.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// A listing of a hundred thousand files fits; anything larger is no model.
const LISTING_BYTES_MAX: usize = 64 << 20;
/// As much of an error's text as a condition can show.
const MESSAGE_CHARS_MAX: usize = 300;

/// A Hub token. Never printed, and sent to the endpoint only: a redirect to another host drops it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token in `text`, surrounding white space left away; `None` where nothing else is there.
    ///
    /// # Errors
    /// [`FetchError::InvalidToken`] if a header cannot carry it; `origin` says where it came from.
    pub fn parse(text: &str, origin: &str) -> Result<Option<Self>, FetchError> {
        let text = text.trim();
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(FetchError::InvalidToken {
                origin: origin.to_owned(),
            });
        }
        Ok((!text.is_empty()).then(|| Self(text.to_owned())))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What a file's content is known by, in lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// SHA-256 of the content: files in LFS, so all weights.
    Sha256(String),
    /// Git's blob id, SHA-1 over `blob <size>\0<content>`: all others.
    GitBlob(String),
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sha256(digits) => write!(f, "SHA-256 {digits}"),
            Self::GitBlob(digits) => write!(f, "Git blob {digits}"),
        }
    }
}

/// One file of a repository at a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteFile {
    /// Path in the repository, and below the destination.
    pub path: String,
    /// Length in bytes.
    pub size: u64,
    /// What the content must be.
    #[serde(flatten)]
    pub identity: Identity,
}

/// A repository at a commit.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<RemoteFile>,
}

/// One repository on one Hub, at the revision asked for.
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
        // The builder gets no token: it would make it a default header of every request, redirected ones that
        // `hf-hub` itself starts included. Its cache is never used; without this one it would look for a home.
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

    /// The commit that the revision stands for now, and its files.
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
        // It becomes part of every address, so it has to be what it claims to be.
        if info.sha.len() != 40 || !info.sha.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(self.invalid_listing(format!("{:?} is no commit", info.sha)));
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
            return Err(self.invalid_listing(format!("{path} has no size and checksum")));
        };
        Ok(RemoteFile { path, size, identity })
    }

    /// Asks for a file's bytes from `offset` on. `validator` is the ETag under which the bytes before came; where the
    /// server now has another, it sends the whole file. The answer's status is 200, 206 or 416.
    pub(super) async fn open(
        &self,
        commit: &str,
        path: &str,
        offset: u64,
        validator: Option<&str>,
    ) -> Result<Response, FetchError> {
        let url = self.at(commit).url(&url_path(path));
        // Compression would make lengths and offsets meaningless.
        let mut request = self
            .api
            .client()
            .get(url)
            .header(header::ACCEPT_ENCODING, "identity");
        if offset > 0 {
            request = request.header(header::RANGE, format!("bytes={offset}-"));
            if let Some(etag) = validator {
                request = request.header(header::IF_RANGE, etag);
            }
        }
        self.send(request, path).await
    }

    /// The next bytes of an answer; an error if none come for the stall timeout.
    pub(super) async fn chunk(
        &self,
        response: &mut Response,
        what: &str,
    ) -> Result<Option<bytes::Bytes>, FetchError> {
        self.in_time(response.chunk(), what).await
    }

    async fn send(&self, request: RequestBuilder, what: &str) -> Result<Response, FetchError> {
        let request = match &self.token {
            Some(Token(token)) => request.bearer_auth(token),
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

    /// What an answer without content means. The Hub says 401 both for a missing and for a private repository when no
    /// token came; `X-Error-Code` tells gated from unknown.
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

/// Percent-encodes a path, which `hf-hub` puts into its addresses as it is. Slashes stay; in a revision `hf-hub`
/// encodes them.
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

/// A header as text, where it is there and is text.
pub(super) fn header_text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_trimmed_checked_and_never_printed() {
        let token = Token::parse(" hf_secret\n", "HF_TOKEN").unwrap().unwrap();
        assert_eq!(token, Token("hf_secret".to_owned()));
        assert_eq!(format!("{token:?}"), "Token(…)");
        assert_eq!(Token::parse("\n", "HF_TOKEN").unwrap(), None);
        let error = Token::parse("hf secret\u{e9}", "HF_TOKEN").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"));
    }

    #[test]
    fn addresses_are_encoded() {
        let options = FetchOptions::new("acme/m", "unused");
        let repo = HubRepo::new(&options).unwrap().at("refs/pr/1#x");
        assert_eq!(
            repo.url(&url_path("a b/ü?.json")),
            format!("{DEFAULT_ENDPOINT}/acme/m/resolve/refs%2Fpr%2F1%23x/a%20b/%C3%BC%3F.json")
        );
    }

    #[test]
    fn an_identity_is_one_field_of_its_file() {
        let file = RemoteFile {
            path: "a".into(),
            size: 1,
            identity: Identity::GitBlob("ce01".into()),
        };
        let json = serde_json::json!({"path": "a", "size": 1, "git_blob": "ce01"});
        assert_eq!(serde_json::to_value(&file).unwrap(), json);
        assert_eq!(serde_json::from_value::<RemoteFile>(json).unwrap(), file);
    }
}
