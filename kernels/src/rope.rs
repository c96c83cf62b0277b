//! Rotary position embedding (Su et al. 2021) of a part of each head.

mod cpu;

use crate::cpu::context::CpuContext;
use crate::error::{Contract, KernelError};
use crate::heads::Heads;

/// Cosines and sines of some tokens' positions, computed once per step and used by every layer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RopeTable {
    half_dim: usize,
    /// `[n_tokens, half_dim]`
    cos: Vec<f32>,
    /// `[n_tokens, half_dim]`
    sin: Vec<f32>,
}

impl RopeTable {
    /// Forgets all tokens and keeps their memory.
    pub fn clear(&mut self) {
        self.cos.clear();
        self.sin.clear();
    }

    /// Cosines. `[n_tokens, half_dim]`
    pub fn cos(&self) -> &[f32] {
        &self.cos
    }

    /// Sines. `[n_tokens, half_dim]`
    pub fn sin(&self) -> &[f32] {
        &self.sin
    }

    /// Pairs that turn; 0 without tokens.
    pub fn half_dim(&self) -> usize {
        self.half_dim
    }

    /// Adds tokens with the angles `positions[t] · inv_freq[i]` (in f32, as the reference implementations compute
    /// them), their cosines and sines scaled by `scale`, which is 1 but for yarn and longrope.
    ///
    /// # Errors
    /// The table has tokens of another number of frequencies.
    pub fn extend(&mut self, positions: &[u32], inv_freq: &[f32], scale: f32) -> Result<(), KernelError> {
        if self.cos.is_empty() {
            self.half_dim = inv_freq.len();
        }
        Contract("rope_table").len("inv_freq", inv_freq.len(), self.half_dim)?;
        for &position in positions {
            let angles = || inv_freq.iter().map(|f| position as f32 * f);
            self.cos.extend(angles().map(|angle| angle.cos() * scale));
            self.sin.extend(angles().map(|angle| angle.sin() * scale));
        }
        Ok(())
    }
}

/// Which elements of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairs {
    /// Element `i` with `i + half_dim` (GPT-NeoX, Llama).
    HalfSplit,
    /// Element `2i` with `2i + 1` (GPT-J, GLM, Cohere, DeepSeek).
    Interleaved,
}

/// Operands of [`rope`].
pub struct Rope<'a> {
    /// Activations, turned in place. `[n_tokens, heads.row_stride]`
    pub x: &'a mut [f32],
    /// The heads.
    pub heads: Heads,
    /// First element of a head that turns; `2 * half_dim` turn, and the others keep their value.
    pub from: usize,
    /// Which elements turn together.
    pub pairs: RopePairs,
    /// Cosines and sines of the rows' positions.
    pub table: &'a RopeTable,
}

/// Turns a part of each head: `a' = a·cos - b·sin` and `b' = b·cos + a·sin` for each pair `a`, `b`.
///
/// # Errors
/// The shapes do not agree.
pub fn rope(context: &CpuContext, op: Rope<'_>) -> Result<(), KernelError> {
    let (heads, from) = (op.heads, op.from);
    let half_dim = op.table.half_dim;
    Contract("rope").range(half_dim > 0, "half_dim", half_dim, "at least 1")?;
    let n_tokens = op.table.cos.len() / half_dim;
    heads.check("rope", op.x.len())?;
    Contract("rope").len("x", op.x.len(), n_tokens * heads.row_stride)?;
    Contract("rope").range(
        from.checked_add(2 * half_dim)
            .is_some_and(|end| end <= heads.head_dim),
        "head_dim",
        heads.head_dim,
        "at least from + 2 * half_dim",
    )?;
    cpu::run(context, op);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::Isa;

    const HEADS: Heads = Heads {
        row_stride: 22,
        first: 2,
        n_heads: 2,
        head_dim: 9,
    };

    fn table(positions: &[u32], inv_freq: &[f32], scale: f32) -> RopeTable {
        let mut table = RopeTable::default();
        table.extend(positions, inv_freq, scale).unwrap();
        table
    }

    #[test]
    fn agrees_with_wide_arithmetic_on_every_path() {
        let inv_freq: &[f32] = &[1.0, 0.1, 0.001];
        let positions = [0, 1, 7, 3000];
        let table = table(&positions, inv_freq, 1.25);
        let before: Vec<f32> = (0..4 * HEADS.row_stride).map(|i| (i % 13) as f32 - 6.0).collect();
        for (isa, pairs) in Isa::available()
            .into_iter()
            .flat_map(|isa| [(isa, RopePairs::HalfSplit), (isa, RopePairs::Interleaved)])
        {
            let context = CpuContext::with_isa(2, isa).unwrap();
            let mut x = before.clone();
            let op = Rope {
                x: &mut x,
                heads: HEADS,
                from: 1,
                pairs,
                table: &table,
            };
            rope(&context, op).unwrap();
            for (i, (&got, &was)) in x.iter().zip(&before).enumerate() {
                let (token, column) = (i / HEADS.row_stride, i % HEADS.row_stride);
                let at = (column.wrapping_sub(2) % 9).wrapping_sub(1);
                if !(2..20).contains(&column) || at >= 6 {
                    assert_eq!(got, was, "only the turned part changes");
                    continue;
                }
                let (pair, is_first, step) = match pairs {
                    RopePairs::HalfSplit => (at % 3, at < 3, 3),
                    RopePairs::Interleaved => (at / 2, at.is_multiple_of(2), 1),
                };
                let partner = f64::from(before[if is_first { i + step } else { i - step }]);
                let angle = f64::from(positions[token] as f32 * inv_freq[pair]);
                let sign = if is_first { -1.0 } else { 1.0 };
                let want = 1.25 * (f64::from(was) * angle.cos() + sign * partner * angle.sin());
                assert!((f64::from(got) - want).abs() < 1e-5, "{isa:?} [{i}] {got} {want}");
            }
        }
    }

    #[test]
    fn tokens_may_have_other_frequencies() {
        let mut mixed = table(&[3], &[1.0], 1.0);
        mixed.extend(&[4], &[0.5], 1.0).unwrap();
        let alone = table(&[4], &[0.5], 1.0);
        assert_eq!((mixed.cos[1], mixed.sin[1]), (alone.cos[0], alone.sin[0]));
        assert!(mixed.extend(&[5], &[0.5, 0.1], 1.0).is_err());
        mixed.clear();
        mixed.extend(&[4], &[0.5], 1.0).unwrap();
        assert_eq!(mixed, alone);
    }

    #[test]
    fn refuses_shapes_that_disagree() {
        let context = CpuContext::new(1).unwrap();
        let table = table(&[0, 1], &[1.0, 0.5], 1.0);
        let mut x = [0.0; 16];
        for (row_stride, n_heads, head_dim, from) in [
            (8, 2, 3, 0),
            (8, 3, 4, 0),
            (7, 1, 4, 0),
            (9, 1, 4, 0),
            (8, 2, 4, 1),
        ] {
            let heads = Heads {
                row_stride,
                first: 0,
                n_heads,
                head_dim,
            };
            let op = Rope {
                x: &mut x,
                heads,
                from,
                pairs: RopePairs::HalfSplit,
                table: &table,
            };
            assert!(rope(&context, op).is_err(), "{row_stride} {n_heads} {head_dim}");
        }
    }
}
