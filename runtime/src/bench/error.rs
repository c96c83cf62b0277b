//! Why nothing was measured.

use std::path::PathBuf;

use crds::failure::{Failure, Reason, chain};
use kernels::KernelError;

use crate::batch::StepError;
use crate::config::ConfigError;
use crate::engine::{RequestFailure, SubmitError};
use crate::model::ModelError;
use crate::serving::LoadError;

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A setting cannot be used.
    #[error("a setting cannot be used")]
    Config(#[from] ConfigError),
    /// The model is not a folder of this machine.
    #[error("{model} is no folder")]
    NoFolder {
        /// What was given.
        model: String,
    },
    /// Numbers that do not go together.
    #[error("{flag} cannot be measured: {reason}")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// Why.
        reason: String,
    },
    /// The model cannot be loaded, or the engine does not start.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The machine cannot be probed.
    #[error("the machine cannot be probed")]
    Probe(#[from] KernelError),
    /// A step was not computed.
    #[error("a step was not computed")]
    Step(#[from] StepError),
    /// The engine refuses a request.
    #[error("the engine refuses a request")]
    Submit(#[from] SubmitError),
    /// The engine ended a request.
    #[error("the engine ended a request")]
    Request(#[from] RequestFailure),
    /// A file cannot be written.
    #[error("{path} cannot be written")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: std::io::Error,
    },
}

impl From<ModelError> for BenchError {
    fn from(error: ModelError) -> BenchError {
        BenchError::Load(error.into())
    }
}

impl BenchError {
    /// The failure that the process ends with.
    pub fn failure(&self) -> Failure {
        let (reason, remedy) = match self {
            BenchError::Config(error) => return error.failure(),
            BenchError::Load(error) => return error.failure(),
            BenchError::NoFolder { .. } => (
                Reason::InvalidSetting,
                "Name a folder with a config.json; slipway-runtime fetch downloads a model into one.",
            ),
            BenchError::Flag { .. } => (
                Reason::InvalidSetting,
                "Correct the flag; bench --help lists them.",
            ),
            BenchError::Write { .. } => (Reason::InvalidSetting, "Name a file that can be written."),
            BenchError::Submit(_) => (
                Reason::InvalidSetting,
                "Lower --streams, or raise MAX_CONCURRENCY and MAX_NUM_SEQS.",
            ),
            BenchError::Probe(_) | BenchError::Step(_) | BenchError::Request(_) => {
                (Reason::CrashLoop, "This is a bug; please report it.")
            }
        };
        Failure::new(reason, chain(self), remedy)
    }
}
