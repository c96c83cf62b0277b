//! What an op does with each element that it has computed.

/// What becomes of a result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Then {
    /// It replaces the output.
    Store,
    /// `scale` times it is added to the output: exact to one rounding for a scale of 1, else to two.
    AddTo {
        /// Factor.
        scale: f32,
    },
}

impl Then {
    /// Writes `value` to `out`.
    #[inline(always)]
    pub(crate) fn write(self, out: &mut f32, value: f32) {
        match self {
            Then::Store => *out = value,
            Then::AddTo { scale } => *out += scale * value,
        }
    }
}
