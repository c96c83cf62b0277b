//! An HTTP connection to a pod.

use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::{cluster::Cluster, error::Error};

/// Name of the port on which a replica serves.
const PORT_NAME: &str = "http";
/// Most bytes of an error that are read.
const ERROR_BYTES_MAX: usize = 1 << 16;

/// A ready pod, and how requests to it are made.
#[derive(Clone)]
pub struct Replica {
    cluster: Cluster,
    pods: Api<Pod>,
    /// Name of the pod.
    pub pod: String,
    port: u16,
    api_key: Option<String>,
}

impl Replica {
    /// The replica of a pod; `None` if it is not ready, or is no replica.
    pub fn of(cluster: &Cluster, pod: &Pod, api_key: Option<&str>) -> Option<Self> {
        let conditions = pod.status.as_ref()?.conditions.as_ref()?;
        let is_ready = conditions
            .iter()
            .any(|c| c.type_ == "Ready" && c.status == "True");
        if !is_ready || pod.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let containers = &pod.spec.as_ref()?.containers;
        let mut ports = containers
            .iter()
            .filter_map(|container| container.ports.as_ref())
            .flatten();
        let port = ports.find(|port| port.name.as_deref() == Some(PORT_NAME))?;
        Some(Self {
            cluster: cluster.clone(),
            pods: cluster.pods(),
            pod: pod.name_any(),
            port: u16::try_from(port.container_port).ok()?,
            api_key: api_key.map(str::to_string),
        })
    }

    /// A new connection.
    ///
    /// # Errors
    /// For a missing right, and [`Error::Connection`].
    pub async fn connect(&self) -> Result<Connection, Error> {
        let forwarded = self.pods.portforward(&self.pod, &[self.port]).await;
        let mut forwarder = forwarded.map_err(|error| self.explain(error))?;
        let stream = forwarder
            .take_stream(self.port)
            .ok_or_else(|| self.failed("the port-forward has no stream"))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.failed(error))?;
        let driver = tokio::spawn(async move {
            // The sender of a request sees the error.
            let _ = connection.await;
            forwarder.abort();
        });
        Ok(Connection {
            replica: self.clone(),
            sender,
            driver,
        })
    }

    fn explain(&self, error: kube::Error) -> Error {
        use kube::client::UpgradeConnectionError::ProtocolSwitch;
        let request = self.cluster.request("create", "pods/portforward");
        match error {
            kube::Error::UpgradeConnection(ProtocolSwitch(status)) if status.as_u16() == 403 => {
                Error::Forbidden { request }
            }
            kube::Error::UpgradeConnection(error) => self.failed(error),
            error => self.cluster.explain(request, error),
        }
    }

    fn failed(&self, reason: impl std::fmt::Display) -> Error {
        Error::Connection {
            pod: self.pod.clone(),
            reason: reason.to_string(),
        }
    }
}

/// An open connection. Its requests follow each other.
pub struct Connection {
    replica: Replica,
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// The name of its pod.
    pub fn pod(&self) -> &str {
        &self.replica.pod
    }

    /// Posts JSON and returns the answer as it comes.
    ///
    /// # Errors
    /// [`Error::Answer`] for a status that is no success, [`Error::Connection`] if the connection ends.
    pub async fn post(&mut self, path: &str, body: &Value) -> Result<Incoming, Error> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = &self.replica.api_key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        let request = request.body(Full::new(Bytes::from(body.to_string())));
        let request = request.map_err(|error| Error::Argument {
            reason: format!("the API key cannot be sent: {error}"),
        })?;
        self.sender
            .ready()
            .await
            .map_err(|error| self.replica.failed(error))?;
        let sent = self.sender.send_request(request).await;
        let answer = sent.map_err(|error| self.replica.failed(error))?;
        if answer.status().is_success() {
            return Ok(answer.into_body());
        }
        Err(refusal(answer).await)
    }
}

/// The words of an answer that is no success.
async fn refusal(answer: Response<Incoming>) -> Error {
    let status = answer.status().as_u16();
    let limited = http_body_util::Limited::new(answer.into_body(), ERROR_BYTES_MAX);
    let bytes = limited.collect().await.map(http_body_util::Collected::to_bytes);
    let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
    let body: Value = serde_json::from_str(&text).unwrap_or_default();
    let message = body["error"]["message"].as_str().map_or(text, str::to_string);
    Error::Answer { status, message }
}
