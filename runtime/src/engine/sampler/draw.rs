//! What a draw depends on beside the logits.

use crate::batch::SamplingParams;

/// What the sampler needs beside the logits.
#[derive(Clone, Debug)]
pub struct Draw<'a> {
    /// How to draw.
    pub params: &'a SamplingParams,
    /// Tokens of the prompt.
    pub prompt: &'a [u32],
    /// Tokens generated so far.
    pub generated: &'a [u32],
    /// Tokens that may not be drawn.
    pub forbidden: &'a [u32],
    /// One bit per token that the request's grammar allows, 32 to a word, the lowest first; a token beyond the
    /// last word is not allowed.
    pub mask: Option<&'a [u32]>,
    /// Decides the draw, together with the position.
    pub seed: u64,
}
