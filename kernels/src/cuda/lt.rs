//! Products by cuBLASLt, which is used where its library is installed.

mod algorithm;
mod key;
mod plan;
mod product;
mod status;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use cudarc::cublaslt::sys as lt;

pub use algorithm::Algorithm;
use key::Key;
use plan::Plan;
pub use product::{LtElement, LtProduct, LtShape, LtStrides};
use status::{invalid, status};

use super::buffer::DeviceBuffer;
use super::error::CudaError;
use super::gpu::Gpu;

/// Plans that are kept. A model has a few dozen, one for each matrix and bucket of rows.
const N_PLANS_MAX: usize = 4096;

/// cuBLASLt on one card.
pub struct Lt {
    handle: lt::cublasLtHandle_t,
    /// The library's version, as it counts.
    version: usize,
    workspace: DeviceBuffer<u8>,
    plans: Mutex<HashMap<Key, Plan>>,
    gpu: Gpu,
}

// SAFETY: the library's handle may be used from any thread that has made the context current; a lock guards the plans.
unsafe impl Send for Lt {}
// SAFETY: as above.
unsafe impl Sync for Lt {}

impl Lt {
    /// Working memory of the library's kernels: what its documentation recommends for Hopper.
    pub const WORKSPACE_BYTES: usize = plan::WORKSPACE_BYTES;

    /// Opens the library for a card. `None`: it is not installed.
    ///
    /// # Errors
    /// The library or its working memory cannot be had.
    pub fn open(gpu: &Gpu) -> Result<Option<Lt>, CudaError> {
        gpu.bind()?;
        // SAFETY: it only tries to open the library.
        if !unsafe { lt::is_culib_present() } {
            return Ok(None);
        }
        let mut handle = std::ptr::null_mut();
        // SAFETY: the pointer is valid for the call.
        status("cublasLtCreate", unsafe { lt::cublasLtCreate(&mut handle) })?;
        Ok(Some(Lt {
            handle,
            // SAFETY: it has no arguments.
            version: unsafe { lt::cublasLtGetVersion() },
            workspace: gpu.alloc(Lt::WORKSPACE_BYTES)?,
            plans: Mutex::default(),
            gpu: gpu.clone(),
        }))
    }

    /// The library's version, as it counts: 130100 for 13.1.
    pub fn version(&self) -> usize {
        self.version
    }

    /// Chooses the algorithm for a shape, so that a later product, also in a graph, needs not.
    ///
    /// # Errors
    /// The library has no algorithm for it.
    pub fn prepare<T: LtElement>(&self, op: &LtProduct<T>) -> Result<(), CudaError> {
        self.with_plan(op, |_| Ok(()))
    }

    /// Enqueues a product. There may be no rows.
    ///
    /// # Errors
    /// The operands do not agree, or the library fails.
    pub fn product<T: LtElement>(&self, op: &LtProduct<T>) -> Result<(), CudaError> {
        if op.shape.m == 0 || op.shape.batch == 0 {
            return Ok(());
        }
        self.with_plan(op, |plan| {
            let operands = plan::Operands {
                x: op.x.address(),
                w: op.w.address(),
                out: op.out.address(),
                scale: op.scale,
                keep: op.keep,
            };
            plan.enqueue(
                self.handle,
                &operands,
                (self.workspace.view(), self.gpu.shared.stream),
            )
        })
    }

    /// Algorithms that the library proposes for a shape, the best first; to be timed on a card.
    ///
    /// # Errors
    /// The library has none.
    pub fn candidates<T: LtElement>(&self, op: &LtProduct<T>) -> Result<Vec<Algorithm>, CudaError> {
        self.with_plan(op, |plan| plan.candidates(self.handle))
    }

    /// Uses an algorithm for the shape of `op` from now on.
    ///
    /// # Errors
    /// The algorithm cannot compute this shape in this version of the library.
    pub fn choose<T: LtElement>(&self, op: &LtProduct<T>, algorithm: &Algorithm) -> Result<(), CudaError> {
        self.with_plan(op, |plan| plan.choose(self.handle, algorithm))
    }

    /// Calls `use_plan` with the plan of the operation's shape, which is made at its first use.
    fn with_plan<T: LtElement, R>(
        &self,
        op: &LtProduct<T>,
        use_plan: impl FnOnce(&mut Plan) -> Result<R, CudaError>,
    ) -> Result<R, CudaError> {
        if op.shape.m == 0 || op.shape.n == 0 || op.shape.k == 0 || op.shape.batch == 0 {
            return Err(invalid(format!("{:?} is empty", op.shape)));
        }
        op.check()?;
        self.gpu.bind()?;
        let key = Key::new(op);
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if !plans.contains_key(&key) {
            if plans.len() >= N_PLANS_MAX {
                plans.clear();
            }
            let known = algorithm::known(self.version, self.gpu.name(), &key);
            plans.insert(key, Plan::new(self.handle, key, known)?);
        }
        let plan = plans.get_mut(&key).expect("it was made just now");
        plan.set_rows(op.shape.m)?;
        if let Some(bias) = op.bias {
            plan.set_bias(bias.address())?;
        }
        use_plan(plan)
    }
}

