//! When to retry, and when to give up.
//!
//! Owns the back-off and its bounds. Must not know what is retried.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use super::error::FetchError;
use super::progress::Meter;

/// Bounds of the retries of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Consecutive attempts without progress, at most; at least 1.
    pub n_attempts_max: u32,
    /// Wait before the second attempt; each further wait doubles.
    pub backoff_initial: Duration,
    /// Longest such wait.
    pub backoff_max: Duration,
    /// Longest wait that a `Retry-After` header can request.
    pub retry_after_max: Duration,
}

impl Default for RetryPolicy {
    /// Six attempts with waits of 0.5, 1, 2, 4 and 8 s. So a dead Hub is an error within about 16 s, and the kubelet
    /// then restarts the container with a back-off of its own.
    fn default() -> Self {
        Self {
            n_attempts_max: 6,
            backoff_initial: Duration::from_millis(500),
            backoff_max: Duration::from_secs(30),
            retry_after_max: Duration::from_secs(120),
        }
    }
}

/// The failed attempts of one operation so far.
pub(super) struct Retries {
    policy: RetryPolicy,
    meter: Meter,
    n_failed: u32,
}

impl Retries {
    /// `meter` shows each failure that is retried.
    pub(super) fn new(policy: RetryPolicy, meter: Meter) -> Self {
        Self {
            policy,
            meter,
            n_failed: 0,
        }
    }

    /// Resets the count after progress.
    pub(super) fn progressed(&mut self) {
        self.n_failed = 0;
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// `error`, if it is permanent; [`FetchError::GaveUp`] after the last attempt.
    pub(super) async fn after(&mut self, error: FetchError) -> Result<(), FetchError> {
        if !error.is_transient() {
            return Err(error);
        }
        self.n_failed += 1;
        if self.n_failed >= self.policy.n_attempts_max {
            return Err(FetchError::GaveUp {
                n_attempts: self.n_failed,
                source: Box::new(error),
            });
        }
        let wait = self
            .policy
            .wait(self.n_failed, error.retry_after(), random_share());
        let failure = error.failure();
        tracing::warn!(
            error = failure.message,
            attempt = self.n_failed,
            wait_ms = wait.as_millis() as u64,
            "retrying"
        );
        self.meter.set_problem(failure);
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

impl RetryPolicy {
    /// The wait that the Hub requests, or else one that doubles. `random_share` (0 to 1) scales its upper half, so that
    /// replicas that failed together do not retry together.
    fn wait(&self, n_failed: u32, retry_after: Option<Duration>, random_share: f64) -> Duration {
        if let Some(requested) = retry_after {
            return requested.min(self.retry_after_max);
        }
        let doubled = self
            .backoff_initial
            .saturating_mul(1 << n_failed.saturating_sub(1).min(20));
        doubled.min(self.backoff_max).mul_f64(0.5 + random_share / 2.0)
    }
}

/// A number from 0 to 1 that differs between processes: the hash keys of the standard library are random.
fn random_share() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_wait_is_bounded_and_never_shrinks_below_half(n_failed in 1u32..100, share in 0.0f64..=1.0) {
            let policy = RetryPolicy::default();
            let wait = policy.wait(n_failed, None, share);
            prop_assert!(wait <= policy.backoff_max);
            prop_assert!(wait >= policy.backoff_initial / 2);
        }

        #[test]
        fn a_wait_that_the_hub_requests_is_kept_up_to_the_cap(seconds in 0u64..100_000) {
            let policy = RetryPolicy::default();
            let wait = policy.wait(1, Some(Duration::from_secs(seconds)), 0.3);
            prop_assert_eq!(wait, Duration::from_secs(seconds.min(120)));
        }
    }
}
