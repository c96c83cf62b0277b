//! What all requests to the console share.

use std::sync::Arc;

use kube::Client;
use tokio::sync::Semaphore;

/// Most bytes of a request: a ModelDeployment is far smaller.
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;
/// Requests that are passed on at the same time; streams of answers count.
pub(super) const REQUESTS_MAX: usize = 512;

/// Whose rights the requests have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The person's, by the token that each request carries.
    Token,
    /// Those of the kubeconfig of this machine. For the loopback interface only.
    Kubeconfig,
}

/// What all requests share.
#[derive(Clone)]
pub(super) struct Console {
    /// Without credentials, unless they are those of a kubeconfig.
    pub(super) client: Client,
    pub(super) identity: Identity,
    pub(super) places: Arc<Semaphore>,
}
