//! `fit`: what a model needs, and which cards it fits.
//!
//! `slipway-runtime inspect` computes it, on this machine if the program is installed, else in a pod that is deleted
//! afterwards. Only the JSON files of a repository are downloaded.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::{
    ResourceExt,
    api::{DeleteParams, LogParams, PostParams},
    runtime::watcher,
};
use serde_json::{Value, json};

use crate::{
    arguments::Fit,
    cards::{self, Report},
    cluster::{Cluster, Target},
    error::Error,
    manifest,
};

/// The program that computes.
const RUNTIME: &str = "slipway-runtime";
/// More memory than any machine has: the report is about the model, and cards are compared here.
const MEMORY_BYTES: &str = "1125899906842624";
/// Where the pod keeps the files.
const DIR: &str = "/models";
/// Longest time for the pod.
const POD_SECONDS_MAX: u64 = 300;

pub(super) async fn run(arguments: &Fit, target: &Target) -> Result<(), Error> {
    let program = runtime_program().filter(|_| !arguments.in_cluster);
    let text = match &program {
        Some(program) => local(program, arguments)?,
        None if Path::new(&arguments.model).is_dir() => {
            return Err(Error::Argument {
                reason: format!(
                    "{} is a folder of this machine, and {RUNTIME} is not installed here: run `make install`",
                    arguments.model
                ),
            });
        }
        None => in_pod(&Cluster::connect(target).await?, arguments).await?,
    };
    let report: Report = serde_json::from_str(&text).map_err(|error| Error::Local {
        operation: format!("read the report of {RUNTIME} inspect"),
        reason: error.to_string(),
    })?;
    let Some(facts) = &report.model else {
        return Err(Error::Argument {
            reason: format!(
                "{} cannot be served: {}",
                arguments.model,
                report.refused.join("; ")
            ),
        });
    };
    print!("{}", cards::text(&arguments.model, facts));
    Ok(())
}

/// The program beside this one, or on the path.
fn runtime_program() -> Option<PathBuf> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|own| Some(own.parent()?.join(RUNTIME)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join(RUNTIME));
    beside
        .into_iter()
        .chain(on_path)
        .find(|program| program.is_file())
}

fn local(program: &Path, arguments: &Fit) -> Result<String, Error> {
    let model = Path::new(&arguments.model);
    if model.is_dir() {
        return output(
            Command::new(program)
                .args(["inspect", "--json", "--memory", MEMORY_BYTES])
                .arg(model),
        );
    }
    let folder = Folder::new()?;
    let mut fetch = Command::new(program);
    fetch
        .args(fetch_arguments(arguments))
        .arg("--destination")
        .arg(&folder.path);
    output(&mut fetch)?;
    output(
        Command::new(program)
            .args(["inspect", "--json", "--memory", MEMORY_BYTES])
            .arg(&folder.path),
    )
}

fn fetch_arguments(arguments: &Fit) -> Vec<String> {
    let mut words = vec!["fetch".to_string(), format!("--repo={}", arguments.model)];
    words.push(format!(
        "--revision={}",
        arguments.revision.as_deref().unwrap_or("main")
    ));
    words.push("--allow-pattern=*.json".into());
    words.extend(arguments.endpoint.iter().map(|url| format!("--endpoint={url}")));
    words
}

