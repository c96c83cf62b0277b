//! How the numbers of a panel are stored, and how they become vectors of f32.

use crate::cpu::context::CpuContext;
use crate::cpu::simd::{Simd, SimdTask};
use crate::weight::PANEL_ROWS;

/// A way to store panels. A *step* is two neighbouring columns of a panel: `2 * PANEL_ROWS` numbers that lie together.
pub(super) trait Storage: Copy + Send + Sync + 'static {
    /// Bytes of a step.
    const STEP_BYTES: usize;
    /// Whether the numbers are to be multiplied by the scale of their row and group of columns.
    const IS_SCALED: bool = false;
    /// Whether nothing is gained by widening the numbers beforehand.
    const IS_DIRECT: bool = false;
    /// Floats of activations that a step takes of each row, one for each loaded column that is used.
    const X_FLOATS: usize = 2;
    /// How the numbers are stored once they are widened.
    type Widened: Storage;

    /// Runs the work of a product with such a weight.
    fn run<W: SimdTask>(context: &CpuContext, work: W) -> W::Output {
        context.run(work)
    }

    /// Rows `first_row .. first_row + S::LANES` of the two columns of the step at `step`, widened without their scale.
    ///
    /// # Safety
    /// The step must be readable; `first_row + S::LANES` is at most [`PANEL_ROWS`].
    unsafe fn load<S: Simd>(simd: S, step: *const u8, first_row: usize) -> [S::V; 2];

    /// `sum` with the products of a loaded column and a float of activations.
    #[inline(always)]
    fn add<S: Simd>(simd: S, sum: S::V, column: S::V, x: S::V) -> S::V {
        simd.mul_add(x, column, sum)
    }
}

/// Single precision, a column after the other.
#[derive(Clone, Copy)]
pub(super) struct F32;

impl Storage for F32 {
    const STEP_BYTES: usize = 2 * PANEL_ROWS * 4;
    const IS_DIRECT: bool = true;
    type Widened = F32;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, step: *const u8, first_row: usize) -> [S::V; 2] {
        // SAFETY: within the step.
        unsafe {
            let first = step.cast::<f32>().add(first_row);
            [simd.load(first), simd.load(first.add(PANEL_ROWS))]
        }
    }
}

/// Half precision, a column after the other.
#[derive(Clone, Copy)]
pub(super) struct F16;

impl Storage for F16 {
    const STEP_BYTES: usize = 2 * PANEL_ROWS * 2;
    type Widened = F32;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, step: *const u8, first_row: usize) -> [S::V; 2] {
        // SAFETY: within the step.
        unsafe {
            let first = step.cast::<u16>().add(first_row);
            [simd.load_f16(first), simd.load_f16(first.add(PANEL_ROWS))]
        }
    }
}

/// bf16, the two numbers of each row side by side.
#[derive(Clone, Copy)]
pub(super) struct Bf16;

impl Storage for Bf16 {
    const STEP_BYTES: usize = 2 * PANEL_ROWS * 2;
    type Widened = F32;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, step: *const u8, first_row: usize) -> [S::V; 2] {
        // SAFETY: within the step.
        simd.widen_bf16_pairs(unsafe { simd.load(step.cast::<f32>().add(first_row)) })
    }
}

/// The same, multiplied with pairs of activations that were rounded to bf16, by processors that do so.
#[derive(Clone, Copy)]
pub(super) struct Bf16Pairs;

impl Storage for Bf16Pairs {
    const STEP_BYTES: usize = 2 * PANEL_ROWS * 2;
    const IS_DIRECT: bool = true;
    const X_FLOATS: usize = 1;
    type Widened = Bf16Pairs;

    fn run<W: SimdTask>(context: &CpuContext, work: W) -> W::Output {
        context.run_with_bf16(work)
    }

    /// The pairs as they are, twice.
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, step: *const u8, first_row: usize) -> [S::V; 2] {
        // SAFETY: within the step.
        let pairs = unsafe { simd.load(step.cast::<f32>().add(first_row)) };
        [pairs, pairs]
    }

    #[inline(always)]
    fn add<S: Simd>(simd: S, sum: S::V, pairs: S::V, x: S::V) -> S::V {
        simd.add_bf16_products(sum, pairs, x)
    }
}
