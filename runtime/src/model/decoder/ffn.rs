//! The feed-forward part of one layer: dense, or a mixture of experts.

use kernels::{Choice, Route, activate, activate_gated, add, route};

use super::step::Step;
use crate::batch::StepError;
use crate::model::checkpoint::Linear;
use crate::model::spec::{Ffn, Mlp, Moe};

/// Rows that pass through at once: enough to use the weight well, few enough that the widest activation of an
/// 8B model stays below 64 MB.
const ROWS: usize = 512;

impl Step<'_> {
    /// What the feed-forward part adds. `[n_tokens, hidden_size]` in and out
    pub(super) fn feed_forward(&self, of: &Ffn<Linear, Vec<f32>>, x: &[f32]) -> Result<Vec<f32>, StepError> {
        let mut out = Vec::with_capacity(x.len());
        for x in x.chunks(ROWS * self.model.hidden_size) {
            out.extend(match of {
                Ffn::Dense(mlp) => self.mlp(mlp, x)?,
                Ffn::Experts(moe) => self.experts(moe, x)?,
            });
        }
        Ok(out)
    }

    fn mlp(&self, of: &Mlp<Linear>, x: &[f32]) -> Result<Vec<f32>, StepError> {
        let mut up = self.linear(x, &of.up)?;
        if of.is_gated {
            let mut gated = vec![0.0; up.len() / 2];
            activate_gated(self.context, of.activation, &up, of.width, &mut gated)?;
            up = gated;
        } else {
            activate(self.context, of.activation, &mut up);
        }
        self.linear(&up, &of.down)
    }

    /// Each expert computes its tokens together; a token's sum is taken in the order of experts, whatever
    /// tokens it is computed with.
    fn experts(&self, of: &Moe<Linear, Vec<f32>>, x: &[f32]) -> Result<Vec<f32>, StepError> {
        let logits = self.linear(x, &of.router)?;
        let chosen = route(
            self.context,
            &Route {
                logits: &logits,
                n_experts: of.experts.len(),
                n_chosen: of.n_chosen,
                scoring: of.scoring,
                choice_bias: of.choice_bias.as_deref(),
                groups: of.groups,
                renormalise: of.renormalise,
                scale: of.scale,
            },
        )?;
        let mut out = vec![0.0; x.len()];
        for (expert, choices) in of
            .experts
            .iter()
            .zip(&chosen)
            .filter(|(_, choices)| !choices.is_empty())
        {
            self.expert(expert, choices, x, &mut out)?;
        }
        if let Some(shared) = &of.shared {
            let mut all = self.mlp(shared, x)?;
            if let Some(gate) = &of.shared_gate {
                let gates = self.linear(x, gate)?;
                for (row, gate) in all.chunks_exact_mut(self.model.hidden_size).zip(gates) {
                    let weight = 1.0 / (1.0 + (-gate).exp());
                    row.iter_mut().for_each(|v| *v *= weight);
                }
            }
            add(self.context, &mut out, 1.0, &all)?;
        }
        Ok(out)
    }

    /// Adds an expert's weighted output to that of its tokens.
    fn expert(
        &self,
        of: &Mlp<Linear>,
        choices: &[Choice],
        x: &[f32],
        out: &mut [f32],
    ) -> Result<(), StepError> {
        let d = self.model.hidden_size;
        let row = |choice: &Choice| choice.token * d..(choice.token + 1) * d;
        let gathered: Vec<f32> = choices
            .iter()
            .flat_map(|choice| &x[row(choice)])
            .copied()
            .collect();
        let computed = self.mlp(of, &gathered)?;
        for (choice, computed) in choices.iter().zip(computed.chunks_exact(d)) {
            add(self.context, &mut out[row(choice)], choice.weight, computed)?;
        }
        Ok(())
    }
}
