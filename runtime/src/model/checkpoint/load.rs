//! Loading: a description becomes weights in memory, fused and in the layout of the ops, in one pass over the
//! files by all threads.

use std::sync::Mutex;
use std::sync::PoisonError;

use kernels::{CpuContext, DType, Gemm, Heads, KernelError, Norm, QuantFormat, Weight, gemm, norm};
use rayon::prelude::*;

use super::mxfp4;
use super::weights::{Checkpoint, DtypeChoice, LoadProgress, Tensor, in_memory};
use crate::model::error::ModelError;
use crate::model::quantization::Formats;
use crate::model::spec::{Layout, Matrix, MatrixId, Part, ProjectedRows, Rows, Vector, VectorId, WeightList};

/// A weight with its bias.
#[derive(Debug)]
pub(in crate::model) struct Linear {
    /// `[n_rows, n_cols]`
    pub(in crate::model) weight: Weight,
    /// `[n_rows]`
    pub(in crate::model) bias: Option<Vec<f32>>,
}

/// The weights of a model, by their numbers.
#[derive(Debug)]
pub(in crate::model) struct Weights {
    /// The matrices.
    pub(in crate::model) matrices: Vec<Linear>,
    /// The vectors.
    pub(in crate::model) vectors: Vec<Vec<f32>>,
}

impl Weights {
    /// A matrix.
    pub(in crate::model) fn matrix(&self, id: MatrixId) -> &Linear {
        &self.matrices[id.index]
    }

    /// A vector.
    pub(in crate::model) fn vector(&self, id: VectorId) -> &[f32] {
        &self.vectors[id.index]
    }

    /// Bytes of all of them.
    pub(in crate::model) fn size_bytes(&self) -> u64 {
        let of_matrix = |linear: &Linear| {
            let bias = linear.bias.as_deref().map_or(0, size_of_val);
            (linear.weight.size_bytes() + bias) as u64
        };
        let matrices = self.matrices.iter().map(of_matrix);
        let vectors = self.vectors.iter().map(|vector| size_of_val(&vector[..]) as u64);
        matrices.chain(vectors).sum()
    }
}

/// Where weights go: the memory of the host, or that of a device.
pub(in crate::model) trait Place: Sync {
    /// A matrix with its bias in this place.
    type Matrix: Send;
    /// A vector in this place.
    type Vector: Send;

    /// Puts a matrix there.
    fn matrix(&self, linear: Linear) -> Result<Self::Matrix, ModelError>;

    /// Puts a vector there.
    fn vector(&self, vector: Vec<f32>) -> Result<Self::Vector, ModelError>;
}

/// All matrices and vectors of a model in one place.
pub(in crate::model) type Placed<P> = (Vec<<P as Place>::Matrix>, Vec<<P as Place>::Vector>);

/// The memory of the host, where weights are read to anyway.
pub(in crate::model) struct InMemory;

impl Place for InMemory {
    type Matrix = Linear;
    type Vector = Vec<f32>;

    fn matrix(&self, linear: Linear) -> Result<Linear, ModelError> {
        Ok(linear)
    }

    fn vector(&self, vector: Vec<f32>) -> Result<Vec<f32>, ModelError> {
        Ok(vector)
    }
}

/// Reads tensors from the files.
pub(in crate::model) struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    dtype: DtypeChoice,
    progress: &'a (dyn Fn(LoadProgress) + Sync),
    bytes_done: Mutex<u64>,
    bytes_total: u64,
}

/// Rows that are turned from columns at once, at least: their parts of a column fill cache lines.
const TURNED_ROWS_MIN: usize = 64;

/// Bytes of rows that are read at once: few reads, and where numbers are converted, a piece that stays in the cache of a
/// core until they are.
const PIECE_BYTES: usize = 1 << 20;

/// Bytes of columns that are read at once: many parts of columns, each of which is a read.
const COLUMNS_BYTES: usize = 8 << 20;

/// A part of a matrix and the tensor that holds it.
#[derive(Clone, Copy)]
struct Stored<'a> {
    part: &'a Part,
    tensor: Tensor<'a>,
}

