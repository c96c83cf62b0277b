//! The choice of experts on the device. The host never sees it: what follows reads it there.

#[cfg(test)]
mod tests;

use super::{ExpertGroups, GroupScore, Lengths, Scoring};
use crate::cuda::{Arg, DeviceBuffer, Gpu, Launch, Overlap, View};
use crate::error::{Contract, KernelError};

/// Operands of [`route`], as the CPU's.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The router's logits. `[n_tokens, n_experts]`
    pub logits: View<f32>,
    /// Experts.
    pub n_experts: usize,
    /// Experts that each token goes to, 1 to `n_experts`.
    pub n_chosen: usize,
    /// How scores come from logits.
    pub scoring: Scoring,
    /// Added to the scores for the choice, not for the weights. `[n_experts]`
    pub choice_bias: Option<View<f32>>,
    /// Restriction of the choice.
    pub groups: Option<ExpertGroups>,
    /// Whether the weights of the chosen experts are made to add up to 1.
    pub renormalise: bool,
    /// Factor of the weights in the end.
    pub scale: f32,
}

/// Room for the choice of experts for a number of tokens. A choice is a token and an expert; choices are kept by
/// expert, and those of an expert by token.
pub struct Routing {
    /// First choice of each expert, and the end of the last one's. `[n_experts + 1]`
    starts: DeviceBuffer<u32>,
    /// Token of each choice. `[n_tokens * n_chosen]`
    tokens: DeviceBuffer<u32>,
    /// Weight of each choice. `[n_tokens * n_chosen]`
    weights: DeviceBuffer<f32>,
    /// Where the choices of each token are, by ascending expert. `[n_tokens, n_chosen]`
    places: DeviceBuffer<u32>,
    /// Experts of each token, ascending. `[n_tokens, n_chosen]`
    experts: DeviceBuffer<u32>,
    /// Their weights. `[n_tokens, n_chosen]`
    expert_weights: DeviceBuffer<f32>,
}

/// The choice of a call of [`route`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choices {
    /// `[n_experts + 1]`
    pub(crate) starts: View<u32>,
    /// `[n_tokens * n_chosen]`
    pub(crate) tokens: View<u32>,
    /// `[n_tokens * n_chosen]`
    pub(crate) weights: View<f32>,
    /// `[n_tokens, n_chosen]`
    pub(crate) places: View<u32>,
}

impl Routing {
    /// Room for `n_tokens` tokens that each go to `n_chosen` of `n_experts` experts, and for fewer of each.
    ///
    /// # Errors
    /// There is no device memory.
    pub fn new(
        gpu: &Gpu,
        n_tokens: usize,
        (n_experts, n_chosen): (usize, usize),
    ) -> Result<Routing, KernelError> {
        let n = (n_tokens * n_chosen).max(1);
        Ok(Routing {
            starts: gpu.alloc_zeroed(n_experts + 1)?,
            tokens: gpu.alloc_zeroed(n)?,
            weights: gpu.alloc_zeroed(n)?,
            places: gpu.alloc_zeroed(n)?,
            experts: gpu.alloc_zeroed(n)?,
            expert_weights: gpu.alloc_zeroed(n)?,
        })
    }

    /// What is seen of it with `n_tokens` tokens.
    pub(crate) fn choices(&self, op: Contract, n_experts: usize, n: usize) -> Result<Choices, KernelError> {
        let fits = n <= self.tokens.len() && n_experts < self.starts.len();
        op.range(fits, "routing", n, "at most the choices that it has room for")?;
        Ok(Choices {
            starts: self.starts.view().range(0..n_experts + 1),
            tokens: self.tokens.view().range(0..n),
            weights: self.weights.view().range(0..n),
            places: self.places.view().range(0..n),
        })
    }
}

/// Most experts of a model: a warp of `route_choose` has shared memory for them.
const N_EXPERTS_MAX: usize = 2048;
/// Shared memory of a warp of `route_choose` for each expert: scores, ranks, ranks of groups, choices, their weights.
const BYTES_PER_EXPERT: usize = 5 * size_of::<f32>();
/// What every block may have without asking.
const SHARED_BYTES: usize = 48 << 10;

/// Chooses the experts of each token; of equal scores the lower expert wins.
///
/// # Errors
/// The shapes do not agree, there are more than 2048 experts, the routing has no room, or the device fails.
pub fn route(gpu: &Gpu, op: &Route, routing: &Routing) -> Result<(), KernelError> {
    let lengths = Lengths {
        logits: op.logits.len(),
        choice_bias: op.choice_bias.map(|bias| bias.len()),
        n_experts: op.n_experts,
        n_chosen: op.n_chosen,
    };
    lengths.check(op.scoring, op.groups)?;
    let contract = Contract("route");
    contract.range(
        op.n_experts <= N_EXPERTS_MAX,
        "n_experts",
        op.n_experts,
        "at most 2048",
    )?;
    let n_tokens = op.logits.len() / op.n_experts;
    let choices = routing.choices(contract, op.n_experts, n_tokens * op.n_chosen)?;
    if n_tokens == 0 {
        return Ok(());
    }
    choose(gpu, op, routing, n_tokens)?;
    sort(gpu, op, routing, choices)
}

/// A warp for each token.
fn choose(gpu: &Gpu, op: &Route, routing: &Routing, n_tokens: usize) -> Result<(), KernelError> {
    let (scoring, jitter) = match op.scoring {
        Scoring::Softmax => (0, 0.0),
        Scoring::Sigmoid => (1, 0.0),
        Scoring::SparseMixer { jitter } => (2, jitter),
    };
    let (n_groups, n_kept, n_counted) = match op.groups {
        None => (0, 0, 0),
        Some(ExpertGroups {
            n_groups,
            n_kept,
            score,
        }) => (n_groups, n_kept, 1 + i32::from(score == GroupScore::BestTwo)),
    };
    let n_warps = (SHARED_BYTES / (op.n_experts * BYTES_PER_EXPERT)).min(4);
    let launch = Launch {
        kernel: "route_choose",
        grid: [n_tokens.div_ceil(n_warps) as u32, 1, 1],
        block: 32 * n_warps as u32,
        shared_bytes: n_warps * op.n_experts * BYTES_PER_EXPERT,
        overlap: Overlap::Previous,
    };
    let args = [
        op.logits.into(),
        Arg::optional(op.choice_bias),
        routing.experts.view().into(),
        routing.expert_weights.view().into(),
        Arg::size(n_tokens),
        Arg::size(op.n_experts),
        Arg::size(op.n_chosen),
        Arg::I32(scoring),
        Arg::F32(jitter),
        Arg::size(n_groups),
        Arg::size(n_kept),
        Arg::I32(n_counted),
        Arg::I32(i32::from(op.renormalise)),
        Arg::F32(op.scale),
    ];
    Ok(gpu.launch(&launch, &args)?)
}

/// A block for each expert, which finds its tokens among all choices.
fn sort(gpu: &Gpu, op: &Route, routing: &Routing, choices: Choices) -> Result<(), KernelError> {
    let launch = Launch {
        kernel: "route_sort",
        grid: [op.n_experts as u32, 1, 1],
        block: 256,
        shared_bytes: 0,
        overlap: Overlap::Previous,
    };
    let args = [
        routing.experts.view().into(),
        routing.expert_weights.view().into(),
        choices.starts.into(),
        choices.tokens.into(),
        choices.weights.into(),
        choices.places.into(),
        Arg::size(choices.tokens.len()),
        Arg::size(op.n_chosen),
    ];
    Ok(gpu.launch(&launch, &args)?)
}
