//! Connections: accepted up to a number, timed while they send or take nothing, ended gracefully; with TLS or without.
//!
//! `axum::serve` has none of these bounds, so this speaks to hyper itself. Must not know what is served.

mod stall;

use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use stall::StallLimited;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::Peer;

/// Wait after an error of the operating system, such as too many open files, before the next attempt.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bounds of what clients may take without having sent a request.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Connections at a time; more wait in the operating system's queue.
    pub n_max: usize,
    /// Longest silence before or inside a request's head, and of a TLS handshake.
    pub head_timeout: Duration,
    /// Longest time in which a client reads nothing of what is sent.
    pub stall_timeout: Duration,
}

/// The port that clients connect to.
#[derive(Debug)]
pub struct Listener {
    /// The port.
    pub listener: TcpListener,
    /// Certificate and key; `None` serves without TLS.
    pub tls: Option<Arc<ServerConfig>>,
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self { listener, tls: None }
    }
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            n_max: 4096,
            head_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(60),
        }
    }
}

impl ConnectionLimits {
    /// Bounds for the control port: the kubelet, Prometheus and the operator keep few connections.
    pub fn control() -> Self {
        Self {
            n_max: 64,
            ..Self::default()
        }
    }
}

/// Serves until `stop` is cancelled, then takes no more connections and returns when those there are have ended,
/// each after the response it is at.
pub async fn serve(
    listener: impl Into<Listener>,
    router: Router,
    limits: ConnectionLimits,
    stop: CancellationToken,
) {
    let Listener { listener, tls } = listener.into();
    let acceptor = tls.map(TlsAcceptor::from);
    let places = Arc::new(Semaphore::new(limits.n_max));
    let connections = TaskTracker::new();
    while let Some((stream, place)) = next(&listener, &places, &stop).await {
        let service = Service {
            router: of_peer(&router, &stream),
            limits,
            stop: stop.clone(),
        };
        connections.spawn(service.connection(stream, acceptor.clone(), place));
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// The next connection and its place; `None` once there are to be no more.
async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let accept = async {
        let place = Arc::clone(places).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((stream, place)),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        accepted = accept => accepted,
        () = stop.cancelled() => None,
    }
}

/// The routes, for requests from the other end of a connection.
fn of_peer(router: &Router, stream: &TcpStream) -> Router {
    match stream.peer_addr() {
        Ok(address) => router.clone().layer(Extension(Peer(address.ip()))),
        Err(_) => router.clone(),
    }
}

/// What each connection is served with.
struct Service {
    router: Router,
    limits: ConnectionLimits,
    stop: CancellationToken,
}

impl Service {
    /// Serves a connection to its end. A handshake holds a place, too, so there are never too many.
    async fn connection(
        self,
        stream: TcpStream,
        acceptor: Option<TlsAcceptor>,
        _place: OwnedSemaphorePermit,
    ) {
        // Each token of a stream is a packet of its own.
        let _not_vital = stream.set_nodelay(true);
        let stream = StallLimited::new(stream, self.limits.stall_timeout);
        let Some(acceptor) = acceptor else {
            return self.http(stream).await;
        };
        let handshake = tokio::time::timeout(self.limits.head_timeout, acceptor.accept(stream));
        let handshake = tokio::select! {
            handshake = handshake => handshake,
            () = self.stop.cancelled() => return,
        };
        match handshake {
            Ok(Ok(stream)) => self.http(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn http(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head_timeout)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(self.router));
        let mut served = std::pin::pin!(served);
        let ended = tokio::select! {
            ended = served.as_mut() => ended,
            () = self.stop.cancelled() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn served(
        limits: ConnectionLimits,
    ) -> (
        std::net::SocketAddr,
        CancellationToken,
        tokio::task::JoinHandle<()>,
    ) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "hello" }));
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, router, limits, stop.clone()));
        (address, stop, task)
    }

    async fn all(mut stream: TcpStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn a_head_that_never_ends_is_cut_off() {
        let limits = ConnectionLimits {
            head_timeout: Duration::from_millis(50),
            ..ConnectionLimits::default()
        };
        let (address, _stop, _task) = served(limits).await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Never-")
            .await
            .unwrap();
        assert!(!all(slow).await.contains("hello"));
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_loses_its_place_and_little_is_kept_for_it() {
        const CHUNK_BYTES: usize = 64 << 10;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let n_chunks = Arc::new(AtomicUsize::new(0));
        let made = Arc::clone(&n_chunks);
        let endless = move || {
            let made = Arc::clone(&made);
            let chunks = std::iter::repeat_with(move || {
                made.fetch_add(1, Ordering::Relaxed);
                Ok::<_, std::convert::Infallible>(vec![b'x'; CHUNK_BYTES])
            });
            std::future::ready(axum::body::Body::from_stream(futures::stream::iter(chunks)))
        };
        let router = Router::new()
            .route("/", get(|| async { "hello" }))
            .route("/endless", get(endless));
        let limits = ConnectionLimits {
            n_max: 1,
            stall_timeout: Duration::from_millis(50),
            ..ConnectionLimits::default()
        };
        let stop = CancellationToken::new();
        let _task = tokio::spawn(serve(listener, router, limits, stop.clone()));
        let mut greedy = TcpStream::connect(address).await.unwrap();
        greedy
            .write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        second
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        assert!(all(second).await.ends_with("hello"));
        // What the operating system buffers at both ends, and hyper's own buffer.
        let n_bytes = n_chunks.load(Ordering::Relaxed) * CHUNK_BYTES;
        assert!(
            n_bytes < 32 << 20,
            "{n_bytes} bytes were made for a client that takes none"
        );
        drop(greedy);
    }

    #[tokio::test]
    async fn a_kept_connection_that_asks_nothing_is_ended() {
        let limits = ConnectionLimits {
            head_timeout: Duration::from_millis(50),
            ..ConnectionLimits::default()
        };
        let (address, _stop, _task) = served(limits).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        assert!(
            all(idle).await.ends_with("hello"),
            "the end comes from the server"
        );
    }

    #[tokio::test]
    async fn a_connection_beyond_the_number_waits_for_a_place() {
        let limits = ConnectionLimits {
            n_max: 1,
            ..ConnectionLimits::default()
        };
        let (address, _stop, _task) = served(limits).await;
        let idle = TcpStream::connect(address).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        second
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        drop(idle);
        assert!(all(second).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn stopping_ends_idle_connections_and_the_task() {
        let (address, stop, task) = served(ConnectionLimits::default()).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut byte = [0];
        idle.read_exact(&mut byte).await.unwrap();
        stop.cancel();
        task.await.unwrap();
        assert!(all(idle).await.ends_with("hello"));
    }
}
