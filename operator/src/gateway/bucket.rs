//! Token buckets, and what a client learns of them. Pure.

use std::time::{Duration, Instant};

use axum::http::{HeaderName, HeaderValue};

/// The time in which an empty bucket becomes full.
const PERIOD: Duration = Duration::from_secs(60);

/// Holds as much as a limit allows in a minute, and fills at that rate. Full at first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket(Option<(f64, Instant)>);

impl Bucket {
    /// What it holds under a limit; negative if more was taken than there was.
    pub(super) fn level(&self, limit: u64, now: Instant) -> f64 {
        let full = limit as f64;
        let Some((level, at)) = self.0 else { return full };
        let filled = now.saturating_duration_since(at).as_secs_f64() / PERIOD.as_secs_f64() * full;
        (level + filled).min(full)
    }

    /// Takes `amount`, even if the bucket holds less.
    pub(super) fn take(&mut self, amount: u64, limit: u64, now: Instant) {
        self.0 = Some((self.level(limit, now) - amount as f64, now));
    }
}

/// How much of a limit is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// The limit of a minute.
    pub(super) limit: u64,
    /// What may be used now.
    pub(super) remaining: u64,
    /// Time until there is at least 1, in whole seconds; 0 if there is.
    pub(super) wait_s: u64,
    /// Time until nothing counts as used, in whole seconds.
    reset_s: u64,
}

impl Left {
    /// What is left in a bucket under a limit.
    pub(super) fn of(bucket: &Bucket, limit: u64, now: Instant) -> Left {
        let level = bucket.level(limit, now);
        let seconds_to = |target: f64| {
            let missing = (target - level).max(0.0);
            (missing / limit as f64 * PERIOD.as_secs_f64()).ceil() as u64
        };
        Left {
            limit,
            remaining: level.max(0.0) as u64,
            wait_s: seconds_to(1.0),
            reset_s: seconds_to(limit as f64),
        }
    }
}

/// How much a client has left; `None` without a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Allowance {
    pub(super) requests: Option<Left>,
    pub(super) tokens: Option<Left>,
}

impl Allowance {
    /// The limit that has nothing left, and what it counts; of two the one for which it takes longer.
    pub(super) fn exhausted(&self) -> Option<(&'static str, Left)> {
        let both = [("requests", self.requests), ("tokens", self.tokens)];
        both.into_iter()
            .filter_map(|(what, left)| Some((what, left?)))
            .filter(|(_, left)| left.wait_s > 0)
            .max_by_key(|(_, left)| left.wait_s)
    }

    /// OpenAI's headers.
    pub(super) fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let names = [
            [
                "x-ratelimit-limit-requests",
                "x-ratelimit-remaining-requests",
                "x-ratelimit-reset-requests",
            ],
            [
                "x-ratelimit-limit-tokens",
                "x-ratelimit-remaining-tokens",
                "x-ratelimit-reset-tokens",
            ],
        ];
        let all = names.into_iter().zip([self.requests, self.tokens]);
        all.filter_map(|(names, left)| Some((names, left?)))
            .flat_map(|([limit, remaining, reset], left)| {
                let seconds = HeaderValue::try_from(format!("{}s", left.reset_s));
                [
                    (limit, HeaderValue::from(left.limit)),
                    (remaining, HeaderValue::from(left.remaining)),
                    (reset, seconds.expect("digits and a letter")),
                ]
            })
            .map(|(name, value)| (HeaderName::from_static(name), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_fills_within_a_minute_and_debts_delay_it() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut bucket = Bucket::default();
        let left = |bucket: &Bucket, seconds| {
            let left = Left::of(bucket, 60, at(seconds));
            (left.remaining, left.wait_s, left.reset_s)
        };
        assert_eq!(left(&bucket, 0), (60, 0, 0));
        bucket.take(60, 60, at(0));
        assert_eq!(left(&bucket, 0), (0, 1, 60));
        assert_eq!(left(&bucket, 10), (10, 0, 50));
        bucket.take(30, 60, at(10));
        assert_eq!(left(&bucket, 10), (0, 21, 80));
        assert_eq!(left(&bucket, 1000), (60, 0, 0));
        assert_eq!(bucket.level(600, at(11)), -10.0, "a raised limit fills faster");
    }

    #[test]
    fn headers_are_openais() {
        let mut bucket = Bucket::default();
        let now = Instant::now();
        bucket.take(10, 60, now);
        let allowance = Allowance {
            requests: None,
            tokens: Some(Left::of(&bucket, 60, now)),
        };
        let headers: Vec<_> = allowance
            .headers()
            .map(|(name, value)| format!("{name}: {value:?}"))
            .collect();
        assert_eq!(
            headers,
            [
                "x-ratelimit-limit-tokens: \"60\"",
                "x-ratelimit-remaining-tokens: \"50\"",
                "x-ratelimit-reset-tokens: \"10s\"",
            ]
        );
    }
}
