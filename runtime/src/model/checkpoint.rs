//! The files of a checkpoint: found, read without trusting them, and turned into weights in memory.
//!
//! `weights` finds and opens the files, `weight_file` reads one, `safetensors` and `pickle` read where tensors are in them, and `load` copies
//! what a description names. Must not know families or how a model is computed.

mod dummy;
mod load;
mod mxfp4;
mod pickle;
mod safetensors;
mod weight_file;
mod weights;

pub(in crate::model) use dummy::dummy_weights;
pub(in crate::model) use load::{InMemory, Linear, Loader, Place, Placed, Weights};
pub(in crate::model) use pickle::read_checkpoint;
pub(in crate::model) use safetensors::{Entry, read_header};
pub(in crate::model) use weights::{Checkpoint, in_memory};
pub use weights::{DtypeChoice, LoadFormat, LoadProgress};
