//! Why a command ended without success, and the command that helps next.

use crate::{manifest::ManifestError, runpod::BlockError};

/// What was requested of the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Verb of a right, as in `list`.
    pub verb: &'static str,
    /// Resource of a right, as in `pods/portforward`.
    pub resource: &'static str,
    /// Namespace; absent for all.
    pub namespace: Option<String>,
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        match &self.namespace {
            Some(namespace) => write!(f, " in namespace {namespace}"),
            None => f.write_str(" in all namespaces"),
        }
    }
}

/// Why a command ended without success. `Display` says what happened, [`Error::next`] what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no kubeconfig, or it lacks what was requested.
    #[error("no cluster is configured: {reason}")]
    NoCluster {
        /// What is missing.
        reason: String,
    },
    /// The API server does not answer.
    #[error("the API server at {address} does not answer: {reason}")]
    Unreachable {
        /// Its address.
        address: String,
        /// What happened to the connection.
        reason: String,
    },
    /// The API server does not know the user.
    #[error("the API server at {address} does not accept the login of this kubeconfig")]
    Unauthorized {
        /// Its address.
        address: String,
    },
    /// The person lacks a right.
    #[error("you have no right to {request}")]
    Forbidden {
        /// What was requested.
        request: Request,
    },
    /// A policy or a webhook refuses it.
    #[error("the API server refuses to {request}: {reason}")]
    Refused {
        /// What was requested.
        request: Request,
        /// Its words.
        reason: String,
    },
    /// The cluster has no CustomResourceDefinition.
    #[error("the cluster does not know ModelDeployments: Slipway is not installed in it")]
    NoCrd,
    /// There is no namespace of the name.
    #[error("there is no namespace {name}")]
    NoNamespace {
        /// Its name.
        name: String,
    },
    /// There is no object of the name.
    #[error("there is no ModelDeployment '{name}' in namespace {namespace}")]
    NotFound {
        /// What was requested.
        name: String,
        /// Where.
        namespace: String,
        /// A name that is like it.
        nearest: Option<String>,
    },
    /// Another manager owns a field.
    #[error("another manager owns a field of ModelDeployment '{name}': {reason}")]
    Conflict {
        /// The object.
        name: String,
        /// Which fields, in the API server's words.
        reason: String,
    },
    /// It cannot become ready without a change.
    #[error("ModelDeployment '{name}' failed: {reason}: {message}")]
    Failed {
        /// The object.
        name: String,
        /// Where it is.
        namespace: String,
        /// Of the condition.
        reason: String,
        /// Of the condition; contains the remedy.
        message: String,
    },
    /// It did not become ready in time.
    #[error("ModelDeployment '{name}' was not ready after {seconds} s: {state}")]
    NotInTime {
        /// The object.
        name: String,
        /// Where it is.
        namespace: String,
        /// How long was waited.
        seconds: u64,
        /// What it does.
        state: String,
    },
    /// It was deleted meanwhile.
    #[error("ModelDeployment '{name}' was deleted")]
    Deleted {
        /// The object.
        name: String,
    },
    /// No replica answers requests.
    #[error("ModelDeployment '{name}' has no ready replica: {state}")]
    NoReplica {
        /// The object.
        name: String,
        /// Where it is.
        namespace: String,
        /// What it does.
        state: String,
    },
    /// A pod has no log yet.
    #[error("ModelDeployment '{name}' has no pod")]
    NoPod {
        /// The object.
        name: String,
        /// Where it is.
        namespace: String,
    },
    /// The connection to a replica failed.
    #[error("the connection to pod {pod} failed: {reason}")]
    Connection {
        /// The pod.
        pod: String,
        /// What happened.
        reason: String,
    },
    /// The model refused a request.
    #[error("the model answered {status}: {message}")]
    Answer {
        /// HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// A block cannot be read.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The ModelDeployment cannot be written.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A name that is neither a setting nor a field.
    #[error(
        "there is no setting, variable or field '{name}'{}",
        crate::reference::did_you_mean(.nearest)
    )]
    NoSetting {
        /// What was given.
        name: String,
        /// Names that are like it.
        nearest: Vec<String>,
    },
    /// An argument that clap cannot check.
    #[error("{reason}")]
    Argument {
        /// What is wrong.
        reason: String,
    },
    /// A file, a stream or a program of this machine failed.
    #[error("cannot {operation}: {reason}")]
    Local {
        /// What was tried.
        operation: String,
        /// Why it failed.
        reason: String,
    },
    /// The API server answered something else.
    #[error("cannot {request}: {reason}")]
    Api {
        /// What was requested.
        request: Request,
        /// Its words.
        reason: String,
    },
}

impl Error {
    /// The command that helps next.
    pub fn next(&self) -> Option<String> {
        let next = match self {
            Error::NoCluster { .. } => {
                "export KUBECONFIG=FILE, or --kubeconfig FILE; kubectl config get-contexts lists clusters"
                    .into()
            }
            Error::Unreachable { .. } => "kubectl cluster-info; kubectl config get-contexts".into(),
            Error::Unauthorized { .. } => "log in to the cluster again, then: kubectl auth whoami".into(),
            Error::Forbidden { request } => {
                let scope = match &request.namespace {
                    Some(namespace) => format!("-n {namespace}"),
                    None => "--all-namespaces".into(),
                };
                format!(
                    "kubectl auth can-i {} {} {scope}; ask the cluster's administrator for it",
                    request.verb, request.resource
                )
            }
            Error::NoCrd => {
                "helm upgrade --install slipway charts/slipway -n slipway-system --create-namespace".into()
            }
            Error::NoNamespace { name } => format!("kubectl create namespace {name}"),
            Error::NotFound {
                namespace,
                nearest: Some(nearest),
                ..
            } => format!("kubectl slipway status {nearest} -n {namespace}"),
            Error::NotFound { .. } => "kubectl slipway list --all-namespaces".into(),
            Error::Conflict { .. } => "repeat the command with --force to take the fields over".into(),
            Error::Failed { name, namespace, .. } => {
                format!(
                    "kubectl slipway status {name} -n {namespace}; kubectl slipway logs {name} -n {namespace}"
                )
            }
            Error::NotInTime { name, namespace, .. }
            | Error::NoReplica { name, namespace, .. }
            | Error::NoPod { name, namespace } => {
                format!("kubectl slipway status {name} -n {namespace} --watch")
            }
            Error::Connection { .. } => "repeat the command; kubectl slipway list shows what is ready".into(),
            Error::Answer { status: 401, .. } => {
                "repeat the command with --api-key KEY, or export SLIPWAY_API_KEY".into()
            }
            Error::NoSetting { .. } | Error::Manifest(ManifestError::Unknown { .. }) => {
                "kubectl slipway explain".into()
            }
            Error::Manifest(ManifestError::Value { name, .. }) => format!("kubectl slipway explain {name}"),
            Error::Block(_) => "kubectl slipway import-runpod --help".into(),
            Error::Refused { .. }
            | Error::Deleted { .. }
            | Error::Answer { .. }
            | Error::Manifest(_)
            | Error::Argument { .. }
            | Error::Local { .. }
            | Error::Api { .. } => return None,
        };
        Some(next)
    }
}
