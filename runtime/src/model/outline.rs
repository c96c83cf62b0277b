//! What is known of a model before its weights are loaded: shapes, sizes, and the cost of a step, from its
//! configuration alone.

use std::collections::BTreeMap;
use std::path::Path;

use kernels::{DType, QuantFormat};

use super::checkpoint::{Checkpoint, DtypeChoice, LoadFormat, in_memory};
use super::error::ModelError;
use super::kv_layout::KvLayout;
use super::loaded::{Described, described};
use super::overrides::Overrides;
use super::pooling::Pooling;
use super::program::{Cost, OpCost, Program, StepShape, Stored, lower};
use super::quantization::{Formats, quantisable};
use super::spec::{Layout, Matrix, MatrixId, Task, WeightList};
use super::unread;
use crate::batch::KvGroup;

/// A model without weights.
#[derive(Debug)]
pub struct Outline {
    /// The name in config.json's `architectures`.
    pub architecture: String,
    /// What it computes.
    pub kind: ModelKind,
    /// Layers.
    pub n_layers: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Longest sequence.
    pub context_len: usize,
    /// Parameters; an embedding that is also the head counts once.
    pub n_params: u64,
    /// Bytes of the weights in memory, by dtype or format.
    pub weights_bytes: BTreeMap<&'static str, u64>,
    /// Bytes that a token takes in a KV cache of the weights' type, all groups of layers together.
    pub kv_bytes_per_token: u64,
    /// Groups of layers, each with its own block tables.
    pub kv_groups: Vec<KvGroup>,
    /// Fields of config.json whose meaning is not known, and which were passed over.
    pub unknown_fields: Vec<String>,
    program: Program,
    list: WeightList,
    ignored: Vec<String>,
    quantised: Vec<usize>,
    /// The dtype of config.json.
    stored: DType,
    /// The dtype and the format in memory.
    kept: (DType, Option<QuantFormat>),
}

/// What a model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelKind {
    /// Logits of the next token.
    Generate,
    /// A vector of a text.
    Embed,
    /// How well two texts go together.
    Score,
}

impl Outline {
    /// Reads the configuration in `dir`.
    ///
    /// # Errors
    /// [`ModelError`] for an architecture or an option that is not implemented, or a configuration that cannot be read.
    pub fn read(dir: &Path) -> Result<Outline, ModelError> {
        Outline::read_with(dir, &Overrides::default())
    }

    /// The same with what settings change.
    ///
    /// # Errors
    /// As for [`Outline::read`], and [`ModelError::Setting`].
    pub fn read_with(dir: &Path, overrides: &Overrides) -> Result<Outline, ModelError> {
        let Described {
            config,
            spec,
            pooling,
        } = described(dir, overrides)?;
        let stored = config.dtype()?;
        let (network, list) = spec.numbered();
        let layout = KvLayout::of(&network);
        let mut outline = Outline {
            architecture: config.architecture()?.to_owned(),
            kind: match &spec.task {
                Task::Generate(_) => ModelKind::Generate,
                Task::Embed => ModelKind::Embed,
                Task::Classify(_) => ModelKind::Score,
            },
            n_layers: spec.layers.len(),
            vocab_size: spec.vocab_size,
            hidden_size: spec.hidden_size,
            context_len: spec.context_len,
            n_params: list.n_params(),
            weights_bytes: BTreeMap::new(),
            kv_bytes_per_token: layout.token_bytes(stored.into()) as u64,
            kv_groups: layout.groups().to_vec(),
            unknown_fields: unread::check(&config)?,
            program: lower(&network, &layout, pooling.unwrap_or(Pooling::DEFAULT).kind),
            quantised: quantisable(&network),
            list,
            ignored: spec.ignored,
            stored,
            kept: (stored, None),
        };
        outline.weights_bytes = outline.bytes_as(DtypeChoice::Auto, None);
        Ok(outline)
    }

