//! `ti_model_config.json`: what a TI-ONE model folder says of itself.

use std::path::Path;

use crds::settings::ConvTemplate;
use serde::Deserialize;

use super::ConfigError;

const FILE: &str = "ti_model_config.json";

/// The file's contents. It may say more, which means nothing here.
#[derive(Default, Deserialize)]
pub(super) struct TiModelConfig {
    /// Name of the model.
    pub(super) model_id: Option<String>,
    /// Name of its conversation template.
    pub(super) conv_template_name: Option<ConvTemplate>,
}

impl TiModelConfig {
    /// The file of a folder, if there is one.
    ///
    /// # Errors
    /// [`ConfigError`] for one that cannot be read.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, ConfigError> {
        let path = folder.join(FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let text = super::read(&path)?;
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| ConfigError::Json {
                path,
                reason: error.to_string(),
            })
    }
}
