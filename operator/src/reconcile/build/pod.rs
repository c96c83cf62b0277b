//! The pod: its containers, volumes, user, and the nodes on which it may run.

use crds::modeldeployment::{MAX_SKEW_DEFAULT, TopologySpread};
use k8s_openapi::{
    api::core::v1::{
        Affinity, ConfigMapVolumeSource, EmptyDirVolumeSource, KeyToPath, LocalObjectReference,
        PersistentVolumeClaimVolumeSource, PodAffinity, PodAffinityTerm, PodSecurityContext, PodSpec,
        SeccompProfile, SecretVolumeSource, TopologySpreadConstraint, Volume,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use super::{config_map, containers, selector_labels};
use crate::{
    names::{
        API_KEYS_FILE, API_KEYS_VOLUME, CA_BUNDLE_FILE, CA_BUNDLE_VOLUME, CONFIG_VOLUME, GPU_PRODUCT_LABEL,
        MODELS_VOLUME, NODE_NAME_LABEL, Names, TMP_VOLUME,
    },
    reconcile::plan::{CacheVolume, Identity, Plan, Source, VolumeReach},
};

/// Time to stop a pod on top of its drain, the shutdown delay included.
const GRACE_SECONDS: u32 = 15;
/// Label of a pod with the hash of its template; the Deployment controller sets it.
const POD_TEMPLATE_HASH: &str = "pod-template-hash";

pub(super) fn spec(plan: &Plan) -> PodSpec {
    let scheduling = plan.scheduling.clone();
    let mut node_selector = scheduling.node_selector;
    if let Some(product) = plan.gpu.as_ref().and_then(|gpu| gpu.product.clone()) {
        node_selector.insert(GPU_PRODUCT_LABEL.into(), product);
    }
    let fetch = match &plan.source {
        Source::Hub(hub) => Some(vec![containers::fetch(plan, hub)]),
        Source::Claim { .. } => None,
    };
    let spread = scheduling.topology_spread.iter();
    let spread: Vec<_> = spread.map(|spread| spread_constraint(plan, spread)).collect();
    let pull_secrets = plan.image.pull_secrets.iter();
    let pull_secrets: Vec<_> = pull_secrets
        .map(|name| LocalObjectReference { name: name.clone() })
        .collect();
    PodSpec {
        init_containers: fetch,
        containers: vec![containers::runtime(plan)],
        volumes: Some(volumes(plan)),
        service_account_name: Some(Names::of(&plan.name).main),
        automount_service_account_token: Some(false),
        // A Service named "max" would set MAX_PORT and the like, and the runtime reads variables as settings.
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(i64::from(plan.drain_timeout_seconds + GRACE_SECONDS)),
        security_context: Some(security_context(plan.identity)),
        image_pull_secrets: (!pull_secrets.is_empty()).then_some(pull_secrets),
        node_selector: (!node_selector.is_empty()).then_some(node_selector),
        tolerations: (!scheduling.tolerations.is_empty()).then_some(scheduling.tolerations),
        priority_class_name: scheduling.priority_class_name,
        runtime_class_name: scheduling.runtime_class_name,
        topology_spread_constraints: (!spread.is_empty()).then_some(spread),
        affinity: affinity(plan, scheduling.affinity),
        ..PodSpec::default()
    }
}

fn security_context(identity: Identity) -> PodSecurityContext {
    let common = PodSecurityContext {
        run_as_non_root: Some(true),
        fs_group_change_policy: Some("OnRootMismatch".into()),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".into(),
            ..SeccompProfile::default()
        }),
        ..PodSecurityContext::default()
    };
    match identity {
        Identity::Platform => common,
        Identity::Fixed {
            user,
            group,
            fs_group,
        } => PodSecurityContext {
            run_as_user: Some(user),
            run_as_group: Some(group),
            fs_group: Some(fs_group),
            ..common
        },
    }
}