    /// The same model with its weights in another dtype, and the matrices of its layers in a format.
    #[must_use]
    pub fn kept_as(mut self, dtype: DtypeChoice, format: Option<QuantFormat>) -> Outline {
        self.weights_bytes = self.bytes_as(dtype, format);
        self.kept = (in_memory(dtype, self.stored), format);
        self
    }

    /// Bytes of the weights in memory if they are kept that way, by dtype or format: matrices as chosen, vectors and biases
    /// in f32.
    pub fn bytes_as(&self, dtype: DtypeChoice, format: Option<QuantFormat>) -> BTreeMap<&'static str, u64> {
        let kept = (in_memory(dtype, self.stored), format);
        let mut bytes = BTreeMap::new();
        let mut n_in_matrices = 0;
        for (index, matrix) in self.list.matrices.iter().enumerate() {
            n_in_matrices += matrix.n_rows() as u64 * matrix.n_cols as u64;
            let (name, n_bytes) = self.matrix_bytes(index, kept);
            *bytes.entry(name).or_default() += n_bytes;
        }
        let n_others = self.n_params - n_in_matrices;
        *bytes.entry(DType::F32.name()).or_default() += n_others * DType::F32.size_bytes() as u64;
        bytes
    }

    /// The name of the dtype or format of a matrix, and its bytes.
    fn matrix_bytes(
        &self,
        index: usize,
        (dtype, format): (DType, Option<QuantFormat>),
    ) -> (&'static str, u64) {
        let matrix = &self.list.matrices[index];
        let formats = Formats {
            format,
            quantised: &self.quantised,
        };
        match formats.of(index) {
            Some(format) => (
                format.name(),
                format.size_bytes(matrix.n_rows(), matrix.n_cols) as u64,
            ),
            None => {
                let dtype = kept_dtype(matrix, dtype);
                let n_elements = matrix.n_rows() as u64 * matrix.n_cols as u64;
                (dtype.name(), n_elements * dtype.size_bytes() as u64)
            }
        }
    }

    /// Whether the weight files in `dir` hold what the description names. Reads their headers only.
    ///
    /// # Errors
    /// [`ModelError::MissingFile`] where there are no weights, and what [`super::Model::load`] would refuse.
    pub fn check_weights(&self, dir: &Path) -> Result<(), ModelError> {
        Checkpoint::open(dir, LoadFormat::Auto, &self.list.tensors(), &self.ignored).map(|_| ())
    }

    /// Whether the model can read sequences of the requested length.
    ///
    /// # Errors
    /// [`ModelError::MaxModelLen`] if its context is shorter.
    pub fn check_length(&self, asked: Option<u32>) -> Result<(), ModelError> {
        super::loaded::max_model_len(self.context_len, None, asked).map(|_| ())
    }

    /// The program, one op a line.
    pub fn program(&self) -> String {
        self.program.to_string()
    }

    /// What a step costs: one entry for all ops of the same kind and shape, in the order of their first one.
    pub fn costs(&self, step: StepShape) -> Vec<OpCost> {
        let matrix_bytes = |id| self.bytes_of(id);
        self.program.costs(step, self.stored(&matrix_bytes))
    }

    /// What all ops of a step cost.
    pub fn total_cost(&self, step: StepShape) -> Cost {
        self.program
            .total_cost(step, self.stored(&|id| self.bytes_of(id)))
    }

    /// How large the numbers are: those of the cache have the type of the weights.
    fn stored<'a>(&self, matrix_bytes: &'a dyn Fn(MatrixId) -> u64) -> Stored<'a> {
        Stored {
            matrix_bytes,
            kv_bytes: self.kept.0.size_bytes() as u64,
        }
    }

    fn bytes_of(&self, id: MatrixId) -> u64 {
        self.matrix_bytes(id.index, self.kept).1
    }
}

/// How a matrix is kept in memory: numbers of four bits are widened.
fn kept_dtype(matrix: &Matrix, dtype: DType) -> DType {
    let in_blocks = |layout: &Layout| matches!(layout, Layout::Mxfp4 { .. });
    if matrix.parts.iter().any(|part| in_blocks(&part.layout)) {
        DType::BF16
    } else {
        dtype
    }
}
