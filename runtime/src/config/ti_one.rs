//! `ti_model_config.json` of a TI-ONE model folder, as a layer of settings.

use std::path::Path;

use crds::settings::{ConvTemplate, Layer, ModelSettings, ServingSettings, Settings, TokenizerSettings};
use serde::Deserialize;

use super::ConfigError;
use super::file::read;

const FILE: &str = "ti_model_config.json";

/// TI-ONE's default of MAX_CONCURRENCY.
const MAX_CONCURRENCY: u32 = 128;

/// The fields of the file that have a meaning here.
#[derive(Default, Deserialize)]
struct TiModelConfig {
    model_id: Option<String>,
    conv_template_name: Option<ConvTemplate>,
}

/// The settings below all that are `given`: those of the model's folder, and TI-ONE's defaults for a model that is
/// started in its way, with such a folder or with a conversation template.
///
/// # Errors
/// [`ConfigError`] for a file that cannot be read.
pub(super) fn layer(folder: &Path, given: &Settings) -> Result<Layer, ConfigError> {
    let file = TiModelConfig::read(folder)?;
    if file.is_none() && given.tokenizer.conv_template.is_none() {
        return Ok(Layer::default());
    }
    let file = file.unwrap_or_default();
    Ok(Layer::from_settings(&Settings {
        model: ModelSettings {
            served_model_name: file.model_id.map(|name| vec![name]),
        },
        tokenizer: TokenizerSettings {
            conv_template: file.conv_template_name,
            ..TokenizerSettings::default()
        },
        serving: ServingSettings {
            max_concurrency: Some(MAX_CONCURRENCY),
            ..ServingSettings::default()
        },
        ..Settings::default()
    }))
}

impl TiModelConfig {
    fn read(folder: &Path) -> Result<Option<Self>, ConfigError> {
        let path = folder.join(FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let text = read(&path)?;
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| ConfigError::Json {
                path,
                reason: error.to_string(),
            })
    }
}
