//! Weights on the device.

use crate::cuda::{CudaError, DeviceBuffer, Gpu, View};
use crate::error::{Contract, KernelError};
use crate::weight::{DType, Weight};

/// A weight matrix `[n_rows, n_cols]` on the device in its stored dtype, laid out as a [`Weight`]: each row starts on a
/// 64-byte line, and the space after a row's last element is zero.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    /// The rows, `row_stride` elements apart. The first one starts on a 64-byte line.
    pub data: View<u8>,
    /// How the numbers are stored.
    pub dtype: DType,
    /// Rows: the length of an output of a product with this matrix.
    pub n_rows: usize,
    /// Columns: the length of an input.
    pub n_cols: usize,
    /// Elements between the starts of two rows: [`Matrix::row_stride_of`].
    pub row_stride: usize,
}

impl Matrix {
    /// Elements between the starts of two rows of `n_cols` elements.
    pub fn row_stride_of(dtype: DType, n_cols: usize) -> usize {
        n_cols.next_multiple_of(LINE_BYTES / dtype.size_bytes())
    }

    /// Bytes of a matrix on the device, with the space between rows.
    pub fn size_bytes_of(dtype: DType, n_rows: usize, n_cols: usize) -> usize {
        n_rows * Self::row_stride_of(dtype, n_cols) * dtype.size_bytes()
    }

    /// The matrix that the bytes of `data` hold.
    ///
    /// # Errors
    /// `data` has another length than the matrix, or does not start on a line.
    pub fn new(
        data: View<u8>,
        dtype: DType,
        (n_rows, n_cols): (usize, usize),
    ) -> Result<Matrix, KernelError> {
        let op = Contract("matrix");
        op.range(n_rows > 0, "n_rows", n_rows, "at least 1")?;
        op.range(n_cols > 0, "n_cols", n_cols, "at least 1")?;
        op.len("data", data.len(), Self::size_bytes_of(dtype, n_rows, n_cols))?;
        let offset = data.address() as usize % LINE_BYTES;
        op.range(offset == 0, "data", offset, "on a line of 64 bytes")?;
        Ok(Matrix {
            data,
            dtype,
            n_rows,
            n_cols,
            row_stride: Self::row_stride_of(dtype, n_cols),
        })
    }

    /// A copy of `weight` in a new buffer. The matrix is valid while the buffer lives.
    ///
    /// # Errors
    /// There is no device memory, the device fails, or the weight is packed.
    pub fn upload(gpu: &Gpu, weight: &Weight) -> Result<(DeviceBuffer<u8>, Matrix), KernelError> {
        let bytes = weight.stored_bytes()?;
        let buffer = gpu.alloc::<u8>(bytes.len())?;
        gpu.upload(bytes, buffer.view())?;
        let matrix = Matrix::new(buffer.view(), weight.dtype(), (weight.n_rows(), weight.n_cols()))?;
        Ok((buffer, matrix))
    }
}

/// Matrices of one shape and dtype, and the vectors that are added to the products with them: of experts, or of heads.
pub struct MatrixList {
    /// Address of each matrix. `[len]`
    data: DeviceBuffer<u64>,
    /// Address of each bias, if there are any. `[len]`
    biases: Option<DeviceBuffer<u64>>,
    first: Matrix,
    len: usize,
}

impl MatrixList {
    /// A list of `matrices`. `biases` are as many, each `[n_rows]`, or none.
    ///
    /// # Errors
    /// There is no matrix, the matrices differ in shape or dtype, the biases do not fit them, or there is no device
    /// memory.
    pub fn new(gpu: &Gpu, matrices: &[Matrix], biases: &[View<f32>]) -> Result<MatrixList, KernelError> {
        let op = Contract("matrix_list");
        let first = matrices.first().ok_or(KernelError::Range {
            op: "matrix_list",
            operand: "matrices",
            got: 0,
            rule: "at least 1",
        })?;
        for (idx, matrix) in matrices.iter().enumerate() {
            let is_same =
                (matrix.dtype, matrix.n_rows, matrix.n_cols) == (first.dtype, first.n_rows, first.n_cols);
            op.range(is_same, "matrices", idx, "of the shape and dtype of the first")?;
        }
        if !biases.is_empty() {
            op.len("biases", biases.len(), matrices.len())?;
            biases
                .iter()
                .try_for_each(|bias| op.len("bias", bias.len(), first.n_rows))?;
        }
        let addresses: Vec<u64> = matrices.iter().map(|matrix| matrix.data.address()).collect();
        let of_biases: Vec<u64> = biases.iter().map(|bias| bias.address()).collect();
        Ok(MatrixList {
            data: uploaded(gpu, &addresses)?,
            biases: (!biases.is_empty())
                .then(|| uploaded(gpu, &of_biases))
                .transpose()?,
            first: *first,
            len: matrices.len(),
        })
    }

    /// Matrices.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none: never.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Rows of each matrix.
    pub fn n_rows(&self) -> usize {
        self.first.n_rows
    }

    /// Columns of each matrix.
    pub fn n_cols(&self) -> usize {
        self.first.n_cols
    }

    /// How the numbers are stored.
    pub fn dtype(&self) -> DType {
        self.first.dtype
    }

    /// The first matrix, whose shape all have.
    pub(crate) fn first(&self) -> Matrix {
        self.first
    }

    /// Address of each matrix. `[len]`
    pub(crate) fn addresses(&self) -> View<u64> {
        self.data.view()
    }

    /// Address of each bias, if there are any. `[len]`
    pub(crate) fn bias_addresses(&self) -> Option<View<u64>> {
        self.biases.as_ref().map(DeviceBuffer::view)
    }
}

fn uploaded(gpu: &Gpu, numbers: &[u64]) -> Result<DeviceBuffer<u64>, CudaError> {
    let buffer = gpu.alloc::<u64>(numbers.len())?;
    gpu.upload(numbers, buffer.view())?;
    Ok(buffer)
}

/// What rows are aligned to.
const LINE_BYTES: usize = 64;
