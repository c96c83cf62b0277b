//! Attention of one layer: queries, keys and values from activations, and back.

use kernels::{
    Attention as AttentionOp, AttentionRow, Heads, KvCache, KvWrite, Mask, Rope, Scores, attention, kv_write,
    rope,
};

use super::step::Step;
use crate::batch::StepError;
use crate::model::checkpoint::Linear;
use crate::model::spec::{Attention, Grouped, Latent, QkNorms};

/// The cache of a layer during a step.
pub(super) struct LayerCache<'a> {
    /// Its memory.
    pub(super) memory: &'a mut KvCache,
    /// Slot of each new token.
    pub(super) slots: &'a [u32],
    /// The sequences.
    pub(super) rows: &'a [AttentionRow<'a>],
}

impl Step<'_> {
    /// What attention adds. `[n_tokens, hidden_size]` in and out
    pub(super) fn attend(
        &self,
        of: &Attention<Linear, Vec<f32>>,
        cache: LayerCache<'_>,
        x: &[f32],
    ) -> Result<Vec<f32>, StepError> {
        match of {
            Attention::Grouped(grouped) => self.attend_grouped(grouped, cache, x),
            Attention::Latent(latent) => self.attend_latent(latent, cache, x),
        }
    }

    fn attend_grouped(
        &self,
        of: &Grouped<Linear, Vec<f32>>,
        cache: LayerCache<'_>,
        x: &[f32],
    ) -> Result<Vec<f32>, StepError> {
        let mut qkv = self.linear(x, &of.qkv)?;
        if let Some(clip) = of.clip {
            qkv.iter_mut().for_each(|v| *v = v.clamp(-clip, clip));
        }
        let queries = Heads {
            row_stride: (of.n_heads + 2 * of.n_kv_heads) * of.head_dim,
            first: 0,
            n_heads: of.n_heads,
            head_dim: of.head_dim,
        };
        let keys = Heads {
            first: of.n_heads * of.head_dim,
            n_heads: of.n_kv_heads,
            ..queries
        };
        if let Some(norms) = &of.qk_norms {
            self.norm_queries_and_keys(norms, &mut qkv, (queries, keys))?;
        }
        if let Some(idx) = of.rope {
            let both = Heads {
                n_heads: of.n_heads + of.n_kv_heads,
                ..queries
            };
            self.turn(idx, &mut qkv, both, 0)?;
        }
        let scores = Scores {
            scale: of.scale,
            softcap: of.softcap,
            alibi_slopes: of.alibi_slopes.as_deref(),
            sinks: of.sinks.as_deref(),
        };
        let mask = if self.model.is_causal {
            Mask::Causal { window: of.window }
        } else {
            Mask::Full
        };
        self.write(
            &qkv,
            (queries.row_stride, keys.first),
            &mut *cache.memory,
            cache.slots,
        )?;
        let mut attended = vec![0.0; self.n_tokens() * of.n_heads * of.head_dim];
        let op = AttentionOp {
            q: &qkv,
            q_stride: queries.row_stride,
            n_heads: of.n_heads,
            cache: cache.memory,
            rows: cache.rows,
            scores,
            mask,
            out: &mut attended,
        };
        attention(self.context, op)?;
        self.linear(&attended, &of.out)
    }

    fn norm_queries_and_keys(
        &self,
        norms: &QkNorms<Vec<f32>>,
        qkv: &mut [f32],
        (queries, keys): (Heads, Heads),
    ) -> Result<(), StepError> {
        for (norm, heads) in [(&norms.q, queries), (&norms.k, keys)] {
            let as_one = Heads {
                n_heads: 1,
                head_dim: heads.n_heads * heads.head_dim,
                ..heads
            };
            let heads = if norms.over_all_heads { as_one } else { heads };
            self.norm_heads(norm, heads, qkv)?;
        }
        Ok(())
    }

    /// Latent attention in its absorbed form: queries are brought to the short vectors instead of keys to the
    /// queries, so that the cache holds nothing but short vectors and their rotary part, for all heads at once
    /// (DeepSeek-V2 2024, appendix C).
    fn attend_latent(
        &self,
        of: &Latent<Linear, Vec<f32>>,
        cache: LayerCache<'_>,
        x: &[f32],
    ) -> Result<Vec<f32>, StepError> {
        let q = self.latent_queries(of, x)?;
        let mut short = self.linear(x, &of.kv_down)?;
        let key_dim = of.rank + of.rope_dim;
        let normed = Heads {
            head_dim: of.rank,
            ..Heads::whole(key_dim)
        };
        self.norm_heads(&of.kv_norm, normed, &mut short)?;
        self.turn(of.rope, &mut short, Heads::whole(key_dim), of.rank)?;
        self.write(&short, (key_dim, 0), &mut *cache.memory, cache.slots)?;
        let mut attended = vec![0.0; self.n_tokens() * of.n_heads * of.rank];
        let op = AttentionOp {
            q: &q,
            q_stride: of.n_heads * key_dim,
            n_heads: of.n_heads,
            cache: cache.memory,
            rows: cache.rows,
            scores: Scores::scaled(of.scale),
            mask: Mask::Causal { window: None },
            out: &mut attended,
        };
        attention(self.context, op)?;
        let mut values = vec![0.0; self.n_tokens() * of.n_heads * of.value_dim];
        for (head, value_up) in of.value_up.iter().enumerate() {
            let from = columns(&attended, of.n_heads * of.rank, head * of.rank, of.rank);
            let value = self.linear(&from, value_up)?;
            let at = (of.n_heads * of.value_dim, head * of.value_dim);
            put_columns(&value, of.value_dim, &mut values, at);
        }
        self.linear(&values, &of.out)
    }

    /// Queries as the cache's short vectors need them: per head `rank` elements without positions, then
    /// `rope_dim` with.
    fn latent_queries(&self, of: &Latent<Linear, Vec<f32>>, x: &[f32]) -> Result<Vec<f32>, StepError> {
        let mut q = match &of.q_down {
            None => self.linear(x, &of.q_up)?,
            Some((down, norm)) => {
                let mut short = self.linear(x, down)?;
                self.norm_heads(norm, Heads::whole(down.weight.n_rows()), &mut short)?;
                self.linear(&short, &of.q_up)?
            }
        };
        let head_dim = of.nope_dim + of.rope_dim;
        let width = of.n_heads * head_dim;
        let heads = Heads {
            row_stride: width,
            first: 0,
            n_heads: of.n_heads,
            head_dim,
        };
        self.turn(of.rope, &mut q, heads, of.nope_dim)?;
        let key_dim = of.rank + of.rope_dim;
        let mut out = vec![0.0; self.n_tokens() * of.n_heads * key_dim];
        for (head, key_up) in of.key_up.iter().enumerate() {
            let stride = of.n_heads * key_dim;
            let nope = columns(&q, width, head * head_dim, of.nope_dim);
            put_columns(
                &self.linear(&nope, key_up)?,
                of.rank,
                &mut out,
                (stride, head * key_dim),
            );
            let turned = columns(&q, width, head * head_dim + of.nope_dim, of.rope_dim);
            put_columns(&turned, of.rope_dim, &mut out, (stride, head * key_dim + of.rank));
        }
        Ok(out)
    }

    fn turn(&self, idx: usize, x: &mut [f32], heads: Heads, from: usize) -> Result<(), StepError> {
        let op = Rope {
            x,
            heads,
            from,
            pairs: self.model.ropes[idx].pairs,
            table: &self.ropes[idx],
        };
        Ok(rope(self.context, op)?)
    }

    fn write(
        &self,
        x: &[f32],
        (row_stride, keys_at): (usize, usize),
        memory: &mut KvCache,
        slots: &[u32],
    ) -> Result<(), StepError> {
        let op = KvWrite {
            x,
            row_stride,
            keys_at,
            slots,
        };
        Ok(kv_write(self.context, memory, op)?)
    }
}

/// Columns `at .. at + width` of rows of `stride`, without gaps.
fn columns(x: &[f32], stride: usize, at: usize, width: usize) -> Vec<f32> {
    x.chunks_exact(stride)
        .flat_map(|row| &row[at..at + width])
        .copied()
        .collect()
}

/// Writes rows of `width` to columns `at ..` of rows of `stride`.
fn put_columns(from: &[f32], width: usize, to: &mut [f32], (stride, at): (usize, usize)) {
    for (from, to) in from.chunks_exact(width).zip(to.chunks_exact_mut(stride)) {
        to[at..at + width].copy_from_slice(from);
    }
}
