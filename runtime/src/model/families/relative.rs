//! Biases of scores by the distance between two tokens, as T5 introduced them.

use super::parts::vector_of_shape;
use crate::model::config::invalid;
use crate::model::error::ModelError;
use crate::model::spec::{Matrix, Relative, RelativeValues, Vector};

/// Farthest distance that a config may name; published ones have 128.
const FARTHEST_MAX: usize = 4096;

/// Buckets of distances `key - query`: half of them for keys behind and the query itself, half for keys ahead; one for
/// each short distance, then ever wider ones (Raffel et al. 2020, T5).
#[derive(Debug, Clone, Copy)]
pub(super) struct Buckets {
    n: usize,
    farthest: usize,
}

impl Buckets {
    /// `n` buckets, of which one on each side is for all distances from `farthest` on.
    ///
    /// # Errors
    /// Numbers that leave a side without a wide bucket.
    pub(super) fn new(n: usize, farthest: usize) -> Result<Buckets, ModelError> {
        if !n.is_multiple_of(4) {
            let reason = format!("is {n}, must be a multiple of 4");
            return Err(invalid("relative_attention_num_buckets", reason));
        }
        if farthest <= n / 4 || farthest > FARTHEST_MAX {
            let reason = format!("is {farthest}, must be {} to {FARTHEST_MAX}", n / 4 + 1);
            return Err(invalid("relative_attention_max_distance", reason));
        }
        Ok(Buckets { n, farthest })
    }

    /// The bias in the tensor `name`. `[n, n_heads]`
    pub(super) fn bias(self, name: &str, n_heads: usize) -> Relative<Matrix, Vector> {
        let farthest = self.farthest as i32;
        Relative {
            buckets: (-farthest..=farthest)
                .map(|distance| self.bucket(distance))
                .collect(),
            values: RelativeValues::Table(vector_of_shape(name.to_owned(), vec![self.n, n_heads])),
        }
    }

    fn bucket(self, distance: i32) -> u16 {
        let n_half = (self.n / 2) as u16;
        let n_exact = n_half / 2;
        let side = if distance > 0 { n_half } else { 0 };
        let size = distance.unsigned_abs() as f32;
        let exact = f32::from(n_exact);
        if size < exact {
            return side + size as u16;
        }
        let wide = (size / exact).ln() / (self.farthest as f32 / exact).ln() * f32::from(n_half - n_exact);
        side + (n_exact + wide as u16).min(n_half - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_of_distances() {
        // As transformers' MPNetEncoder.relative_position_bucket gives them.
        let buckets = Buckets::new(32, 128).unwrap();
        let of = |distances: [i32; 7]| distances.map(|distance| buckets.bucket(distance));
        assert_eq!(of([0, -1, -7, -8, -11, -12, -15]), [0, 1, 7, 8, 8, 9, 9]);
        assert_eq!(
            of([-16, -22, -23, -64, -127, -128, -500]),
            [10, 10, 11, 14, 15, 15, 15]
        );
        assert_eq!(of([1, 7, 8, 16, 90, 91, 128]), [17, 23, 24, 26, 30, 31, 31]);
    }

    #[test]
    fn numbers_that_make_no_buckets_are_refused() {
        for (n, farthest) in [(30, 128), (32, 8), (32, 1 << 20)] {
            assert!(Buckets::new(n, farthest).is_err(), "{n} {farthest}");
        }
    }
}
