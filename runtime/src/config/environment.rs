//! The environment of the process. No other part of the runtime reads it.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crds::settings::{SETTINGS, Setting, Variable, variable};

use super::ConfigError;

/// The environment variables of a process. Empty values count as absent.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: Vec<(OsString, OsString)>,
}

impl Environment {
    /// The variables of this process.
    pub fn of_process() -> Self {
        Self {
            variables: std::env::vars_os().collect(),
        }
    }

    /// Refuses variables of settings that are not UTF-8: without their values, a process could permit more than it
    /// should.
    ///
    /// # Errors
    /// [`ConfigError::NotText`] for the first one.
    pub(super) fn check_texts(&self) -> Result<(), ConfigError> {
        let is_setting = |name: &str| !matches!(variable(name, ""), Variable::Unknown);
        let broken = self
            .variables
            .iter()
            .filter(|(_, value)| value.to_str().is_none());
        let mut named = broken.filter_map(|(name, _)| name.to_str());
        match named.find(|name| is_setting(name)) {
            Some(name) => Err(ConfigError::NotText {
                name: name.to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// The variables that are UTF-8; settings have no others.
    pub(super) fn texts(&self) -> impl Iterator<Item = (String, String)> {
        self.variables.iter().filter_map(|(name, value)| {
            let (name, value) = (name.to_str()?, value.to_str()?);
            Some((name.to_string(), value.to_string()))
        })
    }

    fn value(&self, name: &str) -> Option<&OsStr> {
        let mut variables = self.variables.iter().filter(|(_, value)| !value.is_empty());
        variables
            .find(|(variable, _)| variable == name)
            .map(|(_, value)| value.as_os_str())
    }

    fn text(&self, name: &str) -> Option<String> {
        self.value(name)?.to_str().map(str::to_string)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).map(PathBuf::from)
    }

    /// `HF_ENDPOINT`: address of the hub.
    pub(super) fn hub_endpoint(&self) -> Option<String> {
        self.text("HF_ENDPOINT")
    }

    /// `HF_HUB_OFFLINE`: no request may be sent to the hub.
    pub(super) fn is_offline(&self) -> bool {
        let text = self
            .text("HF_HUB_OFFLINE")
            .unwrap_or_default()
            .to_ascii_lowercase();
        matches!(text.as_str(), "1" | "true" | "yes" | "on")
    }

    /// Token for the hub: `HF_TOKEN`, or one of the other names of this setting.
    pub fn hub_token(&self) -> Option<String> {
        let setting = SETTINGS.iter().filter(|setting| setting.field == "hf_token");
        setting
            .flat_map(Setting::env_names)
            .find_map(|name| self.text(&name))
    }

    /// `TERMINATION_MESSAGE_PATH`: the file for the message of a failed container.
    pub fn termination_message_path(&self) -> Option<PathBuf> {
        self.path("TERMINATION_MESSAGE_PATH")
    }

    /// Directory for downloads outside a cluster; `None` if no variable names one.
    pub(super) fn cache_directory(&self) -> Option<PathBuf> {
        let base = self
            .path("HF_HOME")
            .or_else(|| self.path("XDG_CACHE_HOME"))
            .or_else(|| Some(self.path("HOME")?.join(".cache")))?;
        Some(base.join("slipway").join("models"))
    }
}

impl<N: Into<OsString>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let variables = variables.into_iter();
        Self {
            variables: variables
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_variable_with_a_value_names_the_cache() {
        let directory = |variables: &[(&str, &str)]| {
            let environment: Environment = variables.iter().copied().collect();
            environment.cache_directory()
        };
        let all = [("HOME", "/h"), ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/f")];
        assert_eq!(directory(&all), Some("/f/slipway/models".into()));
        assert_eq!(directory(&all[..2]), Some("/x/slipway/models".into()));
        assert_eq!(directory(&all[..1]), Some("/h/.cache/slipway/models".into()));
        assert_eq!(directory(&[("HF_HOME", "")]), None);
    }

    #[test]
    fn the_token_has_the_names_of_its_setting() {
        for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
            let environment: Environment = [(name, "secret")].into_iter().collect();
            assert_eq!(environment.hub_token().as_deref(), Some("secret"), "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn variables_that_are_not_utf_8_are_no_settings() {
        use std::os::unix::ffi::OsStringExt;
        let bytes = OsString::from_vec(vec![0xff]);
        let variables = [(OsString::from("HOME"), bytes), ("SEED".into(), "1".into())];
        let environment: Environment = variables.into_iter().collect();
        let texts: Vec<_> = environment.texts().collect();
        assert_eq!(texts, [("SEED".to_string(), "1".to_string())]);
        assert!(environment.cache_directory().is_some());
    }
}
