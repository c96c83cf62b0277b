//! The choice of experts on the CPU, by the calling thread.

use super::{GroupScore, Route, Routing, Scoring};

/// Working memory of a call.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Scratch {
    /// `[n_experts]`
    scores: Vec<f32>,
    /// What experts are compared by; minus infinity where the choice is restricted. `[n_experts]`
    ranks: Vec<f32>,
    /// `[n_groups]`
    group_ranks: Vec<f32>,
    /// Indices in the order of what they are compared by.
    order: Vec<usize>,
    /// Expert and weight of each choice, token after token. `[n_tokens * n_chosen]`
    choices: Vec<(u32, f32)>,
}

pub(super) fn run(op: &Route<'_>, routing: &mut Routing) {
    let Scratch { choices, .. } = &mut routing.scratch;
    choices.clear();
    for logits in op.logits.chunks_exact(op.n_experts) {
        choose(op, logits, &mut routing.scratch);
    }
    by_expert(op, routing);
}

/// Adds one token's choices, the best first.
fn choose(op: &Route<'_>, logits: &[f32], scratch: &mut Scratch) {
    if let Scoring::SparseMixer { jitter } = op.scoring {
        return mix(op, (logits, jitter), scratch);
    }
    score(op.scoring, logits, &mut scratch.scores);
    rank(op, scratch);
    let Scratch {
        scores,
        ranks,
        order,
        choices,
        ..
    } = scratch;
    best(ranks, op.n_chosen, order);
    let total: f32 = order.iter().map(|&expert| scores[expert]).sum();
    let scale = if op.renormalise {
        op.scale / total
    } else {
        op.scale
    };
    choices.extend(
        order
            .iter()
            .map(|&expert| (expert as u32, scores[expert] * scale)),
    );
}

/// Adds the two choices of a sparse mixer, each weighed among the logits near it. The first one takes no part in the
/// weight of the second.
fn mix(op: &Route<'_>, (logits, jitter): (&[f32], f32), scratch: &mut Scratch) {
    let Scratch {
        scores,
        order,
        choices,
        ..
    } = scratch;
    best(logits, op.n_chosen, order);
    scores.clear();
    scores.resize(op.n_chosen, 0.0);
    for (rank, weight) in scores.iter_mut().enumerate() {
        let top = logits[order[rank]];
        // Zero is near zero, although their relative distance is no number.
        let is_near = |logit: f32| {
            let distance = (top - logit) / logit.abs().max(top);
            distance.is_nan() || distance <= 2.0 * jitter
        };
        let is_left = |expert: usize| !order[..rank].contains(&expert);
        let near = (0..logits.len()).filter(|&expert| is_left(expert) && is_near(logits[expert]));
        *weight = 1.0 / near.map(|expert| (logits[expert] - top).exp()).sum::<f32>();
    }
    let total: f32 = scores.iter().sum();
    let scale = if op.renormalise {
        op.scale / total
    } else {
        op.scale
    };
    choices.extend(
        order
            .iter()
            .zip(scores)
            .map(|(&expert, weight)| (expert as u32, *weight * scale)),
    );
}

/// Sorts the choices by expert, and keeps the order of tokens.
fn by_expert(op: &Route<'_>, routing: &mut Routing) {
    let Routing {
        starts,
        tokens,
        weights,
        scratch,
    } = routing;
    starts.clear();
    starts.resize(op.n_experts + 1, 0);
    for &(expert, _) in &scratch.choices {
        starts[expert as usize + 1] += 1;
    }
    for expert in 0..op.n_experts {
        starts[expert + 1] += starts[expert];
    }
    tokens.resize(scratch.choices.len(), 0);
    weights.resize(scratch.choices.len(), 0.0);
    // Each expert's start moves to its end, which is the start of the next one, and is moved back below.
    for (idx, &(expert, weight)) in scratch.choices.iter().enumerate() {
        let at = &mut starts[expert as usize];
        tokens[*at as usize] = (idx / op.n_chosen) as u32;
        weights[*at as usize] = weight;
        *at += 1;
    }
    starts.copy_within(..op.n_experts, 1);
    starts[0] = 0;
}

fn score(scoring: Scoring, logits: &[f32], scores: &mut Vec<f32>) {
    scores.clear();
    match scoring {
        // Its weights depend on the choice, which `mix` makes.
        Scoring::SparseMixer { .. } => {}
        Scoring::Sigmoid => scores.extend(logits.iter().map(|z| 1.0 / (1.0 + (-z).exp()))),
        Scoring::Softmax => {
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            scores.extend(logits.iter().map(|z| (z - max).exp()));
            let total: f32 = scores.iter().sum();
            scores.iter_mut().for_each(|score| *score /= total);
        }
    }
}

/// Ranks the experts by their scores.
fn rank(op: &Route<'_>, scratch: &mut Scratch) {
    let Scratch {
        scores,
        ranks,
        group_ranks,
        order,
        ..
    } = scratch;
    let bias = |expert: usize| op.choice_bias.map_or(0.0, |bias| bias[expert]);
    ranks.clear();
    ranks.extend(
        scores
            .iter()
            .enumerate()
            .map(|(expert, score)| score + bias(expert)),
    );
    let Some(groups) = op.groups else {
        return;
    };
    let group_size = op.n_experts / groups.n_groups;
    let n_counted = match groups.score {
        GroupScore::Best => 1,
        GroupScore::BestTwo => 2,
    };
    group_ranks.clear();
    for group in ranks.chunks_exact(group_size) {
        best(group, n_counted, order);
        group_ranks.push(order.iter().map(|&i| group[i]).sum());
    }
    best(group_ranks, groups.n_kept, order);
    for (idx, group) in ranks.chunks_exact_mut(group_size).enumerate() {
        if !order.contains(&idx) {
            group.fill(f32::NEG_INFINITY);
        }
    }
}

/// Indices of the `n` largest, at most all of them, the largest first.
fn best(values: &[f32], n: usize, order: &mut Vec<usize>) {
    order.clear();
    order.extend(0..values.len());
    let n = n.min(values.len());
    let descending = |&a: &usize, &b: &usize| values[b].total_cmp(&values[a]).then(a.cmp(&b));
    if n < values.len() {
        order.select_nth_unstable_by(n, descending);
        order.truncate(n);
    }
    order.sort_unstable_by(descending);
}
