//! Settings: what one setting is, and its names in every layer.
//!
//! A row of [`table`] is at once the field of the custom resource (title, description, bounds, choices), the
//! environment variable, the command-line flag, the configuration-file key, the default, the reference documentation
//! and the examples that the tests use. Names are a bijection: `max_model_len` here is `maxModelLen` in YAML,
//! `MAX_MODEL_LEN` in the environment and `--max-model-len` on the command line; exceptions are written in the row.
//!
//! Every field of the custom resource is optional and the schema has no defaults, so an object never contains a
//! default as if somebody had chosen it. The runtime reads a value through its accessor, which knows the default.

mod choices;
mod layers;
mod nearest;

mod foreign;
mod table;
mod variables;
mod vllm;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use serde_json::Value;

pub use choices::{
    ContentFormat, ConvTemplate, Device, Dtype, KvCacheDtype, LoadFormat, LoaderConfig, LogFormat, LogLevel,
    PreemptionMode, Quantization, SchedulingPolicy, TaskChoice,
};
pub use foreign::{Foreign, Harmless};
pub use layers::{CHUNKS_ANYWAY, Effective, Layer, Origin, SettingError};
pub use table::{
    EngineSettings, GROUPS, ModelSettings, OpenaiSettings, ProcessSettings, SETTINGS, ServingSettings,
    Settings, StreamingSettings, TokenizerSettings,
};
pub use variables::{FOREIGN, Variable, flag, foreign, is_absent, variable, without_effect};

/// Where the custom resource has a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At `spec.<group>.<camelCase name>`.
    Field,
    /// At this other path.
    At(&'static str),
    /// Nowhere, for this reason: the operator or the machine decides.
    RuntimeOnly(&'static str),
    /// Nowhere, for this reason; a variable of it in `spec.env` is accepted and has no effect.
    Ignored(&'static str),
}

/// What holds where no layer gives a value.
#[derive(Clone, Copy, Debug)]
pub enum DefaultValue {
    /// This value.
    Value(fn() -> Value),
    /// A value from the model's files or name, described in words.
    FromModel(&'static str),
    /// A value that depends on the machine, described in words.
    FromMachine(&'static str),
    /// No value; the words describe the effect.
    Absent(&'static str),
}

impl fmt::Display for DefaultValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DefaultValue::Value(value) => f.write_str(&as_text(&value())),
            DefaultValue::FromModel(words)
            | DefaultValue::FromMachine(words)
            | DefaultValue::Absent(words) => f.write_str(words),
        }
    }
}

/// A value as a variable or a flag has it.
fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(as_text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// The parts of a row beside field, type, description and default.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Environment variable if it is not the field's name in upper case.
    pub env: Option<&'static str>,
    /// Further environment variables with the same meaning.
    pub env_aliases: &'static [&'static str],
    /// Flag (without dashes) if it is not the field's name in kebab case.
    pub flag: Option<&'static str>,
    /// Further flags with the same meaning, by which vLLM or TI-ONE has it.
    pub flag_aliases: &'static [&'static str],
    /// Words of other servers, each with the value that it means here.
    pub synonyms: &'static [(&'static str, &'static str)],
    /// Values of other servers that are refused, each with what to do instead.
    pub elsewhere: &'static [(&'static str, &'static str)],
    /// Where the custom resource has it.
    pub place: Place,
    /// True for values that no log, error, status or `--help` may show.
    pub secret: bool,
    /// True where an empty variable is an error, because an absent value permits more than a given one.
    pub refuses_empty: bool,
    /// Texts that are values of the setting. The tests pass each through every layer.
    pub valid: &'static [&'static str],
    /// Texts that every layer refuses. The empty text counts as absent in the environment unless it is refused there.
    pub invalid: &'static [&'static str],
}

/// One setting: its row and its names.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Group of the spec and of the form.
    pub group: &'static str,
    /// Field name in `snake_case`.
    pub field: &'static str,
    /// What holds where no layer gives a value.
    pub default: DefaultValue,
    /// The rest of its declaration.
    pub row: Row,
    /// The doc comment of the row, line by line.
    doc: &'static [&'static str],
}

impl Setting {
    /// What the setting does.
    pub fn description(&self) -> String {
        let lines: Vec<&str> = self.doc.iter().map(|line| line.trim()).collect();
        lines.join(" ")
    }

    /// `maxModelLen`.
    pub fn camel(&self) -> String {
        let mut out = String::new();
        for (idx, word) in self.field.split('_').enumerate() {
            let mut chars = word.chars();
            match chars.next() {
                Some(first) if idx > 0 => {
                    out.push(first.to_ascii_uppercase());
                    out.push_str(chars.as_str());
                }
                _ => out.push_str(word),
            }
        }
        out
    }

    /// `MAX_MODEL_LEN`.
    pub fn env(&self) -> String {
        self.row
            .env
            .map_or_else(|| self.field.to_ascii_uppercase(), str::to_string)
    }

    /// Every environment variable of the setting, [`env`](Self::env) first.
    pub fn env_names(&self) -> Vec<String> {
        let aliases = self.row.env_aliases.iter().map(|alias| (*alias).to_string());
        std::iter::once(self.env()).chain(aliases).collect()
    }

    /// `max-model-len`: the flag without its dashes, and the configuration-file key.
    pub fn flag(&self) -> String {
        self.row
            .flag
            .map_or_else(|| self.field.replace('_', "-"), str::to_string)
    }

    /// Whether a flag or the key of a configuration file is one of the setting's.
    fn has_flag(&self, name: &str) -> bool {
        self.flag() == name || self.row.flag_aliases.contains(&name)
    }

    /// Path in the custom resource, or `None` where only the runtime has it.
    pub fn crd_path(&self) -> Option<String> {
        match self.row.place {
            Place::Field => Some(format!("spec.{}.{}", self.group, self.camel())),
            Place::At(path) => Some(path.to_string()),
            Place::RuntimeOnly(_) | Place::Ignored(_) => None,
        }
    }

    /// JSON schema of the value: type, title, description, bounds, choices.
    ///
    /// # Panics
    /// Never for a row of [`SETTINGS`]; a test walks them all.
    pub fn schema(&self) -> Value {
        // A schema is generated by reflection, which takes milliseconds.
        static GROUP_SCHEMAS: LazyLock<BTreeMap<&str, Value>> = LazyLock::new(|| {
            let groups = GROUPS.iter().map(|(group, _)| *group);
            groups.map(|group| (group, table::group_schema(group))).collect()
        });
        let mut schema = GROUP_SCHEMAS[self.group]
            .pointer(&format!("/properties/{}", self.camel()))
            .cloned()
            .expect("every row is a field of its group");
        // The generator takes the description of a choice from its type.
        schema["description"] = self.description().into();
        schema
    }

    /// Whether a text in a file is its value, or the JSON of it.
    fn reads_texts(&self) -> bool {
        let schema = self.schema();
        schema["type"] == "string" || schema["type"] == "object"
    }

    fn has_variable(&self, name: &str) -> bool {
        self.env() == name || self.row.env_aliases.contains(&name)
    }
}

#[cfg(test)]
mod tests;
