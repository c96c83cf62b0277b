//! The descriptors of one shape of product, made once.

use cudarc::cublaslt::sys as lt;
use cudarc::driver::sys::CUstream;
use lt::{
    cublasLtMatmulDescAttributes_t as DescAttribute, cublasLtMatmulPreferenceAttributes_t as Preference,
    cublasLtMatrixLayoutAttribute_t as LayoutAttribute,
};

use super::super::error::CudaError;
use super::super::view::View;
use super::algorithm::Algorithm;
use super::key::Key;
use super::product::ALIGNMENT;
use super::status::{invalid, status};

/// Working memory of the library's kernels: what its documentation recommends for Hopper.
pub(super) const WORKSPACE_BYTES: usize = 32 << 20;

/// `CUBLAS_OP_T`
const TRANSPOSED: i32 = 1;

/// Algorithms that are asked for where they are compared.
const N_CANDIDATES: usize = 16;

/// The descriptors and the algorithm of a key.
///
/// The library stores matrices by columns. It therefore computes `outᵀ = w · xᵀ`, in whose columns our rows are.
pub(super) struct Plan {
    operation: lt::cublasLtMatmulDesc_t,
    w: lt::cublasLtMatrixLayout_t,
    x: lt::cublasLtMatrixLayout_t,
    out: lt::cublasLtMatrixLayout_t,
    algorithm: lt::cublasLtMatmulAlgo_t,
    key: Key,
}

/// Addresses and factors of one product.
pub(super) struct Operands {
    pub(super) x: u64,
    pub(super) w: u64,
    pub(super) out: u64,
    pub(super) scale: f32,
    pub(super) keep: f32,
}

impl Plan {
    pub(super) fn new(
        handle: lt::cublasLtHandle_t,
        key: Key,
        known: Option<Algorithm>,
    ) -> Result<Plan, CudaError> {
        let mut plan = Plan {
            operation: std::ptr::null_mut(),
            w: std::ptr::null_mut(),
            x: std::ptr::null_mut(),
            out: std::ptr::null_mut(),
            algorithm: lt::cublasLtMatmulAlgo_t { data: [0; 8] },
            key,
        };
        plan.describe()?;
        // A table of another build of the library may name what this one cannot do.
        let is_known = known.is_some_and(|known| plan.choose(handle, &known).is_ok());
        if !is_known {
            plan.algorithm = plan.propose(handle, 1)?[0].algo;
        }
        Ok(plan)
    }

    fn describe(&mut self) -> Result<(), CudaError> {
        let key = self.key;
        let f32 = lt::cudaDataType_t::CUDA_R_32F;
        let compute = lt::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        // SAFETY: the pointer is valid for the call.
        status("cublasLtMatmulDescCreate", unsafe {
            lt::cublasLtMatmulDescCreate(&mut self.operation, compute, f32)
        })?;
        self.set(DescAttribute::CUBLASLT_MATMUL_DESC_TRANSA, TRANSPOSED)?;
        if key.has_bias {
            let epilogue = lt::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
            self.set(DescAttribute::CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue as u32)?;
        }
        let (strides, batch) = (key.strides, key.batch_strides);
        let of = |dtype, [n_rows, n_cols, stride, batch_stride]: [usize; 4]| {
            layout(&Layout {
                dtype,
                n_rows,
                n_cols,
                stride,
                batch: key.batch,
                batch_stride,
            })
        };
        self.w = of(key.dtype, [key.k, key.n, strides.w, batch.w])?;
        self.x = of(key.dtype, [key.k, key.bucket, strides.x, batch.x])?;
        self.out = of(f32, [key.n, key.bucket, strides.out, batch.out])?;
        Ok(())
    }

    /// Sets the number of rows.
    pub(super) fn set_rows(&mut self, m: usize) -> Result<(), CudaError> {
        for matrix in [self.x, self.out] {
            set_layout(matrix, LayoutAttribute::CUBLASLT_MATRIX_LAYOUT_COLS, m as u64)?;
        }
        Ok(())
    }

    /// Sets the address of the bias.
    pub(super) fn set_bias(&mut self, address: u64) -> Result<(), CudaError> {
        self.set(DescAttribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, address)
    }

    /// Uses an algorithm, if it can compute this shape.
    pub(super) fn choose(
        &mut self,
        handle: lt::cublasLtHandle_t,
        algorithm: &Algorithm,
    ) -> Result<(), CudaError> {
        let algorithm = algorithm.make(handle, &self.key)?;
        // SAFETY: it is a plain structure of numbers.
        let mut result: lt::cublasLtMatmulHeuristicResult_t = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptors live as long as `self`, and the pointers are valid for the call.
        status("cublasLtMatmulAlgoCheck", unsafe {
            lt::cublasLtMatmulAlgoCheck(
                handle,
                self.operation,
                self.w,
                self.x,
                self.out,
                self.out,
                &algorithm,
                &mut result,
            )
        })?;
        if result.workspaceSize > WORKSPACE_BYTES {
            return Err(invalid(format!(
                "the algorithm needs {} bytes of working memory",
                result.workspaceSize
            )));
        }
        self.algorithm = algorithm;
        Ok(())
    }

    /// The library's algorithms for this shape, the best first.
    pub(super) fn candidates(&self, handle: lt::cublasLtHandle_t) -> Result<Vec<Algorithm>, CudaError> {
        let proposed = self.propose(handle, N_CANDIDATES)?;
        proposed
            .iter()
            .map(|result| Algorithm::read(&result.algo))
            .collect()
    }

