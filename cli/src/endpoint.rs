//! The ready replicas of a ModelDeployment, the key that they accept, and one streamed chat answer.

use std::time::{Duration, Instant};

use crds::{ModelDeployment, modeldeployment::API_KEYS_KEY_DEFAULT};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::{
    cluster::Cluster,
    error::Error,
    readiness,
    replica::{Connection, Events, Replica},
};

const CHAT: &str = "/v1/chat/completions";

/// Where a model answers.
pub struct Endpoint {
    /// Its ready replicas; at least one.
    pub replicas: Vec<Replica>,
}

impl Endpoint {
    /// The endpoint of a ModelDeployment. Without a key, the Secret that it names is read with the person's rights.
    ///
    /// # Errors
    /// [`Error::NoReplica`], and errors of the API server.
    pub async fn of(cluster: &Cluster, name: &str, api_key: Option<&str>) -> Result<Self, Error> {
        let deployment = cluster.get(name).await?;
        let api_key = match api_key {
            Some(key) => Some(key.to_string()),
            None => key_of(cluster, &deployment).await?,
        };
        let pods = cluster.pods_of(&deployment).await?;
        let replicas: Vec<Replica> = pods
            .iter()
            .filter_map(|pod| Replica::of(cluster, pod, api_key.as_deref()))
            .collect();
        if replicas.is_empty() {
            return Err(Error::NoReplica {
                name: name.into(),
                namespace: cluster.namespace.clone(),
                state: readiness::state(&deployment),
            });
        }
        Ok(Self { replicas })
    }
}

/// The first key of the Secret.
async fn key_of(cluster: &Cluster, deployment: &ModelDeployment) -> Result<Option<String>, Error> {
    let auth = deployment.spec.auth.as_ref();
    let Some(reference) = auth.and_then(|auth| auth.api_keys_secret_ref.as_ref()) else {
        return Ok(None);
    };
    let key = reference.key.as_deref().unwrap_or(API_KEYS_KEY_DEFAULT);
    let text = cluster.secret_text(&reference.name, key).await?;
    Ok(text.and_then(|text| {
        text.split([',', '\n'])
            .map(str::trim)
            .find(|key| !key.is_empty())
            .map(str::to_string)
    }))
}

/// A chat answer that is being streamed.
pub struct Answer {
    events: Events<Incoming>,
    pod: String,
    start: Instant,
    /// Time to its first token.
    pub first: Option<Duration>,
    /// Tokens so far.
    pub n_tokens: u64,
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Of the answer.
    Content(String),
    /// Of the thoughts before it.
    Thought(String),
}

impl Answer {
    /// Asks for an answer. `options` are further parameters of the request.
    ///
    /// # Errors
    /// [`Error::Answer`], [`Error::Connection`].
    pub async fn start(
        connection: &mut Connection,
        messages: &[Value],
        options: &Value,
    ) -> Result<Self, Error> {
        let mut body = json!({
            "messages": messages,
            "stream": true,
            "stream_options": {"include_usage": true, "continuous_usage_stats": true},
        });
        for (name, value) in options.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        let start = Instant::now();
        let incoming = connection.post(CHAT, &body).await?;
        Ok(Self {
            events: Events::new(incoming),
            pod: connection.pod().to_string(),
            start,
            first: None,
            n_tokens: 0,
        })
    }

    /// The next pieces; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Connection`].
    pub async fn next(&mut self) -> Result<Option<Vec<Piece>>, Error> {
        let event = self.events.next().await.map_err(|error| Error::Connection {
            pod: self.pod.clone(),
            reason: error.to_string(),
        })?;
        let Some(event) = event else { return Ok(None) };
        if let Some(n_tokens) = event["usage"]["completion_tokens"].as_u64() {
            self.n_tokens = n_tokens;
        }
        if self.first.is_none() && self.n_tokens > 0 {
            self.first = Some(self.start.elapsed());
        }
        Ok(Some(pieces(&event)))
    }

    /// Time since the request.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

fn pieces(event: &Value) -> Vec<Piece> {
    let delta = &event["choices"][0]["delta"];
    let text = |name: &str| {
        delta[name]
            .as_str()
            .filter(|text| !text.is_empty())
            .map(str::to_string)
    };
    let thought = text("reasoning_content")
        .or_else(|| text("reasoning"))
        .map(Piece::Thought);
    thought
        .into_iter()
        .chain(text("content").map(Piece::Content))
        .collect()
}
