//! Whether a Job downloads the model before the first pod, so that no pod holds GPUs or memory meanwhile.
//!
//! Pure. Only for a claim that every node can mount: elsewhere the Job would choose the node of the pods.

use k8s_openapi::api::{apps::v1::Deployment, batch::v1::Job};

use super::{
    observed::Observed,
    plan::{CacheVolume, Plan, Prefetch, Source, VolumeReach},
};
use crate::names::{Names, template_hash};

/// How far the download before the first pod is; `hash` is that of the plan's pod template.
pub fn prefetch(plan: &Plan, hash: &str, observed: &Observed) -> Prefetch {
    let names = Names::of(&plan.name);
    let live: Option<Deployment> = observed.live.typed(&names.main);
    let requested = live.and_then(|live| live.spec?.replicas).unwrap_or(0);
    if !is_wanted(plan) || !observed.pods.is_empty() || requested > 0 {
        return Prefetch::NotNeeded;
    }
    let Some(job) = observed.live.typed::<Job>(&names.check) else {
        return Prefetch::Running;
    };
    if template_hash(&job.metadata) != Some(hash) {
        return Prefetch::Outdated;
    }
    match job.status.and_then(|status| status.succeeded).unwrap_or(0) {
        0 => Prefetch::Running,
        _ => Prefetch::Done,
    }
}

fn is_wanted(plan: &Plan) -> bool {
    let Source::Hub(hub) = &plan.source else {
        return false;
    };
    let is_kept = !matches!(hub.cache, CacheVolume::Ephemeral { .. });
    let is_missing = hub.commit.is_none();
    let spares_something = plan.gpu.is_some() || plan.may_be_at_zero;
    is_kept && is_missing && spares_something && plan.volume_reach == VolumeReach::EveryNode
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        names::TEMPLATE_HASH,
        reconcile::fixtures::{object, plan, ready_pod},
    };
    use serde_json::{Value, json};
    use std::sync::Arc;

    const SHARED: &str =
        "cache: {type: PVC, size: 1Gi, accessMode: ReadWriteMany}, resources: {gpu: {count: 1}}";

    fn with(kind: &'static str, name: &str, hash: &str, rest: Value) -> Observed {
        let mut live = json!({
            "apiVersion": if kind == "Job" { "batch/v1" } else { "apps/v1" }, "kind": kind,
            "metadata": {"name": name, "annotations": {TEMPLATE_HASH: hash}},
        });
        live.as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        Observed {
            live: [(kind, Arc::new(serde_json::from_value(live).unwrap()))]
                .into_iter()
                .collect(),
            ..Observed::default()
        }
    }

    fn of(spec: &str, observed: &Observed) -> Prefetch {
        let object = object(&format!("{{model: {{huggingFace: {{repo: a/b}}}}, {spec}}}"));
        prefetch(&plan(&object), "h", observed)
    }

    #[test]
    fn a_job_downloads_before_the_first_pod_and_is_kept_until_there_is_one() {
        let job = |hash, status: Value| with("Job", "chat-check", hash, json!({"status": status}));
        assert_eq!(of(SHARED, &Observed::default()), Prefetch::Running);
        assert_eq!(of(SHARED, &job("h", json!({"active": 1}))), Prefetch::Running);
        assert_eq!(of(SHARED, &job("older", json!({}))), Prefetch::Outdated);
        assert_eq!(of(SHARED, &job("h", json!({"succeeded": 1}))), Prefetch::Done);
        let started = with(
            "Deployment",
            "chat",
            "h",
            json!({"spec": {
                "replicas": 1, "selector": {}, "template": {},
            }}),
        );
        assert_eq!(of(SHARED, &started), Prefetch::NotNeeded);
        let serving = Observed {
            pods: vec![ready_pod("chat-1", "h")],
            ..Observed::default()
        };
        assert_eq!(of(SHARED, &serving), Prefetch::NotNeeded);
    }

    #[test]
    fn only_a_shared_claim_of_a_model_that_holds_something_is_filled_before() {
        let zero = "autoscaling: {minReplicas: 0, maxReplicas: 1}";
        for (spec, expected) in [
            (
                "cache: {type: PVC, accessMode: ReadWriteMany}",
                Prefetch::NotNeeded,
            ),
            (
                "cache: {type: PVC}, resources: {gpu: {count: 1}}",
                Prefetch::NotNeeded,
            ),
            ("resources: {gpu: {count: 1}}", Prefetch::NotNeeded),
            (zero, Prefetch::NotNeeded),
        ] {
            assert_eq!(of(spec, &Observed::default()), expected, "{spec}");
        }
        let shared = format!("cache: {{type: PVC, accessMode: ReadWriteMany}}, {zero}");
        assert_eq!(of(&shared, &Observed::default()), Prefetch::Running);
    }
}
