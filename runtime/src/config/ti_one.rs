//! TI-ONE's start mode and the `ti_model_config.json` of its model folders, as layers of settings.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;

use crds::settings::{
    ConvTemplate, Dtype, EngineSettings, Layer, ModelSettings, ProcessSettings, ServingSettings, Settings,
    TokenizerSettings,
};
use serde::Deserialize;

use super::ConfigError;
use super::file::read;

const FILE: &str = "ti_model_config.json";

/// Where TI-ONE mounts the model.
const MODEL_PATH: &str = "/data/model";
/// TI-ONE's default of MAX_CONCURRENCY.
const MAX_CONCURRENCY: u32 = 128;
/// The port of TI-ONE's services.
const PORT: u16 = 8501;
/// Largest seed.
const SEED_MAX: u64 = (1 << 53) - 1;

/// The fields of the file that have a meaning here.
#[derive(Default, Deserialize)]
struct TiModelConfig {
    model_id: Option<String>,
    conv_template_name: Option<ConvTemplate>,
}

/// The defaults of TI-ONE's command `run`, below all that are given. Its seed differs from start to start.
pub(super) fn defaults_of_run() -> Layer {
    Layer::from_settings(
        "default of run",
        &Settings {
            engine: EngineSettings {
                dtype: Some(Dtype::Float16),
                seed: Some(RandomState::new().build_hasher().finish() & SEED_MAX),
                ..EngineSettings::default()
            },
            serving: ServingSettings {
                max_concurrency: Some(MAX_CONCURRENCY),
                ..ServingSettings::default()
            },
            process: ProcessSettings {
                model: Some(MODEL_PATH.into()),
                port: Some(PORT),
                ..ProcessSettings::default()
            },
            ..Settings::default()
        },
    )
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
    Ok(Layer::from_settings(
        FILE,
        &Settings {
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
        },
    ))
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
