//! What the settings of the engine mean to the loader of a model.

use crds::settings::{Device as DeviceSetting, EngineSettings};

use super::{LoadError, capacity, quantization};
use crate::model::{Device, GraphMode, LoadOptions, ModelError, Outline, Overrides};

/// How to load the model that `outline` describes.
///
/// # Errors
/// [`LoadError`] if there is no such device, or two settings contradict each other.
pub fn load_options(settings: &EngineSettings, outline: &Outline) -> Result<LoadOptions, LoadError> {
    let device = device(settings.device())?;
    let is_cpu = matches!(device, Device::Cpu);
    Ok(LoadOptions {
        quantization: quantization::choose(settings, outline, is_cpu, capacity::bytes_free()).format,
        device,
        graphs: graphs(settings),
        format: settings.load_format(),
        dtype: settings.dtype(),
        kv_cache_dtype: settings.kv_cache_dtype(),
        n_threads: None,
        isa: None,
        n_loading_threads: n_loading_threads(settings)?,
        max_model_len: settings.max_model_len(),
        overrides: overrides(settings),
    })
}

/// What the settings change in the checkpoint's description.
pub fn overrides(settings: &EngineSettings) -> Overrides {
    Overrides {
        task: settings.task(),
        rope_scaling: settings.rope_scaling().filter(|scaling| !scaling.is_empty()),
        rope_theta: settings.rope_theta(),
        disable_sliding_window: settings.disable_sliding_window(),
    }
}

/// Threads that read weights, if the settings name a number.
fn n_loading_threads(settings: &EngineSettings) -> Result<Option<usize>, LoadError> {
    let extra = settings.model_loader_extra_config().unwrap_or_default();
    let of_loader = match extra.enable_multithread_load {
        Some(false) => Some(1),
        Some(true) | None => extra.num_threads,
    };
    match (settings.max_parallel_loading_workers(), of_loader) {
        (Some(workers), Some(threads)) if workers != threads => {
            Err(LoadError::LoadingThreads { workers, threads })
        }
        (workers, threads) => Ok(workers.or(threads).map(|n| n as usize)),
    }
}

/// What computes, by the setting.
fn device(setting: DeviceSetting) -> Result<Device, ModelError> {
    let device = match setting {
        DeviceSetting::Cpu => Device::Cpu,
        DeviceSetting::Cuda => Device::cuda()?,
        DeviceSetting::Auto => Device::cuda().unwrap_or_else(|error| {
            tracing::info!(%error, "the CPU computes");
            Device::Cpu
        }),
    };
    tracing::info!(%device, "device chosen");
    Ok(device)
}

/// Which steps are recorded, by the settings.
fn graphs(settings: &EngineSettings) -> GraphMode {
    if settings.enforce_eager() {
        return GraphMode::Eager;
    }
    GraphMode::Decode {
        max_context_len: settings.max_seq_len_to_capture() as usize,
    }
}

#[cfg(test)]
mod tests {
    use crds::settings::LoaderConfig;

    use super::*;

    #[test]
    fn recorded_steps_are_settings() {
        let settings = EngineSettings::default();
        let of_length = |max_context_len| GraphMode::Decode { max_context_len };
        assert_eq!(graphs(&settings), of_length(8192));
        let shorter = EngineSettings {
            max_seq_len_to_capture: Some(64),
            ..settings.clone()
        };
        assert_eq!(graphs(&shorter), of_length(64));
        let eager = EngineSettings {
            enforce_eager: Some(true),
            ..settings
        };
        assert_eq!(graphs(&eager), GraphMode::Eager);
    }

    #[test]
    fn the_number_of_loading_threads_has_two_names() {
        let chosen = |workers: Option<u32>, loader: Option<(bool, u32)>| {
            let settings = EngineSettings {
                max_parallel_loading_workers: workers,
                model_loader_extra_config: loader.map(|(several, n)| LoaderConfig {
                    enable_multithread_load: Some(several),
                    num_threads: Some(n),
                }),
                ..EngineSettings::default()
            };
            n_loading_threads(&settings).map_err(|error| error.to_string())
        };
        assert_eq!(chosen(None, None), Ok(None));
        assert_eq!(chosen(Some(3), None), Ok(Some(3)));
        assert_eq!(chosen(None, Some((true, 2))), Ok(Some(2)));
        assert_eq!(chosen(None, Some((false, 2))), Ok(Some(1)));
        assert_eq!(chosen(Some(2), Some((true, 2))), Ok(Some(2)));
        assert!(chosen(Some(3), Some((true, 2))).is_err());
    }
}
