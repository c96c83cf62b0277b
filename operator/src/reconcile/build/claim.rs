//! The PersistentVolumeClaim of the cache, if the spec requests one.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};

use super::metadata;
use crate::{
    names::{INSTANCE_LABEL, Names},
    reconcile::plan::{CacheVolume, ClaimLifetime, Plan, Source},
};

pub(crate) fn build(plan: &Plan) -> Option<PersistentVolumeClaim> {
    let Source::Hub(hub) = &plan.source else {
        return None;
    };
    let CacheVolume::Own {
        size,
        storage_class,
        access_mode,
        lifetime,
    } = &hub.cache
    else {
        return None;
    };
    let mut metadata = metadata(plan, Names::of(&plan.name).claim);
    if *lifetime == ClaimLifetime::Retained {
        metadata.owner_references = None;
        // Argo CD deletes objects without an owner that have this label and are not in its repository.
        metadata.labels.get_or_insert_default().remove(INSTANCE_LABEL);
    }
    Some(PersistentVolumeClaim {
        metadata,
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec![access_mode.as_str().into()]),
            storage_class_name: storage_class.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_string(), size.clone())])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    })
}
