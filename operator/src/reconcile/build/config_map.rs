//! The runtime's configuration file: every setting that the spec makes, by its flag's name.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;

use super::{Names, Plan, metadata};

/// Key of the ConfigMap, and so name of the file.
pub(super) const FILE_NAME: &str = "config.yaml";

pub(super) fn build(plan: &Plan) -> ConfigMap {
    ConfigMap {
        metadata: metadata(plan, Names::of(&plan.name).config_map),
        data: Some(BTreeMap::from([(FILE_NAME.to_string(), text(plan))])),
        ..ConfigMap::default()
    }
}

/// The file's text.
pub(super) fn text(plan: &Plan) -> String {
    serde_saphyr::to_string(&plan.config).expect("checked settings are plain data")
}
