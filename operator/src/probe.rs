//! HTTP requests to replicas: how far a start has come, and whether an address answers that it is ready.
//!
//! Each request is bounded in time and size. A replica that does not answer is not an error.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crds::{
    demand::{self, DemandStatus},
    keys::{self, KeyHashes},
    load::{self, LoadStatus},
    startup::{self, StartupStatus},
};
use serde::de::DeserializeOwned;

use crate::names::READY_PATH;

const TIMEOUT: Duration = Duration::from_secs(1);
const BODY_BYTES_MAX: usize = 16 * 1024;
/// Of a gateway's answer, which names many ModelDeployments.
const DEMAND_BYTES_MAX: usize = 1024 * 1024;

/// A client for requests to replicas.
#[derive(Clone, Debug)]
pub struct Probe {
    http: reqwest::Client,
}

impl Probe {
    /// A client that connects to pods directly, whatever the proxy variables are.
    ///
    /// # Errors
    /// When the TLS backend cannot be set up.
    pub fn new() -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .build()?;
        Ok(Self { http })
    }

    /// How far the start of the pod at `ip` has come; `None` if it sends no readable status in time.
    pub async fn startup(&self, ip: IpAddr, port: u16) -> Option<StartupStatus> {
        self.body(ip, port, startup::PATH, BODY_BYTES_MAX).await
    }

    /// The load of the replica at `ip`; `None` if it sends no readable load in time.
    pub async fn load(&self, ip: IpAddr, port: u16) -> Option<LoadStatus> {
        self.body(ip, port, load::PATH, BODY_BYTES_MAX).await
    }

    /// The API keys of the replica at `ip` as hashes with this salt, which needs no escape in a query; `None` if it sends
    /// no readable answer in time.
    pub async fn keys(&self, ip: IpAddr, port: u16, salt: &str) -> Option<KeyHashes> {
        let path = format!("{}?salt={salt}", keys::PATH);
        self.body(ip, port, &path, BODY_BYTES_MAX).await
    }

    /// The requests that the gateway at `ip` holds; `None` if it sends no readable answer in time.
    pub async fn demand(&self, ip: IpAddr, port: u16) -> Option<DemandStatus> {
        self.body(ip, port, demand::PATH, DEMAND_BYTES_MAX).await
    }

    async fn body<T: DeserializeOwned>(&self, ip: IpAddr, port: u16, path: &str, most: usize) -> Option<T> {
        let mut response = self.get(ip, port, path).await.ok()?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.ok()? {
            if body.len() + chunk.len() > most {
                return None;
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).ok()
    }

    /// Whether a replica at `ip` and `port` answers that it is ready.
    pub async fn is_ready(&self, ip: IpAddr, port: u16) -> bool {
        let response = self.get(ip, port, READY_PATH).await;
        response.is_ok_and(|response| response.status().is_success())
    }

    async fn get(&self, ip: IpAddr, port: u16, path: &str) -> reqwest::Result<reqwest::Response> {
        let address = SocketAddr::new(ip, port);
        self.http.get(format!("http://{address}{path}")).send().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Json, Router, http::StatusCode, routing::get};
    use crds::startup::Stage;

    /// Serves `app` on a free port of this machine.
    async fn serve(app: Router) -> (tokio::task::JoinHandle<std::io::Result<()>>, u16) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (
            tokio::spawn(async move { axum::serve(listener, app).await }),
            port,
        )
    }

    fn here() -> IpAddr {
        "127.0.0.1".parse().unwrap()
    }

    #[tokio::test]
    async fn a_status_is_read_whatever_the_code_of_the_response() {
        let status = StartupStatus {
            stage: Stage::Loading,
            bytes_done: 5,
            ..StartupStatus::default()
        };
        let body = status.clone();
        let startup = get(|| async { (StatusCode::SERVICE_UNAVAILABLE, Json(body)) });
        let (_server, port) = serve(Router::new().route(startup::PATH, startup)).await;
        let probe = Probe::new().unwrap();
        assert_eq!(probe.startup(here(), port).await, Some(status));
        assert!(!probe.is_ready(here(), port).await, "there is no such route");
    }

    #[tokio::test]
    async fn a_body_that_is_too_long_is_no_status_and_a_closed_port_is_not_ready() {
        let too_long = get(|| async { "x".repeat(BODY_BYTES_MAX + 1) });
        let app = Router::new()
            .route(READY_PATH, get(|| async { "ok" }))
            .route(startup::PATH, too_long);
        let (server, port) = serve(app).await;
        let probe = Probe::new().unwrap();
        assert_eq!(probe.startup(here(), port).await, None);
        assert!(probe.is_ready(here(), port).await);
        server.abort();
        let _aborted = server.await;
        assert!(!probe.is_ready(here(), port).await, "the port is closed");
    }
}
