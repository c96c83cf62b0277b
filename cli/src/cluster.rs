//! The cluster of the kubeconfig: ModelDeployments and their pods, and what an error of the API server means to a person.

use std::{path::PathBuf, time::Duration};

use crds::{ModelDeployment, failure::chain};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{
    error::{Error, Request},
    reference,
};

/// The field manager of what this program writes.
const FIELD_MANAGER: &str = "kubectl-slipway";
/// Resource of a right.
const DEPLOYMENTS: &str = "modeldeployments.slipway.dev";
/// Longest time for a connection to the API server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Which cluster, and which namespace of it.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub struct Target {
    /// Namespace; by default that of the kubeconfig's context
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Context of the kubeconfig; by default the current one
    #[arg(long, global = true, value_name = "CONTEXT")]
    pub context: Option<String>,
    /// File with clusters and logins; by default $KUBECONFIG, or ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// A connection to the API server.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    /// The namespace of all names.
    pub namespace: String,
    address: String,
}

/// How a field is written that another manager owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// It is an error.
    Respect,
    /// It is taken over.
    TakeOver,
}

impl Cluster {
    /// The cluster of the kubeconfig, or of the pod that this program runs in. No request is sent.
    ///
    /// # Errors
    /// [`Error::NoCluster`].
    pub async fn connect(target: &Target) -> Result<Self, Error> {
        let no_cluster = |reason: String| Error::NoCluster { reason };
        let mut config = config(target).await.map_err(no_cluster)?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        let namespace = target
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let address = config.cluster_url.to_string().trim_end_matches('/').to_string();
        let client = Client::try_from(config).map_err(|error| no_cluster(chain(&error)))?;
        Ok(Self {
            client,
            namespace,
            address,
        })
    }

    /// The ModelDeployments of the namespace.
    pub fn deployments(&self) -> Api<ModelDeployment> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The pods of the namespace.
    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// One ModelDeployment.
    ///
    /// # Errors
    /// [`Error::NotFound`] with a name that is like it, and what [`Cluster::explain`] finds.
    pub async fn get(&self, name: &str) -> Result<ModelDeployment, Error> {
        match self.deployments().get_opt(name).await {
            Ok(Some(deployment)) => Ok(deployment),
            Ok(None) => Err(self.not_found(name).await),
            Err(error) => Err(self.explain(self.request("get", DEPLOYMENTS), error)),
        }
    }

    /// Why there is no such object: the CRD, or the name.
    pub async fn not_found(&self, name: &str) -> Error {
        match self.list(Some(&self.namespace)).await {
            Err(error @ Error::NoCrd) => error,
            known => {
                let names = known.unwrap_or_default();
                let names = names.iter().map(ResourceExt::name_any);
                Error::NotFound {
                    name: name.into(),
                    namespace: self.namespace.clone(),
                    nearest: reference::nearest(name, names).into_iter().next(),
                }
            }
        }
    }

    /// The ModelDeployments of a namespace, or of all.
    ///
    /// # Errors
    /// What [`Cluster::explain`] finds.
    pub async fn list(&self, namespace: Option<&str>) -> Result<Vec<ModelDeployment>, Error> {
        let api: Api<ModelDeployment> = match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let request = Request {
            verb: "list",
            resource: DEPLOYMENTS,
            namespace: namespace.map(str::to_string),
        };
        let found = api.list(&ListParams::default()).await;
        Ok(found.map_err(|error| self.explain(request, error))?.items)
    }

    /// Names of ModelDeployments of the namespace, at most `limit`.
    ///
    /// # Errors
    /// What [`Cluster::explain`] finds.
    pub async fn names(&self, limit: u32) -> Result<Vec<String>, Error> {
        let found = self
            .deployments()
            .list_metadata(&ListParams::default().limit(limit))
            .await;
        let found = found.map_err(|error| self.explain(self.request("list", DEPLOYMENTS), error))?;
        Ok(found.items.iter().map(ResourceExt::name_any).collect())
    }

