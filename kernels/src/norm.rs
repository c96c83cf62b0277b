//! Normalisation of rows or heads: root mean square (Zhang and Sennrich 2019) and layer norm (Ba et al. 2016).

mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;

use crate::cpu::context::CpuContext;
use crate::error::{Contract, KernelError};
use crate::heads::Heads;

/// What is taken out of a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Its root mean square: `x / sqrt(mean(x²) + eps)`.
    Rms,
    /// Its mean and its standard deviation: `(x - mean(x)) / sqrt(variance(x) + eps)`.
    Layer,
}

/// Operands of [`norm`].
pub struct Norm<'a> {
    /// Activations that are normalised; `None`: those in `out`. Only whole rows can come from elsewhere. As long as `out`
    pub x: Option<&'a [f32]>,
    /// Result. `[n_rows, heads.row_stride]`
    pub out: &'a mut [f32],
    /// The vectors to normalise, each on its own.
    pub heads: Heads,
    /// What is taken out.
    pub kind: NormKind,
    /// Factor of each element: of a head, the same for all heads, or of all heads.
    /// `[head_dim]` or `[n_heads * head_dim]`
    pub weight: Option<&'a [f32]>,
    /// Added to each element in the end; as long as a weight may be.
    pub bias: Option<&'a [f32]>,
    /// Added to the mean square, so that zeros have a norm.
    pub eps: f32,
}

/// Normalises every head of every row; there may be no rows.
///
/// The relative error is below `(head_dim/LANES + 8)` ulp of the largest element.
///
/// # Errors
/// The shapes do not agree.
pub fn norm(context: &CpuContext, op: Norm<'_>) -> Result<(), KernelError> {
    let lengths = Lengths {
        x: op.x.map(<[f32]>::len),
        out: op.out.len(),
        weight: op.weight.map(<[f32]>::len),
        bias: op.bias.map(<[f32]>::len),
    };
    let n_rows = lengths.check(op.heads)?;
    cpu::run(context, op, n_rows);
    Ok(())
}

/// Elements of the operands.
struct Lengths {
    x: Option<usize>,
    out: usize,
    weight: Option<usize>,
    bias: Option<usize>,
}

