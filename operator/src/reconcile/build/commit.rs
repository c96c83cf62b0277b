//! The ConfigMap with the commit of the model's revision, once the first pods have downloaded it.
//!
//! Pods that start later download the same commit, whatever happened to the branch since. A variable reads it, so that
//! it is not part of the template.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ObjectMeta;

use super::metadata;
use crate::{
    names::{COMMIT, Names, SOURCE},
    reconcile::plan::{Plan, Source},
};

pub(crate) fn build(plan: &Plan) -> Option<ConfigMap> {
    let Source::Hub(hub) = &plan.source else {
        return None;
    };
    let commit = hub.commit.clone()?;
    let source = plan.source_key().to_string();
    // The operator reads only the metadata of ConfigMaps.
    let annotations = [(SOURCE, source.clone()), (COMMIT, commit.clone())];
    let annotations = annotations.map(|(name, value)| (name.to_string(), value));
    Some(ConfigMap {
        metadata: ObjectMeta {
            annotations: Some(BTreeMap::from(annotations)),
            ..metadata(plan, Names::of(&plan.name).commit)
        },
        data: Some(BTreeMap::from([(source, commit)])),
        ..ConfigMap::default()
    })
}
