//! In which format the matrices of the layers are kept, by the setting and the memory.

use crds::settings::{Device as DeviceSetting, EngineSettings, Quantization};

use crate::model::{ModelError, Outline, QuantFormat};

/// The share of the free memory that weights may take before `auto` quantises them. The KV cache gets its part of what they
/// leave.
const STORED_SHARE: f64 = 0.6;

/// A format, and why it was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The format; `None` if matrices stay in their dtype.
    pub format: Option<QuantFormat>,
    /// Why.
    pub why: String,
}

impl Choice {
    /// The format of the layers' matrices on the CPU, for a model whose weights take `stored_bytes` without one.
    pub fn on_cpu(setting: Quantization, stored_bytes: u64, bytes_free: u64) -> Choice {
        let format = match setting {
            Quantization::None => None,
            Quantization::Ifq => Some(QuantFormat::Int8),
            Quantization::IfqNf4 => Some(QuantFormat::Nf4),
            Quantization::Fp8 => Some(QuantFormat::Fp8),
            Quantization::Auto => return Choice::auto(stored_bytes, bytes_free),
        };
        Choice {
            format,
            why: "as set".to_owned(),
        }
    }

    /// The choice where a GPU computes: requested formats are refused when the model is loaded.
    pub fn on_gpu(setting: Quantization) -> Choice {
        match setting {
            Quantization::Auto => Choice {
                format: None,
                why: "weights are quantised on the CPU only".to_owned(),
            },
            setting => Choice::on_cpu(setting, 0, 0),
        }
    }

    fn auto(stored_bytes: u64, bytes_free: u64) -> Choice {
        let bytes_max = (bytes_free as f64 * STORED_SHARE) as u64;
        let fits = stored_bytes <= bytes_max;
        let than = if fits { "at most" } else { "more than" };
        Choice {
            format: (!fits).then_some(QuantFormat::Int8),
            why: format!(
                "the weights take {stored_bytes} bytes, {than} 60 % of the {bytes_free} bytes of free memory"
            ),
        }
    }
}

/// The choice for a model that `outline` describes as stored; the log says it.
pub(super) fn choose(settings: &EngineSettings, outline: &Outline, is_cpu: bool, bytes_free: u64) -> Choice {
    let setting = settings.quantization();
    let choice = if is_cpu {
        let stored = outline.bytes_as(settings.dtype(), None);
        Choice::on_cpu(setting, stored.values().sum(), bytes_free)
    } else {
        Choice::on_gpu(setting)
    };
    tracing::info!(
        quantization = choice.format.map_or("none", QuantFormat::name),
        why = choice.why,
        "format of the layers' matrices chosen"
    );
    choice
}

/// Refuses settings that would be refused once the GPU is open.
pub(super) fn check(settings: &EngineSettings) -> Result<(), ModelError> {
    match (settings.device(), Choice::on_gpu(settings.quantization()).format) {
        (DeviceSetting::Cuda, Some(format)) => Err(ModelError::QuantizedOnDevice {
            format: format.name(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_quantises_what_leaves_too_little_memory() {
        let auto = |stored, free| Choice::on_cpu(Quantization::Auto, stored, free);
        assert_eq!(auto(600, 1000).format, None);
        let tight = auto(601, 1000);
        assert_eq!(tight.format, Some(QuantFormat::Int8));
        assert_eq!(
            tight.why,
            "the weights take 601 bytes, more than 60 % of the 1000 bytes of free memory"
        );
        assert_eq!(Choice::on_gpu(Quantization::Auto).format, None);
    }

    #[test]
    fn a_format_on_a_gpu_is_refused_before_the_download() {
        let settings = |device, quantization| EngineSettings {
            device: Some(device),
            quantization: Some(quantization),
            ..EngineSettings::default()
        };
        for quantization in [Quantization::Ifq, Quantization::IfqNf4, Quantization::Fp8] {
            assert!(check(&settings(DeviceSetting::Cuda, quantization)).is_err());
            assert!(check(&settings(DeviceSetting::Cpu, quantization)).is_ok());
        }
        for quantization in [Quantization::None, Quantization::Auto] {
            assert!(check(&settings(DeviceSetting::Cuda, quantization)).is_ok());
        }
    }
}
