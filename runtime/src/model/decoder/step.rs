//! One step: a checked batch goes through all layers, and becomes logits and pooled vectors.

use std::collections::BTreeMap;

use kernels::{AttentionRow, CpuContext, Gemm, Heads, Norm as NormOp, RopeTable, add, embed, gemm, norm};

use super::attention::LayerCache;
use super::cache::Cache;
use crate::batch::{Batch, BatchRow, StepError};
use crate::model::checkpoint::{Linear, Loaded, LoadedLayer};
use crate::model::pooling::PoolingKind;
use crate::model::spec::{Head, Norm, Task};

/// What all layers share during a step.
pub(super) struct Step<'a> {
    pub(super) context: &'a CpuContext,
    pub(super) model: &'a Loaded,
    pub(super) batch: &'a Batch,
    /// One per rotary position of the model.
    pub(super) ropes: Vec<RopeTable>,
}

/// A batch as the ops take it, per group of layers.
struct Tables {
    /// Slot of each new token.
    slots: Vec<Vec<u32>>,
    /// Blocks of each row.
    blocks: Vec<Vec<Vec<u32>>>,
}

impl Tables {
    fn of(batch: &Batch, cache: &Cache) -> Tables {
        let block_size = cache.block_size();
        let groups = 0..cache.groups().len();
        let slots_of_row = |row: &BatchRow, group: usize| {
            let tokens = row.query_start..row.query_start + row.query_len;
            let slot = |&position: &u32| {
                let block = row.block_tables[group][position as usize / block_size];
                block.0 * block_size as u32 + position % block_size as u32
            };
            batch.positions[tokens].iter().map(slot).collect::<Vec<_>>()
        };
        let slots = |group| {
            batch
                .rows
                .iter()
                .flat_map(move |row| slots_of_row(row, group))
                .collect()
        };
        let blocks_of_row = |row: &BatchRow, group: usize| -> Vec<u32> {
            row.block_tables[group].iter().map(|block| block.0).collect()
        };
        let blocks = |group| {
            batch
                .rows
                .iter()
                .map(move |row| blocks_of_row(row, group))
                .collect()
        };
        Tables {
            slots: groups.clone().map(slots).collect(),
            blocks: groups.map(blocks).collect(),
        }
    }

    fn rows<'a>(&'a self, batch: &Batch, group: usize) -> Vec<AttentionRow<'a>> {
        let of = |(row, block_table): (&BatchRow, &'a Vec<u32>)| AttentionRow {
            query_len: row.query_len,
            context_len: row.context_len,
            block_table,
        };
        batch.rows.iter().zip(&self.blocks[group]).map(of).collect()
    }
}

