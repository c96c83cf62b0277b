//! The gateway's metrics.

use std::sync::atomic::AtomicI64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{directory::Key, usage::Usage};

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

/// Label sets that are kept: as many as there are accounts.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ClientLabels {
    namespace: String,
    name: String,
    key: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LimitedLabels {
    namespace: String,
    name: String,
    key: String,
    limit: &'static str,
}

/// The metrics, cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    refused: Family<RefusedLabels, Counter>,
    repeated: Counter,
    cut_off: Counter,
    held: Gauge<i64, AtomicI64>,
    used_requests: Family<ClientLabels, Counter>,
    used_prompt_tokens: Family<ClientLabels, Counter>,
    used_completion_tokens: Family<ClientLabels, Counter>,
    estimated: Family<ClientLabels, Counter>,
    limited: Family<LimitedLabels, Counter>,
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
            "slipway_gateway_usage_requests",
            "Requests that a replica accepted, by ModelDeployment and key",
            metrics.used_requests.clone(),
        );
        registry.register(
            "slipway_gateway_usage_prompt_tokens",
            "Tokens of prompts by ModelDeployment and key, as answers name them",
            metrics.used_prompt_tokens.clone(),
        );
        registry.register(
            "slipway_gateway_usage_completion_tokens",
            "Tokens of answers by ModelDeployment and key, as answers name them",
            metrics.used_completion_tokens.clone(),
        );
        registry.register(
            "slipway_gateway_usage_estimated",
            "Answers that ended before they named their tokens; limits count an estimate",
            metrics.estimated.clone(),
        );
        registry.register(
            "slipway_gateway_limited",
            "Requests that were refused because of a limit, by ModelDeployment, key and limit",
            metrics.limited.clone(),
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

    /// Counts a request of a client.
    pub(super) fn used_request(&self, model: &Key, client: &str) {
        self.used_requests
            .get_or_create(&client_labels(model, client))
            .inc();
    }

    /// Counts the tokens of an answer.
    pub(super) fn used_tokens(&self, model: &Key, client: &str, usage: Usage) {
        let labels = client_labels(model, client);
        for (tokens, n) in [
            (&self.used_prompt_tokens, usage.prompt),
            (&self.used_completion_tokens, usage.completion),
        ] {
            if let Some(n) = n {
                tokens.get_or_create(&labels).inc_by(n);
            }
        }
    }

    /// Counts an answer whose tokens were estimated.
    pub(super) fn estimated(&self, model: &Key, client: &str) {
        self.estimated.get_or_create(&client_labels(model, client)).inc();
    }

    /// Counts a request beyond a limit.
    pub(super) fn limited(&self, model: &Key, client: &str, limit: &'static str) {
        let ClientLabels { namespace, name, key } = client_labels(model, client);
        let labels = LimitedLabels {
            namespace,
            name,
            key,
            limit,
        };
        self.limited.get_or_create(&labels).inc();
    }
}

fn client_labels(model: &Key, client: &str) -> ClientLabels {
    ClientLabels {
        namespace: model.namespace.clone(),
        name: model.name.clone(),
        key: client.to_owned(),
    }
}
