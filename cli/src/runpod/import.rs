//! What becomes of each variable of a block, and the ModelDeployment of those that can be honoured.

use std::collections::BTreeMap;

use crds::{
    ModelDeployment,
    modeldeployment::{API_KEYS_KEY_DEFAULT, TOKEN_KEY_DEFAULT},
    settings::{self, Layer, Place, SETTINGS, Setting, SettingError, is_absent},
};
use serde_json::json;

use super::block::{Given, Variable};
use crate::{
    manifest::{self, Manifest, ManifestError},
    reference,
};

/// The model that worker-vllm serves if nothing else is said.
const MODEL_DEFAULT: &str = "facebook/opt-125m";
/// Most variables of `spec.env`.
const ENV_ITEMS_MAX: usize = 128;
/// Most characters of a value in `spec.env`.
const ENV_VALUE_CHARS_MAX: usize = 4096;
/// Words in the names of variables that hold secrets.
const SECRET_WORDS: [&str; 5] = ["TOKEN", "SECRET", "PASSWORD", "API_KEY", "ACCESS_KEY"];
/// Field of the model's repository.
const REPO: &str = "spec.model.huggingFace.repo";

/// Choices beside the block.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Name of the ModelDeployment; by default it follows from the model's.
    pub name: Option<String>,
    /// Its namespace, if the YAML is to contain one.
    pub namespace: Option<String>,
    /// GPUs of a replica.
    pub gpus: u32,
}

/// A ModelDeployment, and what became of each variable.
#[derive(Clone, Debug)]
pub struct Import {
    /// The object.
    pub deployment: ModelDeployment,
    /// Commands that make the Secrets that the object names.
    pub secret_commands: Vec<String>,
    /// One note for each variable, in the order of the block.
    pub notes: Vec<Note>,
    /// What the reader should know beside the variables.
    pub remarks: Vec<String>,
}

/// What became of one variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Its name.
    pub name: String,
    /// What became of it.
    pub fate: Fate,
}

/// What becomes of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is this field.
    Field(String),
    /// It is in `spec.env`, for this reason.
    Env(String),
    /// It must be in a Secret, which this field names.
    Secret(String),
    /// It has no value, so it is not set.
    Absent,
    /// It is not in the object: why, and what to do.
    LeftOut {
        /// Why.
        why: String,
        /// What to do.
        remedy: String,
    },
}

fn left_out(why: impl Into<String>, remedy: impl Into<String>) -> Fate {
    Fate::LeftOut {
        why: why.into(),
        remedy: remedy.into(),
    }
}

/// The ModelDeployment of a block.
///
/// # Errors
/// [`ManifestError::Name`] for a name that cannot be used. No variable is an error: each has a note.
pub fn import(block: &[Variable], options: &Options) -> Result<Import, ManifestError> {
    let name = match &options.name {
        Some(name) => name.clone(),
        None => manifest::name_of(model_of(block).unwrap_or(MODEL_DEFAULT)),
    };
    let mut importer = Importer {
        manifest: Manifest::new(&name, options.namespace.as_deref())?,
        name,
        in_namespace: options
            .namespace
            .as_ref()
            .map_or(String::new(), |name| format!(" -n {name}")),
        seen: BTreeMap::new(),
        n_env: 0,
        secret_commands: Vec::new(),
    };
    let mut notes: Vec<Note> = Vec::new();
    for (idx, variable) in block.iter().enumerate() {
        let is_replaced = block[idx + 1..].iter().any(|later| later.name == variable.name);
        let fate = if is_replaced {
            left_out(
                "the block has it again, and the last one wins",
                "remove one of them",
            )
        } else {
            importer.take(variable)
        };
        notes.push(Note {
            name: variable.name.clone(),
            fate,
        });
    }
    importer.finish(options, notes)
}

/// The repository that the block names.
fn model_of(block: &[Variable]) -> Option<&str> {
    let named = |variable: &&Variable| variable.name == "MODEL_NAME";
    match &block.iter().rev().find(named)?.given {
        Given::Text(text) if is_repository(text) => Some(text),
        _ => None,
    }
}

fn is_repository(text: &str) -> bool {
    let is_part = |part: &str| {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        !part.is_empty() && part.chars().all(is_allowed)
    };
    text.len() <= 200 && text.split('/').count() <= 2 && text.split('/').all(is_part)
}

