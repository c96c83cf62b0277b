//! The ConfigMap: the runtime's configuration file, with every setting of the spec under the name of its flag.
//!
//! Its name has the hash of the file, and it cannot be changed: the pods of an older template keep their file whatever
//! the spec says, and a template that a user goes back to has its own.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;

use super::metadata;
use crate::{
    names::{CONFIG_FILE, CONFIG_HASH, Names},
    reconcile::plan::Plan,
};

pub(crate) fn build(plan: &Plan) -> ConfigMap {
    let mut metadata = metadata(plan, name(plan));
    let labels = metadata.labels.get_or_insert_default();
    labels.insert(CONFIG_HASH.into(), hash(plan));
    ConfigMap {
        metadata,
        data: Some(BTreeMap::from([(CONFIG_FILE.to_string(), text(plan))])),
        immutable: Some(true),
        ..ConfigMap::default()
    }
}

/// The ConfigMap's name.
pub(super) fn name(plan: &Plan) -> String {
    format!("{}-{}", Names::of(&plan.name).config_map, hash(plan))
}

/// The file's hash.
pub(super) fn hash(plan: &Plan) -> String {
    super::hash(text(plan).as_bytes())
}

fn text(plan: &Plan) -> String {
    serde_saphyr::to_string(&plan.config).expect("checked settings serialize")
}
