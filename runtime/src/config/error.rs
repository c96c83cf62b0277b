//! Why the settings cannot be used, and the failure that the process ends with.

use std::path::PathBuf;

use crds::failure::{Failure, Reason};
use crds::schema::Violation;
use crds::settings::SettingError;

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A layer contains a setting that cannot be used.
    #[error("a setting cannot be used")]
    Setting(#[from] SettingError),
    /// No layer names the model.
    #[error("no model is named")]
    NoModel,
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not YAML.
    #[error("{} is not valid YAML: {reason}", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// The parser's message.
        reason: String,
    },
    /// A file is not JSON, or not of the expected form.
    #[error("{} cannot be used: {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's message.
        reason: String,
    },
    /// A file contains no ModelDeployment.
    #[error("{} contains no ModelDeployment", path.display())]
    NoModelDeployment {
        /// The file.
        path: PathBuf,
    },
    /// The ModelDeployment does not fit its schema.
    #[error("{}: {violation}", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// The first violation.
        violation: Violation,
    },
    /// A variable of `spec.env` whose setting has a field of its own, or none.
    #[error("spec.env: {name} cannot be set here: {place}")]
    NotInEnv {
        /// The variable.
        name: String,
        /// Its field, or why it has none.
        place: String,
    },
    /// A setting without another one that it needs.
    #[error("{given} needs {missing}")]
    Incomplete {
        /// The setting with a value.
        given: &'static str,
        /// The setting without one.
        missing: &'static str,
    },
    /// Two settings of which a process may have one.
    #[error("{first} and {second} are both given")]
    Exclusive {
        /// One setting.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// A file of keys has none.
    #[error("the file of API keys {} contains no keys", path.display())]
    NoKeys {
        /// The file.
        path: PathBuf,
    },
    /// Clients and probes have the same port.
    #[error("PORT and CONTROL_PORT are both {port}")]
    SamePort {
        /// The port.
        port: u16,
    },
    /// The variable of a setting is not UTF-8.
    #[error("the value of {name} is not UTF-8 text")]
    NotText {
        /// The variable.
        name: String,
    },
    /// A text that is not an origin, method or header.
    #[error("{text:?} is not a value for ALLOWED_ORIGINS, ALLOWED_METHODS or ALLOWED_HEADERS")]
    Cors {
        /// The text.
        text: String,
    },
    /// The ModelDeployment requires something that exists only in a cluster.
    #[error("{field} needs a cluster")]
    NeedsCluster {
        /// The field.
        field: &'static str,
        /// What to do instead.
        remedy: &'static str,
    },
}

impl ConfigError {
    /// The failure that the process ends with.
    pub fn failure(&self) -> Failure {
        let remedy = match self {
            ConfigError::Setting(SettingError::NotInThisVersion { instead, .. }) => instead,
            ConfigError::Setting(SettingError::Empty { .. }) => {
                "Give at least one key, or unset the variable to serve without keys."
            }
            ConfigError::NoKeys { .. } => "Write at least one key into the file.",
            ConfigError::Exclusive { .. } => "Remove one of them.",
            ConfigError::SamePort { .. } => "Choose two different ports.",
            ConfigError::NotText { .. } => "Correct the value, or unset the variable.",
            ConfigError::Setting(_) | ConfigError::Schema { .. } => {
                "Correct the value; docs/settings.md lists every setting."
            }
            ConfigError::NoModel => "Name a repository or a directory: slipway-runtime serve MODEL.",
            ConfigError::Read { .. }
            | ConfigError::Yaml { .. }
            | ConfigError::Json { .. }
            | ConfigError::NoModelDeployment { .. } => "Correct the file or its path.",
            ConfigError::NotInEnv { .. } => "Remove the variable.",
            ConfigError::Incomplete { .. } => "Give both, or neither.",
            ConfigError::Cors { .. } => "Give origins such as https://example.com, or *.",
            ConfigError::NeedsCluster { remedy, .. } => remedy,
        };
        let message = match self {
            ConfigError::Setting(setting) => setting.to_string(),
            ConfigError::Read { source, .. } => format!("{self}: {source}"),
            other => other.to_string(),
        };
        Failure::new(Reason::InvalidSetting, message, remedy)
    }
}
