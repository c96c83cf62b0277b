//! The inner loop of products: some rows of activations against some panels, with all sums in registers.

use super::storage::Storage;
use crate::cpu::simd::{Simd, SimdTask};
use crate::weight::PANEL_ROWS;

/// Most rows of activations in a register tile.
pub(super) const ROWS_MAX: usize = 6;
/// Beyond so many rows the steps are widened beforehand; for fewer, as they are multiplied. Not with AVX-512, where
/// widening takes the units of the multiply-adds.
pub(super) const WIDENED_ROWS: usize = 25;

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// Most panels in a register tile.
pub(super) const PANELS_MAX: usize = 8;

/// Panels that are computed together with `n_rows` rows, so that the sums fit into the registers.
pub(super) const fn panels_together<S: Simd>(n_rows: usize) -> usize {
    match S::N_SUMS * S::LANES / (n_rows * PANEL_ROWS) {
        0 | 1 => 1,
        2 | 3 => 2,
        4..8 => 4,
        _ => PANELS_MAX,
    }
}

/// Cache lines that are needed later. The addresses may be beyond the weight.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    /// The line to ask for at the first step of the first panel.
    pub(super) first: *const u8,
    /// Bytes from step to step.
    pub(super) step_bytes: usize,
    /// Bytes from panel to panel.
    pub(super) panel_bytes: usize,
}

/// Operands of a tile: `n_steps` steps of some rows and of neighbouring panels.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    /// Activations. `[n_steps, T::X_FLOATS, n_rows]`
    pub(super) x: *const f32,
    /// The first step of the first panel.
    pub(super) w: *const u8,
    /// Bytes from a panel to the next.
    pub(super) panel_bytes: usize,
    /// Steps.
    pub(super) n_steps: usize,
    /// Cache lines of the weight to ask for while the tile is computed.
    pub(super) ahead: Ahead,
    /// Scales of the first panel from the first step's group on, where the storage has them. `[n_groups, PANEL_ROWS]`
    pub(super) scales: *const f32,
    /// Scales from a panel to the next.
    pub(super) panel_scales: usize,
    /// Steps that share a scale; `n_steps` is a multiple of it.
    pub(super) group_steps: usize,
    /// Sums of the first panel. `[n_rows, PANEL_ROWS]`
    pub(super) sums: *mut f32,
    /// Floats from a panel's sums to the next's.
    pub(super) panel_sums: usize,
    /// Whether the sums begin here, and what `sums` holds is not read.
    pub(super) is_first: bool,
}

impl Operands {
    /// Where the sums of row `r`, panel `p` and vector `v` are.
    ///
    /// # Safety
    /// They must be within `sums`.
    #[inline(always)]
    unsafe fn sum<S: Simd>(&self, r: usize, p: usize, v: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.sums.add(p * self.panel_sums + r * PANEL_ROWS + v * S::LANES) }
    }
}

/// Adds the products of `R` rows and `P` panels to their sums.
///
/// A sum takes the columns in order, each in one fused multiply-add, whatever the tile's shape and wherever the steps are
/// cut. Where the storage has scales, a group's sum begins at zero, and its scale times it is added to the sum.
pub(super) struct Tile<T, const R: usize, const P: usize> {
    operands: Operands,
    storage: std::marker::PhantomData<T>,
}

impl<T: Storage, const R: usize, const P: usize> Tile<T, R, P> {
    /// # Safety
    /// The pointers of `operands` must be valid for what its fields say, for `R` rows and `P` panels.
    pub(super) unsafe fn new(operands: Operands) -> Self {
        Tile {
            operands,
            storage: std::marker::PhantomData,
        }
    }

    /// For vectors of which `V` make the rows of a panel.
    #[inline(always)]
    fn all_steps<S: Simd, const V: usize>(self, simd: S) {
        let o = self.operands;
        let mut sums = [[[simd.splat(0.0); V]; P]; R];
        if T::IS_SCALED {
            for group in 0..o.n_steps / o.group_steps {
                sums = [[[simd.splat(0.0); V]; P]; R];
                self.steps::<S, V>(simd, group * o.group_steps, o.group_steps, &mut sums);
                self.add_scaled::<S, V>(simd, group, &sums);
            }
            return;
        }
        // SAFETY: there are sums of R rows for each of P panels.
        unsafe {
            if !o.is_first {
                for p in 0..P {
                    for r in 0..R {
                        for v in 0..V {
                            sums[r][p][v] = simd.load(o.sum::<S>(r, p, v));
                        }
                    }
                }
            }
            self.steps::<S, V>(simd, 0, o.n_steps, &mut sums);
            for p in 0..P {
                for r in 0..R {
                    for v in 0..V {
                        simd.store(o.sum::<S>(r, p, v), sums[r][p][v]);
                    }
                }
            }
        }
    }

    /// Adds the sums of a group times its scales.
    #[inline(always)]
    fn add_scaled<S: Simd, const V: usize>(&self, simd: S, group: usize, sums: &[[[S::V; V]; P]; R]) {
        let o = self.operands;
        let is_first = o.is_first && group == 0;
        for p in 0..P {
            for v in 0..V {
                // SAFETY: there are scales for every group of each panel, and sums of R rows.
                unsafe {
                    let at = p * o.panel_scales + group * PANEL_ROWS + v * S::LANES;
                    let scale = simd.load(o.scales.add(at));
                    for r in 0..R {
                        let sum = o.sum::<S>(r, p, v);
                        let before = if is_first { simd.splat(0.0) } else { simd.load(sum) };
                        simd.store(sum, simd.mul_add(sums[r][p][v], scale, before));
                    }
                }
            }
        }
    }

    /// Adds the products of `n` steps from `first` on.
    #[inline(always)]
    fn steps<S: Simd, const V: usize>(
        &self,
        simd: S,
        first: usize,
        n: usize,
        sums: &mut [[[S::V; V]; P]; R],
    ) {
        let o = self.operands;
        let mut local = *sums;
        // SAFETY: the steps are within the operands; a prefetch beyond them is harmless, and its address is computed
        // without leaving the wrapping rules.
        unsafe {
            let mut x = o.x.add(first * T::X_FLOATS * R);
            let mut w = o.w.add(first * T::STEP_BYTES);
            let mut ahead = o.ahead.first.wrapping_add(first * o.ahead.step_bytes);
            for _ in 0..n {
                for p in 0..P {
                    let step = w.add(p * o.panel_bytes);
                    let line = ahead.wrapping_add(p * o.ahead.panel_bytes);
                    simd.prefetch(line);
                    if T::STEP_BYTES > LINE_BYTES && o.ahead.step_bytes > LINE_BYTES {
                        simd.prefetch(line.wrapping_add(LINE_BYTES));
                    }
                    for column in 0..T::X_FLOATS {
                        let mut columns = [simd.splat(0.0); V];
                        for v in 0..V {
                            columns[v] = T::load(simd, step, v * S::LANES)[column];
                        }
                        for r in 0..R {
                            let x = simd.splat(*x.add(column * R + r));
                            for v in 0..V {
                                local[r][p][v] = T::add(simd, local[r][p][v], columns[v], x);
                            }
                        }
                    }
                }
                x = x.add(T::X_FLOATS * R);
                w = w.add(T::STEP_BYTES);
                ahead = ahead.wrapping_add(o.ahead.step_bytes);
            }
        }
        *sums = local;
    }
}

impl<T: Storage, const R: usize, const P: usize> SimdTask for Tile<T, R, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match PANEL_ROWS / S::LANES {
            1 => self.all_steps::<S, 1>(simd),
            _ => self.all_steps::<S, 2>(simd),
        }
    }
}
