//! The type of the numbers in the KV cache, from its setting and the type of the weights.

pub use crds::settings::KvCacheDtype as KvDtypeChoice;
use kernels::{DType, KvDType};

use super::error::ModelError;

/// The type on the CPU, which has all of them, for weights that are kept as `weights`.
pub(super) fn of_cpu(choice: KvDtypeChoice, weights: DType) -> KvDType {
    match choice {
        KvDtypeChoice::Auto => weights.into(),
        KvDtypeChoice::Fp8 | KvDtypeChoice::Fp8E4m3 => KvDType::F8E4M3,
        KvDtypeChoice::Fp8E5m2 => KvDType::F8E5M2,
        KvDtypeChoice::Float16 => KvDType::F16,
        KvDtypeChoice::Bfloat16 => KvDType::BF16,
        KvDtypeChoice::Float32 => KvDType::F32,
    }
}

/// The type on a card, which has only that of its weights.
///
/// # Errors
/// [`ModelError::KvCacheDtype`] for another type.
#[cfg(feature = "cuda")]
pub(super) fn of_card(choice: KvDtypeChoice, weights: DType) -> Result<DType, ModelError> {
    if of_cpu(choice, weights) == KvDType::from(weights) {
        Ok(weights)
    } else {
        Err(ModelError::KvCacheDtype {
            requested: choice.name(),
            weights: weights.name(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_the_type_of_the_weights() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            assert_eq!(of_cpu(KvDtypeChoice::Auto, dtype), dtype.into());
        }
        assert_eq!(of_cpu(KvDtypeChoice::Fp8, DType::BF16), KvDType::F8E4M3);
        assert_eq!(of_cpu(KvDtypeChoice::Float32, DType::BF16), KvDType::F32);
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn a_card_refuses_other_types_than_that_of_its_weights() {
        for choice in [KvDtypeChoice::Auto, KvDtypeChoice::Bfloat16] {
            assert_eq!(of_card(choice, DType::BF16).unwrap(), DType::BF16);
        }
        for choice in [KvDtypeChoice::Fp8, KvDtypeChoice::Float16, KvDtypeChoice::Float32] {
            let refusal = of_card(choice, DType::BF16).unwrap_err().to_string();
            assert!(
                refusal.contains(choice.name()) && refusal.contains("bfloat16"),
                "{refusal}"
            );
        }
    }
}
