//! Where a model's weights come from, and how they are to be loaded.

use std::path::Path;

use kernels::{CpuContext, Isa, KernelError, QuantFormat, available_threads};

use super::checkpoint::{
    Checkpoint, DtypeChoice, LoadFormat, LoadProgress, Loader, Place, Placed, dummy_weights,
};
use super::config::Fields;
use super::device::Device;
use super::error::ModelError;
use super::graph_mode::GraphMode;
use super::kv_dtype::KvDtypeChoice;
use super::overrides::Overrides;
use super::quantization::Formats;
use super::spec::WeightList;

/// How to load a model.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Which files to read the weights from.
    pub format: LoadFormat,
    /// In which dtype to keep the weights.
    pub dtype: DtypeChoice,
    /// The type of the numbers in the KV cache.
    pub kv_cache_dtype: KvDtypeChoice,
    /// In which format to keep the matrices of the layers; by default in their dtype.
    pub quantization: Option<QuantFormat>,
    /// What computes.
    pub device: Device,
    /// Which steps a CUDA card records.
    pub graphs: GraphMode,
    /// Compute threads; by default as many as the process may use.
    pub n_threads: Option<usize>,
    /// Instructions that compute on the CPU; by default the best that the processor has.
    pub isa: Option<Isa>,
    /// Threads that read weights; by default the compute threads.
    pub n_loading_threads: Option<usize>,
    /// Longest sequence; by default the model's context.
    pub max_model_len: Option<u32>,
    /// What settings change in the checkpoint's description.
    pub overrides: Overrides,
}

/// Where weights come from.
pub(super) struct Source<'a> {
    pub(super) dir: &'a Path,
    pub(super) config: &'a Fields,
    pub(super) options: &'a LoadOptions,
    pub(super) progress: &'a (dyn Fn(LoadProgress) + Sync),
}

/// The weights of a description.
#[derive(Clone, Copy)]
pub(super) struct WeightsOf<'a> {
    pub(super) list: &'a WeightList,
    /// Numbers of the matrices that can be quantised, ascending.
    pub(super) quantised: &'a [usize],
    /// Beginnings of names of tensors that the checkpoint may hold and the description does not need.
    pub(super) ignored: &'a [String],
}

impl Source<'_> {
    /// Threads that load.
    pub(super) fn n_threads(&self) -> usize {
        self.options.n_threads.unwrap_or_else(available_threads)
    }

    /// The threads and instructions that compute on the CPU.
    ///
    /// # Errors
    /// The threads cannot be started, or the processor lacks the instructions.
    pub(super) fn context(&self) -> Result<CpuContext, KernelError> {
        match self.options.isa {
            Some(isa) => CpuContext::with_isa(self.n_threads(), isa),
            None => CpuContext::new(self.n_threads()),
        }
    }

    /// Puts the weights of a description into their place: from the checkpoint's files, or made up. The threads of
    /// `context` load, unless the options name another number.
    pub(super) fn weights<P: Place>(
        &self,
        context: &CpuContext,
        weights: WeightsOf<'_>,
        place: &P,
    ) -> Result<Placed<P>, ModelError> {
        match self.options.n_loading_threads {
            None => context.enter(|| self.load(weights, place)),
            Some(n_threads) => CpuContext::new(n_threads)?.enter(|| self.load(weights, place)),
        }
    }

    fn load<P: Place>(
        &self,
        WeightsOf {
            list,
            quantised,
            ignored,
        }: WeightsOf<'_>,
        place: &P,
    ) -> Result<Placed<P>, ModelError> {
        let LoadOptions { format, dtype, .. } = *self.options;
        let formats = Formats {
            format: self.options.quantization,
            quantised,
        };
        if format == LoadFormat::Dummy {
            return dummy_weights(list, (dtype, self.config.dtype()?), formats, place);
        }
        let checkpoint = Checkpoint::open(self.dir, format, &list.tensors(), ignored)?;
        Loader::new(&checkpoint, dtype, self.progress).load_into(list, formats, place)
    }
}
