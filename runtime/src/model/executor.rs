//! The executor of a loaded program: on the processor, or on a card.

use kernels::{CpuContext, DType, KvDType};

#[cfg(feature = "cuda")]
use super::checkpoint::in_memory;
use super::checkpoint::{InMemory, Weights};
use super::cpu::{Cache, Cpu};
#[cfg(feature = "cuda")]
use super::cuda::{self, Cuda};
use super::device::Device;
use super::error::ModelError;
use super::kv_dtype;
use super::kv_layout::KvLayout;
use super::program::Program;
use super::rope::RopeSpec;
use super::source::{Source, WeightsOf};
use super::spec::{MatrixId, WeightList};
use super::step_limits::{DeviceMemory, StepLimits};
use crate::batch::KvGroup;

/// A program with its weights and cache, where it is computed.
#[derive(Debug)]
pub(super) enum Executor {
    Cpu(Box<Cpu>),
    #[cfg(feature = "cuda")]
    Cuda(Box<Cuda>),
}

/// What an executor is made of, beside weights.
pub(super) struct Parts<'a> {
    pub(super) context: CpuContext,
    pub(super) program: Program,
    pub(super) layout: KvLayout,
    pub(super) ropes: &'a [RopeSpec],
    /// The embedding, whose dtype stands for that of the model.
    pub(super) tokens: MatrixId,
    /// Numbers of the matrices that can be quantised, ascending.
    pub(super) quantised: Vec<usize>,
}

/// The sizes of a cache.
#[derive(Debug, Clone, Copy)]
pub(super) struct CacheFacts {
    pub(super) block_size: usize,
    pub(super) n_blocks: usize,
    pub(super) n_host_blocks: usize,
}

impl Parts<'_> {
    /// Loads the weights of a description to a device.
    pub(super) fn load(
        self,
        device: &Device,
        source: &Source<'_>,
        (list, ignored): (&WeightList, &[String]),
    ) -> Result<Executor, ModelError> {
        let weights = WeightsOf {
            list,
            quantised: &self.quantised,
            ignored,
        };
        match device {
            Device::Cpu => {
                let (matrices, vectors) = source.weights(&self.context, weights, &InMemory)?;
                let weights = Weights { matrices, vectors };
                let dtype = weights.matrix(self.tokens).weight.dtype();
                let dtype = kv_dtype::of_cpu(source.options.kv_cache_dtype, dtype);
                let cache = Cache::empty(self.layout, dtype);
                let cpu = Cpu::new(self.context, self.program, weights, cache, self.ropes)?;
                Ok(Executor::Cpu(Box::new(cpu)))
            }
            #[cfg(feature = "cuda")]
            Device::Cuda(gpu) => {
                if let Some(format) = source.options.quantization {
                    return Err(ModelError::QuantizedOnDevice {
                        format: format.name(),
                    });
                }
                // As far as the configuration says, before the weights are read.
                let expected = in_memory(source.options.dtype, source.config.dtype()?);
                let kv_dtype = source.options.kv_cache_dtype;
                kv_dtype::of_card(kv_dtype, expected)?;
                let place = cuda::OnDevice::new(gpu, source.n_threads())?;
                let (matrices, vectors) = source.weights(&self.context, weights, &place)?;
                let weights = cuda::Weights { matrices, vectors };
                let loaded = cuda::Loaded {
                    cache_dtype: kv_dtype::of_card(kv_dtype, weights.dtype(self.tokens))?,
                    program: self.program,
                    weights,
                    layout: self.layout,
                };
                let cuda = Cuda::new(gpu.clone(), loaded, self.ropes, source.options.graphs)?;
                Ok(Executor::Cuda(Box::new(cuda)))
            }
        }
    }
}

impl Executor {
    /// Takes the memory for steps within `limits`, and returns what its device has left; `None` for the processor,
    /// which takes memory as it needs it.
    ///
    /// # Errors
    /// The device has no memory for such steps.
    pub(super) fn reserve(&mut self, limits: &StepLimits) -> Result<Option<DeviceMemory>, ModelError> {
        match self {
            Executor::Cpu(_) => {
                tracing::debug!(?limits, "the CPU reserves no memory for steps");
                Ok(None)
            }
            #[cfg(feature = "cuda")]
            Executor::Cuda(cuda) => Ok(Some(cuda.reserve_for(limits)?)),
        }
    }

