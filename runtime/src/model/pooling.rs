//! How an embedding model makes one vector of a text: what sentence-transformers stores beside the checkpoint.
//!
//! Format: `modules.json` lists modules by type and folder; a pooling module's `config.json` has a flag for
//! each way (github.com/UKPLab/sentence-transformers, "Creating Custom Models").

use std::path::Path;

use serde_json::Value;

use super::ModelError;
use super::config::{Fields, read_json, read_list};

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
    /// What the folder says, `None` if it says nothing.
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

    /// What sentence-transformers does with a checkpoint that says nothing.
    pub(super) const DEFAULT: Pooling = Pooling {
        kind: PoolingKind::Mean,
        normalises: false,
    };
}

fn read_pooling(dir: &Path, folder: &str) -> Result<Pooling, ModelError> {
    // The name comes from a stranger's file: it must be that of a folder right here.
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
}