    /// Enqueues a product with working memory, on a stream.
    pub(super) fn enqueue(
        &self,
        handle: lt::cublasLtHandle_t,
        operands: &Operands,
        (workspace, stream): (View<u8>, CUstream),
    ) -> Result<(), CudaError> {
        let pointer = |address: u64| address as *mut std::ffi::c_void;
        // SAFETY: the operands' lengths were compared with the shape; addresses are of the device, which reports others.
        status("cublasLtMatmul", unsafe {
            lt::cublasLtMatmul(
                handle,
                self.operation,
                std::ptr::from_ref(&operands.scale).cast(),
                pointer(operands.w),
                self.w,
                pointer(operands.x),
                self.x,
                std::ptr::from_ref(&operands.keep).cast(),
                pointer(operands.out),
                self.out,
                pointer(operands.out),
                self.out,
                &self.algorithm,
                pointer(workspace.address()),
                workspace.len(),
                stream.cast(),
            )
        })
    }

    /// Asks the library for up to `count` algorithms whose sums have one order.
    fn propose(
        &self,
        handle: lt::cublasLtHandle_t,
        count: usize,
    ) -> Result<Vec<lt::cublasLtMatmulHeuristicResult_t>, CudaError> {
        let preference = Preferences::new()?;
        // SAFETY: it is a plain structure of numbers.
        let empty: lt::cublasLtMatmulHeuristicResult_t = unsafe { std::mem::zeroed() };
        let (mut results, mut found) = (vec![empty; count], 0);
        // SAFETY: the descriptors live as long as `self`, and `results` has room for `count`.
        status("cublasLtMatmulAlgoGetHeuristic", unsafe {
            lt::cublasLtMatmulAlgoGetHeuristic(
                handle,
                self.operation,
                self.w,
                self.x,
                self.out,
                self.out,
                preference.0,
                count as i32,
                results.as_mut_ptr(),
                &mut found,
            )
        })?;
        results.truncate(usize::try_from(found).unwrap_or(0));
        results.retain(|result| result.state == lt::cublasStatus_t::CUBLAS_STATUS_SUCCESS);
        if results.is_empty() {
            return Err(invalid(format!("no algorithm for {:?}", self.key)));
        }
        Ok(results)
    }

    fn set<V: Copy>(&self, attribute: DescAttribute, value: V) -> Result<(), CudaError> {
        // SAFETY: the value has the size that is given; the descriptor lives as long as `self`.
        status("cublasLtMatmulDescSetAttribute", unsafe {
            lt::cublasLtMatmulDescSetAttribute(
                self.operation,
                attribute,
                std::ptr::from_ref(&value).cast(),
                size_of::<V>(),
            )
        })
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: they are null or were made by `describe`, and nobody else has them.
        unsafe {
            for matrix in [self.w, self.x, self.out] {
                if !matrix.is_null() {
                    let _ = lt::cublasLtMatrixLayoutDestroy(matrix);
                }
            }
            if !self.operation.is_null() {
                let _ = lt::cublasLtMatmulDescDestroy(self.operation);
            }
        }
    }
}

/// A matrix by columns, or a batch of them.
struct Layout {
    dtype: lt::cudaDataType_t,
    n_rows: usize,
    n_cols: usize,
    /// Elements from one column to the next.
    stride: usize,
    batch: usize,
    batch_stride: usize,
}

fn layout(of: &Layout) -> Result<lt::cublasLtMatrixLayout_t, CudaError> {
    let (n_rows, n_cols) = (of.n_rows as u64, of.n_cols as u64);
    let mut made = std::ptr::null_mut();
    // SAFETY: the pointer is valid for the call.
    status("cublasLtMatrixLayoutCreate", unsafe {
        lt::cublasLtMatrixLayoutCreate(&mut made, of.dtype, n_rows, n_cols, of.stride as i64)
    })?;
    if of.batch > 1 {
        let count = LayoutAttribute::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT;
        set_layout(made, count, of.batch as i32)?;
        let offset = LayoutAttribute::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET;
        set_layout(made, offset, of.batch_stride as i64)?;
    }
    Ok(made)
}

fn set_layout<V: Copy>(
    matrix: lt::cublasLtMatrixLayout_t,
    attribute: LayoutAttribute,
    value: V,
) -> Result<(), CudaError> {
    // SAFETY: the value has the size that is given, and the layout was made before.
    status("cublasLtMatrixLayoutSetAttribute", unsafe {
        lt::cublasLtMatrixLayoutSetAttribute(
            matrix,
            attribute,
            std::ptr::from_ref(&value).cast(),
            size_of::<V>(),
        )
    })
}

/// What the library may propose.
struct Preferences(lt::cublasLtMatmulPreference_t);

impl Preferences {
    fn new() -> Result<Preferences, CudaError> {
        let mut made = Preferences(std::ptr::null_mut());
        // SAFETY: the pointer is valid for the call.
        status("cublasLtMatmulPreferenceCreate", unsafe {
            lt::cublasLtMatmulPreferenceCreate(&mut made.0)
        })?;
        made.set(
            Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            WORKSPACE_BYTES as u64,
        )?;
        // Sums over parts of k are added in f32 in a fixed order, or there are no parts.
        let in_order = lt::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        made.set(Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, in_order)?;
        for operand in [
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ] {
            made.set(operand, ALIGNMENT as u32)?;
        }
        Ok(made)
    }

    fn set<V: Copy>(&self, attribute: Preference, value: V) -> Result<(), CudaError> {
        // SAFETY: the value has the size that is given; the preference lives as long as `self`.
        status("cublasLtMatmulPreferenceSetAttribute", unsafe {
            lt::cublasLtMatmulPreferenceSetAttribute(
                self.0,
                attribute,
                std::ptr::from_ref(&value).cast(),
                size_of::<V>(),
            )
        })
    }
}

impl Drop for Preferences {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: `new` has made it, and nobody else has it.
            let _ = unsafe { lt::cublasLtMatmulPreferenceDestroy(self.0) };
        }
    }
}
