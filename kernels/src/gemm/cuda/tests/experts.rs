//! The products of chosen experts.

use super::*;
use crate::gpu;
use crate::route::{Routing as Choice, Scoring};

#[derive(Clone, Copy, Debug)]
struct Case {
    dtype: DType,
    n_tokens: usize,
    n_experts: usize,
    n_chosen: usize,
    hidden: usize,
    width: usize,
    then: ProductThen,
    weighs_input: bool,
    has_bias: bool,
}

/// One expert's numbers.
struct Expert {
    up: Vec<f32>,
    down: Vec<f32>,
    up_bias: Vec<f32>,
    down_bias: Vec<f32>,
}

/// The numbers of a matrix and of its bias, of an expert.
type NumbersOf<'a> = &'a dyn Fn(&Expert) -> (Vec<f32>, Vec<f32>);

impl Case {
    fn n_up(&self) -> usize {
        match self.then {
            ProductThen::Gated(_) => 2 * self.width,
            _ => self.width,
        }
    }

    fn expert(&self, idx: usize) -> Expert {
        let of = |seed: u64, n: usize| numbers(100 * (idx as u64 + 1) + seed, n);
        Expert {
            up: of(1, self.n_up() * self.hidden),
            down: of(2, self.hidden * self.width),
            up_bias: of(3, self.n_up()),
            down_bias: of(4, self.hidden),
        }
    }

    fn logits(&self) -> Vec<f32> {
        numbers(9, self.n_tokens * self.n_experts)
    }

    fn x(&self) -> Vec<f32> {
        let x = numbers(1, self.n_tokens * self.hidden);
        x.into_iter().map(|x| rounded(self.dtype, x)).collect()
    }

    /// Sums in f64, with the choice of the CPU.
    fn expected(&self) -> Vec<Expected> {
        let mut choice = Choice::default();
        let logits = self.logits();
        let op = crate::route::Route {
            logits: &logits,
            n_experts: self.n_experts,
            n_chosen: self.n_chosen,
            scoring: Scoring::Softmax,
            choice_bias: None,
            groups: None,
            renormalise: true,
            scale: 1.5,
        };
        crate::route(&op, &mut choice).unwrap();
        let zero = Expected {
            value: 0.0,
            tolerance: 1e-6,
        };
        let mut sums = vec![zero; self.n_tokens * self.hidden];
        let x = self.x();
        for (idx, tokens) in choice.experts().enumerate() {
            for (&token, &weight) in tokens.rows.iter().zip(tokens.weights) {
                let row = &x[token as usize * self.hidden..][..self.hidden];
                for (j, y) in self.output(idx, row, weight).into_iter().enumerate() {
                    let sum = &mut sums[token as usize * self.hidden + j];
                    sum.value += y.value;
                    sum.tolerance += y.tolerance;
                }
            }
        }
        sums
    }

    /// What expert `idx` adds to the sum of a token.
    fn output(&self, idx: usize, row: &[f32], weight: f32) -> Vec<Expected> {
        let (expert, weight) = (self.expert(idx), f64::from(weight));
        let (_, up) = weight_of(self.dtype, self.hidden, &expert.up);
        let (_, down) = weight_of(self.dtype, self.width, &expert.down);
        let (of_input, of_output) = if self.weighs_input {
            (weight, 1.0)
        } else {
            (1.0, weight)
        };
        let loss = 3.0 * rounding(self.dtype) + 1e-4 * rounding(DType::F32) + 1e-6;
        let bias = |of: &[f32], j: usize| if self.has_bias { f64::from(of[j]) } else { 0.0 };
        let product = |j: usize| {
            let terms = row.iter().zip(&up[j * self.hidden..]);
            Expected::sum(terms.map(|(x, w)| f64::from(*x) * of_input * w), loss)
                .plus(bias(&expert.up_bias, j))
        };
        let one = Expected {
            value: 1.0,
            tolerance: 0.0,
        };
        let between: Vec<Expected> = (0..self.width)
            .map(|j| match self.then {
                ProductThen::Gated(activation) => product(j).activated(activation, product(self.width + j)),
                ProductThen::Act(activation) => product(j).activated(activation, one),
                _ => product(j),
            })
            .collect();
        (0..self.hidden)
            .map(|j| {
                let terms = || between.iter().zip(&down[j * self.width..]);
                let mut sum = Expected::sum(terms().map(|(y, w)| y.value * w), loss);
                sum.tolerance += terms().map(|(y, w)| y.tolerance * w.abs()).sum::<f64>();
                sum.plus(bias(&expert.down_bias, j)).times(of_output)
            })
            .collect()
    }

