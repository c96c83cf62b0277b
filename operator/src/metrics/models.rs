//! Metrics of each ModelDeployment, read from the stores of the watches when they are requested.

use std::fmt::Error;
use std::sync::{Arc, PoisonError, RwLock};

use crds::{ModelDeployment, ModelDeploymentStatus};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::Store;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet},
    metrics::MetricType,
};

type Objects = Store<DeserializeGuard<ModelDeployment>>;

/// The stores, cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Models(Arc<RwLock<Vec<Objects>>>);

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ModelLabels {
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PhaseLabels {
    namespace: String,
    name: String,
    phase: String,
    reason: String,
}

/// A number of replicas of a ModelDeployment.
type Number = fn(&ModelDeploymentStatus) -> i32;

/// Name, meaning and value of the metrics that are numbers of replicas.
const NUMBERS: [(&str, &str, Number); 3] = [
    (
        "slipway_model_deployment_replicas_desired",
        "Replicas that are requested",
        |status| status.desired_replicas,
    ),
    (
        "slipway_model_deployment_replicas_ready",
        "Replicas that are ready",
        |status| status.ready_replicas,
    ),
    (
        "slipway_model_deployment_replicas_updated",
        "Replicas of the current spec",
        |status| status.updated_replicas,
    ),
];

impl Models {
    /// Replaces the stores; none while another process leads.
    pub(super) fn watch(&self, stores: Vec<Objects>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = stores;
    }

    /// Labels and status of each ModelDeployment that has a status.
    fn statuses(&self) -> Vec<(ModelLabels, ModelDeploymentStatus)> {
        let stores = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let objects = stores.iter().flat_map(Store::state);
        let read = |object: Arc<DeserializeGuard<ModelDeployment>>| {
            let model = object.0.as_ref().ok()?;
            let labels = ModelLabels {
                namespace: model.metadata.namespace.clone()?,
                name: model.metadata.name.clone()?,
            };
            Some((labels, model.status.clone()?))
        };
        objects.filter_map(read).collect()
    }
}

impl std::fmt::Debug for Models {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Models")
    }
}

impl Collector for Models {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let statuses = self.statuses();
        for (name, meaning, value) in NUMBERS {
            let mut family = encoder.encode_descriptor(name, meaning, None, MetricType::Gauge)?;
            for (labels, status) in &statuses {
                family
                    .encode_family(labels)?
                    .encode_gauge(&i64::from(value(status)))?;
            }
        }
        let name = "slipway_model_deployment_phase";
        let meaning = "1 for the phase of each ModelDeployment, with the reason of its Ready condition";
        let mut family = encoder.encode_descriptor(name, meaning, None, MetricType::Gauge)?;
        for (labels, status) in &statuses {
            let labels = phase(labels, status);
            family.encode_family(&labels)?.encode_gauge(&1_i64)?;
        }
        Ok(())
    }
}

/// The phase by the name that the status has, which is the variant's.
fn phase(labels: &ModelLabels, status: &ModelDeploymentStatus) -> PhaseLabels {
    let ready = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Ready");
    PhaseLabels {
        namespace: labels.namespace.clone(),
        name: labels.name.clone(),
        phase: status.phase.map(|phase| format!("{phase:?}")).unwrap_or_default(),
        reason: ready.map(|ready| ready.reason.clone()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::{reflector, watcher::Event};
    use prometheus_client::registry::Registry;
    use serde_json::json;

    use super::*;
    use crate::metrics::text;

    #[test]
    fn each_model_has_its_replicas_and_its_phase() {
        let (reader, mut writer) = reflector::store();
        let object = json!({
            "metadata": {"name": "chat", "namespace": "team", "uid": "1"},
            "spec": {"model": {"repo": "a/b"}},
            "status": {
                "phase": "Failed", "desiredReplicas": 2, "readyReplicas": 1, "updatedReplicas": 2,
                "conditions": [{
                    "type": "Ready", "status": "False", "reason": "DownloadUnauthorized", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"
                }]
            }
        });
        writer.apply_watcher_event(&Event::Apply(serde_json::from_value(object).unwrap()));
        let models = Models::default();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(models.clone()));
        models.watch(vec![reader]);
        let shown = text(&registry);
        for line in [
            r#"slipway_model_deployment_replicas_desired{namespace="team",name="chat"} 2"#,
            r#"slipway_model_deployment_replicas_ready{namespace="team",name="chat"} 1"#,
            r#"slipway_model_deployment_phase{namespace="team",name="chat",phase="Failed",reason="DownloadUnauthorized"} 1"#,
        ] {
            assert!(shown.contains(line), "{line} is not in {shown}");
        }
        models.watch(Vec::new());
        assert!(!text(&registry).contains("chat"));
    }
}
