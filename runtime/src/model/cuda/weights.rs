//! Weights on the device.

use kernels::cuda::{DeviceBuffer, Gpu, View};
use kernels::gpu::Matrix;
use kernels::{DType, KernelError};

use crate::model::checkpoint::{Linear, Place};
use crate::model::error::ModelError;
use crate::model::spec::{MatrixId, VectorId};

/// The weights of a model, by their numbers.
pub(in crate::model) struct Weights {
    /// The matrices.
    pub(in crate::model) matrices: Vec<DeviceLinear>,
    /// The vectors.
    pub(in crate::model) vectors: Vec<DeviceBuffer<f32>>,
}

/// A weight with its bias.
pub(in crate::model) struct DeviceLinear {
    matrix: Matrix,
    bias: Option<DeviceBuffer<f32>>,
    /// The matrix is a view of it.
    _memory: DeviceBuffer<u8>,
}

/// The memory of a device, as the place of weights that are loaded.
pub(in crate::model) struct OnDevice(pub(in crate::model) Gpu);

impl Place for OnDevice {
    type Matrix = DeviceLinear;
    type Vector = DeviceBuffer<f32>;

    fn matrix(&self, linear: Linear) -> Result<DeviceLinear, ModelError> {
        Ok(DeviceLinear::upload(&self.0, &linear)?)
    }

    fn vector(&self, vector: Vec<f32>) -> Result<DeviceBuffer<f32>, ModelError> {
        Ok(upload_vector(&self.0, &vector)?)
    }
}

impl DeviceLinear {
    /// A copy of a weight of the host.
    ///
    /// # Errors
    /// The device has no memory for it, or fails.
    fn upload(gpu: &Gpu, linear: &Linear) -> Result<DeviceLinear, KernelError> {
        let (memory, matrix) = Matrix::upload(gpu, &linear.weight)?;
        let bias = linear.bias.as_deref().map(|bias| upload_vector(gpu, bias));
        Ok(DeviceLinear {
            matrix,
            bias: bias.transpose()?,
            _memory: memory,
        })
    }
}

/// A copy of a vector of the host.
///
/// # Errors
/// The device has no memory for it, or fails.
pub(super) fn upload_vector(gpu: &Gpu, vector: &[f32]) -> Result<DeviceBuffer<f32>, KernelError> {
    let buffer = gpu.alloc(vector.len())?;
    gpu.upload(vector, buffer.view())?;
    Ok(buffer)
}

impl Weights {
    /// A matrix.
    pub(super) fn matrix(&self, id: MatrixId) -> Matrix {
        self.matrices[id.index].matrix
    }

    /// What is added to the products with a matrix.
    pub(super) fn bias(&self, id: MatrixId) -> Option<View<f32>> {
        self.matrices[id.index].bias.as_ref().map(DeviceBuffer::view)
    }

    /// A vector.
    pub(super) fn vector(&self, id: VectorId) -> View<f32> {
        self.vectors[id.index].view()
    }

    /// How the numbers of a matrix are stored.
    pub(in crate::model) fn dtype(&self, id: MatrixId) -> DType {
        self.matrix(id).dtype
    }

    /// Bytes of all of them.
    pub(in crate::model) fn size_bytes(&self) -> u64 {
        let of_matrix = |linear: &DeviceLinear| {
            let Matrix {
                dtype,
                n_rows,
                n_cols,
                ..
            } = linear.matrix;
            let bias = linear.bias.as_ref().map_or(0, DeviceBuffer::len) * size_of::<f32>();
            (n_rows * n_cols * dtype.size_bytes() + bias) as u64
        };
        let of_vector = |vector: &DeviceBuffer<f32>| (vector.len() * size_of::<f32>()) as u64;
        let matrices: u64 = self.matrices.iter().map(of_matrix).sum();
        matrices + self.vectors.iter().map(of_vector).sum::<u64>()
    }
}
