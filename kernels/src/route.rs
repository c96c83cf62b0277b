//! Mixture of experts: which experts each token goes to, and with what weight.

mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;

use crate::error::{Contract, KernelError};

/// How scores come from a router's logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scoring {
    /// Softmax over all experts.
    Softmax,
    /// Each expert on its own.
    Sigmoid,
    /// Two experts, one after the other: each is the best that is left, and its weight is a softmax over those whose
    /// logits are near its own (Liu et al. 2024, "GRIN"). No bias, no groups.
    SparseMixer {
        /// Half of the relative distance up to which a logit is near.
        jitter: f32,
    },
}

/// How the score of a group of experts comes from its members'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupScore {
    /// The best one (DeepSeek-V2).
    Best,
    /// The sum of the best two (DeepSeek-V3).
    BestTwo,
}

/// Only experts of the best groups can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertGroups {
    /// Groups; divides the number of experts.
    pub n_groups: usize,
    /// Groups whose experts can be chosen, 1 to `n_groups`.
    pub n_kept: usize,
    /// How groups are compared.
    pub score: GroupScore,
}

/// Operands of [`route`].
pub struct Route<'a> {
    /// The router's logits. `[n_tokens, n_experts]`
    pub logits: &'a [f32],
    /// Experts.
    pub n_experts: usize,
    /// Experts that each token goes to, 1 to `n_experts`.
    pub n_chosen: usize,
    /// How scores come from logits.
    pub scoring: Scoring,
    /// Added to the scores for the choice, not for the weights. `[n_experts]`
    pub choice_bias: Option<&'a [f32]>,
    /// Restriction of the choice.
    pub groups: Option<ExpertGroups>,
    /// Whether the weights of the chosen experts are made to add up to 1.
    pub renormalise: bool,
    /// Factor of the weights in the end.
    pub scale: f32,
}

/// The tokens of each expert, in ascending order, with their weights. Kept so that a call of [`route`] allocates nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routing {
    /// First choice of each expert, and the end of the last one's. `[n_experts + 1]`
    starts: Vec<u32>,
    /// `[n_tokens * n_chosen]`
    tokens: Vec<u32>,
    /// `[n_tokens * n_chosen]`
    weights: Vec<f32>,
    scratch: cpu::Scratch,
}

/// The tokens that go to one expert.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpertTokens<'a> {
    /// Their rows, ascending.
    pub rows: &'a [u32],
    /// Weight of the expert's output for each.
    pub weights: &'a [f32],
}

impl Routing {
    /// The tokens of each expert.
    pub fn experts(&self) -> impl Iterator<Item = ExpertTokens<'_>> {
        self.starts.windows(2).map(|ends| {
            let range = ends[0] as usize..ends[1] as usize;
            ExpertTokens {
                rows: &self.tokens[range.clone()],
                weights: &self.weights[range],
            }
        })
    }
}

/// Chooses the experts of each token; of equal scores the lower expert wins.
///
/// # Errors
/// The shapes do not agree; nothing was changed then.
pub fn route(op: &Route<'_>, routing: &mut Routing) -> Result<(), KernelError> {
    check(op)?;
    cpu::run(op, routing);
    Ok(())
}

fn check(op: &Route<'_>) -> Result<(), KernelError> {
    let lengths = Lengths {
        logits: op.logits.len(),
        choice_bias: op.choice_bias.map(<[f32]>::len),
        n_experts: op.n_experts,
        n_chosen: op.n_chosen,
    };
    lengths.check(op.scoring, op.groups)
}

/// The sizes of a call, wherever its operands are.
struct Lengths {
    logits: usize,
    choice_bias: Option<usize>,
    n_experts: usize,
    n_chosen: usize,
}

impl Lengths {
    /// Checks that they agree.
    fn check(&self, scoring: Scoring, groups: Option<ExpertGroups>) -> Result<(), KernelError> {
        let n_experts = self.n_experts;
        Contract("route").range(n_experts > 0, "n_experts", n_experts, "at least 1")?;
        let n_tokens = self.logits / n_experts;
        Contract("route").len("logits", self.logits, n_tokens * n_experts)?;
        Contract("route").range(
            (1..=n_experts).contains(&self.n_chosen),
            "n_chosen",
            self.n_chosen,
            "1 to n_experts",
        )?;
        if let Scoring::SparseMixer { .. } = scoring {
            let is_plain = self.n_chosen == 2 && self.choice_bias.is_none() && groups.is_none();
            Contract("route").range(
                is_plain,
                "n_chosen",
                self.n_chosen,
                "2 without a bias and groups for a sparse mixer",
            )?;
        }
        if let Some(bias) = self.choice_bias {
            Contract("route").len("choice_bias", bias, n_experts)?;
        }
        let Some(ExpertGroups { n_groups, n_kept, .. }) = groups else {
            return Ok(());
        };
        let divides = n_groups > 0 && n_experts.is_multiple_of(n_groups);
        Contract("route").range(divides, "n_groups", n_groups, "a divisor of n_experts")?;
        let enough = (1..=n_groups).contains(&n_kept) && n_kept * (n_experts / n_groups) >= self.n_chosen;
        Contract("route").range(enough, "n_kept", n_kept, "groups with n_chosen experts")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Route<'_> = Route {
        logits: &[],
        n_experts: 4,
        n_chosen: 2,
        scoring: Scoring::Softmax,
        choice_bias: None,
        groups: None,
        renormalise: false,
        scale: 1.0,
    };