impl Stored<'_> {
    /// The dtype that the part's numbers have or get.
    fn float_dtype(&self) -> Result<DType, ModelError> {
        let name = &self.part.tensor.name;
        match (&self.part.layout, self.tensor.dtype) {
            (Layout::Mxfp4 { .. }, None) => Ok(DType::BF16),
            (Layout::Rows | Layout::Columns | Layout::Projected(_), Some(dtype)) => Ok(dtype),
            (Layout::Mxfp4 { .. }, Some(_)) => Err(ModelError::TensorDtype {
                name: name.clone(),
                got: "floating point instead of U8".to_owned(),
            }),
            (Layout::Rows | Layout::Columns | Layout::Projected(_), None) => Err(not_floats(name)),
        }
    }
}

impl<'a> Loader<'a> {
    /// A loader that keeps weights in `dtype` and calls `progress` after each tensor.
    pub(in crate::model) fn new(
        checkpoint: &'a Checkpoint,
        dtype: DtypeChoice,
        progress: &'a (dyn Fn(LoadProgress) + Sync),
    ) -> Loader<'a> {
        Loader {
            checkpoint,
            dtype,
            progress,
            bytes_done: Mutex::new(0),
            bytes_total: checkpoint.size_bytes(),
        }
    }

    /// Loads all weights of a list, with all threads, and hands each to its place as soon as it is read.
    pub(in crate::model) fn load_into<P: Place>(
        &self,
        list: &WeightList,
        formats: Formats<'_>,
        place: &P,
    ) -> Result<Placed<P>, ModelError> {
        let matrix = |(i, matrix): (usize, &Matrix)| place.matrix(self.matrix(matrix, formats.of(i))?);
        let vector = |vector: &Vector| place.vector(self.vector(vector)?);
        Ok((
            list.matrices
                .par_iter()
                .enumerate()
                .map(matrix)
                .collect::<Result<_, _>>()?,
            list.vectors.par_iter().map(vector).collect::<Result<_, _>>()?,
        ))
    }

    /// The dtype of a matrix in memory: that of its parts if it is one, else f32.
    fn dtype_of(&self, parts: &[Stored<'_>]) -> Result<DType, ModelError> {
        let mut stored = parts.iter().map(Stored::float_dtype);
        let first = stored.next().unwrap_or(Ok(DType::F32))?;
        let mut common = first;
        for dtype in stored {
            if dtype? != first {
                common = DType::F32;
            }
        }
        Ok(in_memory(self.dtype, common))
    }

    /// Writes the rows of one part from `row` on.
    fn write_part(&self, weight: &mut Weight, row: usize, stored: Stored<'_>) -> Result<(), ModelError> {
        let Stored { part, tensor } = stored;
        match &part.layout {
            Layout::Rows => write_rows(weight, row, stored)?,
            Layout::Columns => write_columns(weight, row, stored)?,
            Layout::Projected(rows) => return self.write_projected(weight, row, part, rows),
            Layout::Mxfp4 { scales } => {
                let scales = self.checkpoint.tensor(&scales.name)?;
                write_mxfp4(weight, row, stored, scales)?;
                self.report(part.n_taken() * weight.n_cols() / mxfp4::BLOCK);
            }
        }
        let n_elements = part.n_taken() * weight.n_cols();
        self.report(match tensor.dtype {
            Some(dtype) => n_elements * dtype.size_bytes(),
            None => n_elements / 2,
        });
        Ok(())
    }

    /// Writes the products of a layer with the rows of one part from `row` on.
    fn write_projected(
        &self,
        weight: &mut Weight,
        row: usize,
        part: &Part,
        ProjectedRows { norm: of, layer }: &ProjectedRows,
    ) -> Result<(), ModelError> {
        let stored = self.floats(&part.tensor.name)?;
        let n_cols = stored.len() / part.n_rows;
        let taken = part.taken.iter().flat_map(|rows| rows.iter());
        let mut table: Vec<f32> = taken
            .flat_map(|row| &stored[row * n_cols..(row + 1) * n_cols])
            .copied()
            .collect();
        let context = CpuContext::new(1)?;
        // In f32, and without progress: other matrices report the same tensors.
        let exactly = Loader::new(self.checkpoint, DtypeChoice::Float32, &|_| ());
        if let Some(of) = of {
            let vector = |vector: &Option<Vector>| vector.as_ref().map(|v| exactly.vector(v)).transpose();
            let (weight, bias) = (vector(&of.weight)?, vector(&of.bias)?);
            let op = Norm {
                x: None,
                out: &mut table,
                heads: Heads::whole(n_cols),
                kind: of.kind,
                weight: weight.as_deref(),
                bias: bias.as_deref(),
                eps: of.eps,
            };
            norm(&context, op)?;
        }
        let mut layer = exactly.matrix(
            &Matrix {
                n_cols,
                parts: vec![layer.clone()],
            },
            None,
        )?;
        layer.weight.pack();
        let mut products = vec![0.0; part.n_taken() * weight.n_cols()];
        let op = Gemm::of_rows(&table, &layer.weight, layer.bias.as_deref(), &mut products);
        gemm(&context, op)?;
        let bytes: Vec<u8> = products.iter().flat_map(|v| v.to_le_bytes()).collect();
        Ok(weight.write_rows(row, DType::F32, &bytes)?)
    }

    /// The bias of one part, `None` if it has none.
    fn bias(&self, part: &Part) -> Result<Option<Vec<f32>>, ModelError> {
        let Some(bias) = &part.bias else {
            return Ok(None);
        };
        let tensor = self.checkpoint.tensor(&bias.tensor.name)?;
        let dtype = tensor.dtype.ok_or_else(|| not_floats(&bias.tensor.name))?;
        let size = dtype.size_bytes();
        let bytes = tensor.read(bias.first * size..(bias.first + part.n_rows) * size)?;
        let stored = dtype.widen(&bytes)?;
        let taken = part.taken.iter().flat_map(|rows| rows.iter());
        let values: Vec<f32> = taken.map(|row| stored[row]).collect();
        self.report(values.len() * size);
        Ok(Some(values))
    }

    /// A tensor in f32.
    fn floats(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let tensor = self.checkpoint.tensor(name)?;
        let dtype = tensor.dtype.ok_or_else(|| not_floats(name))?;
        Ok(dtype.widen(&tensor.read(0..tensor.n_bytes)?)?)
    }

    fn report(&self, n_bytes: usize) {
        // Held during the call, so that progress never goes back.
        let mut done = self.bytes_done.lock().unwrap_or_else(PoisonError::into_inner);
        *done += n_bytes as u64;
        (self.progress)(LoadProgress {
            bytes_done: *done,
            bytes_total: self.bytes_total,
        });
    }

    fn matrix(&self, matrix: &Matrix, format: Option<QuantFormat>) -> Result<Linear, ModelError> {
        let parts = matrix
            .parts
            .iter()
            .map(|part| {
                let tensor = self.checkpoint.tensor(&part.tensor.name)?;
                Ok(Stored { part, tensor })
            })
            .collect::<Result<Vec<_>, ModelError>>()?;
        let mut weight = empty(matrix, self.dtype_of(&parts)?, format)?;
        let mut biases = Vec::new();
        let mut row = 0;
        for stored in parts {
            let written = self.write_part(&mut weight, row, stored);
            written.map_err(|error| named(error, stored.part, row))?;
            biases.extend(self.bias(stored.part)?.unwrap_or_default());
            row += stored.part.n_taken();
        }
        Ok(Linear {
            weight,
            bias: (!biases.is_empty()).then_some(biases),
        })
    }

    /// A norm or a bias, in f32 whatever the weights are in: it is small, and its rounding would show.
    fn vector(&self, vector: &Vector) -> Result<Vec<f32>, ModelError> {
        let mut values = Vec::new();
        for tensor in &vector.tensors {
            values.extend(self.floats(&tensor.name)?);
            self.report(self.checkpoint.tensor(&tensor.name)?.n_bytes);
        }
        values.iter_mut().for_each(|value| *value += vector.offset);
        Ok(values)
    }
}