    /// Bytes of the host's memory that a step of so many tokens and results takes; none if a device computes it.
    pub(super) fn step_bytes(&self, n_tokens: usize, n_outputs: usize) -> u64 {
        match self {
            Executor::Cpu(cpu) => cpu.step_bytes(n_tokens, n_outputs),
            #[cfg(feature = "cuda")]
            Executor::Cuda(_) => 0,
        }
    }

    /// Bytes of the weights.
    pub(super) fn weights_bytes(&self) -> u64 {
        match self {
            Executor::Cpu(cpu) => cpu.weights().size_bytes(),
            #[cfg(feature = "cuda")]
            Executor::Cuda(cuda) => cuda.weights().size_bytes(),
        }
    }

    /// The program that it executes.
    pub(super) fn program(&self) -> &Program {
        match self {
            Executor::Cpu(cpu) => cpu.program(),
            #[cfg(feature = "cuda")]
            Executor::Cuda(cuda) => cuda.program(),
        }
    }

    /// Bytes of each matrix, by number.
    pub(super) fn matrix_bytes(&self) -> Vec<u64> {
        match self {
            Executor::Cpu(cpu) => {
                let matrices = cpu.weights().matrices.iter();
                matrices.map(|linear| linear.weight.size_bytes() as u64).collect()
            }
            #[cfg(feature = "cuda")]
            Executor::Cuda(cuda) => cuda.weights().matrix_bytes(),
        }
    }

    /// How the numbers of a matrix are stored.
    pub(super) fn dtype(&self, id: MatrixId) -> DType {
        match self {
            Executor::Cpu(cpu) => cpu.weights().matrix(id).weight.dtype(),
            #[cfg(feature = "cuda")]
            Executor::Cuda(cuda) => cuda.weights().dtype(id),
        }
    }

    /// Bytes that a token takes in the cache, in all groups together.
    pub(super) fn kv_bytes_per_token(&self) -> usize {
        match self {
            Executor::Cpu(cpu) => cpu.cache().token_bytes(),
            #[cfg(feature = "cuda")]
            Executor::Cuda(cuda) => cuda.token_bytes(),
        }
    }

    /// How the numbers of the cache are stored.
    pub(super) fn kv_cache_dtype(&self) -> KvDType {
        match self {
            Executor::Cpu(cpu) => cpu.cache().dtype(),
            #[cfg(feature = "cuda")]
            Executor::Cuda(cuda) => cuda.cache_dtype().into(),
        }
    }

    /// Takes memory for a cache; what was there is gone.
    ///
    /// # Errors
    /// There is no room, or a size is zero.
    pub(super) fn allocate(
        &mut self,
        n_blocks: usize,
        block_size: usize,
        n_host_blocks: usize,
    ) -> Result<(), ModelError> {
        match self {
            Executor::Cpu(cpu) => cpu.cache_mut().allocate(n_blocks, block_size, n_host_blocks),
            #[cfg(feature = "cuda")]
            Executor::Cuda(cuda) => Ok(cuda.allocate(n_blocks, block_size, n_host_blocks)?),
        }
    }

    /// Groups of layers.
    pub(super) fn groups(&self) -> &[KvGroup] {
        match self {
            Executor::Cpu(cpu) => cpu.cache().groups(),
            #[cfg(feature = "cuda")]
            Executor::Cuda(cuda) => cuda.groups(),
        }
    }

    /// The sizes of the cache, all zero before memory was taken.
    pub(super) fn cache_facts(&self) -> CacheFacts {
        match self {
            Executor::Cpu(cpu) => {
                let cache = cpu.cache();
                CacheFacts {
                    block_size: cache.block_size(),
                    n_blocks: cache.n_blocks(),
                    n_host_blocks: cache.n_host_blocks(),
                }
            }
            #[cfg(feature = "cuda")]
            Executor::Cuda(cuda) => CacheFacts {
                block_size: cuda.block_size(),
                n_blocks: cuda.n_blocks(),
                n_host_blocks: cuda.n_host_blocks(),
            },
        }
    }
}
