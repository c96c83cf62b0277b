//! Which products share descriptors and an algorithm.

use cudarc::cublaslt::sys as lt;

use super::product::{LtElement, LtProduct, LtStrides};

/// What a plan is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) dtype: lt::cudaDataType_t,
    pub(super) n: usize,
    pub(super) k: usize,
    /// Rows, rounded up: shapes of one bucket share an algorithm.
    pub(super) bucket: usize,
    pub(super) strides: LtStrides,
    pub(super) batch: usize,
    pub(super) batch_strides: LtStrides,
    pub(super) has_bias: bool,
}

impl Key {
    pub(super) fn new<T: LtElement>(op: &LtProduct<T>) -> Key {
        Key {
            dtype: T::TYPE,
            n: op.shape.n,
            k: op.shape.k,
            bucket: bucket(op.shape.m),
            strides: op.shape.strides,
            batch: op.shape.batch,
            batch_strides: op.shape.batch_strides,
            has_bias: op.bias.is_some(),
        }
    }
}

/// The next power of two, or three quarters of it if that is enough.
fn bucket(m: usize) -> usize {
    let power = m.next_power_of_two();
    let below = power / 4 * 3;
    if below >= m { below } else { power }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_buckets_hold_all_numbers_of_rows() {
        for m in 1..=8192 {
            assert!(bucket(m) >= m && bucket(m) < 2 * m, "{m} {}", bucket(m));
        }
        assert_eq!([1, 3, 65, 97, 128].map(bucket), [1, 3, 96, 128, 128]);
        let buckets: std::collections::BTreeSet<usize> = (1..=8192).map(bucket).collect();
        assert!(buckets.len() < 30);
    }
}