/// The memory of a matrix, to be filled row after row: in a format, or in a dtype.
pub(super) fn empty(
    matrix: &Matrix,
    dtype: DType,
    format: Option<QuantFormat>,
) -> Result<Weight, KernelError> {
    match format {
        Some(format) => Weight::quantised(format, matrix.n_rows(), matrix.n_cols),
        None => Weight::zeroed(dtype, matrix.n_rows(), matrix.n_cols),
    }
}

/// Names the tensor where quantising a part of it, which begins at `first_row` of the matrix, found a number that is not
/// finite.
fn named(error: ModelError, part: &Part, first_row: usize) -> ModelError {
    match error {
        ModelError::Kernel(KernelError::NotFinite { row, .. }) => ModelError::NotFinite {
            name: part.tensor.name.clone(),
            row: row - first_row,
        },
        other => other,
    }
}

fn not_floats(name: &str) -> ModelError {
    ModelError::TensorDtype {
        name: name.to_owned(),
        got: "U8".to_owned(),
    }
}

/// Writes rows that are stored as such.
fn write_rows(weight: &mut Weight, row: usize, stored: Stored<'_>) -> Result<(), ModelError> {
    let Stored { part, tensor } = stored;
    let dtype = stored.float_dtype()?;
    let row_bytes = weight.n_cols() * dtype.size_bytes();
    let start = part.first * dtype.size_bytes();
    let mut row = row;
    for rows in &part.taken {
        // Neighbours are written together, others one by one.
        let n_together = if rows.step == 1 {
            (PIECE_BYTES / row_bytes).max(1)
        } else {
            1
        };
        for at in (0..rows.n).step_by(n_together) {
            let n = n_together.min(rows.n - at);
            let from = start + (rows.first + at * rows.step) * row_bytes;
            match weight.stored_rows(row, n, dtype) {
                Some(stored) => tensor.read_into(from, stored)?,
                None => weight.write_rows(row, dtype, &tensor.read(from..from + n * row_bytes)?)?,
            }
            row += n;
        }
    }
    Ok(())
}

