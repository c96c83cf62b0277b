//! `list`: the ModelDeployments of a namespace, or of all.

use std::time::{SystemTime, UNIX_EPOCH};

use crds::{ModelDeployment, conditions::ConditionType};
use kube::ResourceExt;

use crate::{arguments::List, cluster::Cluster, display, error::Error, readiness};

const HEADER: [&str; 8] = [
    "NAMESPACE",
    "NAME",
    "READY",
    "PHASE",
    "REASON",
    "MODEL",
    "REPLICAS",
    "AGE",
];

pub(super) async fn run(arguments: &List, cluster: &Cluster) -> Result<(), Error> {
    let namespace = (!arguments.all_namespaces).then_some(cluster.namespace.as_str());
    let deployments = cluster.list(namespace).await?;
    if deployments.is_empty() {
        match namespace {
            Some(namespace) => eprintln!("there are no ModelDeployments in namespace {namespace}"),
            None => eprintln!("there are no ModelDeployments"),
        }
        eprintln!("next:  kubectl slipway deploy Qwen/Qwen2.5-0.5B-Instruct");
        return Ok(());
    }
    let now = now();
    let rows: Vec<Vec<String>> = deployments
        .iter()
        .map(|deployment| row(deployment, now))
        .collect();
    print!("{}", display::table(&HEADER, &rows));
    Ok(())
}

fn row(deployment: &ModelDeployment, now: i64) -> Vec<String> {
    let status = deployment.status.clone().unwrap_or_default();
    let ready = readiness::condition(deployment, ConditionType::Ready);
    let created = deployment.creation_timestamp().map(|time| time.0.as_second());
    vec![
        deployment.namespace().unwrap_or_default(),
        deployment.name_any(),
        ready.map_or("Unknown", |ready| ready.status.as_str()).into(),
        readiness::phase(&status).into(),
        ready.map_or("", |ready| ready.reason.as_str()).into(),
        status.model_name.clone().unwrap_or_default(),
        status.summary.clone().unwrap_or_default(),
        created.map_or_else(String::new, |created| display::duration(now - created)),
    ]
}

/// Seconds since 1970.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}