struct Importer {
    manifest: Manifest,
    name: String,
    /// The option of kubectl that names the namespace, if one was chosen.
    in_namespace: String,
    /// The variable that gave each setting its value, and the value.
    seen: BTreeMap<&'static str, (String, String)>,
    n_env: usize,
    secret_commands: Vec<String>,
}

impl Importer {
    fn take(&mut self, variable: &Variable) -> Fate {
        let name = variable.name.as_str();
        let text = match &variable.given {
            Given::Text(text) => text.as_str(),
            Given::Secret { .. } | Given::Elsewhere => return self.take_reference(variable),
        };
        match settings::variable(name, text) {
            settings::Variable::Setting(setting) if text.is_empty() && setting.row.refuses_empty => left_out(
                "it is empty, and an empty list of keys permits nobody",
                "remove it, or give at least one key",
            ),
            _ if is_absent(text) => Fate::Absent,
            settings::Variable::Setting(setting) if setting.row.secret => self.secret(setting, None),
            settings::Variable::Setting(setting) => self.setting(setting, (name, text)),
            settings::Variable::Accepted(foreign) => {
                self.env((name, text), format!("without effect: {}", foreign.why))
            }
            settings::Variable::Refused(foreign) => left_out(foreign.why, foreign.instead),
            settings::Variable::Unknown => self.unknown(name, text),
        }
    }

    /// A variable without a value in the block.
    fn take_reference(&mut self, variable: &Variable) -> Fate {
        let name = variable.name.as_str();
        let setting = SETTINGS
            .iter()
            .find(|setting| setting.row.secret && setting.env_names().iter().any(|env| env == name));
        match (setting, &variable.given) {
            (Some(setting), Given::Secret { name, key }) => {
                self.secret(setting, Some((name.as_str(), key.as_str())))
            }
            (Some(setting), _) => self.secret(setting, None),
            (None, Given::Secret { .. }) => left_out(
                "its value is in a Secret, and spec.env has values only",
                "remove it, or write its value into spec.env if it is no secret",
            ),
            (None, _) => left_out(
                "its value is not in the block",
                "give it as NAME=VALUE, or remove it",
            ),
        }
    }

    /// Names a Secret in the object, and the command that makes it unless it exists.
    fn secret(&mut self, setting: &'static Setting, existing: Option<(&str, &str)>) -> Fate {
        let is_token = setting.field == "hf_token";
        let path = setting.crd_path().unwrap_or_default();
        let (own_name, own_key) = if is_token {
            (format!("{}-hub", self.name), TOKEN_KEY_DEFAULT)
        } else {
            (format!("{}-keys", self.name), API_KEYS_KEY_DEFAULT)
        };
        if self.manifest.has(&path) {
            return Fate::Secret(path);
        }
        match existing {
            Some((name, key)) => {
                self.manifest.put(&path, json!({"name": name}));
                if key != own_key {
                    self.manifest.put(&format!("{path}.key"), key.into());
                }
            }
            None => {
                self.manifest.put(&path, json!({"name": own_name}));
                self.secret_commands.push(format!(
                    "kubectl create secret generic {own_name}{} --from-literal={own_key}=\"${own_key}\"",
                    self.in_namespace
                ));
            }
        }
        Fate::Secret(path)
    }

    fn setting(&mut self, setting: &'static Setting, (name, text): (&str, &str)) -> Fate {
        let Some(path) = setting.crd_path() else {
            return match setting.row.place {
                Place::RuntimeOnly(why) => left_out(format!("it has no field: {why}"), "remove it"),
                _ => self.env((name, text), "where it has no effect in a ModelDeployment".into()),
            };
        };
        if let Some((first, value)) = self.seen.get(setting.field)
            && value != text
        {
            return left_out(
                format!("{first} is the same setting and has another value"),
                "remove one of them",
            );
        }
        if path == REPO && !is_repository(text) {
            return left_out(
                "it is no repository of the hub",
                "put the model's files into a PersistentVolumeClaim and set spec.model.pvc in place of \
                 spec.model.huggingFace",
            );
        }
        match Layer::from_env("the block", [(name.to_string(), text.to_string())]) {
            Ok(layer) => {
                self.manifest.put_settings(layer);
                self.seen
                    .insert(setting.field, (name.to_string(), text.to_string()));
                Fate::Field(path)
            }
            Err(error) => self.wrong(setting, error),
        }
    }

