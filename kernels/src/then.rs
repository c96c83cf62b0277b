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
    /// Writes the values of elements `0..out.len()` to `out`. Each case has a loop of its own: in one loop the compiler
    /// would read the output even where it is replaced, and wait for the memory. `value` must not use vectors: a closure
    /// has not the features of its caller, so they would not be inlined.
    #[inline(always)]
    pub(crate) fn write(self, out: &mut [f32], value: impl Fn(usize) -> f32) {
        match self {
            Then::Store => {
                for (i, out) in out.iter_mut().enumerate() {
                    *out = value(i);
                }
            }
            Then::AddTo { scale } => {
                for (i, out) in out.iter_mut().enumerate() {
                    *out += scale * value(i);
                }
            }
        }
    }
}
