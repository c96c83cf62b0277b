//! A line of the log when sequences lost their blocks, so that a cache that is too small does not go unnoticed.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::Engine;

/// Checks every `period` whether sequences lost their blocks since the last check, and logs how many.
pub async fn log(engine: Arc<Engine>, period: Duration) {
    let mut interval = tokio::time::interval(period);
    let mut watch = Watch::default();
    loop {
        interval.tick().await;
        if let Some(n_new) = watch.check(engine.counters().preemptions.get()) {
            tracing::warn!(
                n_preemptions = n_new,
                "sequences lost their blocks of the KV cache to older ones; a larger cache, a smaller MAX_MODEL_LEN or \
                 fewer MAX_NUM_SEQS avoid it"
            );
        }
    }
}

/// Remembers what was counted at the last check.
#[derive(Debug, Default)]
struct Watch {
    n_seen: u64,
}

impl Watch {
    /// How many are new since the last check; `None` if none is.
    fn check(&mut self, n_total: u64) -> Option<u64> {
        let n_new = n_total.saturating_sub(std::mem::replace(&mut self.n_seen, n_total));
        (n_new > 0).then_some(n_new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_preemption_is_told_once() {
        let mut watch = Watch::default();
        assert_eq!(watch.check(0), None);
        assert_eq!(watch.check(3), Some(3));
        assert_eq!(watch.check(3), None);
        assert_eq!(watch.check(4), Some(1));
    }
}
