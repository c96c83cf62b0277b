//! What becomes of a pooled vector: unit length, a cosine, a probability.
//!
//! Must not know HTTP or how vectors are computed.

use std::path::Path;

use serde_json::Value;

use crate::model::ModelError;

/// To which lengths an embedding may be cut: what a model was trained for ("Matryoshka" embeddings).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Lengths {
    /// Only its own.
    #[default]
    Whole,
    /// Any.
    Any,
    /// These.
    Listed(Vec<usize>),
}

/// What a checkpoint says of its vectors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolingConfig {
    /// What becomes of a raw score.
    pub activation: Activation,
    /// To which lengths an embedding may be cut.
    pub lengths: Lengths,
}

impl PoolingConfig {
    /// What a folder's `config.json` says.
    ///
    /// # Errors
    /// [`ModelError`] for what is not supported, and for a file that cannot be read.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("config.json");
        let bytes = std::fs::read(&path).map_err(|source| ModelError::Read {
            path: path.clone(),
            source,
        })?;
        let config: Value = serde_json::from_slice(&bytes).map_err(|error| ModelError::Json {
            path,
            reason: error.to_string(),
        })?;
        Ok(Self {
            activation: Activation::of(&config)?,
            lengths: Lengths::of(&config),
        })
    }
}

impl Lengths {
    /// `matryoshka_dimensions` lists them, `is_matryoshka` allows all.
    fn of(config: &Value) -> Self {
        let listed = config["matryoshka_dimensions"].as_array().map(|lengths| {
            let lengths = lengths.iter().filter_map(Value::as_u64);
            lengths.map(|length| length as usize).collect()
        });
        match (listed, config["is_matryoshka"].as_bool()) {
            (Some(lengths), _) => Self::Listed(lengths),
            (None, Some(true)) => Self::Any,
            (None, _) => Self::Whole,
        }
    }

    /// Whether a vector of `whole` numbers may be cut to `length`.
    pub fn allow(&self, length: usize, whole: usize) -> bool {
        length == whole
            || length < whole
                && match self {
                    Self::Whole => false,
                    Self::Any => true,
                    Self::Listed(lengths) => lengths.contains(&length),
                }
    }
}

/// What becomes of the raw score of a cross-encoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// `1 / (1 + exp(-x))`, where a checkpoint names none.
    #[default]
    Sigmoid,
    /// The score as it is.
    Identity,
}

impl Activation {
    /// `activation_fn` of `sentence_transformers`, or the older `sbert_ce_default_activation_function`, each the name
    /// of a class of PyTorch.
    fn of(config: &Value) -> Result<Self, ModelError> {
        let newer = config["sentence_transformers"]["activation_fn"].as_str();
        let name = newer.or(config["sbert_ce_default_activation_function"].as_str());
        match name {
            None | Some("torch.nn.modules.activation.Sigmoid") => Ok(Self::Sigmoid),
            Some("torch.nn.modules.linear.Identity") => Ok(Self::Identity),
            Some(other) => Err(ModelError::UnsupportedOption {
                option: "sentence_transformers.activation_fn",
                value: other.into(),
                supported: "torch.nn.modules.activation.Sigmoid, torch.nn.modules.linear.Identity",
            }),
        }
    }

    /// The score that a client sees.
    pub fn apply(self, raw: f32) -> f32 {
        match self {
            Self::Sigmoid => 1.0 / (1.0 + (-raw).exp()),
            Self::Identity => raw,
        }
    }
}

/// The vector of the same direction and length 1; a zero vector stays as it is.
pub fn normalised(vector: Vec<f32>) -> Vec<f32> {
    let length = dot(&vector, &vector).sqrt();
    if length == 0.0 {
        return vector;
    }
    let scaled = vector.into_iter().map(|x| (f64::from(x) / length) as f32);
    scaled.collect()
}

/// The cosine of the angle between two vectors of one length; 0 if either is zero.
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths == 0.0 {
        return 0.0;
    }
    (dot(a, b) / lengths) as f32
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_have_length_1_and_an_angle() {
        assert_eq!(normalised(vec![3.0, -4.0]), [0.6, -0.8]);
        assert_eq!(normalised(vec![0.0, 0.0]), [0.0, 0.0]);
        assert_eq!(cosine(&[2.0, 0.0], &[5.0, 0.0]), 1.0);
        assert_eq!(cosine(&[2.0, 0.0], &[0.0, 1.0]), 0.0);
        assert_eq!(cosine(&[1.0, 1.0], &[-3.0, -3.0]), -1.0);
        assert_eq!(cosine(&[0.0], &[1.0]), 0.0);
        // Squares that overflow an f32.
        assert_eq!(normalised(vec![1e30, 0.0]), [1.0, 0.0]);
    }

    #[test]
    fn the_activation_is_the_checkpoints() {
        let read = |config: &str| Activation::of(&serde_json::from_str(config).unwrap());
        assert_eq!(read("{}").unwrap(), Activation::Sigmoid);
        let older = r#"{"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}"#;
        assert_eq!(read(older).unwrap(), Activation::Identity);
        let newer = r#"{"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}}"#;
        assert_eq!(read(newer).unwrap(), Activation::Sigmoid);
        let other = read(r#"{"sentence_transformers": {"activation_fn": "os.system"}}"#).unwrap_err();
        assert!(other.to_string().contains("os.system"), "{other}");
        assert!((Activation::Sigmoid.apply(-0.215_352_13) - 0.446_369_05).abs() < 1e-6);
        assert_eq!(Activation::Identity.apply(-0.2), -0.2);
    }
    #[test]
    fn a_vector_is_cut_only_to_what_the_model_stands() {
        let lengths = |config: &str| Lengths::of(&serde_json::from_str(config).unwrap());
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
