//! The scales of quantised weights.

use super::quant::QuantFormat;
use crate::cpu::buffer::Buffer;

/// What a quantised weight has beside its codes.
#[derive(Debug)]
pub(crate) struct Quantised {
    pub(super) format: QuantFormat,
    /// As they are multiplied with. `[n_panels, n_groups, PANEL_ROWS]`
    pub(super) scales: Buffer,
}

/// The scales of panels.
#[derive(Clone, Copy)]
pub(crate) struct Scales<'a> {
    /// How the codes are stored.
    pub(crate) format: QuantFormat,
    /// `[n_panels, n_groups, PANEL_ROWS]`
    pub(crate) floats: &'a [f32],
    /// Floats of a panel.
    pub(crate) panel_floats: usize,
}

impl Quantised {
    /// The scales, of which a panel has `panel_floats`.
    pub(super) fn scales(&self, panel_floats: usize) -> Scales<'_> {
        Scales {
            format: self.format,
            floats: self.scales.as_slice(),
            panel_floats,
        }
    }
}
