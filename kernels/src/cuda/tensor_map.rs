//! Tensor maps: where the copy engine of Hopper finds boxes of a tensor.

use cudarc::driver::sys;

use super::error::{CudaError, check};

/// Boxes of a tensor of 16-bit numbers, copied into rows of 128 bytes in shared memory whose 16-byte pieces are permuted:
/// piece `p` of row `r` is at `p ^ (r % 8)`. What is outside of the tensor becomes zeros.
pub struct TensorMap(sys::CUtensorMap);

/// Type of the elements of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorType {
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an f32.
    BF16,
}

/// A tensor and its boxes, dimensions from the innermost one on.
pub struct Boxes<'a> {
    /// Address of the first element, a multiple of 16.
    pub address: u64,
    /// Type of the elements.
    pub dtype: TensorType,
    /// Elements in each dimension.
    pub sizes: &'a [usize],
    /// Bytes from one element to the next in each dimension but the first, multiples of 16.
    pub strides: &'a [usize],
    /// Elements of a box in each dimension: 64, then at most 256.
    pub sides: &'a [u32],
}

impl TensorMap {
    /// The map of a tensor.
    ///
    /// # Errors
    /// The driver cannot describe these sizes.
    pub fn new(boxes: &Boxes<'_>) -> Result<TensorMap, CudaError> {
        use sys::CUtensorMapDataType_enum as Type;
        let wide = |numbers: &[usize]| numbers.iter().map(|&n| n as u64).collect::<Vec<_>>();
        let (sizes, strides) = (wide(boxes.sizes), wide(boxes.strides));
        let steps = vec![1; sizes.len()];
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        // SAFETY: the arrays are as long as the rank says, and the pointers are valid for the call.
        let status = unsafe {
            sys::cuTensorMapEncodeTiled(
                &mut map,
                match boxes.dtype {
                    TensorType::F16 => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
                    TensorType::BF16 => Type::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                },
                sizes.len() as u32,
                boxes.address as *mut std::ffi::c_void,
                sizes.as_ptr(),
                strides.as_ptr(),
                boxes.sides.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave_enum::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle_enum::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion_enum::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill_enum::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        check("cuTensorMapEncodeTiled", status)?;
        Ok(TensorMap(map))
    }

    /// The map as an argument of a kernel.
    pub fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0.opaque)
    }
}
