//! Why a constraint cannot become a grammar, and why an answer cannot follow one.

/// Why a constraint has no grammar. The caller can mend all but [`GrammarError::Vocabulary`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GrammarError {
    /// The constraint exceeds a bound.
    #[error("{what} has {size} {unit}; at most {size_max} are allowed")]
    TooLarge {
        /// Which constraint.
        what: &'static str,
        /// Its size.
        size: usize,
        /// The unit of the size.
        unit: &'static str,
        /// The largest size.
        size_max: usize,
    },
    /// The constraint is malformed, is too complex, or uses something that is not supported.
    #[error("{what} cannot be compiled: {reason}")]
    Unsupported {
        /// Which constraint.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The model's tokens do not fit the limits of a grammar.
    #[error("this model does not support structured outputs: {reason}")]
    Vocabulary {
        /// What is wrong with the tokens.
        reason: String,
    },
}

/// A grammar cannot be followed any further. Only this answer fails.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{reason}")]
pub struct FollowError {
    pub(super) reason: String,
}

/// Why a part of a constraint is refused.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Refusal {
    /// It exceeds a bound.
    TooLarge {
        size: usize,
        unit: &'static str,
        size_max: usize,
    },
    /// It is malformed, or uses something that is not supported.
    Unsupported(String),
}

impl Refusal {
    /// The error of the constraint named `what`, which contains the refused part.
    pub(super) fn of(self, what: &'static str) -> GrammarError {
        match self {
            Self::TooLarge { size, unit, size_max } => GrammarError::TooLarge {
                what,
                size,
                unit,
                size_max,
            },
            Self::Unsupported(reason) => GrammarError::Unsupported { what, reason },
        }
    }
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self::Unsupported(reason)
    }
}

impl From<&str> for Refusal {
    fn from(reason: &str) -> Self {
        Self::Unsupported(reason.to_owned())
    }
}
