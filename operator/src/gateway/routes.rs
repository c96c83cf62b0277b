//! What the gateway does with each request.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use crds::demand::{self, DemandStatus};
use futures::{Stream, StreamExt, stream};
use prometheus_client::registry::Registry;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    balance::Strategy,
    body::{Budget, Head},
    destination::Target,
    directory::{Backend, Directory},
    error::Error,
    forward::{Forwarder, Outgoing, end_to_end},
    limits::Limits,
    listing,
    loads::Loads,
    metrics::Metrics,
    quotas::Quotas,
    usage,
};
use crate::metrics;

/// Media type of the text format of the metrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Time between two signs of life to the client of a held stream.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// A comment of the event stream format, which clients ignore.
const COMMENT: &[u8] = b": waiting for a replica\n\n";
/// Pieces between the task of a held stream and its client.
const PIECES_MAX: usize = 4;

/// A gateway.
#[derive(Clone)]
pub(super) struct Gateway {
    forwarder: Arc<Forwarder>,
    bodies: Budget,
    quotas: Arc<Quotas>,
    metrics: Metrics,
    is_stopping: CancellationToken,
}

impl Gateway {
    /// A gateway for the replicas of this directory, with limits for its clients.
    ///
    /// # Errors
    /// When the client for requests to replicas cannot be built.
    pub(super) fn new(
        directory: watch::Receiver<Arc<Directory>>,
        limits: watch::Receiver<Arc<Limits>>,
        strategy: Strategy,
        hold_timeout: Duration,
        metrics: Metrics,
    ) -> Result<Gateway, reqwest::Error> {
        Ok(Gateway {
            forwarder: Arc::new(Forwarder::new(
                directory,
                strategy,
                hold_timeout,
                metrics.clone(),
            )?),
            bodies: Budget::default(),
            quotas: Quotas::new(limits, metrics.clone()),
            metrics,
            is_stopping: CancellationToken::new(),
        })
    }

    /// The routes of clients: all.
    pub(super) fn router(&self) -> Router {
        Router::new().fallback(any).with_state(self.clone())
    }

    /// The routes of the kubelet, Prometheus and the operator.
    pub(super) fn control_router(&self, registry: Registry) -> Router {
        let registry = Arc::new(registry);
        let scrape =
            move || async move { ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics::text(&registry)) };
        Router::new()
            .route("/livez", get(|| async { "ok" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(scrape))
            .route(demand::PATH, get(held))
            .with_state(self.clone())
    }

    pub(super) fn loads(&self) -> Arc<Loads> {
        self.forwarder.loads()
    }

    pub(super) fn directory(&self) -> watch::Receiver<Arc<Directory>> {
        self.forwarder.directory()
    }

    /// From now on the kubelet finds the gateway unready.
    pub(super) fn is_stopping(&self) {
        self.is_stopping.cancel();
    }

    fn current(&self) -> Arc<Directory> {
        Arc::clone(&self.forwarder.directory().borrow())
    }

    async fn answer(&self, request: Request) -> Result<Response, Error> {
        let directory = self.current();
        let (parts, body) = request.into_parts();
        let target = Target::of(parts.uri.path());
        if is_listing(&parts.method, &target) {
            let headers = end_to_end(&parts.headers);
            return match directory.is_complete {
                true => Ok(listing::models(self.forwarder.http(), &directory, &headers).await),
                false => Err(Error::Starting),
            };
        }
        let mut body = self.bodies.read(body).await?;
        let head = Head::of(&body.bytes);
        let backends = target.backends(&directory, head.model())?;
        let query = parts
            .uri
            .query()
            .map_or(String::new(), |query| format!("?{query}"));
        let with_usage = usage::with_usage(target.path, &head, &body.bytes);
        let hides_usage = with_usage.is_some();
        if let Some(bytes) = with_usage {
            body.bytes = bytes;
        }
        let mut outgoing = Outgoing {
            path: format!("{}{query}", target.path),
            repetition: target.repetition(),
            method: parts.method,
            headers: end_to_end(&parts.headers),
            body,
            is_held: AtomicBool::new(false),
            visit: None,
            hides_usage,
        };
        if outgoing.is_work() {
            let body_bytes = outgoing.body.bytes.len();
            outgoing.visit = Some(self.quotas.admit(&backends[0], &outgoing.headers, body_bytes)?);
        }
        if head.is_streamed() {
            return self.stream(backends, outgoing).await;
        }
        let answer = self.forwarder.send(&backends, &outgoing).await?;
        Ok(answer.into_response(self.metrics.clone()))
    }

    /// Answers a request for a stream. While it waits for a replica, its client sees comments, because clients and proxies
    /// end connections that are silent.
    async fn stream(&self, backends: Vec<Arc<Backend>>, outgoing: Outgoing) -> Result<Response, Error> {
        let outgoing = Arc::new(outgoing);
        let (forwarder, sent) = (Arc::clone(&self.forwarder), Arc::clone(&outgoing));
        let mut sending = Box::pin(async move { forwarder.send(&backends, &sent).await });
        loop {
            match timeout(HEARTBEAT, &mut sending).await {
                Ok(answer) => return Ok(answer?.into_response(self.metrics.clone())),
                Err(_) if outgoing.is_held.load(Ordering::Relaxed) => break,
                Err(_) => {}
            }
        }
        let (pieces, received) = mpsc::channel(PIECES_MAX);
        let metrics = self.metrics.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = held_stream(sending, &pieces, metrics) => {}
                () = pieces.closed() => {}
            }
        });
        let headers = [
            (header::CONTENT_TYPE, "text/event-stream"),
            (header::CACHE_CONTROL, "no-cache"),
        ];
        let body = Body::from_stream(from_channel(received).map(Ok::<Bytes, Infallible>));
        Ok((headers, body).into_response())
    }
}

