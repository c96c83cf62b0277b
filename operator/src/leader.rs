//! Leader election by a Lease, as in client-go: the check of the Lease's resourceVersion is the lock.
//!
//! A candidate does not use the clocks of others: it measures from when it first saw a version of the Lease.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Name of the Lease.
pub const LEASE: &str = "slipway-operator";

/// A holder that has not renewed the Lease for this time has lost it.
const TTL: Duration = Duration::from_secs(15);
/// A holder that could not renew for this time stops, before another process takes over.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// An attempt without an answer in this time is repeated.
const ATTEMPT_WAIT_MAX: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);

/// One process that can lead.
pub struct Candidate {
    api: Api<Lease>,
    identity: String,
    seen: Seen,
}

/// The newest version of the Lease that was seen, and when it was first seen.
#[derive(Clone, Debug)]
struct Seen {
    version: Option<String>,
    at: Instant,
}

/// What to do next with the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    Renew,
    Take,
    Wait,
}

/// Who holds the Lease after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// This candidate.
    Here,
    /// Another candidate.
    Elsewhere,
}

impl Candidate {
    /// A candidate in `namespace`; `identity` must differ between processes.
    pub fn new(client: Client, namespace: &str, identity: String) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            identity,
            seen: Seen {
                version: None,
                at: Instant::now(),
            },
        }
    }

    /// Waits until this candidate leads. Calls `standby` after each attempt that found another leader.
    pub async fn acquire(&mut self, mut standby: impl FnMut()) {
        loop {
            match timeout(ATTEMPT_WAIT_MAX, self.try_once()).await {
                Ok(Ok(Held::Here)) => return,
                Ok(Ok(Held::Elsewhere)) => standby(),
                Err(_) => tracing::warn!("the API server does not answer a request for the Lease"),
                Ok(Err(error)) => tracing::warn!(%error, "cannot read or write the Lease"),
            }
            sleep(RETRY).await;
        }
    }

    /// Renews until the Lease is lost.
    pub async fn hold(&mut self) {
        let mut deadline = Instant::now() + RENEW_DEADLINE;
        loop {
            sleep(RETRY).await;
            match timeout_at(deadline, self.try_once()).await {
                Ok(Ok(Held::Here)) => deadline = Instant::now() + RENEW_DEADLINE,
                Ok(Ok(Held::Elsewhere)) | Err(_) => return,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "cannot renew the Lease");
                    if Instant::now() >= deadline {
                        return;
                    }
                }
            }
        }
    }

    /// Releases the Lease, so that the next leader does not have to wait until it expires.
    ///
    /// # Errors
    /// When the API server does not accept the write; the Lease then expires.
    pub async fn release(&mut self) -> kube::Result<()> {
        let Some(mut lease) = self.api.get_opt(LEASE).await? else {
            return Ok(());
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(self.identity.as_str()) {
            return Ok(());
        }
        spec.holder_identity = None;
        self.replace(&lease).await.map(|_| ())
    }

    /// One attempt to take or renew the Lease.
    ///
    /// # Errors
    /// When the API server cannot be reached or refuses.
    pub async fn try_once(&mut self) -> kube::Result<Held> {
        let Some(mut lease) = self.api.get_opt(LEASE).await? else {
            let created = self.api.create(&PostParams::default(), &self.first()).await;
            return held(created.map(|_| ()));
        };
        let now = Instant::now();
        if self.seen.version != lease.metadata.resource_version {
            self.seen = Seen {
                version: lease.metadata.resource_version.clone(),
                at: now,
            };
        }
        let spec = lease.spec.get_or_insert_default();
        match next_move(spec, &self.identity, now.duration_since(self.seen.at)) {
            Move::Wait => return Ok(Held::Elsewhere),
            Move::Renew => {}
            Move::Take => {
                spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0) + 1);
                spec.acquire_time = Some(MicroTime(Timestamp::now()));
                spec.holder_identity = Some(self.identity.clone());
            }
        }
        spec.lease_duration_seconds = Some(TTL.as_secs() as i32);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        let replaced = self.replace(&lease).await;
        held(replaced.map(|_| ()))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the lock is the check of resourceVersion, which only a replace makes"
    )]
    async fn replace(&self, lease: &Lease) -> kube::Result<Lease> {
        self.api.replace(LEASE, &PostParams::default(), lease).await
    }

    fn first(&self) -> Lease {
        let now = MicroTime(Timestamp::now());
        Lease {
            metadata: ObjectMeta {
                name: Some(LEASE.into()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: Some(TTL.as_secs() as i32),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                lease_transitions: Some(0),
                ..LeaseSpec::default()
            }),
        }
    }
}

/// A conflict means that another candidate wrote first.
fn held(written: kube::Result<()>) -> kube::Result<Held> {
    match written {
        Ok(()) => Ok(Held::Here),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Held::Elsewhere),
        Err(error) => Err(error),
    }
}

fn next_move(spec: &LeaseSpec, identity: &str, unchanged_for: Duration) -> Move {
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let ttl_seconds = spec
        .lease_duration_seconds
        .and_then(|seconds| u64::try_from(seconds).ok());
    let ttl = Duration::from_secs(ttl_seconds.unwrap_or(TTL.as_secs()).max(1));
    if holder == identity {
        Move::Renew
    } else if holder.is_empty() || unchanged_for >= ttl {
        Move::Take
    } else {
        Move::Wait
    }
}

#[cfg(test)]
mod tests;