    /// Server-side apply of a ModelDeployment.
    ///
    /// # Errors
    /// [`Error::Conflict`], and what [`Cluster::explain`] finds.
    pub async fn apply(
        &self,
        deployment: &ModelDeployment,
        ownership: Ownership,
    ) -> Result<ModelDeployment, Error> {
        let mut parameters = PatchParams::apply(FIELD_MANAGER);
        parameters.force = ownership == Ownership::TakeOver;
        let name = deployment.name_any();
        let applied = self
            .deployments()
            .patch(&name, &parameters, &Patch::Apply(deployment))
            .await;
        applied.map_err(|error| match error {
            kube::Error::Api(status) if status.code == 409 => Error::Conflict {
                name,
                reason: status.message,
            },
            error => self.explain(self.request("patch", DEPLOYMENTS), error),
        })
    }

    /// The pods of a ModelDeployment, the oldest first.
    ///
    /// # Errors
    /// What [`Cluster::explain`] finds.
    pub async fn pods_of(&self, deployment: &ModelDeployment) -> Result<Vec<Pod>, Error> {
        let status = deployment.status.as_ref();
        let Some(selector) = status.and_then(|status| status.selector.as_deref()) else {
            return Ok(Vec::new());
        };
        let found = self.pods().list(&ListParams::default().labels(selector)).await;
        let mut pods = found
            .map_err(|error| self.explain(self.request("list", "pods"), error))?
            .items;
        pods.sort_by_key(|pod| (pod.creation_timestamp(), pod.name_any()));
        Ok(pods)
    }

    /// A text of a Secret, with the person's own rights.
    ///
    /// # Errors
    /// What [`Cluster::explain`] finds.
    pub async fn secret_text(&self, name: &str, key: &str) -> Result<Option<String>, Error> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let secret = secrets
            .get_opt(name)
            .await
            .map_err(|error| self.explain(self.request("get", "secrets"), error))?;
        let bytes = secret.and_then(|secret| secret.data?.remove(key));
        Ok(bytes.and_then(|bytes| String::from_utf8(bytes.0).ok()))
    }

    /// A request for a right in the namespace.
    pub fn request(&self, verb: &'static str, resource: &'static str) -> Request {
        Request {
            verb,
            resource,
            namespace: Some(self.namespace.clone()),
        }
    }

    /// What an error of the API server means.
    pub fn explain(&self, request: Request, error: kube::Error) -> Error {
        let address = self.address.clone();
        match error {
            kube::Error::Api(status) => match status.code {
                401 => Error::Unauthorized { address },
                403 if status.message.contains(" cannot ") => Error::Forbidden { request },
                404 if status.message.starts_with("namespaces ") => Error::NoNamespace {
                    name: request.namespace.unwrap_or_default(),
                },
                404 if request.resource == DEPLOYMENTS => Error::NoCrd,
                400..500 => Error::Refused {
                    request,
                    reason: status.message,
                },
                _ => Error::Api {
                    request,
                    reason: status.message,
                },
            },
            kube::Error::Auth(error) => Error::NoCluster {
                reason: chain(&error),
            },
            error @ (kube::Error::HyperError(_) | kube::Error::Service(_)) => Error::Unreachable {
                address,
                reason: chain(&error),
            },
            error => Error::Api {
                request,
                reason: chain(&error),
            },
        }
    }
}

async fn config(target: &Target) -> Result<Config, String> {
    let options = KubeConfigOptions {
        context: target.context.clone(),
        ..KubeConfigOptions::default()
    };
    if let Some(file) = &target.kubeconfig {
        let kubeconfig = Kubeconfig::read_from(file).map_err(|error| chain(&error))?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        return config.map_err(|error| chain(&error));
    }
    if target.context.is_some() {
        return Config::from_kubeconfig(&options)
            .await
            .map_err(|error| chain(&error));
    }
    let no_file = "there is no kubeconfig at $KUBECONFIG or ~/.kube/config, and this is no pod";
    Config::infer().await.map_err(|error| match error.to_string() {
        text if text.is_empty() => no_file.into(),
        _ => format!("{no_file} ({})", chain(&error)),
    })
}