impl<'a> Step<'a> {
    /// Prepares a step of a checked batch of at least one row.
    pub(super) fn new(context: &'a CpuContext, model: &'a Loaded, batch: &'a Batch) -> Step<'a> {
        let row_of: Vec<usize> = batch
            .rows
            .iter()
            .enumerate()
            .flat_map(|(idx, row)| std::iter::repeat_n(idx, row.query_len))
            .collect();
        let tables = model.ropes.iter().map(|rope| {
            // Computed once per variant, which for nearly every model is once.
            let mut of_variant = BTreeMap::new();
            let variants: Vec<u64> = batch
                .rows
                .iter()
                .map(|row| rope.variant(row.prompt_len))
                .collect();
            for (row, variant) in batch.rows.iter().zip(&variants) {
                let inv_freq = || rope.inv_freq(row.prompt_len);
                of_variant.entry(*variant).or_insert_with(inv_freq);
            }
            let inv_freq = |token: usize| of_variant[&variants[row_of[token]]].as_slice();
            RopeTable::new(&batch.positions, rope.attention_factor(), inv_freq)
        });
        Step {
            context,
            model,
            batch,
            ropes: tables.collect(),
        }
    }

    /// New tokens.
    pub(super) fn n_tokens(&self) -> usize {
        self.batch.tokens.len()
    }

    /// Runs all layers. `[n_tokens, hidden_size]`
    pub(super) fn hidden(&self, cache: &mut Cache) -> Result<Vec<f32>, StepError> {
        let tables = Tables::of(self.batch, cache);
        let rows: Vec<_> = (0..cache.groups().len())
            .map(|group| tables.rows(self.batch, group))
            .collect();
        let mut x = self.embed()?;
        for (idx, layer) in self.model.layers.iter().enumerate() {
            let (group, memory) = cache.of_layer(idx);
            let layer_cache = LayerCache {
                memory,
                slots: &tables.slots[group],
                rows: &rows[group],
            };
            self.layer(layer, layer_cache, &mut x)?;
        }
        Ok(x)
    }

    fn embed(&self) -> Result<Vec<f32>, StepError> {
        let edges = &self.model.embedding;
        let mut x = self.rows_of(&edges.tokens, &self.batch.tokens)?;
        if let Some(project_in) = &edges.project_in {
            x = self.linear(&x, project_in)?;
        }
        if let Some(table) = &edges.positions {
            let from = edges.positions_from as u32;
            let rows: Vec<u32> = self
                .batch
                .positions
                .iter()
                .map(|position| position + from)
                .collect();
            add(self.context, &mut x, 1.0, &self.rows_of(table, &rows)?)?;
        }
        if let Some(table) = &edges.types {
            let of_first = vec![0; self.n_tokens()];
            let types = match self.batch.token_types.as_slice() {
                [] => &of_first,
                types => types,
            };
            add(self.context, &mut x, 1.0, &self.rows_of(table, types)?)?;
        }
        if edges.scale != 1.0 {
            x.iter_mut().for_each(|v| *v *= edges.scale);
        }
        self.norm(edges.norm.as_ref(), &mut x)?;
        Ok(x)
    }

    fn rows_of(&self, table: &Linear, rows: &[u32]) -> Result<Vec<f32>, StepError> {
        let mut x = vec![0.0; rows.len() * table.weight.n_cols()];
        embed(self.context, &table.weight, rows, &mut x)?;
        Ok(x)
    }

    fn layer(&self, layer: &LoadedLayer, cache: LayerCache<'_>, x: &mut Vec<f32>) -> Result<(), StepError> {
        let (before, after) = (&layer.attention_norms, &layer.ffn_norms);
        let scale = layer.residual_scale;
        let input = self.normed(before.input.as_ref(), x)?;
        let mut attended = self.attend(&layer.attention, cache, &input)?;
        if layer.is_parallel {
            let computed = match &after.input {
                Some(norm) => self.feed_forward(&layer.ffn, &self.normed(Some(norm), x)?)?,
                None => self.feed_forward(&layer.ffn, &input)?,
            };
            add(self.context, x, scale, &attended)?;
            return Ok(add(self.context, x, scale, &computed)?);
        }
        self.norm(before.output.as_ref(), &mut attended)?;
        if layer.adds_to_normed {
            *x = input;
        }
        add(self.context, x, scale, &attended)?;
        self.norm(before.sum.as_ref(), x)?;
        let input = self.normed(after.input.as_ref(), x)?;
        let mut computed = self.feed_forward(&layer.ffn, &input)?;
        self.norm(after.output.as_ref(), &mut computed)?;
        if layer.adds_to_normed {
            *x = input;
        }
        add(self.context, x, scale, &computed)?;
        self.norm(after.sum.as_ref(), x)
    }

    /// The logits of some tokens. `[n_tokens, vocab_size]`
    pub(super) fn logits(
        &self,
        head: &Head<Linear>,
        row_scales: Option<&[f32]>,
        x: Vec<f32>,
    ) -> Result<Vec<f32>, StepError> {
        let x = self.finished(x)?;
        let weight = head.weight.as_ref().unwrap_or(&self.model.embedding.tokens);
        let mut logits = self.linear(&x, weight)?;
        if let Some(scales) = row_scales {
            for row in logits.chunks_exact_mut(scales.len()) {
                row.iter_mut()
                    .zip(scales)
                    .for_each(|(logit, scale)| *logit *= scale);
            }
        }
        if head.scale != 1.0 {
            logits.iter_mut().for_each(|logit| *logit *= head.scale);
        }
        if let Some(cap) = head.softcap {
            logits
                .iter_mut()
                .for_each(|logit| *logit = cap * (*logit / cap).tanh());
        }
        Ok(logits)
    }

    /// One vector of a row's activations.
    pub(super) fn pooled(&self, kind: PoolingKind, x: &[f32], row: usize) -> Result<Vec<f32>, StepError> {
        let d = self.model.hidden_size;
        let BatchRow {
            query_start,
            query_len,
            ..
        } = self.batch.rows[row];
        let tokens = match kind {
            PoolingKind::First => query_start..query_start + 1,
            PoolingKind::Last => query_start + query_len - 1..query_start + query_len,
            PoolingKind::Mean => query_start..query_start + query_len,
        };
        let n_tokens = tokens.len() as f32;
        let rows = self.finished(x[tokens.start * d..tokens.end * d].to_vec())?;
        let width = rows.len() / tokens.len();
        let mut sum = vec![0.0; width];
        for row in rows.chunks_exact(width) {
            add(self.context, &mut sum, 1.0, row)?;
        }
        sum.iter_mut().for_each(|v| *v /= n_tokens);
        match &self.model.task {
            Task::Classify { dense, out } => {
                let mut hidden = self.linear(&sum, dense)?;
                hidden.iter_mut().for_each(|v| *v = v.tanh());
                self.linear(&hidden, out)
            }
            Task::Embed | Task::Generate(_) => Ok(sum),
        }
    }

    /// What comes behind the last layer.
    fn finished(&self, mut x: Vec<f32>) -> Result<Vec<f32>, StepError> {
        self.norm(self.model.final_norm.as_ref(), &mut x)?;
        match &self.model.project_out {
            Some(project_out) => self.linear(&x, project_out),
            None => Ok(x),
        }
    }

    fn normed(&self, norm: Option<&Norm<Vec<f32>>>, x: &[f32]) -> Result<Vec<f32>, StepError> {
        let mut y = x.to_vec();
        self.norm(norm, &mut y)?;
        Ok(y)
    }

    fn norm(&self, norm: Option<&Norm<Vec<f32>>>, x: &mut [f32]) -> Result<(), StepError> {
        match norm {
            Some(norm) => self.norm_heads(norm, Heads::whole(self.model.hidden_size), x),
            None => Ok(()),
        }
    }

    /// Normalises heads in place.
    pub(super) fn norm_heads(
        &self,
        of: &Norm<Vec<f32>>,
        heads: Heads,
        x: &mut [f32],
    ) -> Result<(), StepError> {
        let op = NormOp {
            x,
            heads,
            kind: of.kind,
            weight: of.weight.as_deref(),
            bias: of.bias.as_deref(),
            eps: of.eps,
        };
        Ok(norm(self.context, op)?)
    }

    /// `x · Wᵀ + bias`
    pub(super) fn linear(&self, x: &[f32], of: &Linear) -> Result<Vec<f32>, StepError> {
        let Linear { weight, bias } = of;
        let mut y = vec![0.0; x.len() / weight.n_cols() * weight.n_rows()];
        let op = Gemm {
            x,
            weight,
            bias: bias.as_deref(),
            y: &mut y,
        };
        gemm(self.context, op)?;
        Ok(y)
    }
}
