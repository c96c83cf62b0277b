//! Algorithms of cuBLASLt by their parameters, and the table of those that were the fastest on a card.

use cudarc::cublaslt::sys::{self as lt, cublasLtMatmulAlgoConfigAttributes_t as Attribute};

use super::super::error::CudaError;
use super::key::Key;
use super::status::status;

/// An algorithm as the values of the library's configuration attributes. They mean the same only within one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Algorithm(pub [u32; 9]);

/// The attributes in the order of the values.
const ATTRIBUTES: [Attribute; 9] = [
    Attribute::CUBLASLT_ALGO_CONFIG_ID,
    Attribute::CUBLASLT_ALGO_CONFIG_TILE_ID,
    Attribute::CUBLASLT_ALGO_CONFIG_STAGES_ID,
    Attribute::CUBLASLT_ALGO_CONFIG_SPLITK_NUM,
    Attribute::CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME,
    Attribute::CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING,
    Attribute::CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION,
    Attribute::CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID,
    Attribute::CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID,
];

impl Algorithm {
    /// The parameters of an algorithm of the library.
    pub(super) fn read(of: &lt::cublasLtMatmulAlgo_t) -> Result<Algorithm, CudaError> {
        let mut values = [0u32; 9];
        for (value, attribute) in values.iter_mut().zip(ATTRIBUTES) {
            let mut written = 0;
            let size = size_of_value(attribute);
            // SAFETY: the value has room for `size` bytes; the two shapes have 16 bits, which come first.
            status("cublasLtMatmulAlgoConfigGetAttribute", unsafe {
                lt::cublasLtMatmulAlgoConfigGetAttribute(
                    of,
                    attribute,
                    std::ptr::from_mut(value).cast(),
                    size,
                    &mut written,
                )
            })?;
        }
        Ok(Algorithm(values))
    }

    /// The library's algorithm with these parameters.
    pub(super) fn make(
        self,
        handle: lt::cublasLtHandle_t,
        key: &Key,
    ) -> Result<lt::cublasLtMatmulAlgo_t, CudaError> {
        let mut made = lt::cublasLtMatmulAlgo_t { data: [0; 8] };
        let f32 = lt::cudaDataType_t::CUDA_R_32F;
        let compute = lt::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        // SAFETY: the handle is open, and the pointer is valid for the call.
        status("cublasLtMatmulAlgoInit", unsafe {
            lt::cublasLtMatmulAlgoInit(
                handle,
                compute,
                f32,
                key.dtype,
                key.dtype,
                f32,
                f32,
                self.0[0] as i32,
                &mut made,
            )
        })?;
        for (value, attribute) in self.0.iter().zip(ATTRIBUTES).skip(1) {
            let size = size_of_value(attribute);
            // SAFETY: the value has `size` bytes, the lower ones first.
            status("cublasLtMatmulAlgoConfigSetAttribute", unsafe {
                lt::cublasLtMatmulAlgoConfigSetAttribute(
                    &mut made,
                    attribute,
                    std::ptr::from_ref(value).cast(),
                    size,
                )
            })?;
        }
        Ok(made)
    }
}

/// Bytes of an attribute's value (cuBLAS documentation, `cublasLtMatmulAlgoConfigAttributes_t`).
fn size_of_value(attribute: Attribute) -> usize {
    match attribute {
        Attribute::CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID | Attribute::CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID => {
            2
        }
        _ => 4,
    }
}

/// The table: one line for each version, card and shape. The sweep on a card writes it.
const TABLE: &str = include_str!("algorithms.txt");

/// The fastest algorithm that was measured for a shape; `None`: the library chooses.
pub(super) fn known(version: usize, device: &str, key: &Key) -> Option<Algorithm> {
    find(TABLE, &name(version, device, key))
}

/// What begins the line of a shape: version, card, type, n, k and the bucket of rows.
pub(super) fn name(version: usize, device: &str, key: &Key) -> String {
    let device = device.replace(' ', "_");
    let dtype = format!("{:?}", key.dtype);
    format!("{version} {device} {dtype} {} {} {}", key.n, key.k, key.bucket)
}

fn find(table: &str, name: &str) -> Option<Algorithm> {
    let rest = table.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with(' ').then_some(rest)
    })?;
    let values: Vec<u32> = rest
        .split_whitespace()
        .map_while(|value| value.parse().ok())
        .collect();
    values.try_into().ok().map(Algorithm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_belongs_to_one_version_card_and_shape() {
        let table = "# a comment\n130100 NVIDIA_H200 CUDA_R_16BF 4096 4096 128 66 1 2 1 0 0 0 3 4\n";
        let of = |bucket: usize| format!("130100 NVIDIA_H200 CUDA_R_16BF 4096 4096 {bucket}");
        assert_eq!(
            find(table, &of(128)),
            Some(Algorithm([66, 1, 2, 1, 0, 0, 0, 3, 4]))
        );
        assert_eq!(find(table, &of(12)), None);
        assert_eq!(find(table, &of(256)), None);
        assert_eq!(find(table, &of(128).replace("130100", "130200")), None);
    }

    #[test]
    fn every_line_of_the_table_has_a_name_and_nine_values() {
        for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
            assert_eq!(line.split_whitespace().count(), 6 + ATTRIBUTES.len(), "{line}");
        }
    }
}
