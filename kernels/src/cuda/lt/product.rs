//! What a product computes: its operands and their sizes.

use cudarc::cublaslt::sys as lt;
use half::{bf16, f16};

use super::super::element::Element;
use super::super::error::CudaError;
use super::super::view::View;
use super::status::invalid;

/// A type of number that products read. Sums are always f32, and f32 is not shortened.
pub trait LtElement: Element {
    /// The library's name of it.
    const TYPE: lt::cudaDataType_t;
}

impl LtElement for f32 {
    const TYPE: lt::cudaDataType_t = lt::cudaDataType_t::CUDA_R_32F;
}
impl LtElement for f16 {
    const TYPE: lt::cudaDataType_t = lt::cudaDataType_t::CUDA_R_16F;
}
impl LtElement for bf16 {
    const TYPE: lt::cudaDataType_t = lt::cudaDataType_t::CUDA_R_16BF;
}

/// Sizes of a product, or of a batch of products of the same sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LtShape {
    /// Rows of `x` and `out`.
    pub m: usize,
    /// Rows of `w`, columns of `out`.
    pub n: usize,
    /// Columns of `x` and `w`.
    pub k: usize,
    /// Elements from one row to the next.
    pub strides: LtStrides,
    /// Products.
    pub batch: usize,
    /// Elements from one product of the batch to the next.
    pub batch_strides: LtStrides,
}

/// A distance in each operand, in elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LtStrides {
    /// In `x`.
    pub x: usize,
    /// In `w`.
    pub w: usize,
    /// In `out`.
    pub out: usize,
}

impl LtShape {
    /// One product of rows without gaps.
    pub fn dense(m: usize, n: usize, k: usize) -> LtShape {
        LtShape {
            m,
            n,
            k,
            strides: LtStrides { x: k, w: k, out: n },
            batch: 1,
            batch_strides: LtStrides::default(),
        }
    }
}

/// `out = scale * x · wᵀ + keep * out + bias`
#[derive(Clone, Copy)]
pub struct LtProduct<T: LtElement> {
    /// `[m, k]`
    pub x: View<T>,
    /// `[n, k]`
    pub w: View<T>,
    /// `[m, n]`
    pub out: View<f32>,
    /// Added to each row. `[n]`
    pub bias: Option<View<f32>>,
    /// Sizes.
    pub shape: LtShape,
    /// Factor of the product.
    pub scale: f32,
    /// Factor of what `out` holds; 0 to replace it.
    pub keep: f32,
}

impl<T: LtElement> LtProduct<T> {
    /// Whether every address and stride is a multiple of 16 bytes, which the library's fast kernels need.
    pub fn is_aligned(&self) -> bool {
        let shape = self.shape;
        let strides = [shape.strides, shape.batch_strides];
        let aligned = |at: usize, element: usize| (at * element).is_multiple_of(ALIGNMENT);
        let addresses = [self.x.address(), self.w.address(), self.out.address()];
        addresses
            .iter()
            .all(|address| address.is_multiple_of(ALIGNMENT as u64))
            && strides.iter().all(|s| {
                aligned(s.x, size_of::<T>())
                    && aligned(s.w, size_of::<T>())
                    && aligned(s.out, size_of::<f32>())
            })
    }

    pub(super) fn check(&self) -> Result<(), CudaError> {
        let s = self.shape;
        let operands = [
            ("x", self.x.len(), (s.m, s.k), (s.strides.x, s.batch_strides.x)),
            ("w", self.w.len(), (s.n, s.k), (s.strides.w, s.batch_strides.w)),
            (
                "out",
                self.out.len(),
                (s.m, s.n),
                (s.strides.out, s.batch_strides.out),
            ),
        ];
        for (name, len, (n_rows, width), (stride, batch_stride)) in operands {
            let end = (s.batch - 1) * batch_stride + (n_rows - 1) * stride + width;
            if stride < width || end > len {
                return Err(invalid(format!("{name} has {len} elements, {s:?} needs {end}")));
            }
        }
        match self.bias {
            Some(bias) if bias.len() != s.n => Err(invalid(format!("bias has {} elements", bias.len()))),
            _ if !self.is_aligned() => Err(invalid("an operand is not aligned to 16 bytes".to_owned())),
            _ => Ok(()),
        }
    }
}

/// What operands must be aligned to, in bytes.
pub(super) const ALIGNMENT: usize = 16;