    /// Chosen experts of one token with their weights.
    fn chosen(op: &Route<'_>) -> Vec<(usize, f32)> {
        let mut routing = Routing::default();
        route(op, &mut routing).unwrap();
        let of_token = |(expert, tokens): (usize, ExpertTokens<'_>)| {
            let weight = tokens.weights.first()?;
            Some((expert, (weight * 1e4).round() / 1e4))
        };
        routing.experts().enumerate().filter_map(of_token).collect()
    }

    /// Logits whose softmax is 0.1, 0.2, 0.3, 0.4.
    fn logits() -> Vec<f32> {
        [1.0_f32, 2.0, 3.0, 4.0].map(f32::ln).to_vec()
    }

    #[test]
    fn the_best_experts_by_softmax() {
        let logits = logits();
        let op = Route {
            logits: &logits,
            ..PLAIN
        };
        assert_eq!(chosen(&op), [(2, 0.3), (3, 0.4)]);
        let renormalised = Route {
            renormalise: true,
            scale: 7.0,
            ..op
        };
        assert_eq!(chosen(&renormalised), [(2, 3.0), (3, 4.0)]);
    }

    #[test]
    fn a_bias_decides_the_choice_and_not_the_weight() {
        let logits = logits();
        let op = Route {
            logits: &logits,
            choice_bias: Some(&[0.35, 0.0, 0.0, 0.0]),
            ..PLAIN
        };
        assert_eq!(chosen(&op), [(0, 0.1), (3, 0.4)]);
    }

    #[test]
    fn groups_restrict_the_choice() {
        let logits = [0.0, 3.0, 2.0, 2.0];
        let groups = |score| {
            Some(ExpertGroups {
                n_groups: 2,
                n_kept: 1,
                score,
            })
        };
        let sigmoid = Route {
            logits: &logits,
            scoring: Scoring::Sigmoid,
            ..PLAIN
        };
        let by_best = Route {
            groups: groups(GroupScore::Best),
            ..sigmoid
        };
        assert_eq!(chosen(&by_best), [(0, 0.5), (1, 0.9526)]);
        let by_two = Route {
            groups: groups(GroupScore::BestTwo),
            ..sigmoid
        };
        assert_eq!(chosen(&by_two), [(2, 0.8808), (3, 0.8808)]);
    }

    #[test]
    fn a_sparse_mixer_weighs_each_choice_among_its_neighbours() {
        // Near 4.0 is 3.6; near 3.6 is 3.1; the distance of -9.0 is taken relative to its own size.
        let chosen_of = |logits: [f32; 4]| {
            chosen(&Route {
                logits: &logits,
                scoring: Scoring::SparseMixer { jitter: 0.1 },
                ..PLAIN
            })
        };
        let share = |distances: &[f32]| 1.0 / (1.0 + distances.iter().map(|d| (-d).exp()).sum::<f32>());
        let round = |weight: f32| (weight * 1e4).round() / 1e4;
        assert_eq!(
            chosen_of([3.1, 4.0, -9.0, 3.6]),
            [(1, round(share(&[0.4]))), (3, round(share(&[0.5])))]
        );
        assert_eq!(chosen_of([1.0, 4.0, -9.0, 2.0]), [(1, 1.0), (3, 1.0)]);
    }

    #[test]
    fn of_equal_scores_the_lower_expert_wins_and_tokens_keep_their_order() {
        let op = Route {
            logits: &[1.0; 12],
            ..PLAIN
        };
        let mut routing = Routing::default();
        // What an earlier call left does not show.
        for _ in 0..2 {
            route(&op, &mut routing).unwrap();
            let tokens: Vec<&[u32]> = routing.experts().map(|tokens| tokens.rows).collect();
            assert_eq!(tokens, [&[0, 1, 2][..], &[0, 1, 2], &[], &[]]);
            assert!(
                routing
                    .experts()
                    .all(|tokens| tokens.weights.len() == tokens.rows.len())
            );
        }
    }

    #[test]
    fn refuses_shapes_that_disagree() {
        let groups = |n_groups, n_kept| {
            Some(ExpertGroups {
                n_groups,
                n_kept,
                score: GroupScore::Best,
            })
        };
        for op in [
            Route {
                n_experts: 0,
                ..PLAIN
            },
            Route {
                logits: &[1.0; 5],
                ..PLAIN
            },
            Route {
                n_chosen: 1,
                scoring: Scoring::SparseMixer { jitter: 0.1 },
                ..PLAIN
            },
            Route { n_chosen: 5, ..PLAIN },
            Route { n_chosen: 0, ..PLAIN },
            Route {
                choice_bias: Some(&[1.0]),
                ..PLAIN
            },
            Route {
                groups: groups(3, 1),
                ..PLAIN
            },
            Route {
                groups: groups(4, 1),
                ..PLAIN
            },
            Route {
                groups: groups(2, 3),
                ..PLAIN
            },
        ] {
            assert!(route(&op, &mut Routing::default()).is_err());
        }
    }
}
