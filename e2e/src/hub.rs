//! A model repository server that speaks the Hugging Face Hub's protocol, with faults on demand.
//!
//! Owns the routes, their headers and the record of requests. The folders `ROOT/<owner>/<name>/` are the
//! repositories; each has one revision, `main`, whose commit follows from the content. Large files (LFS) answer
//! with a redirect to a content path that needs no token, as the Hub's do. Protocol: the Hub's HTTP API as
//! `huggingface_hub` 0.34 uses it. Must not know who downloads.

mod config;
mod content;
mod error;
mod repository;

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use config::{Fault, FaultKind, HubConfig, RepositoryPolicy};
use content::Content;
use error::{HubError, header_value};
use repository::{Repository, Scanner};

/// The record keeps this many requests, the latest ones.
const RECORDS_MAX: usize = 10_000;
const X_REPO_COMMIT: HeaderName = HeaderName::from_static("x-repo-commit");
const X_LINKED_SIZE: HeaderName = HeaderName::from_static("x-linked-size");
const X_LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");

/// A server running inside a test, on two loopback ports: the Hub's and its content delivery network's. Stops
/// when dropped.
#[derive(Debug)]
pub struct Hub {
    state: HubState,
    address: SocketAddr,
    cdn_address: SocketAddr,
    servers: [JoinHandle<()>; 2],
}

impl Hub {
    /// Serves the repositories under `root`.
    ///
    /// # Errors
    /// When no loopback port can be opened.
    pub async fn start(root: impl Into<PathBuf>) -> io::Result<Self> {
        let hub = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let cdn = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, cdn_address) = (hub.local_addr()?, cdn.local_addr()?);
        let mut state = HubState::new(root.into(), HubConfig::default());
        state.cdn_url = Some(format!("http://{cdn_address}"));
        let servers = [hub, cdn].map(|listener| {
            let router = router(state.clone());
            tokio::spawn(async move {
                axum::serve(listener, router)
                    .await
                    .expect("axum::serve ends only with its task");
            })
        });
        Ok(Self {
            state,
            address,
            cdn_address,
            servers,
        })
    }

    /// What goes into `HF_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `host:port` that large files are redirected to.
    pub fn cdn_host(&self) -> String {
        self.cdn_address.to_string()
    }

    /// Replaces every policy and fault.
    pub fn configure(&self, config: HubConfig) {
        *self.state.config() = config;
    }

    /// Arms one fault of one repository, beside those already there.
    pub fn inject(&self, repo: &str, fault: Fault) {
        self.state
            .config()
            .repositories
            .entry(repo.to_owned())
            .or_default()
            .faults
            .push(fault);
    }

    /// The requests so far, oldest first.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.state.records().iter().cloned().collect()
    }

    /// Forgets the requests so far.
    pub fn clear_requests(&self) {
        self.state.records().clear();
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.servers.iter().for_each(JoinHandle::abort);
    }
}

/// One answered request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestRecord {
    /// GET or HEAD.
    pub method: String,
    /// `Host` header: tells the Hub's port from the content network's.
    pub host: String,
    /// Path as sent, without the query.
    pub path: String,
    /// `Range` header.
    pub range: Option<String>,
    /// `If-Range` header.
    pub if_range: Option<String>,
    /// Whether an `Authorization` header was sent; its value is never kept.
    pub authorized: bool,
    /// Status code of the answer.
    pub status: u16,
}

impl RequestRecord {
    fn of(request: &Request) -> Self {
        let text = |name| {
            request
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        Self {
            method: request.method().to_string(),
            host: text(header::HOST).unwrap_or_default(),
            path: request.uri().path().to_owned(),
            range: text(header::RANGE),
            if_range: text(header::IF_RANGE),
            authorized: request.headers().contains_key(header::AUTHORIZATION),
            status: 0,
        }
    }
}

/// What the routes share. Clones are handles on the same state.
#[derive(Clone, Debug)]
pub struct HubState {
    scanner: Arc<Scanner>,
    config: Arc<Mutex<HubConfig>>,
    records: Arc<Mutex<VecDeque<RequestRecord>>>,
    /// Where large files are redirected; without it, to this same server.
    cdn_url: Option<String>,
}

impl HubState {
    /// The state of a server for the repositories under `root`.
    pub fn new(root: PathBuf, config: HubConfig) -> Self {
        Self {
            scanner: Arc::new(Scanner::new(root)),
            config: Arc::new(Mutex::new(config)),
            records: Arc::default(),
            cdn_url: None,
        }
    }

