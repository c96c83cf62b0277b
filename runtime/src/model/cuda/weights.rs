//! Weights on the device.

use std::sync::{Mutex, MutexGuard, PoisonError};

use kernels::cuda::{DeviceBuffer, Gpu, PinnedBuffer, View};
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

/// The memory of a device, as the place of weights that are loaded by several threads. Each copies its pieces through
/// pinned memory, so that the host reads the next piece while the device takes one.
pub(in crate::model) struct OnDevice {
    gpu: Gpu,
    /// Slots that no thread has at present.
    slots: Mutex<Vec<PinnedBuffer<u8>>>,
}

/// Bytes of a slot.
const SLOT_BYTES: usize = 16 << 20;

impl OnDevice {
    /// The memory of a device for weights that `n_threads` threads load.
    ///
    /// # Errors
    /// The host has no memory for the slots.
    pub(in crate::model) fn new(gpu: &Gpu, n_threads: usize) -> Result<OnDevice, KernelError> {
        // A thread fills one slot while the device reads the other.
        let slots = (0..2 * n_threads).map(|_| gpu.alloc_pinned(SLOT_BYTES));
        Ok(OnDevice {
            gpu: gpu.clone(),
            slots: Mutex::new(slots.collect::<Result<_, _>>()?),
        })
    }

    /// Copies bytes; the copy of the last piece may still run.
    fn copy(&self, bytes: &[u8], to: View<u8>) -> Result<(), KernelError> {
        for (idx, piece) in bytes.chunks(SLOT_BYTES).enumerate() {
            let to = to.range(idx * SLOT_BYTES..idx * SLOT_BYTES + piece.len());
            let free = self.lock().pop();
            let Some(mut slot) = free else {
                self.gpu.upload(piece, to)?;
                continue;
            };
            slot.as_mut_slice()?[..piece.len()].copy_from_slice(piece);
            self.gpu.upload_pinned(&slot, 0..piece.len(), to)?;
            // The one that was used last is taken last, when its copy is done.
            self.lock().insert(0, slot);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<PinnedBuffer<u8>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn upload(&self, linear: &Linear) -> Result<DeviceLinear, KernelError> {
        let weight = &linear.weight;
        let bytes = weight.stored_bytes()?;
        let memory = self.gpu.alloc(bytes.len())?;
        self.copy(bytes, memory.view())?;
        let bias = linear.bias.as_deref().map(|bias| upload_vector(&self.gpu, bias));
        Ok(DeviceLinear {
            matrix: Matrix::new(memory.view(), weight.dtype(), (weight.n_rows(), weight.n_cols()))?,
            bias: bias.transpose()?,
            _memory: memory,
        })
    }
}

impl Place for OnDevice {
    type Matrix = DeviceLinear;
    type Vector = DeviceBuffer<f32>;

    fn matrix(&self, linear: Linear) -> Result<DeviceLinear, ModelError> {
        Ok(self.upload(&linear)?)
    }

    fn vector(&self, vector: Vec<f32>) -> Result<DeviceBuffer<f32>, ModelError> {
        Ok(upload_vector(&self.gpu, &vector)?)
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