/// Only replicas of the same template count, so that the pods that a rollout replaces do not move the new ones.
fn spread_constraint(plan: &Plan, spread: &TopologySpread) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        topology_key: spread.topology_key.clone(),
        max_skew: spread.max_skew.unwrap_or(MAX_SKEW_DEFAULT),
        when_unsatisfiable: spread.when_unsatisfiable.unwrap_or_default().as_str().into(),
        label_selector: Some(LabelSelector {
            match_labels: Some(selector_labels(plan)),
            ..LabelSelector::default()
        }),
        match_label_keys: Some(vec![POD_TEMPLATE_HASH.into()]),
        ..TopologySpreadConstraint::default()
    }
}

/// The user's affinity, and the rule for a volume of one node.
fn affinity(plan: &Plan, user: Option<Affinity>) -> Option<Affinity> {
    if plan.volume_reach == VolumeReach::EveryNode {
        return user;
    }
    let mut affinity = user.unwrap_or_default();
    let pods = affinity.pod_affinity.get_or_insert_with(PodAffinity::default);
    let required = &mut pods.required_during_scheduling_ignored_during_execution;
    required
        .get_or_insert_with(Vec::new)
        .push(beside_other_replicas(plan));
    Some(affinity)
}

/// Replicas that share a volume of one node run beside each other, so that a rollout can start a new pod while an old one
/// serves. The scheduler does not apply the rule to the first of them.
fn beside_other_replicas(plan: &Plan) -> PodAffinityTerm {
    PodAffinityTerm {
        label_selector: Some(LabelSelector {
            match_labels: Some(selector_labels(plan)),
            ..LabelSelector::default()
        }),
        topology_key: NODE_NAME_LABEL.into(),
        ..PodAffinityTerm::default()
    }
}

fn volumes(plan: &Plan) -> Vec<Volume> {
    let empty_dir = |size_limit| Volume {
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit,
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    };
    let models = match &plan.source {
        Source::Claim { name } => claim(name, Access::ReadOnly),
        Source::Hub(hub) => match &hub.cache {
            CacheVolume::Existing { name } => claim(name, Access::ReadWrite),
            CacheVolume::Own { .. } => claim(&Names::of(&plan.name).claim, Access::ReadWrite),
            CacheVolume::Ephemeral { size } => empty_dir(size.clone()),
        },
    };
    let config = Volume {
        config_map: Some(ConfigMapVolumeSource {
            name: config_map::name(plan),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    };
    let named = [
        (MODELS_VOLUME, Some(models)),
        (CONFIG_VOLUME, Some(config)),
        (API_KEYS_VOLUME, api_keys(plan)),
        (CA_BUNDLE_VOLUME, ca_bundle(plan)),
        (TMP_VOLUME, Some(empty_dir(None))),
    ];
    let volumes = named.into_iter().filter_map(|(name, volume)| {
        Some(Volume {
            name: name.into(),
            ..volume?
        })
    });
    volumes.collect()
}

/// The Secret as a file, so that the runtime sees new keys without a restart.
fn api_keys(plan: &Plan) -> Option<Volume> {
    let keys = plan.api_keys.as_ref()?;
    Some(Volume {
        secret: Some(SecretVolumeSource {
            secret_name: Some(keys.name.clone()),
            items: Some(vec![item(&keys.key, API_KEYS_FILE)]),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    })
}

fn ca_bundle(plan: &Plan) -> Option<Volume> {
    let Source::Hub(hub) = &plan.source else {
        return None;
    };
    let bundle = hub.ca_bundle.as_ref()?;
    Some(Volume {
        config_map: Some(ConfigMapVolumeSource {
            name: bundle.name.clone(),
            items: Some(vec![item(&bundle.key, CA_BUNDLE_FILE)]),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    })
}

fn item(key: &str, file: &str) -> KeyToPath {
    KeyToPath {
        key: key.into(),
        path: file.into(),
        ..KeyToPath::default()
    }
}

/// How the pods use a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    ReadOnly,
    ReadWrite,
}

fn claim(name: &str, access: Access) -> Volume {
    Volume {
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: name.into(),
            read_only: (access == Access::ReadOnly).then_some(true),
        }),
        ..Volume::default()
    }
}
