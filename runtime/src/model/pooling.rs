//! How an embedding model makes one vector of a text, and what a checkpoint declares about its vectors and scores.

use std::path::Path;

use super::config::{Fields, read_json};
use super::error::ModelError;

/// What becomes of the activations of a text's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pooling {
    /// Which tokens count.
    pub(super) kind: PoolingKind,
    /// Whether the vector is made to have length 1.
    pub(super) normalises: bool,
}

/// Which tokens count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PoolingKind {
    /// The first one.
    First,
    /// The last one.
    Last,
    /// All, averaged.
    Mean,
}

/// Largest config_sentence_transformers.json.
const BYTES_MAX: u64 = 1 << 20;

/// The name of PyTorch's class that changes nothing.
pub(super) const IDENTITY: &str = "torch.nn.modules.linear.Identity";

impl Pooling {
    /// What sentence-transformers does with a checkpoint that names no pooling.
    pub(super) const DEFAULT: Pooling = Pooling {
        kind: PoolingKind::Mean,
        normalises: false,
    };
}

/// The lengths that an embedding may be cut to: those that a model was trained for ("Matryoshka" embeddings).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Lengths {
    /// Its own only.
    #[default]
    Whole,
    /// Any.
    Any,
    /// These.
    Listed(Vec<usize>),
}

/// What a checkpoint declares about its vectors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolingConfig {
    /// What makes a raw score the score that clients see.
    pub activation: ScoreActivation,
    /// To which lengths an embedding may be cut.
    pub lengths: Lengths,
}

impl PoolingConfig {
    /// Reads `config.json` and `config_sentence_transformers.json` in `dir`.
    ///
    /// # Errors
    /// [`ModelError`] for what is not supported, and for a file that cannot be read.
    pub fn read(dir: &Path) -> Result<PoolingConfig, ModelError> {
        let config = Fields::read_config(dir)?;
        let beside = read_json(&dir.join("config_sentence_transformers.json"), BYTES_MAX)?;
        if let Some(beside) = &beside {
            warn_of_unused(beside)?;
        }
        Ok(PoolingConfig {
            activation: ScoreActivation::of(&config, beside.as_ref())?,
            lengths: Lengths::of(&config)?,
        })
    }
}

/// Logs what sentence-transformers would do with texts and vectors, and this server leaves to its clients.
fn warn_of_unused(beside: &Fields) -> Result<(), ModelError> {
    if let Some(prompt) = beside.text(&["default_prompt_name"])? {
        tracing::warn!(prompt, "no default prompt is added to texts: clients write it");
    }
    if let Some(similarity) = beside
        .text(&["similarity_fn_name"])?
        .filter(|name| *name != "cosine")
    {
        tracing::warn!(similarity, "texts are compared by the cosine of their vectors");
    }
    Ok(())
}

impl Lengths {
    /// `matryoshka_dimensions` lists them, `is_matryoshka` allows all.
    fn of(config: &Fields) -> Result<Lengths, ModelError> {
        Ok(
            match (
                config.counts("matryoshka_dimensions")?,
                config.flag("is_matryoshka")?,
            ) {
                (Some(lengths), _) => Lengths::Listed(lengths),
                (None, Some(true)) => Lengths::Any,
                (None, _) => Lengths::Whole,
            },
        )
    }

    /// Whether a vector of `full` numbers may be cut to `length`.
    pub fn allow(&self, length: usize, full: usize) -> bool {
        let is_shorter_allowed = match self {
            Lengths::Whole => false,
            Lengths::Any => true,
            Lengths::Listed(lengths) => lengths.contains(&length),
        };
        length == full || length < full && is_shorter_allowed
    }
}

/// What makes the raw score of a cross-encoder the score that clients see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScoreActivation {
    /// `1 / (1 + exp(-x))`, where a checkpoint names none.
    #[default]
    Sigmoid,
    /// The score as it is.
    Identity,
}

impl ScoreActivation {
    /// The name of a class of PyTorch: `activation_fn` of config_sentence_transformers.json (version 6), else that of
    /// `sentence_transformers` in config.json, else the oldest `sbert_ce_default_activation_function`.
    fn of(config: &Fields, beside: Option<&Fields>) -> Result<ScoreActivation, ModelError> {
        const FIELD: &[&str] = &["activation_fn"];
        let inner = config.object("sentence_transformers")?;
        let newest = beside.map(|fields| fields.text(FIELD)).transpose()?;
        let newer = inner.as_ref().map(|fields| fields.text(FIELD)).transpose()?;
        let oldest = config.text(&["sbert_ce_default_activation_function"])?;
        match newest.flatten().or(newer.flatten()).or(oldest) {
            None | Some("torch.nn.modules.activation.Sigmoid") => Ok(ScoreActivation::Sigmoid),
            Some(IDENTITY) => Ok(ScoreActivation::Identity),
            Some(other) => Err(ModelError::UnsupportedOption {
                option: "activation_fn",
                value: other.into(),
                supported: "torch.nn.modules.activation.Sigmoid, torch.nn.modules.linear.Identity",
            }),
        }
    }

    /// The score that a client sees.
    pub fn apply(self, raw: f32) -> f32 {
        match self {
            ScoreActivation::Sigmoid => 1.0 / (1.0 + (-raw).exp()),
            ScoreActivation::Identity => raw,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_activation_is_the_checkpoints() {
        let read = |config: &str| ScoreActivation::of(&Fields::parse(config), None);
        assert_eq!(read("{}").unwrap(), ScoreActivation::Sigmoid);
        let older = r#"{"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}"#;
        assert_eq!(read(older).unwrap(), ScoreActivation::Identity);
        let newer = r#"{"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}}"#;
        assert_eq!(read(newer).unwrap(), ScoreActivation::Sigmoid);
        let other = read(r#"{"sentence_transformers": {"activation_fn": "os.system"}}"#).unwrap_err();
        assert!(other.to_string().contains("os.system"), "{other}");
        let beside = Fields::parse(r#"{"activation_fn": "torch.nn.modules.linear.Identity"}"#);
        let newest = ScoreActivation::of(&Fields::parse(newer), Some(&beside)).unwrap();
        assert_eq!(newest, ScoreActivation::Identity);
        let silent = Fields::parse(r#"{"prompts": {}}"#);
        let newest = ScoreActivation::of(&Fields::parse(older), Some(&silent)).unwrap();
        assert_eq!(newest, ScoreActivation::Identity);
        assert!((ScoreActivation::Sigmoid.apply(-0.215_352_13) - 0.446_369_05).abs() < 1e-6);
        assert_eq!(ScoreActivation::Identity.apply(-0.2), -0.2);
    }

    #[test]
    fn a_vector_is_cut_only_to_lengths_that_the_model_allows() {
        let lengths = |config: &str| Lengths::of(&Fields::parse(config)).unwrap();
        assert_eq!(lengths("{}"), Lengths::Whole);
        assert_eq!(lengths(r#"{"is_matryoshka": true}"#), Lengths::Any);
        let listed = lengths(r#"{"is_matryoshka": true, "matryoshka_dimensions": [4, 2]}"#);
        assert_eq!(listed, Lengths::Listed(vec![4, 2]));
        let allowed = |lengths: &Lengths| [1, 2, 8, 9].map(|length| lengths.allow(length, 8));
        assert_eq!(allowed(&Lengths::Whole), [false, false, true, false]);
        assert_eq!(allowed(&Lengths::Any), [true, true, true, false]);
        assert_eq!(allowed(&listed), [false, true, true, false]);
    }
}
