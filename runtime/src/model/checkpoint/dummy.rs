//! Weights without files: seeded random numbers in the shapes that a description names, for benchmarks.

use std::sync::atomic::{AtomicU64, Ordering};

use kernels::{DType, Weight};
use rayon::prelude::*;

use super::load::{Linear, LoadedLayer};
use super::weights::{DtypeChoice, in_memory};
use crate::model::error::ModelError;
use crate::model::spec::{Convert, LayerSpec, Layout, Matrix, Part, Vector};

/// Makes weights up. A tensor's numbers depend on its name alone.
pub(in crate::model) struct Dummy {
    dtype: DType,
    weights_bytes: AtomicU64,
}

impl Dummy {
    /// Weights in `dtype`, or as the config's `stored` dtype if the choice is to keep that.
    pub(in crate::model) fn new(choice: DtypeChoice, stored: DType) -> Dummy {
        Dummy {
            dtype: in_memory(choice, stored),
            weights_bytes: AtomicU64::new(0),
        }
    }

    /// Bytes of all weights made so far.
    pub(in crate::model) fn weights_bytes(&self) -> u64 {
        self.weights_bytes.load(Ordering::Relaxed)
    }

    fn count(&self, n_bytes: usize) {
        self.weights_bytes.fetch_add(n_bytes as u64, Ordering::Relaxed);
    }
}

impl Convert for Dummy {
    type Matrix = Linear;
    type Vector = Vec<f32>;

    /// Numbers of a size that keeps the size of what they are multiplied with.
    fn matrix(&self, matrix: &Matrix) -> Result<Linear, ModelError> {
        let amplitude = (3.0 / matrix.n_cols as f32).sqrt();
        let mut weight = Weight::zeroed(self.dtype, matrix.n_rows(), matrix.n_cols)?;
        weight.fill_uniform(matrix.parts.first().map_or(0, seed), amplitude);
        let has_bias = matrix.parts.iter().any(|part| part.bias.is_some());
        let bias = has_bias.then(|| vec![0.1; matrix.n_rows()]);
        self.count(weight.size_bytes() + bias.as_deref().map_or(0, size_of_val));
        Ok(Linear { weight, bias })
    }

    /// All ones: a norm that leaves what it normalised as it is.
    fn vector(&self, vector: &Vector) -> Result<Vec<f32>, ModelError> {
        let len = |shape: &[usize]| shape.iter().product::<usize>();
        let values = vec![1.0; vector.tensors.iter().map(|tensor| len(&tensor.shape)).sum()];
        self.count(size_of_val(&values[..]));
        Ok(values)
    }

    fn layers(&self, layers: &[LayerSpec]) -> Result<Vec<LoadedLayer>, ModelError> {
        layers.par_iter().map(|layer| self.layer(layer)).collect()
    }
}

/// FNV-1a of the tensor's name and of where in it the matrix begins.
fn seed(part: &Part) -> u64 {
    let columns = part.layout == Layout::Columns;
    let place = [part.first as u64, u64::from(columns)].map(u64::to_le_bytes);
    let bytes = part.tensor.name.bytes().chain(place.into_iter().flatten());
    bytes.fold(0xCBF2_9CE4_8422_2325, |state: u64, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}
