//! The ConfigMap: the runtime's configuration file, with every setting of the spec under the name of its flag.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;

use super::metadata;
use crate::{
    names::{CONFIG_FILE, Names},
    reconcile::plan::Plan,
};

pub(crate) fn build(plan: &Plan) -> ConfigMap {
    ConfigMap {
        metadata: metadata(plan, Names::of(&plan.name).config_map),
        data: Some(BTreeMap::from([(CONFIG_FILE.to_string(), text(plan))])),
        ..ConfigMap::default()
    }
}

/// The file's text.
pub(super) fn text(plan: &Plan) -> String {
    serde_saphyr::to_string(&plan.config).expect("checked settings serialize")
}