    fn config(&self) -> MutexGuard<'_, HubConfig> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn records(&self) -> MutexGuard<'_, VecDeque<RequestRecord>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The repository as it lies on the disk now, if this caller may know that it exists.
    fn repository(&self, id: &str, token: Option<&str>) -> Result<Repository, HubError> {
        if self.config().policy(id).hides(token) {
            return Err(HubError::repo_not_found(token));
        }
        self.scanner
            .repository(id)?
            .ok_or_else(|| HubError::repo_not_found(token))
    }
}

/// Every route of the server.
pub fn router(state: HubState) -> Router {
    let control = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/control", get(read_config).post(write_config))
        .route("/control/requests", get(read_requests).delete(clear_requests));
    let hub = Router::new()
        .route("/api/models/{owner}/{name}", get(repo_info))
        .route("/api/models/{owner}/{name}/revision/{revision}", get(repo_info))
        .route("/{owner}/{name}/resolve/{revision}/{*path}", get(resolve))
        .route("/cdn/{owner}/{name}/{commit}/{*path}", get(deliver))
        .layer(middleware::from_fn_with_state(state.clone(), record));
    control.merge(hub).with_state(state)
}

async fn read_config(State(state): State<HubState>) -> Json<HubConfig> {
    Json(state.config().clone())
}

async fn write_config(State(state): State<HubState>, Json(config): Json<HubConfig>) -> StatusCode {
    *state.config() = config;
    StatusCode::NO_CONTENT
}

async fn read_requests(State(state): State<HubState>) -> Json<Vec<RequestRecord>> {
    Json(state.records().iter().cloned().collect())
}

async fn clear_requests(State(state): State<HubState>) -> StatusCode {
    state.records().clear();
    StatusCode::NO_CONTENT
}

async fn record(State(state): State<HubState>, request: Request, next: Next) -> Response {
    let mut record = RequestRecord::of(&request);
    let response = next.run(request).await;
    record.status = response.status().as_u16();
    let mut records = state.records();
    if records.len() == RECORDS_MAX {
        records.pop_front();
    }
    records.push_back(record);
    response
}

#[derive(Deserialize)]
struct RepoPath {
    owner: String,
    name: String,
    revision: Option<String>,
}

#[derive(Deserialize)]
struct InfoQuery {
    /// `true`, or `True` as Python's client writes it.
    #[serde(default)]
    blobs: String,
}

async fn repo_info(
    State(state): State<HubState>,
    Path(RepoPath {
        owner,
        name,
        revision,
    }): Path<RepoPath>,
    Query(query): Query<InfoQuery>,
    headers: HeaderMap,
) -> Result<Response, HubError> {
    let id = format!("{owner}/{name}");
    let repository = state.repository(&id, bearer(&headers))?;
    repository.check_revision(revision.as_deref().unwrap_or("main"))?;
    if let Some(refusal) = state.config().take_refusal(&id, None) {
        return Ok(refusal);
    }
    let policy = state.config().policy(&id);
    let blobs = query.blobs.eq_ignore_ascii_case("true");
    let siblings: Vec<_> = repository
        .files
        .iter()
        .map(|file| file.sibling_json(blobs))
        .collect();
    let gated = if policy.is_gated() {
        serde_json::json!("manual")
    } else {
        serde_json::json!(false)
    };
    let body = serde_json::json!({
        "id": id, "modelId": id, "sha": repository.commit, "private": policy.private, "gated": gated,
        "disabled": false, "tags": [], "downloads": 0, "likes": 0, "siblings": siblings,
    });
    Ok(Json(body).into_response())
}

#[derive(Deserialize)]
struct FilePath {
    owner: String,
    name: String,
    #[serde(alias = "commit")]
    revision: String,
    path: String,
}

async fn resolve(
    State(state): State<HubState>,
    Path(at): Path<FilePath>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, HubError> {
    let id = format!("{}/{}", at.owner, at.name);
    let token = bearer(&headers);
    let repository = state.repository(&id, token)?;
    repository.check_revision(&at.revision)?;
    if state.config().policy(&id).gates(token) {
        return Err(HubError::gated(&id, token));
    }
    let file = repository.file(&at.path)?;
    if method == Method::GET
        && let Some(refusal) = state.config().take_refusal(&id, Some(&at.path))
    {
        return Ok(refusal);
    }
    let mut response = if file.is_lfs() {
        redirect(
            &state,
            &headers,
            &format!(
                "cdn/{id}/{}/{}?signature=s",
                repository.commit,
                encoded_path(&uri)
            ),
        )
    } else {
        let fault = (method == Method::GET)
            .then(|| state.config().take_body_fault(&id, &at.path))
            .flatten();
        let etag = format!("\"{}\"", file.blob_id);
        Content {
            file: file.location.clone(),
            size: file.size,
            etag,
            fault,
        }
        .response(&headers)
        .await?
    };
    let linked = [
        (X_REPO_COMMIT, repository.commit.clone()),
        (X_LINKED_SIZE, file.size.to_string()),
        (X_LINKED_ETAG, format!("\"{}\"", file.identity())),
    ];
    for (name, value) in linked {
        response.headers_mut().insert(name, header_value(&value));
    }
    Ok(response)
}

/// 302 to the content path, which answers with an ETag of its own.
fn redirect(state: &HubState, headers: &HeaderMap, path: &str) -> Response {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or("localhost");
    let base = state.cdn_url.clone().unwrap_or_else(|| format!("http://{host}"));
    let location = header_value(&format!("{base}/{path}"));
    let accept = HeaderValue::from_static("bytes");
    (
        StatusCode::FOUND,
        [(header::LOCATION, location), (header::ACCEPT_RANGES, accept)],
    )
        .into_response()
}

/// The content path: anybody who has the signed address may read, and a token is no use here.
async fn deliver(
    State(state): State<HubState>,
    Path(at): Path<FilePath>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, HubError> {
    let id = format!("{}/{}", at.owner, at.name);
    let repository = state
        .scanner
        .repository(&id)?
        .ok_or_else(|| HubError::repo_not_found(None))?;
    repository.check_revision(&at.revision)?;
    let file = repository.file(&at.path)?;
    let fault = (method == Method::GET)
        .then(|| state.config().take_body_fault(&id, &at.path))
        .flatten();
    // An object store's ETag is its own, not the Hub's: a client must not mix the two.
    let etag = format!("\"cdn-{}\"", &file.identity()[..16]);
    Ok(Content {
        file: file.location.clone(),
        size: file.size,
        etag,
        fault,
    }
    .response(&headers)
    .await?)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .strip_prefix("Bearer ")
}

/// The path of the file in a request to `/{owner}/{name}/resolve/{revision}/{path}`, percent-encoded by the client.
fn encoded_path(uri: &Uri) -> &str {
    uri.path().splitn(6, '/').nth(5).unwrap_or_default()
}
