//! How an embedding model makes one vector of a text: what sentence-transformers stores beside the checkpoint.
//!
//! Format: `modules.json` lists modules by type and folder; a pooling module's `config.json` has a flag for
//! each way (github.com/UKPLab/sentence-transformers, "Creating Custom Models").

use std::path::Path;

use serde_json::Value;

use super::config::{Fields, read_json, read_list};
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

/// Largest module list or configuration.
const BYTES_MAX: u64 = 1 << 20;

impl Pooling {
    /// Reads the modules of the folder; `None` if it has no list of modules.
    ///
    /// # Errors
    /// A file that cannot be read, or a module that no code executes.
    pub(super) fn read(dir: &Path) -> Result<Option<Pooling>, ModelError> {
        let Some(modules) = read_list(&dir.join("modules.json"), BYTES_MAX)? else {
            return Ok(None);
        };
        let mut pooling = None;
        for module in &modules {
            let text = |field| module.get(field).and_then(Value::as_str);
            let kind = text("type").unwrap_or_default();
            match kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" => {}
                "Pooling" => pooling = Some(read_pooling(dir, text("path").unwrap_or_default())?),
                "Normalize" => {
                    let pooling = pooling.get_or_insert(Pooling::DEFAULT);
                    pooling.normalises = true;
                }
                _ => {
                    return Err(ModelError::UnsupportedOption {
                        option: "modules.json type",
                        value: kind.to_owned(),
                        supported: "Transformer, Pooling, Normalize",
                    });
                }
            }
        }
        Ok(pooling)
    }

    /// What sentence-transformers does with a checkpoint that names no pooling.
    pub(super) const DEFAULT: Pooling = Pooling {
        kind: PoolingKind::Mean,
        normalises: false,
    };
}

fn read_pooling(dir: &Path, folder: &str) -> Result<Pooling, ModelError> {
    // The name comes from an untrusted file: it must be that of a folder in this folder.
    if Path::new(folder).file_name() != Some(folder.as_ref()) {
        return Err(ModelError::Json {
            path: dir.join("modules.json"),
            reason: format!("{folder:?} is not the name of a folder in this folder"),
        });
    }
    let path = dir.join(folder).join("config.json");
    let Some(config) = read_json(&path, BYTES_MAX)? else {
        return Err(ModelError::MissingFile { path });
    };
    Ok(Pooling {
        kind: kind(&config)?,
        normalises: false,
    })
}

