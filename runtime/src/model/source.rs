//! Where a model's weights come from, and how they are to be loaded.

use std::path::Path;

use kernels::available_threads;

use super::checkpoint::{
    Checkpoint, DtypeChoice, LoadFormat, LoadProgress, Loader, Place, Placed, dummy_weights,
};
use super::config::Fields;
use super::device::Device;
use super::error::ModelError;
use super::graph_mode::GraphMode;
use super::spec::WeightList;

/// How to load a model.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Which files to read the weights from.
    pub format: LoadFormat,
    /// In which dtype to keep the weights.
    pub dtype: DtypeChoice,
    /// What computes.
    pub device: Device,
    /// Which steps a CUDA card records.
    pub graphs: GraphMode,
    /// Compute threads; by default as many as the process may use.
    pub n_threads: Option<usize>,
    /// Longest sequence; by default the model's context.
    pub max_model_len: Option<u32>,
}

/// Where weights come from.
pub(super) struct Source<'a> {
    pub(super) dir: &'a Path,
    pub(super) config: &'a Fields,
    pub(super) options: &'a LoadOptions,
    pub(super) progress: &'a (dyn Fn(LoadProgress) + Sync),
}

impl Source<'_> {
    /// Threads that load.
    pub(super) fn n_threads(&self) -> usize {
        self.options.n_threads.unwrap_or_else(available_threads)
    }

    /// Puts the weights of a description into their place: from the checkpoint's files, or made up.
    pub(super) fn weights<P: Place>(
        &self,
        (list, ignored): (&WeightList, &[String]),
        place: &P,
    ) -> Result<Placed<P>, ModelError> {
        let LoadOptions { format, dtype, .. } = *self.options;
        if format == LoadFormat::Dummy {
            return dummy_weights(list, (dtype, self.config.dtype()?), place);
        }
        let checkpoint = Checkpoint::open(self.dir, format, &list.tensors(), ignored)?;
        Loader::new(&checkpoint, dtype, self.progress).load_into(list, place)
    }
}
