//! `status`: the conditions of a ModelDeployment, its last failure with the remedy, and its progress until it is ready.

use std::{fmt::Write as _, time::Duration};

use crds::{ModelDeployment, ModelDeploymentStatus, conditions::ConditionType, modeldeployment::LastFailure};
use kube::ResourceExt;

use crate::{
    arguments::Status,
    cluster::Cluster,
    display,
    error::Error,
    readiness::{self, Patience},
};

pub(super) async fn run(arguments: &Status, cluster: &Cluster) -> Result<(), Error> {
    let name = &arguments.name;
    let deployment = cluster.get(name).await?;
    if !arguments.watch {
        print!("{}", report(&deployment));
        return Ok(());
    }
    let timeout = Duration::from_secs(arguments.timeout_seconds);
    let ready = readiness::wait(cluster, name, timeout, Patience::UntilTimeout).await?;
    print!("{}", report(&ready));
    Ok(())
}

/// What is known, for a person.
fn report(deployment: &ModelDeployment) -> String {
    let status = deployment.status.clone().unwrap_or_default();
    let mut out = format!("{}  {}\n\n", deployment.name_any(), readiness::line(deployment));
    for (name, value) in facts(&status) {
        let _ = writeln!(out, "  {name:<12} {value}");
    }
    let rows: Vec<Vec<String>> = ConditionType::ALL
        .iter()
        .filter_map(|type_| readiness::condition(deployment, *type_))
        .map(|c| {
            vec![
                c.type_.clone(),
                c.status.clone(),
                c.reason.clone(),
                c.message.clone(),
            ]
        })
        .collect();
    if !rows.is_empty() {
        let _ = write!(
            out,
            "\n{}",
            display::table(&["CONDITION", "STATUS", "REASON", "MESSAGE"], &rows)
        );
    }
    if let Some(failure) = &status.last_failure {
        let _ = write!(out, "\n{}", failure_text(failure));
    }
    let next = match readiness::is_ready(deployment) {
        true => "chat",
        false => "logs",
    };
    let (name, namespace) = (deployment.name_any(), deployment.namespace().unwrap_or_default());
    let _ = writeln!(out, "\nnext:  kubectl slipway {next} {name} -n {namespace}");
    out
}

fn facts(status: &ModelDeploymentStatus) -> Vec<(&'static str, String)> {
    let model = status.model.clone().unwrap_or_default();
    let size = |n: i64| display::bytes(u64::try_from(n).unwrap_or(0));
    let all = [
        ("model", status.model_name.clone()),
        ("replicas", status.summary.clone()),
        (
            "url",
            status
                .url
                .clone()
                .map(|url| format!("{url} (inside the cluster)")),
        ),
        ("architecture", model.architecture),
        ("revision", model.revision),
        ("weights", model.bytes.map(size)),
        (
            "context",
            model.max_model_len.map(|tokens| format!("{tokens} tokens")),
        ),
        (
            "memory",
            model.memory_bytes.map(|n| format!("at most {}", size(n))),
        ),
        ("image", status.runtime_image.clone()),
        (
            "cold start",
            status.cold_start.as_ref().map(|start| &start.last).map(|start| {
                format!(
                    "{} s (node {} s, image {} s, download {} s, load {} s)",
                    start.total_seconds,
                    start.scheduled_seconds,
                    start.image_seconds,
                    start.download_seconds,
                    start.load_seconds
                )
            }),
        ),
        (
            "no effect",
            status.settings.as_ref().map(|settings| {
                let names: Vec<String> = settings
                    .accepted
                    .iter()
                    .chain(&settings.unknown)
                    .cloned()
                    .collect();
                names.join(", ")
            }),
        ),
    ];
    all.into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

fn failure_text(failure: &LastFailure) -> String {
    let container = failure
        .container
        .as_ref()
        .map_or(String::new(), |name| format!(", container {name}"));
    let exit = failure
        .exit_code
        .map_or(String::new(), |code| format!(", exit code {code}"));
    let mut out = format!(
        "last failure  {} (pod {}{container}{exit})\n  {}\n",
        failure.reason, failure.pod, failure.message
    );
    if !failure.remedy.is_empty() {
        let _ = writeln!(out, "  remedy: {}", failure.remedy);
    }
    out
}
