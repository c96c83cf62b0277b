//! The metrics of the operator, in the text format of OpenMetrics.

mod models;

use std::time::Duration;

use crds::ModelDeployment;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::Store;

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Seconds: from a reconcile that only reads, to one that waits for every timeout.
const DURATION_BUCKETS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DirectionLabel {
    direction: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// The metrics, cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    reconciles: Family<ResultLabel, Counter>,
    seconds: Histogram,
    managed: Gauge,
    models: models::Models,
    scalings: Family<DirectionLabel, Counter>,
    activation: Histogram,
}

impl Metrics {
    /// New metrics, registered.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            reconciles: Family::default(),
            seconds: Histogram::new(DURATION_BUCKETS),
            managed: Gauge::default(),
            models: models::Models::default(),
            scalings: Family::default(),
            activation: Histogram::new(DURATION_BUCKETS),
        };
        registry.register(
            "slipway_operator_reconciles",
            "Reconciles by result",
            metrics.reconciles.clone(),
        );
        registry.register_with_unit(
            "slipway_operator_reconcile_duration",
            "Time of one reconcile",
            Unit::Seconds,
            metrics.seconds.clone(),
        );
        registry.register(
            "slipway_operator_model_deployments",
            "ModelDeployments that this operator manages",
            metrics.managed.clone(),
        );
        registry.register(
            "slipway_operator_scalings",
            "Changes of numbers of replicas by the autoscaler, by direction",
            metrics.scalings.clone(),
        );
        registry.register_collector(Box::new(metrics.models.clone()));
        registry.register_with_unit(
            "slipway_operator_activation_duration",
            "Time from the first held request for a model without replicas until its replicas are written",
            Unit::Seconds,
            metrics.activation.clone(),
        );
        metrics
    }

    /// Counts one start for requests that gateways held for so long.
    pub fn woken(&self, after: Duration) {
        self.activation.observe(after.as_secs_f64());
    }

    /// Counts one reconcile.
    pub fn observe(&self, result: &'static str, took: Duration) {
        self.reconciles.get_or_create(&ResultLabel { result }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// Counts one change of a number of replicas by the autoscaler, `up` or `down`.
    pub fn scaled(&self, direction: &'static str) {
        self.scalings.get_or_create(&DirectionLabel { direction }).inc();
    }

    /// Reports the ModelDeployments of these stores from now on; none while another process leads.
    pub fn watch(&self, stores: Vec<Store<DeserializeGuard<ModelDeployment>>>) {
        self.models.watch(stores);
    }

    /// Sets how many objects are managed.
    pub fn set_managed(&self, n_objects: usize) {
        self.managed.set(i64::try_from(n_objects).unwrap_or(i64::MAX));
    }
}

/// The body of a scrape.
pub fn text(registry: &Registry) -> String {
    let mut out = String::new();
    text::encode(&mut out, registry).expect("writing to a string succeeds");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_names_every_metric() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.observe("ok", Duration::from_millis(20));
        metrics.set_managed(3);
        metrics.scaled("up");
        let text = text(&registry);
        assert!(
            text.contains("slipway_operator_reconciles_total{result=\"ok\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("slipway_operator_reconcile_duration_seconds_count 1"),
            "{text}"
        );
        assert!(
            text.contains("slipway_operator_scalings_total{direction=\"up\"} 1"),
            "{text}"
        );
        assert!(text.contains("slipway_operator_model_deployments 3"), "{text}");
    }
}
