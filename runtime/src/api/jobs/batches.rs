//! Number of tokens of each item of a job's stream. By worker-vllm's rule the first items are small, so that the first
//! words arrive early, and the later ones are large.

use crds::settings::StreamingSettings;

/// Sizes of the batches of one stream. The first is the smallest, each next one is larger by the factor, up to the
/// maximum. If the factor is not above 1 or the minimum is not below the maximum, every batch has the maximum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchRule {
    /// Tokens in the largest batch, at least 1.
    pub n_max: u32,
    /// Tokens in the first batch, at least 1.
    pub n_min: u32,
    /// Factor from one batch to the next.
    pub growth: f64,
}

impl BatchRule {
    /// The rule of the settings.
    pub fn of(streaming: &StreamingSettings) -> Self {
        Self {
            n_max: streaming.default_batch_size(),
            n_min: streaming.default_min_batch_size(),
            growth: streaming.default_batch_size_growth_factor(),
        }
    }
}

/// Counts tokens, and finds the end of each batch.
#[derive(Clone, Debug)]
pub struct Batcher {
    rule: BatchRule,
    /// Size of the current batch; a fraction if the factor is one.
    size: f64,
    n_tokens: u32,
}

impl Batcher {
    /// The state before the first token.
    pub fn new(rule: BatchRule) -> Self {
        let grows = rule.growth > 1.0 && rule.n_max > rule.n_min;
        let first = if grows { rule.n_min } else { rule.n_max };
        Self {
            rule,
            size: f64::from(first),
            n_tokens: 0,
        }
    }

    /// Counts a token. Returns true if the token is the last of its batch.
    pub fn fills(&mut self) -> bool {
        self.n_tokens += 1;
        if f64::from(self.n_tokens) < self.size {
            return false;
        }
        self.n_tokens = 0;
        self.size = (self.size * self.rule.growth.max(1.0)).min(f64::from(self.rule.n_max));
        true
    }

    /// Whether the current batch has no token.
    pub fn is_empty(&self) -> bool {
        self.n_tokens == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sizes(rule: BatchRule, n_tokens: usize) -> Vec<usize> {
        let mut batcher = Batcher::new(rule);
        let (mut sizes, mut n) = (Vec::new(), 0);
        for _ in 0..n_tokens {
            n += 1;
            if batcher.fills() {
                sizes.push(std::mem::take(&mut n));
            }
        }
        assert_eq!(batcher.is_empty(), n == 0);
        if n > 0 {
            sizes.push(n);
        }
        sizes
    }

    fn rule(n_max: u32, n_min: u32, growth: f64) -> BatchRule {
        BatchRule { n_max, n_min, growth }
    }

    #[test]
    fn the_documented_sizes() {
        assert_eq!(
            sizes(BatchRule::of(&StreamingSettings::default()), 150),
            [1, 3, 9, 27, 50, 50, 10],
            "the defaults"
        );
        assert_eq!(sizes(rule(8, 2, 2.0), 20), [2, 4, 8, 6]);
        assert_eq!(
            sizes(rule(5, 1, 1.5), 14),
            [1, 2, 3, 4, 4],
            "1, 1.5, 2.25, 3.375, 5"
        );
        assert_eq!(
            sizes(rule(4, 1, 1.0), 9),
            [4, 4, 1],
            "without growth every batch has the maximum"
        );
        assert_eq!(sizes(rule(4, 4, 3.0), 9), [4, 4, 1]);
        assert_eq!(sizes(rule(4, 9, 3.0), 9), [4, 4, 1]);
    }

    proptest! {
        #[test]
        fn no_token_is_lost_and_no_batch_is_too_large(
            n_max in 1_u32..100, n_min in 1_u32..100, growth in 0.5_f64..10.0, n_tokens in 0_usize..1000,
        ) {
            let sizes = sizes(rule(n_max, n_min, growth), n_tokens);
            prop_assert_eq!(sizes.iter().sum::<usize>(), n_tokens);
            prop_assert!(sizes.iter().all(|size| (1..=n_max as usize).contains(size)));
            let full = &sizes[..sizes.len().saturating_sub(1)];
            prop_assert!(full.is_sorted(), "{:?}", sizes);
        }
    }
}
