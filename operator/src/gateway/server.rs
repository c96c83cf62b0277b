//! Connections of clients, with TLS or without: bounded in number, timed while they send a head, ended after the answer they
//! are at.

use std::{future::Future, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Most connections; more wait to be accepted.
const CONNECTIONS_MAX: usize = 16_384;
/// Longest time for the head of a request, and for a handshake of TLS.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Wait after an error of the operating system, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The certificate of new connections, as it is now; `None` serves without TLS.
pub(super) type Tls = Option<watch::Receiver<Arc<ServerConfig>>>;

/// Serves until `closed` resolves, then accepts no more connections and returns when the answers in progress have ended.
pub(super) async fn serve(listener: TcpListener, tls: Tls, router: Router, closed: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (stop, connections) = (CancellationToken::new(), TaskTracker::new());
    let accepting = async {
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (tls, router, stop) = (tls.clone(), router.clone(), stop.clone());
                    connections.spawn(async move {
                        connection(stream, tls, router, stop).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! { () = accepting => {}, () = closed => {} }
    drop(listener);
    stop.cancel();
    connections.close();
    connections.wait().await;
}

async fn connection(stream: TcpStream, tls: Tls, router: Router, stop: CancellationToken) {
    // Each token of a stream is a packet of its own.
    let _not_vital = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return http(stream, router, stop).await;
    };
    let acceptor = TlsAcceptor::from(Arc::clone(&tls.borrow()));
    let handshake = tokio::select! {
        handshake = timeout(HEAD_TIMEOUT, acceptor.accept(stream)) => handshake,
        () = stop.cancelled() => return,
    };
    match handshake {
        Ok(Ok(stream)) => http(stream, router, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    stop: CancellationToken,
) {
    let service = TowerToHyperService::new(router);
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