fn kind(config: &Fields) -> Result<PoolingKind, ModelError> {
    let mut chosen = Vec::new();
    for (field, kind) in [
        ("pooling_mode_cls_token", Some(PoolingKind::First)),
        ("pooling_mode_lasttoken", Some(PoolingKind::Last)),
        ("pooling_mode_mean_tokens", Some(PoolingKind::Mean)),
        ("pooling_mode_max_tokens", None),
        ("pooling_mode_mean_sqrt_len_tokens", None),
        ("pooling_mode_weightedmean_tokens", None),
    ] {
        if config.flag(field)?.unwrap_or(false) {
            chosen.push((field, kind));
        }
    }
    match chosen.as_slice() {
        [(_, Some(kind))] => Ok(*kind),
        [] => Ok(Pooling::DEFAULT.kind),
        more => Err(ModelError::UnsupportedOption {
            option: "pooling",
            value: more
                .iter()
                .map(|(field, _)| *field)
                .collect::<Vec<_>>()
                .join(" and "),
            supported: "one of pooling_mode_cls_token, pooling_mode_lasttoken, pooling_mode_mean_tokens",
        }),
    }
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
    /// Reads `config.json` in `dir`.
    ///
    /// # Errors
    /// [`ModelError`] for what is not supported, and for a file that cannot be read.
    pub fn read(dir: &Path) -> Result<PoolingConfig, ModelError> {
        let config = Fields::read_config(dir)?;
        Ok(PoolingConfig {
            activation: ScoreActivation::of(&config)?,
            lengths: Lengths::of(&config)?,
        })
    }
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
    /// `activation_fn` of `sentence_transformers`, or the older `sbert_ce_default_activation_function`, each the name
    /// of a class of PyTorch.
    fn of(config: &Fields) -> Result<ScoreActivation, ModelError> {
        let newer = config.object("sentence_transformers")?;
        let newer = newer
            .as_ref()
            .map(|fields| fields.text(&["activation_fn"]))
            .transpose()?;
        let older = config.text(&["sbert_ce_default_activation_function"])?;
        match newer.flatten().or(older) {
            None | Some("torch.nn.modules.activation.Sigmoid") => Ok(ScoreActivation::Sigmoid),
            Some("torch.nn.modules.linear.Identity") => Ok(ScoreActivation::Identity),
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
            ScoreActivation::Sigmoid => 1.0 / (1.0 + (-raw).exp()),
            ScoreActivation::Identity => raw,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(modules: &str, pooling: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("1_Pooling")).unwrap();
        std::fs::write(dir.path().join("modules.json"), modules).unwrap();
        std::fs::write(dir.path().join("1_Pooling/config.json"), pooling).unwrap();
        dir
    }

    const TWO: &str = r#"[{"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]"#;

    #[test]
    fn the_pooling_of_a_folder() {
        let none = tempfile::tempdir().unwrap();
        assert_eq!(Pooling::read(none.path()).unwrap(), None);
        for (pooling, kind) in [
            (r#"{"pooling_mode_cls_token": true}"#, PoolingKind::First),
            (r#"{"pooling_mode_lasttoken": true}"#, PoolingKind::Last),
            (r#"{"pooling_mode_mean_tokens": true}"#, PoolingKind::Mean),
            ("{}", PoolingKind::Mean),
        ] {
            let read = Pooling::read(folder(TWO, pooling).path()).unwrap().unwrap();
            assert_eq!((read.kind, read.normalises), (kind, false));
        }
        let three = TWO.replace("\"}]", "\"}, {\"path\": \"2\", \"type\": \"a.Normalize\"}]");
        assert!(
            Pooling::read(folder(&three, "{}").path())
                .unwrap()
                .unwrap()
                .normalises
        );
    }

    #[test]
    fn what_no_code_executes_is_refused() {
        let refused = |modules: &str, pooling: &str| {
            Pooling::read(folder(modules, pooling).path())
                .unwrap_err()
                .to_string()
        };
        assert!(refused(TWO, r#"{"pooling_mode_max_tokens": true}"#).contains("pooling_mode_max_tokens"));
        let both = r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}"#;
        assert!(refused(TWO, both).contains("pooling_mode_cls_token and"));
        assert!(refused(&TWO.replace("Pooling\"", "Dense\""), "{}").contains("Dense"));
        for path in ["../x", "/etc", "", "a/b"] {
            let modules = TWO.replace("1_Pooling", path);
            assert!(
                refused(&modules, "{}").contains("not the name of a folder"),
                "{path}"
            );
        }
        assert!(refused(&TWO.replace("1_Pooling", "2_Pooling"), "{}").contains("missing"));
        assert!(refused("{}", "{}").contains("modules.json"));
    }

    #[test]
    fn the_activation_is_the_checkpoints() {
        let read = |config: &str| ScoreActivation::of(&Fields::parse(config));
        assert_eq!(read("{}").unwrap(), ScoreActivation::Sigmoid);
        let older = r#"{"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}"#;
        assert_eq!(read(older).unwrap(), ScoreActivation::Identity);
        let newer = r#"{"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}}"#;
        assert_eq!(read(newer).unwrap(), ScoreActivation::Sigmoid);
        let other = read(r#"{"sentence_transformers": {"activation_fn": "os.system"}}"#).unwrap_err();
        assert!(other.to_string().contains("os.system"), "{other}");
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
