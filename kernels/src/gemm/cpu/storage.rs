//! How the numbers of a panel are stored, and how they become vectors of f32.

use crate::cpu::simd::Simd;
use crate::weight::PANEL_ROWS;

/// A way to store panels. A *step* is two neighbouring columns of a panel: `2 * PANEL_ROWS` numbers that lie together.
pub(super) trait Storage: Copy + Send + Sync + 'static {
    /// Bytes of a step.
    const STEP_BYTES: usize;
    /// Whether the numbers are to be multiplied by the scale of their row and group of columns.
    const IS_SCALED: bool = false;
    /// Whether the numbers are f32, so that nothing is gained by widening them beforehand.
    const IS_F32: bool = false;
    /// How the numbers are stored once they are widened.
    type Widened: Storage;

    /// Rows `first_row .. first_row + S::LANES` of the two columns of the step at `step`, widened without their scale.
    ///
    /// # Safety
    /// The step must be readable; `first_row + S::LANES` is at most [`PANEL_ROWS`].
    unsafe fn load<S: Simd>(simd: S, step: *const u8, first_row: usize) -> [S::V; 2];
}

/// Single precision, a column after the other.
#[derive(Clone, Copy)]
pub(super) struct F32;

impl Storage for F32 {
    const STEP_BYTES: usize = 2 * PANEL_ROWS * 4;
    const IS_F32: bool = true;
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
        unsafe { simd.load_bf16_pairs(step.cast::<u16>().add(2 * first_row)) }
    }
}
