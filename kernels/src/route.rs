//! Mixture of experts: which experts each token goes to, and with what weight.

mod cpu;

use crate::cpu::context::CpuContext;
use crate::error::{KernelError, check_len, check_range};

/// How scores come from a router's logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scoring {
    /// Softmax over all experts.
    Softmax,
    /// Each expert on its own.
    Sigmoid,
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

/// An expert for a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The token's row.
    pub token: usize,
    /// Weight of the expert's output.
    pub weight: f32,
}

/// The tokens of each expert, in ascending order, with their weights; of equal scores the lower expert wins.
///
/// # Errors
/// The shapes do not agree.
pub fn route(_context: &CpuContext, op: &Route<'_>) -> Result<Vec<Vec<Choice>>, KernelError> {
    check(op)?;
    Ok(cpu::run(op))
}

fn check(op: &Route<'_>) -> Result<(), KernelError> {
    let n_experts = op.n_experts;
    check_range(n_experts > 0, "route", ("n_experts", n_experts), "at least 1")?;
    let n_tokens = op.logits.len() / n_experts;
    check_len("route", "logits", op.logits.len(), n_tokens * n_experts)?;
    check_range(
        (1..=n_experts).contains(&op.n_chosen),
        "route",
        ("n_chosen", op.n_chosen),
        "1 to n_experts",
    )?;
    if let Some(bias) = op.choice_bias {
        check_len("route", "choice_bias", bias.len(), n_experts)?;
    }
    let Some(ExpertGroups { n_groups, n_kept, .. }) = op.groups else {
        return Ok(());
    };
    let divides = n_groups > 0 && n_experts.is_multiple_of(n_groups);
    check_range(divides, "route", ("n_groups", n_groups), "a divisor of n_experts")?;
    let enough = (1..=n_groups).contains(&n_kept) && n_kept * (n_experts / n_groups) >= op.n_chosen;
    check_range(
        enough,
        "route",
        ("n_kept", n_kept),
        "groups with n_chosen experts",
    )
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
        let context = CpuContext::new(1).unwrap();
        let experts = route(&context, op).unwrap();
        let of_token = |(expert, choices): (usize, &Vec<Choice>)| {
            choices
                .first()
                .map(|choice| (expert, (choice.weight * 1e4).round() / 1e4))
        };
        experts.iter().enumerate().filter_map(of_token).collect()
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
    fn of_equal_scores_the_lower_expert_wins_and_tokens_keep_their_order() {
        let op = Route {
            logits: &[1.0; 12],
            ..PLAIN
        };
        let context = CpuContext::new(1).unwrap();
        let experts = route(&context, &op).unwrap();
        let tokens = |choices: &Vec<Choice>| choices.iter().map(|choice| choice.token).collect::<Vec<_>>();
        assert_eq!(
            experts.iter().map(tokens).collect::<Vec<_>>(),
            [vec![0, 1, 2], vec![0, 1, 2], vec![], vec![]]
        );
    }

    #[test]
    fn refuses_shapes_that_disagree() {
        let context = CpuContext::new(1).unwrap();
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
            assert!(route(&context, &op).is_err());
        }
    }
}
