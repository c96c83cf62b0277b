//! The console: pages that list, make and change ModelDeployments, with the rights of the person who uses them.
//!
//! It serves files and passes requests on to the API server with the person's own token; it has no rights of its own. The
//! pages make their form of the schema that the API server publishes, so a new field appears without a new console.

mod assets;
mod error;
mod guard;
mod proxy;
mod state;
mod yaml;

use std::{future::Future, sync::Arc};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{any, get, post},
};
use kube::{Client, Config, config::AuthInfo};
use tokio::net::TcpListener;

pub use state::Identity;
use state::{BODY_BYTES_MAX, Console, REQUESTS_MAX};

/// Why the console cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig or the service account.
    #[error("no kubeconfig and no pod's service account")]
    Config(#[source] kube::config::InferConfigError),
    /// The client.
    #[error("the client of the API server")]
    Client(#[source] kube::Error),
    /// The port.
    #[error("the port")]
    Port(#[source] std::io::Error),
    /// Anybody who reaches the port would have the rights of the kubeconfig.
    #[error(
        "with the rights of a kubeconfig the console listens on a loopback address only, such as 127.0.0.1:8090"
    )]
    NotLoopback,
}

/// Serves until `stopped` resolves.
///
/// # Errors
/// It cannot start.
pub async fn run(
    identity: Identity,
    listener: TcpListener,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let address = listener.local_addr().map_err(Error::Port)?;
    if identity == Identity::Kubeconfig && !address.ip().is_loopback() {
        return Err(Error::NotLoopback);
    }
    let mut config = Config::infer().await.map_err(Error::Config)?;
    if identity == Identity::Token {
        config.auth_info = AuthInfo::default();
    }
    let console = Console {
        client: Client::try_from(config).map_err(Error::Client)?,
        identity,
        places: Arc::new(tokio::sync::Semaphore::new(REQUESTS_MAX)),
    };
    let served = axum::serve(listener, router(console)).with_graceful_shutdown(stopped);
    served.await.map_err(Error::Port)
}

fn router(console: Console) -> Router {
    let api = Router::new()
        .route("/k8s/{*path}", any(proxy::pass_on))
        .route("/yaml/write", post(yaml::write))
        .route("/yaml/read", post(yaml::read))
        .route_layer(middleware::from_fn_with_state(
            console.clone(),
            guard::only_our_pages,
        ));
    Router::new()
        .merge(api)
        .route("/", get(assets::page))
        .route("/assets/{name}", get(assets::asset))
        .route("/livez", get(|| async { "ok" }))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::map_response(guard::headers))
        .with_state(console)
}

#[cfg(test)]
mod tests;
