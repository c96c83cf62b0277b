//! The modules that sentence-transformers stores beside a checkpoint.
//!
//! Format: `modules.json` lists modules by type and folder. A pooling module's `config.json` names the way in
//! `pooling_mode` (version 6), or has a flag for each way; a dense module's has its sizes and its activation
//! (github.com/UKPLab/sentence-transformers, "Creating Custom Models"). A field of a module that is not read is an error:
//! a module has few fields, and nearly all of them change vectors.

use std::path::Path;

use serde_json::Value;

use super::config::{Aliases, Fields, read_json, read_list, shown};
use super::error::ModelError;
use super::families::linear;
use super::pooling::{IDENTITY, Pooling, PoolingKind};
use super::spec::{Matrix, Projection};

/// Largest module list or configuration.
const BYTES_MAX: u64 = 1 << 20;

/// The modules after the checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Modules {
    /// What makes one vector.
    pub(super) pooling: Pooling,
    /// What the vector passes through before it is normalised, in this order.
    pub(super) projections: Vec<Projection<Matrix>>,
}

/// Most modules of a list; published ones have up to five.
const N_MODULES_MAX: usize = 16;

impl Modules {
    /// Reads the modules of the folder; `None` if it has no list of modules, or none after the checkpoint.
    ///
    /// # Errors
    /// A file that cannot be read, or a module that no code executes.
    pub(super) fn read(dir: &Path) -> Result<Option<Modules>, ModelError> {
        let path = dir.join("modules.json");
        let Some(list) = read_list(&path, BYTES_MAX)? else {
            return Ok(None);
        };
        if list.len() > N_MODULES_MAX {
            let reason = format!("it lists {} modules, must be at most {N_MODULES_MAX}", list.len());
            return Err(ModelError::Json { path, reason });
        }
        let mut modules: Option<Modules> = None;
        for module in &list {
            let text = |field| module.get(field).and_then(Value::as_str).unwrap_or_default();
            let (kind, folder) = (text("type"), text("path"));
            let unsupported = |supported| ModelError::UnsupportedOption {
                option: "modules.json type",
                value: kind.to_owned(),
                supported,
            };
            match (kind.rsplit('.').next().unwrap_or_default(), &mut modules) {
                ("Transformer", None) => {}
                ("Pooling", None) => modules = Some(Modules::of(read_pooling(dir, folder)?)),
                ("Dense", Some(modules)) if !modules.pooling.normalises => {
                    modules.projections.push(read_projection(dir, folder)?);
                }
                ("Normalize", modules) => {
                    let modules = modules.get_or_insert(Modules::of(Pooling::DEFAULT));
                    modules.pooling.normalises = true;
                }
                ("Transformer" | "Pooling" | "Dense", _) => {
                    return Err(unsupported("the order Transformer, Pooling, Dense, Normalize"));
                }
                _ => return Err(unsupported("Transformer, Pooling, Dense, Normalize")),
            }
        }
        Ok(modules)
    }

    fn of(pooling: Pooling) -> Modules {
        Modules {
            pooling,
            projections: Vec::new(),
        }
    }
}

/// The configuration of a module, and its name for messages.
fn module_config(dir: &Path, folder: &str) -> Result<(String, Fields), ModelError> {
    // The name comes from an untrusted file: it must be that of a folder in this folder.
    if Path::new(folder).file_name() != Some(folder.as_ref()) {
        return Err(ModelError::Json {
            path: dir.join("modules.json"),
            reason: format!("{folder:?} is not the name of a folder in this folder"),
        });
    }
    let path = dir.join(folder).join("config.json");
    let config = read_json(&path, BYTES_MAX)?.ok_or(ModelError::MissingFile { path })?;
    Ok((format!("{folder}/config.json"), config))
}

/// Refuses a field of a module that no code has read, unless its value switches it off.
fn check_read(file: String, config: &Fields) -> Result<(), ModelError> {
    let is_off = |value: &Value| value.is_null() || value == false;
    match config.unread().into_iter().find(|unread| !is_off(&unread.value)) {
        None => Ok(()),
        Some(unread) => Err(ModelError::UnreadField {
            file,
            field: unread.path,
            value: shown(&unread.value),
        }),
    }
}

fn read_pooling(dir: &Path, folder: &str) -> Result<Pooling, ModelError> {
    let (file, config) = module_config(dir, folder)?;
    let kind = kind(&config, &file)?;
    // The size follows from the checkpoint. A prompt is part of the text that a client sends, so there is none to exclude.
    config.without_effect(&[
        "embedding_dimension",
        "word_embedding_dimension",
        "include_prompt",
    ]);
    check_read(file, &config)?;
    Ok(Pooling {
        kind,
        normalises: false,
    })
}