/// Writes rows that are stored as columns.
fn write_columns(weight: &mut Weight, row: usize, stored: Stored<'_>) -> Result<(), ModelError> {
    let Stored { part, .. } = stored;
    let row_bytes = weight.n_cols() * stored.float_dtype()?.size_bytes();
    let n_at_once = (COLUMNS_BYTES / row_bytes).max(TURNED_ROWS_MIN);
    let mut row = row;
    for rows in &part.taken {
        for at in (0..rows.n).step_by(n_at_once) {
            let some = Rows {
                first: rows.first + at * rows.step,
                n: n_at_once.min(rows.n - at),
                step: rows.step,
            };
            write_turned(weight, row, stored, &some)?;
            row += some.n;
        }
    }
    Ok(())
}

/// Writes some rows that are stored as columns: reads their part of each column.
fn write_turned(
    weight: &mut Weight,
    row: usize,
    Stored { part, tensor }: Stored<'_>,
    rows: &Rows,
) -> Result<(), ModelError> {
    let dtype = Stored { part, tensor }.float_dtype()?;
    let (n_cols, size) = (weight.n_cols(), dtype.size_bytes());
    let mut of_column = vec![0; ((rows.n - 1) * rows.step + 1) * size];
    let mut turned = vec![0; rows.n * n_cols * size];
    for column in 0..n_cols {
        let from = part.first + column * part.n_rows + rows.first;
        tensor.read_into(from * size, &mut of_column)?;
        let numbers = of_column.chunks_exact(size).step_by(rows.step);
        for (i, number) in numbers.enumerate() {
            let to = (i * n_cols + column) * size;
            turned[to..to + size].copy_from_slice(number);
        }
    }
    Ok(weight.write_rows(row, dtype, &turned)?)
}

/// Writes rows that are stored in blocks of four-bit numbers.
fn write_mxfp4(
    weight: &mut Weight,
    row: usize,
    stored: Stored<'_>,
    scales: Tensor<'_>,
) -> Result<(), ModelError> {
    let Stored { part, tensor } = stored;
    let n_blocks = weight.n_cols() / mxfp4::BLOCK;
    let first_row = part.first / weight.n_cols();
    for (i, stored_row) in part.taken.iter().flat_map(|rows| rows.iter()).enumerate() {
        let block = (first_row + stored_row) * n_blocks;
        let numbers = tensor.read(block * mxfp4::BLOCK / 2..(block + n_blocks) * mxfp4::BLOCK / 2)?;
        let scales = scales.read(block..block + n_blocks)?;
        weight.write_rows(row + i, DType::F32, &mxfp4::to_f32(&numbers, &scales))?;
    }
    Ok(())
}
