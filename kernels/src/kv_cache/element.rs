//! How a KV cache stores its numbers.

use half::{bf16, f16};

use crate::cpu::simd::{Element, F8E4M3, F8E5M2};
use crate::weight::DType;

/// The type of the numbers in a KV cache. They are rounded to the nearest when they are written, the even one of two,
/// and widened to f32 when they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvDType {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an f32.
    BF16,
    /// Four bits of exponent, three of mantissa; numbers beyond ±448 become ±448. There are no scales: vLLM's are 1 unless
    /// a checkpoint brings some, and it rounds and saturates the same way.
    F8E4M3,
    /// Five bits of exponent, two of mantissa; numbers beyond ±57,344 become ±57,344.
    F8E5M2,
}

impl KvDType {
    /// Bytes of one number.
    pub fn size_bytes(self) -> usize {
        match self {
            KvDType::F32 => 4,
            KvDType::F16 | KvDType::BF16 => 2,
            KvDType::F8E4M3 | KvDType::F8E5M2 => 1,
        }
    }

    /// Its name in settings: `float32`, `float16`, `bfloat16`, `fp8_e4m3` or `fp8_e5m2`.
    pub fn name(self) -> &'static str {
        match self {
            KvDType::F32 => "float32",
            KvDType::F16 => "float16",
            KvDType::BF16 => "bfloat16",
            KvDType::F8E4M3 => "fp8_e4m3",
            KvDType::F8E5M2 => "fp8_e5m2",
        }
    }
}

impl From<DType> for KvDType {
    fn from(dtype: DType) -> KvDType {
        match dtype {
            DType::F32 => KvDType::F32,
            DType::F16 => KvDType::F16,
            DType::BF16 => KvDType::BF16,
        }
    }
}

/// A number of a cache.
pub(crate) trait KvElement: Element + bytemuck::Pod {
    /// Its type.
    const DTYPE: KvDType;

    /// The number nearest to `x`.
    fn nearest(x: f32) -> Self;

    /// The number, exactly.
    fn widened(self) -> f32;
}

impl KvElement for f32 {
    const DTYPE: KvDType = KvDType::F32;

    #[inline(always)]
    fn nearest(x: f32) -> f32 {
        x
    }

    #[inline(always)]
    fn widened(self) -> f32 {
        self
    }
}

impl KvElement for f16 {
    const DTYPE: KvDType = KvDType::F16;

    #[inline(always)]
    fn nearest(x: f32) -> f16 {
        f16::from_f32(x)
    }

    #[inline(always)]
    fn widened(self) -> f32 {
        self.to_f32()
    }
}

impl KvElement for bf16 {
    const DTYPE: KvDType = KvDType::BF16;

    #[inline(always)]
    fn nearest(x: f32) -> bf16 {
        bf16::from_f32(x)
    }

    #[inline(always)]
    fn widened(self) -> f32 {
        self.to_f32()
    }
}

impl KvElement for F8E4M3 {
    const DTYPE: KvDType = KvDType::F8E4M3;

    #[inline(always)]
    fn nearest(x: f32) -> F8E4M3 {
        F8E4M3::from_f32(x)
    }

    #[inline(always)]
    fn widened(self) -> f32 {
        self.to_f32()
    }
}

impl KvElement for F8E5M2 {
    const DTYPE: KvDType = KvDType::F8E5M2;

    #[inline(always)]
    fn nearest(x: f32) -> F8E5M2 {
        F8E5M2::from_f32(x)
    }

    #[inline(always)]
    fn widened(self) -> f32 {
        self.to_f32()
    }
}

/// Evaluates an expression with the type of the numbers of `dtype`.
macro_rules! with_element {
    ($dtype:expr, $Element:ident => $do:expr) => {
        match $dtype {
            $crate::kv_cache::KvDType::F32 => {
                type $Element = f32;
                $do
            }
            $crate::kv_cache::KvDType::F16 => {
                type $Element = half::f16;
                $do
            }
            $crate::kv_cache::KvDType::BF16 => {
                type $Element = half::bf16;
                $do
            }
            $crate::kv_cache::KvDType::F8E4M3 => {
                type $Element = $crate::cpu::simd::F8E4M3;
                $do
            }
            $crate::kv_cache::KvDType::F8E5M2 => {
                type $Element = $crate::cpu::simd::F8E5M2;
                $do
            }
        }
    };
}
pub(crate) use with_element;
