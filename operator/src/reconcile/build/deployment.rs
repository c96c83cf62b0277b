//! The Deployment of the pods.
//!
//! A change of the pod template restarts every model, so the template depends on the plan alone, never on the
//! operator's version. A test keeps the hashes of the templates of all examples.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use kube::api::ObjectMeta;

use super::{config_map, hash, labels, metadata, pod, selector_labels};
use crate::{
    names::{CONFIG_HASH, DEFAULT_IMAGE, Names, SOURCE, TEMPLATE_HASH},
    reconcile::plan::{Plan, PodOrder},
};

/// A download that takes longer counts as a stuck rollout: a day.
const DOWNLOAD_SECONDS_MAX: u32 = 86_400;
/// Old templates that a user can go back to.
const REVISIONS_KEPT: i32 = 3;
/// A pod that is ready for a shorter time does not replace an older one.
const READY_SECONDS_MIN: i32 = 5;

pub(crate) fn build(plan: &Plan) -> Deployment {
    let (surge, unavailable) = match plan.pod_order {
        PodOrder::NewFirst | PodOrder::CheckFirst => (1, 0),
        PodOrder::OldFirst => (0, 1),
    };
    Deployment {
        metadata: ObjectMeta {
            annotations: Some(BTreeMap::from([
                (DEFAULT_IMAGE.to_string(), plan.image.default.clone()),
                (SOURCE.to_string(), plan.source_key().to_string()),
            ])),
            ..metadata(plan, Names::of(&plan.name).main)
        },
        spec: Some(DeploymentSpec {
            replicas: Some(plan.replicas_now()),
            min_ready_seconds: Some(READY_SECONDS_MIN),
            revision_history_limit: Some(REVISIONS_KEPT),
            progress_deadline_seconds: Some((plan.startup_timeout_seconds + DOWNLOAD_SECONDS_MAX) as i32),
            selector: LabelSelector {
                match_labels: Some(selector_labels(plan)),
                ..LabelSelector::default()
            },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(surge)),
                    max_unavailable: Some(IntOrString::Int(unavailable)),
                }),
            }),
            template: template(plan),
            // Written, so that a rollout that somebody paused goes on.
            paused: Some(false),
        }),
        ..Deployment::default()
    }
}

pub(super) fn template(plan: &Plan) -> PodTemplateSpec {
    let user = &plan.pod_metadata;
    let mut labels = merged(&user.labels, labels(plan));
    labels.insert(CONFIG_HASH.into(), config_map::hash(plan));
    let mut template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: Some(user.annotations.clone()),
            ..ObjectMeta::default()
        }),
        spec: Some(pod::spec(plan)),
    };
    let bytes = serde_json::to_vec(&template).expect("a pod template serializes");
    let annotations = template
        .metadata
        .as_mut()
        .and_then(|metadata| metadata.annotations.as_mut());
    annotations
        .expect("set above")
        .insert(TEMPLATE_HASH.into(), hash(&bytes));
    template
}

/// The user's labels and the operator's, which win.
fn merged(user: &BTreeMap<String, String>, own: BTreeMap<String, String>) -> BTreeMap<String, String> {
    user.clone().into_iter().chain(own).collect()
}
