//! Weights without files: seeded random numbers in the shapes that a description names, for benchmarks.

use kernels::{DType, QuantFormat};
use rayon::prelude::*;

use super::load::{Linear, Place, Placed, empty};
use super::weights::{DtypeChoice, in_memory};
use crate::model::error::ModelError;
use crate::model::quantization::Formats;
use crate::model::spec::{Layout, Matrix, Part, Vector, WeightList};

/// Makes all weights of a list up, with all threads, in the chosen dtype or in the config's `stored` one, and hands each
/// to its place. A matrix depends on its tensor's name alone.
///
/// # Errors
/// There is no memory for them.
pub(in crate::model) fn dummy_weights<P: Place>(
    list: &WeightList,
    (choice, stored): (DtypeChoice, DType),
    formats: Formats<'_>,
    place: &P,
) -> Result<Placed<P>, ModelError> {
    let dtype = in_memory(choice, stored);
    let matrices = list.matrices.par_iter().enumerate();
    let matrices = matrices.map(|(i, matrix)| place.matrix(linear(matrix, dtype, formats.of(i))?));
    let vectors = list.vectors.par_iter().map(|vector| place.vector(ones(vector)));
    Ok((
        matrices.collect::<Result<_, _>>()?,
        vectors.collect::<Result<_, _>>()?,
    ))
}

/// Numbers of a size that keeps the size of what they are multiplied with.
fn linear(matrix: &Matrix, dtype: DType, format: Option<QuantFormat>) -> Result<Linear, ModelError> {
    const BIAS: f32 = 0.1;
    let amplitude = (3.0 / matrix.n_cols as f32).sqrt();
    let mut weight = empty(matrix, dtype, format)?;
    weight.fill_uniform(matrix.parts.first().map_or(0, seed), amplitude)?;
    let has_bias = matrix.parts.iter().any(|part| part.bias.is_some());
    Ok(Linear {
        weight,
        bias: has_bias.then(|| vec![BIAS; matrix.n_rows()]),
    })
}

/// A norm that leaves what it normalised as it is.
fn ones(vector: &Vector) -> Vec<f32> {
    vec![1.0; vector.len()]
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
