//! The gateway's metrics.

use std::sync::atomic::AtomicI64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::directory::Key;

/// Label sets that are kept: a ModelDeployment has a few.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    namespace: String,
    name: String,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RefusedLabels {
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FilesLabels {
    files: &'static str,
}

/// The metrics, cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    refused: Family<RefusedLabels, Counter>,
    repeated: Counter,
    cut_off: Counter,
    held: Gauge<i64, AtomicI64>,
    reload_failures: Family<FilesLabels, Counter>,
    last_reload_successful: Family<FilesLabels, Gauge<i64, AtomicI64>>,
}

impl Metrics {
    /// New metrics, registered.
    pub(super) fn register(registry: &mut Registry) -> Metrics {
        let metrics = Metrics::default();
        registry.register(
            "slipway_gateway_requests",
            "Forwarded requests by ModelDeployment and status of the answer",
            metrics.requests.clone(),
        );
        registry.register(
            "slipway_gateway_refused",
            "Requests that the gateway answered itself, by status",
            metrics.refused.clone(),
        );
        registry.register(
            "slipway_gateway_repeated",
            "Attempts after the first one",
            metrics.repeated.clone(),
        );
        registry.register(
            "slipway_gateway_cut_off",
            "Answers that a replica ended early",
            metrics.cut_off.clone(),
        );
        registry.register(
            "slipway_gateway_held",
            "Requests that wait for a ready replica",
            metrics.held.clone(),
        );
        registry.register(
            "slipway_gateway_reload_failures",
            "Changes of files that could not be used",
            metrics.reload_failures.clone(),
        );
        registry.register(
            "slipway_gateway_last_reload_successful",
            "1 if the files are in use as they are, 0 if an earlier version is",
            metrics.last_reload_successful.clone(),
        );
        metrics
    }

    /// Counts an answer of a replica.
    pub(super) fn answered(&self, key: &Key, code: u16) {
        let labels = RequestLabels {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            code,
        };
        self.requests.get_or_create(&labels).inc();
    }

    /// Counts an answer of the gateway itself.
    pub(super) fn refused(&self, code: u16) {
        self.refused.get_or_create(&RefusedLabels { code }).inc();
    }

    /// Counts a further attempt.
    pub(super) fn repeated(&self) {
        self.repeated.inc();
    }

    /// Counts an answer that broke off.
    pub(super) fn cut_off(&self) {
        self.cut_off.inc();
    }

    /// More or fewer requests wait.
    pub(super) fn held(&self, change: i64) {
        self.held.inc_by(change);
    }

    /// Files were read and are in use, or cannot be used.
    pub(super) fn reloaded(&self, files: &'static str, is_good: bool) {
        let labels = FilesLabels { files };
        let failures = self.reload_failures.get_or_create(&labels);
        if !is_good {
            failures.inc();
        }
        drop(failures);
        self.last_reload_successful
            .get_or_create(&labels)
            .set(i64::from(is_good));
    }
}