/// Reads a `Dense` module.
fn read_projection(dir: &Path, folder: &str) -> Result<Projection<Matrix>, ModelError> {
    const VECTOR: &str = "sentence_embedding";
    let (file, config) = module_config(dir, folder)?;
    const ENDS: [Aliases; 2] = [&["module_input_name"], &["module_output_name"]];
    for field in ENDS {
        if let Some(other) = config.text(field)?.filter(|name| *name != VECTOR) {
            return Err(ModelError::UnsupportedOption {
                option: field[0],
                value: other.to_owned(),
                supported: VECTOR,
            });
        }
    }
    let name = config.text(&["activation_function"])?.unwrap_or(TANH);
    let is_tanh = match name {
        TANH => true,
        IDENTITY => false,
        other => {
            return Err(ModelError::UnsupportedOption {
                option: "activation_function",
                value: other.to_owned(),
                supported: "torch.nn.modules.activation.Tanh, torch.nn.modules.linear.Identity",
            });
        }
    };
    let n_in = config.required_size(&["in_features"])?;
    let n_out = config.required_size(&["out_features"])?;
    let has_bias = config.flag("bias")?.unwrap_or(true);
    check_read(file, &config)?;
    Ok(Projection {
        weight: linear(&format!("{folder}/linear"), n_out, n_in, has_bias),
        is_tanh,
    })
}

const TANH: &str = "torch.nn.modules.activation.Tanh";

/// The ways of pooling: the name in `pooling_mode`, the older flag, and the kind if a program can express it.
const WAYS: [(&str, &str, Option<PoolingKind>); 6] = [
    ("cls", "pooling_mode_cls_token", Some(PoolingKind::First)),
    ("lasttoken", "pooling_mode_lasttoken", Some(PoolingKind::Last)),
    ("mean", "pooling_mode_mean_tokens", Some(PoolingKind::Mean)),
    ("max", "pooling_mode_max_tokens", None),
    ("mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens", None),
    ("weightedmean", "pooling_mode_weightedmean_tokens", None),
];

/// Reads the way of pooling. `pooling_mode`, a name or a list of names, wins over the flags.
fn kind(config: &Fields, file: &str) -> Result<PoolingKind, ModelError> {
    let mut flagged = Vec::new();
    let mut has_flags = false;
    for (name, field, _) in WAYS {
        let flag = config.flag(field)?;
        has_flags |= flag.is_some();
        flagged.extend(flag.unwrap_or(false).then_some(name));
    }
    let chosen: Vec<&str> = match config.text_or_texts("pooling_mode")? {
        Some(names) => names,
        // The library takes the mean where all flags are false.
        None if flagged.is_empty() && has_flags => vec!["mean"],
        None => flagged,
    };
    let single = match chosen.as_slice() {
        [name] => WAYS
            .iter()
            .find(|(known, _, _)| known == name)
            .and_then(|(_, _, kind)| *kind),
        _ => None,
    };
    single.ok_or_else(|| ModelError::UnsupportedOption {
        option: "pooling_mode",
        value: match chosen.as_slice() {
            [] => format!("nothing in {file}"),
            names => names.join(" and "),
        },
        supported: "one of cls, lasttoken, mean",
    })
}

/// The longest text that the checkpoint was trained to embed: `max_seq_length` of sentence-transformers, or the
/// tokenizer's limit where newer versions write only that. `None` for a checkpoint that sentence-transformers did not
/// save.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn trained_len(dir: &Path) -> Result<Option<usize>, ModelError> {
    const FIELD: &str = "max_seq_length";
    let own = read_json(&dir.join("sentence_bert_config.json"), BYTES_MAX)?;
    if let Some(own) = own
        && let Some(length) = own.count(FIELD)?.filter(|length| *length > 0)
    {
        return Ok(Some(length));
    }
    if !dir.join("modules.json").is_file() {
        return Ok(None);
    }
    let tokenizer = read_json(&dir.join("tokenizer_config.json"), TOKENIZER_BYTES_MAX)?;
    let limit = tokenizer
        .map(|config| config.number(&["model_max_length"]))
        .transpose()?;
    // Where nothing limits a text, the library writes 1e30.
    let limit = limit.flatten().filter(|limit| (1.0..1e9).contains(limit));
    Ok(limit.map(|limit| limit as usize))
}