impl Drop for Lt {
    fn drop(&mut self) {
        self.plans
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        if self.gpu.bind().is_ok() {
            // SAFETY: `open` has made it, and nobody else has it.
            let _ = unsafe { lt::cublasLtDestroy(self.handle) };
        }
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::super::testing;
    use super::*;

    /// Values of either sign that bf16 holds exactly.
    fn values(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 29 + seed * 7) % 17) as f32 - 8.0).collect()
    }

    fn upload<T: LtElement>(gpu: &Gpu, values: &[f32], of: impl Fn(f32) -> T) -> DeviceBuffer<T> {
        let buffer = gpu.alloc(values.len()).unwrap();
        let values: Vec<T> = values.iter().map(|&v| of(v)).collect();
        gpu.upload(&values, buffer.view()).unwrap();
        buffer
    }

    /// Compares with sums in f64, which are exact for these values.
    fn agrees<T: LtElement>(gpu: &Gpu, lt: &Lt, shape: LtShape, of: impl Fn(f32) -> T) {
        let len = |n_rows: usize, stride: usize, batch_stride: usize| {
            (shape.batch - 1) * batch_stride + n_rows * stride
        };
        let (strides, batch) = (shape.strides, shape.batch_strides);
        let x = values(len(shape.m, strides.x, batch.x), 1);
        let w = values(len(shape.n, strides.w, batch.w), 2);
        let before = values(len(shape.m, strides.out, batch.out), 3);
        let bias = values(shape.n, 4);
        let (on_x, on_w) = (upload(gpu, &x, &of), upload(gpu, &w, &of));
        let (out, on_bias) = (upload(gpu, &before, |v| v), upload(gpu, &bias, |v| v));
        for (keep, has_bias) in [(0.0, false), (1.0, false), (0.0, true)] {
            gpu.upload(&before, out.view()).unwrap();
            let op = LtProduct {
                x: on_x.view(),
                w: on_w.view(),
                out: out.view(),
                bias: has_bias.then_some(on_bias.view()),
                shape,
                scale: 0.5,
                keep,
            };
            lt.prepare(&op).unwrap();
            lt.product(&op).unwrap();
            let mut got = vec![0.0; before.len()];
            gpu.download(out.view(), &mut got).unwrap();
            for (b, i, j) in (0..shape.batch)
                .flat_map(|b| (0..shape.m).flat_map(move |i| (0..shape.n).map(move |j| (b, i, j))))
            {
                let x = &x[b * batch.x + i * strides.x..][..shape.k];
                let w = &w[b * batch.w + j * strides.w..][..shape.k];
                let at = b * batch.out + i * strides.out + j;
                let sum: f32 = x.iter().zip(w).map(|(x, w)| x * w).sum();
                let bias = if has_bias { bias[j] } else { 0.0 };
                assert_eq!(
                    got[at],
                    0.5 * sum + keep * before[at] + bias,
                    "{shape:?} {b} {i} {j}"
                );
            }
        }
    }

    #[test]
    fn agrees_with_plain_sums() {
        let Some(gpu) = testing::gpu(0) else { return };
        let Some(lt) = Lt::open(&gpu).unwrap() else {
            testing::skip("cuBLASLt is not installed");
            return;
        };
        assert!(lt.version() > 0);
        for (m, n, k) in [(1, 8, 16), (65, 24, 40), (130, 16, 8)] {
            agrees(&gpu, &lt, LtShape::dense(m, n, k), bf16::from_f32);
            agrees(&gpu, &lt, LtShape::dense(m, n, k), f16::from_f32);
            agrees(&gpu, &lt, LtShape::dense(m, n, k), |v| v);
        }
        let heads = LtShape {
            m: 70,
            n: 8,
            k: 16,
            strides: LtStrides {
                x: 48,
                w: 16,
                out: 24,
            },
            batch: 3,
            batch_strides: LtStrides {
                x: 16,
                w: 128,
                out: 8,
            },
        };
        agrees(&gpu, &lt, heads, bf16::from_f32);
    }

    #[test]
    fn refuses_operands_that_do_not_agree() {
        let Some(gpu) = testing::gpu(0) else { return };
        let Some(lt) = Lt::open(&gpu).unwrap() else { return };
        let (x, out) = (gpu.alloc::<bf16>(64).unwrap(), gpu.alloc::<f32>(64).unwrap());
        let op = |shape, x| LtProduct {
            x,
            w: x,
            out: out.view(),
            bias: None,
            shape,
            scale: 1.0,
            keep: 0.0,
        };
        assert!(lt.product(&op(LtShape::dense(8, 8, 16), x.view())).is_err());
        assert!(lt.product(&op(LtShape::dense(4, 4, 0), x.view())).is_err());
        let shifted = op(LtShape::dense(4, 4, 8), x.view().range(1..64));
        assert!(!shifted.is_aligned() && lt.product(&shifted).is_err());
        assert_eq!(lt.product(&op(LtShape::dense(0, 8, 8), x.view())), Ok(()));
    }
}