/// Standard output of a program that succeeds; its standard error is the reason if it does not.
fn output(command: &mut Command) -> Result<String, Error> {
    let failed = |reason: String| Error::Local {
        operation: format!("run {RUNTIME}"),
        reason,
    };
    let done = command.output().map_err(|error| failed(error.to_string()))?;
    if !done.status.success() {
        let text = String::from_utf8_lossy(&done.stderr).trim().replace('\n', "; ");
        return Err(failed(text));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// A folder that is removed with its content.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn new() -> Result<Self, Error> {
        let path = std::env::temp_dir().join(format!("slipway-fit-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(|error| Error::Local {
            operation: format!("make the folder {}", path.display()),
            reason: error.to_string(),
        })?;
        Ok(Self { path })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// The report of a pod of the runtime's image.
async fn in_pod(cluster: &Cluster, arguments: &Fit) -> Result<String, Error> {
    let image = match &arguments.image {
        Some(image) => image.clone(),
        None => image_of(cluster).await?,
    };
    let pods = cluster.pods();
    let explain = |verb: &'static str| move |error| cluster.explain(cluster.request(verb, "pods"), error);
    eprintln!(
        "a pod of {image} reads the configuration of {} …",
        arguments.model
    );
    let pod = pods
        .create(&PostParams::default(), &pod(arguments, &image))
        .await
        .map_err(explain("create"))?;
    let name = pod.name_any();
    let ended = ended(cluster, &name).await;
    let text = match ended {
        Ok(()) => {
            let log = pods.logs(&name, &LogParams::default()).await;
            log.map_err(|error| cluster.explain(cluster.request("get", "pods/log"), error))
        }
        Err(error) => Err(error),
    };
    let deleted = pods.delete(&name, &DeleteParams::default()).await;
    deleted.map_err(explain("delete"))?;
    text
}

/// The image of any ModelDeployment that runs.
async fn image_of(cluster: &Cluster) -> Result<String, Error> {
    let here = cluster.list(Some(&cluster.namespace)).await?;
    let everywhere = cluster.list(None).await.unwrap_or_default();
    let mut images = here
        .into_iter()
        .chain(everywhere)
        .filter_map(|deployment| deployment.status?.runtime_image);
    images.next().ok_or_else(|| Error::Argument {
        reason: format!(
            "no ModelDeployment shows which image has {RUNTIME}: give --image IMAGE, or install {RUNTIME} with `make install`"
        ),
    })
}

fn pod(arguments: &Fit, image: &str) -> Pod {
    let security = json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
    });
    let container = |name: &str, args: Vec<String>, env: Vec<Value>| {
        json!({
            "name": name, "image": image, "args": args, "env": env, "securityContext": security,
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
            "volumeMounts": [{"name": "models", "mountPath": DIR}],
        })
    };
    let mut fetch = fetch_arguments(arguments);
    fetch.push(format!("--destination={DIR}/model"));
    let token = arguments.token_secret.as_ref().map(|reference| {
        let (name, key) = reference.split_once(':').unwrap_or((reference, "HF_TOKEN"));
        json!({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": name, "key": key}}})
    });
    let inspect = [
        "inspect",
        "--json",
        "--memory",
        MEMORY_BYTES,
        &format!("{DIR}/model"),
    ]
    .map(str::to_string);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": format!("fit-{}-", manifest::name_of(&arguments.model)),
            "labels": {"app.kubernetes.io/managed-by": "kubectl-slipway"},
        },
        "spec": {
            "restartPolicy": "Never", "automountServiceAccountToken": false, "enableServiceLinks": false,
            "activeDeadlineSeconds": POD_SECONDS_MAX,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumes": [{"name": "models", "emptyDir": {}}],
            "initContainers": [container("fetch", fetch, token.into_iter().collect())],
            "containers": [container("inspect", inspect.to_vec(), Vec::new())],
        },
    });
    serde_json::from_value(pod).expect("the pod above is one")
}

/// Waits until the pod has ended.
async fn ended(cluster: &Cluster, name: &str) -> Result<(), Error> {
    let stopped = |reason: String| Error::Local {
        operation: format!("read the configuration in pod {name}"),
        reason,
    };
    let pods = watcher::watch_object(cluster.pods(), name);
    futures::pin_mut!(pods);
    while let Some(seen) = pods.next().await {
        let pod = seen.map_err(|error| stopped(error.to_string()))?;
        let Some(status) = pod.and_then(|pod| pod.status) else {
            continue;
        };
        match status.phase.as_deref() {
            Some("Succeeded") => return Ok(()),
            Some("Failed") => {
                let containers = status
                    .init_container_statuses
                    .iter()
                    .chain(&status.container_statuses)
                    .flatten();
                let message = containers.filter_map(message).next().or(status.message);
                return Err(stopped(
                    message.unwrap_or_else(|| "it failed without a message".into()),
                ));
            }
            _ => {}
        }
        let waiting = status
            .init_container_statuses
            .iter()
            .flatten()
            .filter_map(waiting)
            .next();
        if let Some(reason) = waiting {
            return Err(stopped(reason));
        }
    }
    Err(stopped("it was deleted".into()))
}

/// Why a container ended.
fn message(status: &ContainerStatus) -> Option<String> {
    let ended = status
        .state
        .as_ref()?
        .terminated
        .as_ref()
        .filter(|ended| ended.exit_code != 0)?;
    let text = ended.message.clone().unwrap_or_default();
    Some(match crds::failure::Failure::from_termination_message(&text) {
        Some(failure) => format!(
            "{}: {}. Remedy: {}",
            failure.reason, failure.message, failure.remedy
        ),
        None => format!("container {} ended with {}: {text}", status.name, ended.exit_code),
    })
}

/// Why a container cannot start; `None` while it may.
fn waiting(status: &ContainerStatus) -> Option<String> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    let is_stuck = [
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "CreateContainerConfigError",
    ]
    .contains(&reason);
    is_stuck.then(|| format!("{reason}: {}", waiting.message.as_deref().unwrap_or_default()))
}
