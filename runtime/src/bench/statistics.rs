//! What many measurements come to.

use serde::Serialize;

/// How measurements spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The median.
    pub p50: f64,
    /// 99 of 100 are at most this.
    pub p99: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of some measurements; `None` of none.
    pub(super) fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        Some(Spread {
            p50: nearest_rank(&values, 0.50),
            p99: nearest_rank(&values, 0.99),
            min,
            max,
        })
    }
}

/// The smallest of the sorted values that at least `share` of them do not exceed.
fn nearest_rank(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_of_measurements() {
        let of = |n: u32| Spread::of((1..=n).rev().map(f64::from).collect());
        assert_eq!(of(0), None);
        let spread = |p50, p99, max| {
            Some(Spread {
                p50,
                p99,
                min: 1.0,
                max,
            })
        };
        assert_eq!(of(1), spread(1.0, 1.0, 1.0));
        assert_eq!(of(4), spread(2.0, 4.0, 4.0));
        assert_eq!(of(5), spread(3.0, 5.0, 5.0));
        assert_eq!(of(1000), spread(500.0, 990.0, 1000.0));
    }
}
