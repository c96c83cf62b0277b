//! The compute operations of the engine, one contract each, with a CPU side.
//!
//! Owns the arithmetic, the instruction sets and every line of `unsafe` in the workspace. Must not know
//! models, requests, files' formats or HTTP: it sees shapes, dtypes and slices.
//!
//! Every op checks its contract before it touches a number, and computes each output element in one fixed order of
//! operations that depends neither on how many rows travel with it nor on how many threads work: a sequence gets the
//! same bits alone, in a batch, or in chunks. An op with operands of the same shapes as before allocates nothing.
//!
//! Each op has a file with its contract and a folder with a side for each device. `cpu` and `cuda` are below all ops.

mod activation;
mod add;
mod allocations;
mod attention;
mod clamp;
mod columns;
mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod embed;
mod error;
mod gemm;
mod heads;
#[cfg(feature = "cuda")]
mod keys;
mod kv_cache;
mod mapped_file;
mod norm;
mod probe;
mod rope;
mod route;
mod rows;
#[cfg(feature = "cuda")]
mod sample;
mod scale;
mod then;
mod weight;

pub use activation::{ActivateGated, Activation, activate, activate_gated};
pub use add::{AddRows, add, add_rows};
pub use allocations::CountingAllocator;
pub use attention::{
    Attention, AttentionRow, AttentionTiles, BiasValues, Mask, RelativeBias, Scores, attention,
};
pub use clamp::{clamp, softcap};
pub use columns::Columns;
pub use cpu::buffer::Buffer;
pub use cpu::context::CpuContext;
pub use cpu::isa::Isa;
pub use cpu::pool::available_threads;
pub use embed::{Embed, embed};
pub use error::KernelError;
pub use gemm::{Gemm, gemm};
pub use heads::Heads;
pub use kv_cache::{KvCache, KvDType, KvShape, KvValues, KvWrite, kv_write};
pub use mapped_file::MappedFile;
pub use norm::{Norm, NormKind, norm};
pub use probe::{MachineLimits, N_STREAMS, ProbeMemory, probe};
pub use rope::{Rope, RopePairs, RopeTable, rope};
pub use route::{ExpertGroups, ExpertTokens, GroupScore, Route, Routing, Scoring, route};
pub use rows::{CopyColumns, copy_columns, gather_rows, mean_of_rows};
pub use scale::{gate_rows, scale, scale_columns, scale_rows};
pub use then::Then;
pub use weight::{DType, GROUP, NotFinite, QuantFormat, Weight};

/// The CUDA sides of the ops, under the names of the CPU sides.
#[cfg(feature = "cuda")]
pub mod gpu {
    pub use crate::activation::cuda::{ActivateGated, activate, activate_gated, xielu};
    pub use crate::add::cuda::add;
    pub use crate::attention::cuda::{
        Attention, AttentionRow, AttentionSizes, AttentionWorkspace, BiasValues, RelativeBias, Scores,
        attention,
    };
    pub use crate::clamp::cuda::softcap;
    pub use crate::columns::HeadColumns;
    pub use crate::embed::cuda::{Embed, ResolveIds, embed, resolve_ids};
    pub use crate::gemm::cuda::{
        Experts, Linear, PerHead, ProductScratch, ProductThen, RowNorm, ScratchSizes, experts, linear,
        per_head,
    };
    pub use crate::keys::cuda::{Angles, HeadNorm, HeadNorms, Keys, LatentKeys, Turn, keys, latent_keys};
    pub use crate::kv_cache::cuda::{HostBlocks, KvBlocks, KvPages, KvSizes, copy_block, swap_in, swap_out};
    pub use crate::norm::cuda::{Norm, norm};
    pub use crate::route::cuda::{Route, Routing, route};
    pub use crate::rows::cuda::{CopyHeads, GatherRows, MeanOfRows, copy_heads, gather_rows, mean_of_rows};
    pub use crate::sample::cuda::{
        Draw, Drawn, DrawnLogprobs, Draws, EditSeen, Refusal, Sample, SampleWorkspace, SeenEdits, edit_seen,
        sample,
    };
    pub use crate::scale::cuda::{gate_rows, multiply, scale, scale_columns, unit_scales};
    pub use crate::weight::{Matrix, MatrixList};
}
