//! The choice of experts on the CPU, by the calling thread.

use super::{Choice, GroupScore, Route, Scoring};

pub(super) fn run(op: &Route<'_>) -> Vec<Vec<Choice>> {
    let n_tokens = op.logits.len() / op.n_experts;
    let mut chosen = vec![Vec::new(); op.n_experts];
    for token in 0..n_tokens {
        let scores = scores(&op.logits[token * op.n_experts..][..op.n_experts], op.scoring);
        let ranks = ranks(op, &scores);
        let best = best(&ranks, op.n_chosen);
        let total: f32 = best.iter().map(|&expert| scores[expert]).sum();
        let scale = if op.renormalise {
            op.scale / total
        } else {
            op.scale
        };
        for expert in best {
            let weight = scores[expert] * scale;
            chosen[expert].push(Choice { token, weight });
        }
    }
    chosen
}

fn scores(logits: &[f32], scoring: Scoring) -> Vec<f32> {
    match scoring {
        Scoring::Sigmoid => logits.iter().map(|z| 1.0 / (1.0 + (-z).exp())).collect(),
        Scoring::Softmax => {
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let weights: Vec<f32> = logits.iter().map(|z| (z - max).exp()).collect();
            let total: f32 = weights.iter().sum();
            weights.into_iter().map(|weight| weight / total).collect()
        }
    }
}

/// What experts are compared by; minus infinity where the choice is restricted.
fn ranks(op: &Route<'_>, scores: &[f32]) -> Vec<f32> {
    let bias = |expert: usize| op.choice_bias.map_or(0.0, |bias| bias[expert]);
    let mut ranks: Vec<f32> = scores
        .iter()
        .enumerate()
        .map(|(expert, score)| score + bias(expert))
        .collect();
    if let Some(groups) = op.groups {
        let group_size = op.n_experts / groups.n_groups;
        let group_ranks: Vec<f32> = ranks
            .chunks_exact(group_size)
            .map(|group| match groups.score {
                GroupScore::Best => best(group, 1).into_iter().map(|i| group[i]).sum(),
                GroupScore::BestTwo => best(group, 2).into_iter().map(|i| group[i]).sum(),
            })
            .collect();
        let kept = best(&group_ranks, groups.n_kept);
        for (idx, group) in ranks.chunks_exact_mut(group_size).enumerate() {
            if !kept.contains(&idx) {
                group.fill(f32::NEG_INFINITY);
            }
        }
    }
    ranks
}

/// Indices of the `n` largest, at most all of them.
fn best(values: &[f32], n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    let n = n.min(values.len());
    let descending = |&a: &usize, &b: &usize| values[b].total_cmp(&values[a]).then(a.cmp(&b));
    if n < values.len() {
        order.select_nth_unstable_by(n, descending);
        order.truncate(n);
    }
    order.sort_unstable_by(descending);
    order
}