    fn wrong(&self, setting: &Setting, error: SettingError) -> Fate {
        let expected = reference::value_in_words(&setting.schema());
        left_out(
            manifest::reason(error),
            format!("set {} to {expected}", setting.crd_path().unwrap_or_default()),
        )
    }

    fn unknown(&mut self, name: &str, text: &str) -> Fate {
        if SECRET_WORDS.iter().any(|word| name.contains(word)) {
            return left_out(
                "it is not a setting of Slipway and looks like a secret, which a manifest must not contain",
                "remove it",
            );
        }
        let reference::Found::Nothing { nearest } = reference::find(name) else {
            return self.env(
                (name, text),
                "not a variable of Slipway; passed to the container".into(),
            );
        };
        let proposal = reference::did_you_mean(&nearest);
        self.env(
            (name, text),
            format!("not a variable of Slipway; passed to the container{proposal}"),
        )
    }

    fn env(&mut self, (name, text): (&str, &str), why: String) -> Fate {
        let is_name = (1..=253).contains(&name.len())
            && name.chars().all(|c| c.is_ascii_graphic() && c != '=')
            && !name.starts_with(|c: char| c.is_ascii_digit());
        if !is_name {
            return left_out("it is not a name of a variable", "rename it or remove it");
        }
        if text.chars().count() > ENV_VALUE_CHARS_MAX {
            return left_out(
                format!("its value has more than {ENV_VALUE_CHARS_MAX} characters"),
                "shorten it or remove it",
            );
        }
        if text.contains('\0') {
            return left_out("its value contains a NUL", "remove it");
        }
        if self.n_env == ENV_ITEMS_MAX {
            return left_out(
                format!("spec.env has {ENV_ITEMS_MAX} variables already"),
                "remove some",
            );
        }
        self.n_env += 1;
        self.manifest.put_variable(name, text);
        Fate::Env(why)
    }

    fn finish(mut self, options: &Options, notes: Vec<Note>) -> Result<Import, ManifestError> {
        let mut remarks = Vec::new();
        if !self.manifest.has(REPO) {
            self.manifest.put(REPO, MODEL_DEFAULT.into());
            remarks.push(format!(
                "the block names no repository, so the model is worker-vllm's default, {MODEL_DEFAULT}; change {REPO}"
            ));
        }
        if options.gpus > 0 {
            self.manifest.put("spec.resources.gpu.count", options.gpus.into());
            remarks.push(format!(
                "a RunPod worker has GPUs, so a replica has {}; --gpus 0 computes on the CPU",
                options.gpus
            ));
        }
        Ok(Import {
            deployment: self.manifest.finish()?,
            secret_commands: self.secret_commands,
            notes,
            remarks,
        })
    }
}

impl Import {
    /// The YAML, with the commands that make its Secrets in comments above it.
    pub fn yaml(&self) -> String {
        let mut out = String::new();
        if !self.secret_commands.is_empty() {
            out.push_str("# First make the Secrets that it names, with the values in your shell:\n");
            for command in &self.secret_commands {
                out.push_str(&format!("#   {command}\n"));
            }
        }
        out + &manifest::yaml(&self.deployment)
    }

    /// What the reader has to know, line by line: each variable that has no effect or is not in the object, with its
    /// remedy, and a count of the others.
    pub fn report(&self) -> String {
        let mut out = String::new();
        let mut n_fields = 0;
        let mut absent = Vec::new();
        for Note { name, fate } in &self.notes {
            match fate {
                Fate::Field(_) => n_fields += 1,
                Fate::Absent => absent.push(name.as_str()),
                Fate::Env(why) => out.push_str(&format!("{name}: in spec.env, {why}\n")),
                Fate::Secret(path) => {
                    out.push_str(&format!(
                        "{name}: a secret; {path} names the Secret that must contain it\n"
                    ));
                }
                Fate::LeftOut { why, remedy } => {
                    out.push_str(&format!("{name}: left out: {why}. Remedy: {remedy}\n"));
                }
            }
        }
        if !absent.is_empty() {
            out.push_str(&format!("without a value, so not set: {}\n", absent.join(", ")));
        }
        for remark in &self.remarks {
            out.push_str(&format!("note: {remark}\n"));
        }
        let total = self.notes.len();
        out + &format!("{n_fields} of {total} variables are typed fields\n")
    }
}
