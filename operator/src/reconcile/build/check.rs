//! The Job that checks a new spec before an old pod ends to make room, or before the first pod starts: it downloads the
//! model and reads its configuration with the settings of the new spec, and needs neither the GPUs nor the memory of a
//! replica.
//!
//! Its pod is a replica's pod in which `inspect` takes the place of `serve`, so that both read the same.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    batch::v1::{Job, JobSpec},
    core::v1::{Container, PodSpec, PodTemplateSpec},
};
use kube::api::ObjectMeta;

use super::{containers, deployment, metadata};
use crate::{
    names::{CHECK_LABEL, CONFIG_DIR, CONFIG_FILE, GPU_PRODUCT_LABEL, Names, TEMPLATE_HASH, template_hash},
    reconcile::plan::Plan,
};

/// The kubelet restarts a check that fails, with growing waits, until it succeeds or the spec changes: the cause may be
/// outside the spec.
const RETRIES_MAX: i32 = i32::MAX;

pub(crate) fn build(plan: &Plan) -> Option<Job> {
    if !plan.has_check() {
        return None;
    }
    let template = deployment::template(plan);
    let hash = template_hash(template.metadata.as_ref()?)?.to_string();
    let mut metadata = metadata(plan, Names::of(&plan.name).check);
    metadata.annotations = Some(BTreeMap::from([(TEMPLATE_HASH.to_string(), hash)]));
    Some(Job {
        metadata,
        spec: Some(JobSpec {
            backoff_limit: Some(RETRIES_MAX),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(BTreeMap::from([(CHECK_LABEL.to_string(), plan.name.clone())])),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(plan, template.spec?)),
            },
            ..JobSpec::default()
        }),
        ..Job::default()
    })
}

fn pod(plan: &Plan, replica: PodSpec) -> PodSpec {
    let mut node_selector = replica.node_selector.unwrap_or_default();
    node_selector.remove(GPU_PRODUCT_LABEL);
    let small = |container: Container| Container {
        resources: Some(containers::check_resources(plan)),
        ..container
    };
    let inspect = |runtime: Container| Container {
        args: Some(
            [
                "inspect",
                &plan.model_dir,
                "--config",
                &format!("{CONFIG_DIR}/{CONFIG_FILE}"),
                "--json",
            ]
            .map(str::to_string)
            .to_vec(),
        ),
        ports: None,
        startup_probe: None,
        readiness_probe: None,
        liveness_probe: None,
        ..runtime
    };
    PodSpec {
        init_containers: replica
            .init_containers
            .map(|fetch| fetch.into_iter().map(small).collect()),
        containers: replica.containers.into_iter().map(inspect).map(small).collect(),
        node_selector: (!node_selector.is_empty()).then_some(node_selector),
        restart_policy: Some("OnFailure".into()),
        ..replica
    }
}
