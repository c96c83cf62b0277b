//! Connections: accepted up to a number, timed while they send or take nothing, ended gracefully; with TLS or without.
//!
//! `axum::serve` has none of these bounds, so this speaks to hyper itself. Must not know what is served.

mod exchange;
mod limits;
mod stall;

use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::Peer;
use super::places::{Place, Places};
use exchange::Exchanges;
pub use limits::ConnectionLimits;
use stall::StallLimited;

/// Wait after an error of the operating system, such as too many open files, before the next attempt.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Largest head of a request, in bytes; also what is read of a body or written of an answer at once.
const HEAD_BYTES_MAX: usize = 64 << 10;

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
    let places = Places::new(limits.n_max);
    let connections = TaskTracker::new();
    while let Some((stream, place)) = next(&listener, &places, &stop).await {
        let connection = Connection {
            router: of_peer(&router, &stream),
            limits,
            stop: stop.clone(),
            place: Arc::new(place),
            head_due_at: Instant::now() + limits.head_timeout,
        };
        connections.spawn(connection.serve(stream, acceptor.clone()));
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// The next connection and its place; `None` once there are to be no more.
async fn next(
    listener: &TcpListener,
    places: &Arc<Places>,
    stop: &CancellationToken,
) -> Option<(TcpStream, Place)> {
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return (stream, places.take().await),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        accepted = accept => Some(accepted),
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

/// One connection, and what it is served with.
struct Connection {
    router: Router,
    limits: ConnectionLimits,
    stop: CancellationToken,
    place: Arc<Place>,
    /// The first request's head must be complete by then.
    head_due_at: Instant,
}

impl Connection {
    /// Serves it to its end, or until it must give way to a newer one.
    async fn serve(self, stream: TcpStream, acceptor: Option<TlsAcceptor>) {
        let place = Arc::clone(&self.place);
        tokio::select! {
            () = self.handshake(stream, acceptor) => {}
            () = place.gives_way() => tracing::debug!("a connection that waited for its client gave way"),
        }
    }

    /// A handshake needs a place, too, so there are never too many.
    async fn handshake(self, stream: TcpStream, acceptor: Option<TlsAcceptor>) {
        // Each token of a stream is a packet of its own.
        let _not_vital = stream.set_nodelay(true);
        let stream = StallLimited::new(stream, self.limits.stall_timeout, Arc::clone(&self.place));
        let Some(acceptor) = acceptor else {
            return self.http(stream).await;
        };
        let handshake = timeout_at(self.head_due_at, acceptor.accept(stream));
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
        let exchanges = Exchanges::new(self.router, self.place);
        let first = exchanges.first();
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.idle_timeout)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), exchanges);
        let mut served = std::pin::pin!(served);
        let first_is_late = async {
            sleep_until(self.head_due_at).await;
            if first.has_come() {
                std::future::pending().await
            }
        };
        let ended = tokio::select! {
            ended = served.as_mut() => ended,
            () = first_is_late => return tracing::debug!("the first request took too long"),
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
            idle_timeout: Duration::from_millis(50),
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
    async fn silent_connections_never_keep_a_client_out() {
        let limits = ConnectionLimits {
            n_max: 8,
            ..ConnectionLimits::default()
        };
        let (address, _stop, _task) = served(limits).await;
        let mut silent = Vec::new();
        for idx in 0..40 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // Some have begun a head, some have sent one whose body never comes.
            let sent = [
                "",
                "GET / HTTP/1.1\r\nHost: x\r\n",
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
            ];
            stream.write_all(sent[idx % 3].as_bytes()).await.unwrap();
            silent.push(stream);
        }
        for _ in 0..3 {
            let mut polite = TcpStream::connect(address).await.unwrap();
            polite
                .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                .await
                .unwrap();
            assert!(all(polite).await.ends_with("hello"));
        }
        drop(silent);
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_is_refused() {
        let (address, _stop, _task) = served(ConnectionLimits::default()).await;
        let mut large = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "GET / HTTP/1.1\r\nHost: x\r\nX-Large: {}",
            "a".repeat(2 * HEAD_BYTES_MAX)
        );
        // The server may close before all of it is written.
        let _sent = large.write_all(head.as_bytes()).await;
        let mut answer = Vec::new();
        let _closed = large.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(!answer.contains("hello"), "{answer}");
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