    fn check(&self) {
        let expected = self.expected();
        let mut first: Option<Vec<f32>> = None;
        each_order(|gpu| {
            let out = self.run(gpu);
            for (at, (&got, want)) in out.iter().zip(&expected).enumerate() {
                want.check(got, (self, at / self.hidden, at % self.hidden));
            }
            let first = first.get_or_insert_with(|| out.clone());
            assert_eq!(*first, out, "{self:?}: the order changes bits");
        });
    }

    fn run(&self, gpu: &Gpu) -> Vec<f32> {
        let experts: Vec<Expert> = (0..self.n_experts).map(|idx| self.expert(idx)).collect();
        let list = |n_cols: usize, of: NumbersOf<'_>| {
            let uploaded: Vec<_> = experts
                .iter()
                .map(|expert| {
                    let (numbers, bias) = of(expert);
                    let (weight, _) = weight_of(self.dtype, n_cols, &numbers);
                    (Matrix::upload(gpu, &weight).unwrap(), upload(gpu, &bias))
                })
                .collect();
            let matrices: Vec<Matrix> = uploaded.iter().map(|((_, matrix), _)| *matrix).collect();
            let biases: Vec<_> = uploaded.iter().map(|(_, bias)| bias.view()).collect();
            let biases = if self.has_bias { &biases[..] } else { &[] };
            (MatrixList::new(gpu, &matrices, biases).unwrap(), uploaded)
        };
        let (up, _up) = list(self.hidden, &|expert| (expert.up.clone(), expert.up_bias.clone()));
        let (down, _down) = list(self.width, &|expert| {
            (expert.down.clone(), expert.down_bias.clone())
        });
        let sizes = ScratchSizes::default().experts(self.n_tokens, self.n_chosen, [&up, &down]);
        let scratch = ProductScratch::new(gpu, &sizes).unwrap();
        let routing = gpu::Routing::new(gpu, self.n_tokens, (self.n_experts, self.n_chosen)).unwrap();
        let (logits, x) = (upload(gpu, &self.logits()), upload(gpu, &self.x()));
        let out = gpu.alloc::<f32>(self.n_tokens * self.hidden).unwrap();
        let route = gpu::Route {
            logits: logits.view(),
            n_experts: self.n_experts,
            n_chosen: self.n_chosen,
            scoring: Scoring::Softmax,
            choice_bias: None,
            groups: None,
            renormalise: true,
            scale: 1.5,
        };
        gpu::route(gpu, &route, &routing).unwrap();
        let op = Experts {
            x: x.view(),
            routing: &routing,
            n_chosen: self.n_chosen,
            up: &up,
            then: self.then,
            down: &down,
            weighs_input: self.weighs_input,
            out: out.view(),
            scratch: &scratch,
        };
        super::experts(gpu, &op).unwrap();
        download(gpu, &out)
    }
}

const PLAIN: Case = Case {
    dtype: DType::F32,
    n_tokens: 3,
    n_experts: 5,
    n_chosen: 2,
    hidden: 35,
    width: 21,
    then: ProductThen::Gated(Activation::Silu),
    weighs_input: false,
    has_bias: false,
};

#[test]
fn experts_of_all_types() {
    for dtype in DTYPES {
        Case { dtype, ..PLAIN }.check();
        Case {
            dtype,
            n_tokens: 40,
            has_bias: true,
            then: ProductThen::Gated(Activation::ClampedSwiglu { limit: 3.0 }),
            ..PLAIN
        }
        .check();
    }
}

#[test]
fn weighed_inputs_and_plain_activations() {
    Case {
        weighs_input: true,
        n_chosen: 1,
        ..PLAIN
    }
    .check();
    Case {
        dtype: DType::BF16,
        then: ProductThen::Act(Activation::SquaredRelu),
        n_tokens: 1,
        n_experts: 40,
        n_chosen: 3,
        ..PLAIN
    }
    .check();
}

/// Each expert has more tokens than a tile.
#[test]
fn many_tokens_of_few_experts() {
    Case {
        dtype: DType::BF16,
        n_tokens: 150,
        n_experts: 2,
        n_chosen: 2,
        hidden: 24,
        ..PLAIN
    }
    .check();
}