/// Sends comments until there is an answer, and then the answer. Its status can no longer be told, so an error is an event.
async fn held_stream(
    mut sending: impl Future<Output = Result<super::forward::Answer, Error>> + Unpin,
    pieces: &mpsc::Sender<Bytes>,
    metrics: Metrics,
) {
    let answer = loop {
        if pieces.send(Bytes::from_static(COMMENT)).await.is_err() {
            return;
        }
        if let Ok(answer) = timeout(HEARTBEAT, &mut sending).await {
            break answer;
        }
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return drop(pieces.send(Bytes::from(error.event())).await),
    };
    let is_error = answer.is_error();
    let mut body = Box::pin(answer.into_pieces(metrics));
    if is_error {
        let _client_left = pieces.send(Bytes::from_static(b"data: ")).await;
    }
    while let Some(piece) = body.next().await {
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => Bytes::from(error.event()),
        };
        if pieces.send(piece).await.is_err() {
            return;
        }
    }
    if is_error {
        let _client_left = pieces.send(Bytes::from_static(b"\n\n")).await;
    }
}

fn from_channel(received: mpsc::Receiver<Bytes>) -> impl Stream<Item = Bytes> {
    stream::unfold(received, |mut received| async {
        Some((received.recv().await?, received))
    })
}

async fn any(State(gateway): State<Gateway>, request: Request) -> Response {
    match gateway.answer(request).await {
        Ok(response) => response,
        Err(error) => {
            tracing::debug!(%error, "refused");
            let response = error.into_response();
            gateway.metrics.refused(response.status().as_u16());
            response
        }
    }
}

async fn held(State(gateway): State<Gateway>) -> Json<DemandStatus> {
    Json(gateway.forwarder.waiting().demand())
}

async fn ready(State(gateway): State<Gateway>) -> StatusCode {
    match gateway.current().is_complete && !gateway.is_stopping.is_cancelled() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn is_listing(method: &Method, target: &Target<'_>) -> bool {
    let path = target.path.trim_end_matches('/');
    let path = path.strip_prefix("/openai").unwrap_or(path);
    let is_models = path == "/v1/models" || path == "/models";
    method == Method::GET && is_models && target.key.is_none()
}
