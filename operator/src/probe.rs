//! What the operator asks replicas over HTTP: how far a start is, and whether the Service leads to a ready one.
//!
//! Bounded in time and size; no answer is an answer, and no error.

use std::{net::IpAddr, time::Duration};

use crds::failure::Failure;
use serde::Deserialize;

const TIMEOUT: Duration = Duration::from_secs(1);
const BODY_BYTES_MAX: usize = 16 * 1024;

/// What a starting pod says about itself.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Progress {
    /// `Downloading`, `Loading`, … as the runtime calls it.
    pub stage: String,
    /// Bytes done.
    pub bytes_done: u64,
    /// Bytes in all; absent while unknown or where the stage is not measured in bytes.
    pub bytes_total: Option<u64>,
    /// Share done, 0 to 100.
    pub percent: Option<f64>,
    /// Bytes per second, lately.
    pub rate_per_second: Option<f64>,
    /// Seconds to go at that rate.
    pub eta_seconds: Option<f64>,
    /// What failed last and is being tried again; absent once it goes on.
    pub problem: Option<Failure>,
    /// The model, as far as it is known.
    pub model: Option<ModelFacts>,
}

/// What a pod knows about its model.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModelFacts {
    /// Commit.
    pub revision: Option<String>,
    /// Architecture that the configuration names.
    pub architecture: Option<String>,
    /// Size of the weights in bytes.
    pub bytes: Option<i64>,
    /// Longest context in tokens.
    pub max_model_len: Option<i64>,
}

/// The client that asks.
#[derive(Clone, Debug)]
pub struct Probe {
    http: reqwest::Client,
}

impl Probe {
    /// A client that goes straight to pods, whatever the proxy variables say.
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

    /// What the pod at `ip` says of its start on `port`, if it says something readable in time.
    pub async fn progress(&self, ip: IpAddr, port: u16) -> Option<Progress> {
        let address = std::net::SocketAddr::new(ip, port);
        let mut response = self
            .http
            .get(format!("http://{address}/startupz"))
            .send()
            .await
            .ok()?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.ok()? {
            if body.len() + chunk.len() > BODY_BYTES_MAX {
                return None;
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).ok()
    }

    /// Whether somebody at `ip` and `port` says that it is ready.
    pub async fn is_ready(&self, ip: IpAddr, port: u16) -> bool {
        let address = std::net::SocketAddr::new(ip, port);
        let answer = self.http.get(format!("http://{address}/readyz")).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_there_and_tolerates_what_is_not() {
        let progress: Progress = serde_json::from_str(
            r#"{"stage":"Downloading","bytesDone":5,"bytesTotal":null,"percent":50,"ratePerSecond":null,"future":1,
                "model":{"revision":"abc"}}"#,
        )
        .unwrap();
        assert_eq!((progress.bytes_done, progress.percent), (5, Some(50.0)));
        assert_eq!(progress.model.unwrap().revision.as_deref(), Some("abc"));
        assert_eq!(
            serde_json::from_str::<Progress>("{}").unwrap(),
            Progress::default()
        );
    }

    #[tokio::test]
    async fn an_answer_without_end_is_no_progress_and_none_is_not_ready() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let ready = axum::routing::get(|| async { "ok" });
        let app = axum::Router::new().route("/readyz", ready).route(
            "/startupz",
            axum::routing::get(|| async { "x".repeat(BODY_BYTES_MAX + 1) }),
        );
        let server = tokio::spawn(async move { axum::serve(listener, app).await });
        let probe = Probe::new().unwrap();
        let here: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!(probe.progress(here, port).await, None);
        assert!(probe.is_ready(here, port).await);
        server.abort();
        let _aborted = server.await;
        assert!(!probe.is_ready(here, port).await, "nobody listens any more");
    }
}
