//! `logs`: what the pods of a ModelDeployment have logged.

use futures::{AsyncBufReadExt, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::{ResourceExt, api::LogParams};

use crate::{arguments::Logs, cluster::Cluster, error::Error};

pub(super) async fn run(arguments: &Logs, cluster: &Cluster) -> Result<(), Error> {
    let deployment = cluster.get(&arguments.name).await?;
    let pods = cluster.pods_of(&deployment).await?;
    if pods.is_empty() {
        return Err(Error::NoPod {
            name: arguments.name.clone(),
            namespace: cluster.namespace.clone(),
        });
    }
    let is_several = pods.len() > 1;
    let logs = pods.iter().map(|pod| lines(arguments, cluster, pod, is_several));
    let logs = futures::future::try_join_all(logs).await?;
    let mut lines = stream::select_all(logs);
    while let Some(line) = lines.next().await {
        println!("{}", line?);
    }
    Ok(())
}

type Lines = stream::BoxStream<'static, Result<String, Error>>;

async fn lines(arguments: &Logs, cluster: &Cluster, pod: &Pod, is_several: bool) -> Result<Lines, Error> {
    let name = pod.name_any();
    let container = arguments.container.clone().or_else(|| interesting(pod));
    let Some(container) = container else {
        let waiting = format!(
            "{name}: no container has started; kubectl slipway status {} has the reason",
            arguments.name
        );
        return Ok(stream::once(async { Ok(waiting) }).boxed());
    };
    let parameters = LogParams {
        container: Some(container.clone()),
        follow: arguments.follow,
        previous: arguments.previous,
        tail_lines: arguments.tail,
        ..LogParams::default()
    };
    let log = cluster.pods().log_stream(&name, &parameters).await;
    let log = log.map_err(|error| cluster.explain(cluster.request("get", "pods/log"), error))?;
    let prefix = if is_several {
        format!("{name}/{container}  ")
    } else {
        String::new()
    };
    let operation = format!("read the log of pod {name}");
    Ok(log
        .lines()
        .map_ok(move |line| format!("{prefix}{line}"))
        .map_err(move |error| Error::Local {
            operation: operation.clone(),
            reason: error.to_string(),
        })
        .boxed())
}

/// The container that serves if it has ever started, else the last one before it that has.
fn interesting(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let has_started = |status: &&ContainerStatus| {
        let state = status.state.as_ref();
        let is_past = status.restart_count > 0;
        is_past || state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    };
    let serving = status.container_statuses.iter().flatten().find(has_started);
    let before = || {
        status
            .init_container_statuses
            .iter()
            .flatten()
            .rev()
            .find(has_started)
    };
    serving.or_else(before).map(|status| status.name.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(init: serde_json::Value, serving: serde_json::Value) -> Pod {
        let status = |name: &str, state: serde_json::Value| json!({"name": name, "state": state, "ready": false, "restartCount": 0, "image": "i", "imageID": "i"});
        serde_json::from_value(json!({"metadata": {"name": "p"}, "status": {
            "initContainerStatuses": [status("fetch", init)], "containerStatuses": [status("runtime", serving)],
        }}))
        .unwrap()
    }

    #[test]
    fn the_log_of_the_container_that_runs_or_failed() {
        let (waiting, running) = (json!({"waiting": {}}), json!({"running": {}}));
        let ended = json!({"terminated": {"exitCode": 1}});
        assert_eq!(interesting(&pod(waiting.clone(), waiting.clone())), None);
        assert_eq!(
            interesting(&pod(running.clone(), waiting.clone())).as_deref(),
            Some("fetch")
        );
        assert_eq!(
            interesting(&pod(ended.clone(), waiting)).as_deref(),
            Some("fetch")
        );
        assert_eq!(interesting(&pod(ended, running)).as_deref(), Some("runtime"));
    }
}