impl Lengths {
    /// Checks them; returns the number of rows.
    fn check(&self, heads: Heads) -> Result<usize, KernelError> {
        let n_rows = heads.check("norm", self.out)?;
        if let Some(x) = self.x {
            Contract("norm").len("x", x, self.out)?;
            let width = heads.width();
            Contract("norm").range(
                width == heads.row_stride,
                "width",
                width,
                "whole rows where x is not the output",
            )?;
        }
        for (operand, len) in [("weight", self.weight), ("bias", self.bias)] {
            let len = len.unwrap_or(heads.head_dim);
            Contract("norm").range(
                len == heads.head_dim || len == heads.width(),
                operand,
                len,
                "as long as one head or all heads",
            )?;
        }
        Ok(n_rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::Isa;

    /// One vector's norm in f64.
    fn reference(x: &[f32], op: (NormKind, f64), weight: &[f32], bias: &[f32]) -> Vec<f64> {
        let (kind, eps) = op;
        let n = x.len() as f64;
        let mean = match kind {
            NormKind::Rms => 0.0,
            NormKind::Layer => x.iter().map(|&v| f64::from(v)).sum::<f64>() / n,
        };
        let variance = x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
        let scaled = x.iter().map(|&v| (f64::from(v) - mean) / (variance + eps).sqrt());
        scaled
            .zip(weight.iter().zip(bias))
            .map(|(v, (&w, &b))| v * f64::from(w) + f64::from(b))
            .collect()
    }

    /// A norm of heads in place.
    struct Case {
        heads: Heads,
        kind: NormKind,
        x: Vec<f32>,
        weight: Vec<f32>,
        bias: Vec<f32>,
    }

    impl Case {
        fn new((m, n_heads, d, gap): (usize, usize, usize, usize), kind: NormKind, per_head: bool) -> Case {
            let heads = Heads {
                row_stride: n_heads * d + 2 * gap + 1,
                first: gap,
                n_heads,
                head_dim: d,
            };
            // Rows of whole pieces, or rows that start anywhere.
            let heads = Heads {
                row_stride: heads
                    .row_stride
                    .next_multiple_of(if gap.is_multiple_of(4) { 4 } else { 1 }),
                ..heads
            };
            let n_weights = if per_head { n_heads * d } else { d };
            Case {
                heads,
                kind,
                x: (0..m * heads.row_stride)
                    .map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.1)
                    .collect(),
                weight: (0..n_weights).map(|i| 1.0 + (i % 7) as f32 * 0.25).collect(),
                bias: (0..n_weights).map(|i| (i % 5) as f32 * 0.5).collect(),
            }
        }

        /// Cases of every way to norm: within a warp, a block or neither, aligned or not.
        fn all() -> impl Iterator<Item = Case> {
            let shapes = [
                (0, 1, 4, 0),
                (1, 3, 1, 2),
                (2, 2, 17, 2),
                (3, 4, 64, 4),
                (2, 5, 64, 2),
                (3, 1, 516, 0),
                (2, 2, 1028, 8),
                (2, 1, 4100, 4),
                (3, 1, 4099, 2),
                (1, 1, 16388, 0),
            ];
            shapes.into_iter().flat_map(|shape| {
                [NormKind::Rms, NormKind::Layer]
                    .into_iter()
                    .flat_map(move |kind| [false, true].map(|per_head| Case::new(shape, kind, per_head)))
            })
        }

        /// Compares what became of `x`.
        fn check(&self, got: &[f32], side: &str) {
            let Heads {
                row_stride,
                first,
                n_heads,
                head_dim: d,
            } = self.heads;
            for (row, (got, old)) in got
                .chunks_exact(row_stride)
                .zip(self.x.chunks_exact(row_stride))
                .enumerate()
            {
                let end = first + n_heads * d;
                assert_eq!(
                    (&got[..first], &got[end..]),
                    (&old[..first], &old[end..]),
                    "outside the heads"
                );
                for head in 0..n_heads {
                    let at = if self.weight.len() > d { head * d } else { 0 };
                    let vectors = (&self.weight[at..at + d], &self.bias[at..at + d]);
                    let from = first + head * d;
                    let want = reference(&old[from..from + d], (self.kind, 1e-5), vectors.0, vectors.1);
                    let tolerance = f64::from(f32::EPSILON) * (d as f64 / 8.0 + 8.0) * 4.0;
                    for (got, want) in got[from..from + d].iter().zip(want) {
                        let error = (f64::from(*got) - want).abs();
                        assert!(
                            error <= tolerance,
                            "{side} {:?} row {row}: {got} {want}",
                            self.heads
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn agrees_with_wide_arithmetic_on_every_path() {
        for isa in Isa::available() {
            let context = CpuContext::with_isa(2, isa).unwrap();
            for case in Case::all() {
                let mut x = case.x.clone();
                let op = Norm {
                    x: None,
                    out: &mut x,
                    heads: case.heads,
                    kind: case.kind,
                    weight: Some(&case.weight),
                    bias: Some(&case.bias),
                    eps: 1e-5,
                };
                norm(&context, op).unwrap();
                case.check(&x, &format!("{isa:?}"));
            }
        }
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn the_device_agrees_with_wide_arithmetic() {
        use crate::cuda::testing::{downloaded, each_order, uploaded};
        each_order(|gpu| {
            for case in Case::all() {
                let x = uploaded(gpu, &case.x);
                let (weight, bias) = (uploaded(gpu, &case.weight), uploaded(gpu, &case.bias));
                let op = cuda::Norm {
                    x: None,
                    out: x.view(),
                    heads: case.heads,
                    kind: case.kind,
                    weight: Some(weight.view()),
                    bias: Some(bias.view()),
                    eps: 1e-5,
                };
                cuda::norm(gpu, op).unwrap();
                case.check(&downloaded(gpu, x.view()), gpu.name());
            }
        });
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn the_devices_output_may_be_elsewhere_and_without_parameters() {
        use crate::cuda::testing::{downloaded, each_order, uploaded};
        each_order(|gpu| {
            let x = uploaded(gpu, &[1.0_f32, 1.0, 3.0, 3.0, 0.0, 0.0, 0.0, 0.0]);
            let out = gpu.alloc(8).unwrap();
            let op = cuda::Norm {
                x: Some(x.view()),
                out: out.view(),
                heads: Heads::whole(4),
                kind: NormKind::Layer,
                weight: None,
                bias: None,
                eps: 1e-12,
            };
            cuda::norm(gpu, op).unwrap();
            assert_eq!(
                downloaded(gpu, out.view()),
                [-1.0, -1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
            );
            let short = cuda::Norm {
                x: Some(x.view().range(0..4)),
                ..op
            };
            assert!(cuda::norm(gpu, short).is_err());
        });
    }

    #[test]
    fn zeros_stay_zeros_and_a_norm_may_have_no_parameters() {
        let context = CpuContext::new(1).unwrap();
        for (kind, mut x, want) in [
            (NormKind::Rms, [0.0; 4], [0.0; 4]),
            (NormKind::Layer, [2.0; 4], [0.0; 4]),
            (NormKind::Layer, [1.0, 1.0, 3.0, 3.0], [-1.0, -1.0, 1.0, 1.0]),
        ] {
            let op = Norm {
                x: None,
                out: &mut x,
                heads: Heads::whole(4),
                kind,
                weight: None,
                bias: None,
                eps: 1e-12,
            };
            norm(&context, op).unwrap();
            assert_eq!(x, want);
        }
    }

    #[test]
    fn the_output_may_be_elsewhere() {
        let context = CpuContext::new(2).unwrap();
        let x: Vec<f32> = (0..5 * 12).map(|i| (i * 37 % 101) as f32 - 50.0).collect();
        let run = |x: Option<&[f32]>, out: &mut [f32], heads| {
            let op = Norm {
                x,
                out,
                heads,
                kind: NormKind::Layer,
                weight: None,
                bias: None,
                eps: 1e-5,
            };
            norm(&context, op)
        };
        let mut in_place = x.clone();
        run(None, &mut in_place, Heads::whole(12)).unwrap();
        let mut out = vec![f32::NAN; x.len()];
        run(Some(&x), &mut out, Heads::whole(12)).unwrap();
        assert_eq!(out, in_place);
        let part = Heads {
            row_stride: 12,
            ..Heads::whole(4)
        };
        assert!(run(Some(&x), &mut out, part).is_err());
        assert!(run(Some(&x[..12]), &mut out, Heads::whole(12)).is_err());
    }

    #[test]
    fn refuses_shapes_that_disagree() {
        let context = CpuContext::new(1).unwrap();
        let refused = |x: &mut [f32], heads, weight: &[f32]| {
            let op = Norm {
                x: None,
                out: x,
                heads,
                kind: NormKind::Rms,
                weight: Some(weight),
                bias: None,
                eps: 1e-6,
            };
            assert!(norm(&context, op).is_err());
        };
        refused(&mut [0.0; 4], Heads::whole(0), &[]);
        refused(&mut [0.0; 4], Heads::whole(4), &[1.0; 3]);
        refused(&mut [0.0; 6], Heads::whole(4), &[1.0; 4]);
        let beyond = Heads {
            first: 1,
            ..Heads::whole(4)
        };
        refused(&mut [0.0; 4], beyond, &[1.0; 4]);
    }
}
