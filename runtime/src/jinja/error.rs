//! Why a template is not valid, or does not render.

/// An error of a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is not a template.
    #[error("{reason} (line {line})")]
    Syntax {
        /// Why.
        reason: String,
        /// The line in the template.
        line: u32,
    },
    /// The template called `raise_exception`.
    #[error("{message}")]
    Raised {
        /// What the template says.
        message: String,
    },
    /// An operation of the template failed.
    #[error("{reason}{}", .line.map(|line| format!(" (line {line})")).unwrap_or_default())]
    Failed {
        /// Why.
        reason: String,
        /// The line in the template.
        line: Option<u32>,
    },
    /// The rendering takes too long.
    #[error("the template takes more than {n_max} steps")]
    Steps {
        /// Steps of one rendering, at most.
        n_max: u64,
    },
    /// The values of the rendering are too large.
    #[error("the template needs more than {n_bytes_max} bytes of memory")]
    Memory {
        /// Bytes of all values, at most.
        n_bytes_max: usize,
    },
    /// Calls, expressions or values are nested too deeply.
    #[error("the template nests {what} more than {n_max} deep")]
    Depth {
        /// What is nested.
        what: &'static str,
        /// Levels, at most.
        n_max: usize,
    },
}

pub(super) type Result<T> = std::result::Result<T, Error>;

/// An operation failed for this reason.
pub(super) fn failed(reason: impl Into<String>) -> Error {
    Error::Failed {
        reason: reason.into(),
        line: None,
    }
}

impl Error {
    /// The error with the line of the statement that failed, unless a line inside it is already known.
    pub(super) fn in_line(self, number: u32) -> Self {
        match self {
            Self::Failed { reason, line: None } => Self::Failed {
                reason,
                line: Some(number),
            },
            other => other,
        }
    }
}
