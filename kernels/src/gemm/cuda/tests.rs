//! Products on the device against f64 arithmetic: every way to compute them, in several orders of blocks and warps.

use half::{bf16, f16};

use super::linear::{Way, run, way};
use super::tile::Tiles;
use super::*;
use crate::columns::{Columns, HeadColumns};
use crate::cuda::testing::each_order;
use crate::cuda::{DeviceBuffer, Gpu};
use crate::gemm::tests::numbers;
use crate::weight::tests::weight_of;
use crate::weight::{DType, Matrix, MatrixList};

mod experts;
mod linear;
mod per_head;

pub(super) const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Half of the distance from 1 to the next number of a type.
pub(super) fn rounding(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => f64::from(f32::EPSILON) / 2.0,
        DType::F16 => f16::EPSILON.to_f64() / 2.0,
        DType::BF16 => bf16::EPSILON.to_f64() / 2.0,
    }
}

/// The nearest number of a type.
pub(super) fn rounded(dtype: DType, x: f32) -> f32 {
    match dtype {
        DType::F32 => x,
        DType::F16 => f16::from_f32(x).to_f32(),
        DType::BF16 => bf16::from_f32(x).to_f32(),
    }
}

pub(super) fn upload(gpu: &Gpu, numbers: &[f32]) -> DeviceBuffer<f32> {
    let buffer = gpu.alloc(numbers.len()).unwrap();
    gpu.upload(numbers, buffer.view()).unwrap();
    buffer
}

pub(super) fn download(gpu: &Gpu, buffer: &DeviceBuffer<f32>) -> Vec<f32> {
    let mut numbers = vec![0.0; buffer.len()];
    gpu.download(buffer.view(), &mut numbers).unwrap();
    numbers
}

/// A value, and how far a result may be from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) value: f64,
    pub(super) tolerance: f64,
}

impl Expected {
    /// A sum of `products`, each term rounded `n_roundings` times relative to its size by `rounding`.
    pub(super) fn sum(products: impl Iterator<Item = f64>, rounding: f64) -> Expected {
        let (value, size) = products.fold((0.0, 0.0), |(value, size), p| (value + p, size + p.abs()));
        Expected {
            value,
            tolerance: rounding * size + 1e-30,
        }
    }

    pub(super) fn plus(self, value: f64) -> Expected {
        Expected {
            value: self.value + value,
            tolerance: self.tolerance + (self.value.abs() + value.abs()) * f64::from(f32::EPSILON),
        }
    }

    pub(super) fn times(self, factor: f64) -> Expected {
        Expected {
            value: self.value * factor,
            tolerance: (self.tolerance + self.value.abs() * f64::from(f32::EPSILON)) * factor.abs(),
        }
    }

    /// `act(self) · up`, for activations whose slope is at most 1.2 where they are tested.
    pub(super) fn activated(self, activation: Activation, up: Expected) -> Expected {
        let gate = crate::activation::tests::reference(activation, self.value, 1.0);
        let value = crate::activation::tests::reference(activation, self.value, up.value);
        let factor = if gate.abs() > 1e-12 {
            value / gate
        } else {
            up.value
        };
        Expected {
            value,
            tolerance: 1.2 * self.tolerance * factor.abs()
                + up.tolerance * gate.abs()
                + 1e-6 * (1.0 + value.abs()),
        }
    }

    #[track_caller]
    pub(super) fn check(self, got: f32, at: impl std::fmt::Debug) {
        let difference = (f64::from(got) - self.value).abs();
        assert!(difference <= self.tolerance, "{at:?}: {got}, not {self:?}");
    }
}