/// Largest tokenizer_config.json: it may list many added tokens and a chat template.
const TOKENIZER_BYTES_MAX: u64 = 64 << 20;

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

    const MEAN: &str = r#"{"pooling_mode": "mean"}"#;

    #[test]
    fn the_pooling_of_a_folder() {
        let none = tempfile::tempdir().unwrap();
        assert_eq!(Modules::read(none.path()).unwrap(), None);
        for (pooling, kind) in [
            (r#"{"pooling_mode_cls_token": true}"#, PoolingKind::First),
            (r#"{"pooling_mode_lasttoken": true}"#, PoolingKind::Last),
            (r#"{"pooling_mode_mean_tokens": true}"#, PoolingKind::Mean),
            (r#"{"pooling_mode_cls_token": false}"#, PoolingKind::Mean),
            (
                r#"{"pooling_mode": "cls", "embedding_dimension": 8, "include_prompt": true}"#,
                PoolingKind::First,
            ),
            (r#"{"pooling_mode": ["lasttoken"]}"#, PoolingKind::Last),
            (
                r#"{"pooling_mode": "mean", "pooling_mode_cls_token": true}"#,
                PoolingKind::Mean,
            ),
        ] {
            let read = Modules::read(folder(TWO, pooling).path())
                .unwrap()
                .unwrap()
                .pooling;
            assert_eq!((read.kind, read.normalises), (kind, false), "{pooling}");
        }
        let three = TWO.replace("\"}]", "\"}, {\"path\": \"2\", \"type\": \"a.Normalize\"}]");
        let read = Modules::read(folder(&three, MEAN).path()).unwrap().unwrap();
        assert!(read.pooling.normalises);
    }

    #[test]
    fn a_dense_module_is_a_projection() {
        let dense = |module: &str, config: &str| {
            let modules = TWO.replace("\"}]", &format!("\"}}, {module}]"));
            let dir = folder(&modules, MEAN);
            std::fs::create_dir(dir.path().join("2_Dense")).unwrap();
            std::fs::write(dir.path().join("2_Dense/config.json"), config).unwrap();
            Modules::read(dir.path()).map(|modules| modules.unwrap().projections)
        };
        let module = r#"{"path": "2_Dense", "type": "sentence_transformers.base.modules.dense.Dense"}"#;
        let sizes = r#""in_features": 8, "out_features": 4"#;
        let read = dense(module, &format!("{{{sizes}}}")).unwrap();
        assert_eq!(read.len(), 1);
        assert!(read[0].is_tanh && read[0].weight.parts[0].bias.is_some());
        assert_eq!((read[0].weight.n_rows(), read[0].weight.n_cols), (4, 8));
        assert_eq!(read[0].weight.parts[0].tensor.name, "2_Dense/linear.weight");
        let more = r#""bias": false, "activation_function": "torch.nn.modules.linear.Identity""#;
        let read = dense(module, &format!("{{{sizes}, {more}}}")).unwrap();
        assert!(!read[0].is_tanh && read[0].weight.parts[0].bias.is_none());
        for more in [
            r#", "activation_function": "os.system""#,
            r#", "use_residual": true"#,
            r#", "module_input_name": "token_embeddings""#,
            r#", "new_field": 3"#,
        ] {
            assert!(dense(module, &format!("{{{sizes}{more}}}")).is_err(), "{more}");
        }
        assert!(dense(module, "{}").is_err());
        let normalised = format!(r#"{{"path": "n", "type": "a.Normalize"}}, {module}"#);
        assert!(
            dense(&normalised, &format!("{{{sizes}}}")).is_err(),
            "the order matters"
        );
    }

    #[test]
    fn the_length_of_texts_is_the_one_that_was_trained() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("tokenizer_config.json", r#"{"model_max_length": 128}"#);
        assert_eq!(trained_len(dir.path()).unwrap(), None, "not an embedding model");
        write("modules.json", TWO);
        assert_eq!(trained_len(dir.path()).unwrap(), Some(128));
        write("sentence_bert_config.json", r#"{"max_seq_length": null}"#);
        assert_eq!(trained_len(dir.path()).unwrap(), Some(128));
        write(
            "sentence_bert_config.json",
            r#"{"max_seq_length": 256, "do_lower_case": false}"#,
        );
        assert_eq!(trained_len(dir.path()).unwrap(), Some(256));
        write("sentence_bert_config.json", "{}");
        write(
            "tokenizer_config.json",
            r#"{"model_max_length": 1000000000000000019884624838656}"#,
        );
        assert_eq!(trained_len(dir.path()).unwrap(), None);
    }

    #[test]
    fn what_no_code_executes_is_refused() {
        let refused = |modules: &str, pooling: &str| {
            Modules::read(folder(modules, pooling).path())
                .unwrap_err()
                .to_string()
        };
        for (pooling, reason) in [
            (r#"{"pooling_mode_max_tokens": true}"#, "= max is not"),
            (
                r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}"#,
                "= cls and mean is not",
            ),
            (r#"{"pooling_mode": ["mean", "max"]}"#, "= mean and max is not"),
            (r#"{"pooling_mode": "weightedmean"}"#, "= weightedmean is not"),
            (r#"{"pooling_mode": "spiral"}"#, "= spiral is not"),
            (r#"{"pooling_mode": 3}"#, "must be a string or a list of strings"),
            (
                r#"{"embedding_dimension": 8}"#,
                "nothing in 1_Pooling/config.json",
            ),
            (
                r#"{"pooling_mode": "cls", "temperature": 2}"#,
                "1_Pooling/config.json: temperature = 2",
            ),
        ] {
            let refused = refused(TWO, pooling);
            assert!(refused.contains(reason), "{refused}");
        }
        assert!(refused(&TWO.replace("Pooling\"", "Dense\""), MEAN).contains("Dense"));
        for path in ["../x", "/etc", "", "a/b"] {
            let modules = TWO.replace("1_Pooling", path);
            assert!(
                refused(&modules, MEAN).contains("not the name of a folder"),
                "{path}"
            );
        }
        assert!(refused(&TWO.replace("1_Pooling", "2_Pooling"), MEAN).contains("missing"));
        assert!(refused("{}", MEAN).contains("modules.json"));
    }
}
