//! One model described as data: what a family makes of config.json, and all that loading and running need.
//!
//! [`Network`] holds `M` for every matrix and `V` for every vector. In a description they name tensors ([`Matrix`],
//! [`Vector`]); a program is made of the same description with numbers in their place. [`Convert`] is the way from one
//! to the other, and [`WeightList`] the one that gives numbers. An option is here once a family uses it and a program
//! expresses it.

use std::collections::HashMap;

use kernels::{Activation, ExpertGroups, NormKind, Scoring};

use super::pooling::PoolingKind;
use super::rope::RopeSpec;

/// A model as a family describes it.
pub(super) type ModelSpec = Network<Matrix, Vector>;
/// A layer of it.
pub(super) type LayerSpec = Layer<Matrix, Vector>;

/// A tensor that the checkpoint must hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TensorSpec {
    /// Its name.
    pub(super) name: String,
    /// Its shape.
    pub(super) shape: Vec<usize>,
}

/// A linear layer `[n_rows, n_cols]`: one weight here, one or several in the checkpoint, their rows one after
/// another.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Matrix {
    /// Columns of every part.
    pub(super) n_cols: usize,
    /// The parts.
    pub(super) parts: Vec<Part>,
}

/// Some rows of a matrix that a tensor of the checkpoint holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    /// The tensor.
    pub(super) tensor: TensorSpec,
    /// Its element that the matrix starts at, where a tensor holds several matrices.
    pub(super) first: usize,
    /// Rows of the matrix.
    pub(super) n_rows: usize,
    /// How it is stored.
    pub(super) layout: Layout,
    /// The rows that are taken, in this order.
    pub(super) taken: Vec<Rows>,
    /// What is added to each row's product.
    pub(super) bias: Option<PartBias>,
}

/// The bias of a [`Part`]: `n_rows` elements of a tensor, of which those are taken that the matrix's rows are.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PartBias {
    /// The tensor.
    pub(super) tensor: TensorSpec,
    /// Its element that the bias starts at.
    pub(super) first: usize,
}

/// How a matrix is stored.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Layout {
    /// Row after row.
    Rows,
    /// Column after column, as `[in, out]` layers are.
    Columns,
    /// Row after row in blocks of 32 four-bit numbers that share a scale (OCP MX v1.0, MXFP4).
    Mxfp4 {
        /// The scales. One byte per block.
        scales: TensorSpec,
    },
    /// Not at all: a row is the product of a layer with a row of the tensor, which is computed at load.
    Projected(Box<ProjectedRows>),
}

/// `layer · norm(row) + bias`, for each row of a [`Part`]'s tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ProjectedRows {
    /// Norm of the rows.
    pub(super) norm: Option<Norm<Vector>>,
    /// The layer; it has as many rows as the part's matrix has columns.
    pub(super) layer: Part,
}

/// Every `step`-th row from `first` on, `n` in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rows {
    /// The first one.
    pub(super) first: usize,
    /// How many.
    pub(super) n: usize,
    /// Distance from one to the next.
    pub(super) step: usize,
}

/// A vector: the elements of some tensors, one after another.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Vector {
    /// The tensors.
    pub(super) tensors: Vec<TensorSpec>,
    /// Added to every element at load: Gemma stores what a norm's weight exceeds 1 by.
    pub(super) offset: f32,
}

/// A model.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Network<M, V> {
    /// Rows of the embedding and of the head.
    pub(super) vocab_size: usize,
    /// Width of the residual stream.
    pub(super) hidden_size: usize,
    /// Positions that the model distinguishes.
    pub(super) context_len: usize,
    /// Whether a token sees only itself and those before it.
    pub(super) is_causal: bool,
    /// Token ids become activations.
    pub(super) embedding: Embedding<M, V>,
    /// Rotary positions, which layers refer to by index.
    pub(super) ropes: Vec<RopeSpec>,
    /// The layers.
    pub(super) layers: Vec<Layer<M, V>>,
    /// Norm after the last layer.
    pub(super) final_norm: Option<Norm<V>>,
    /// After that, back to the width of the embedding (OPT-350m).
    pub(super) project_out: Option<M>,
    /// What becomes of the activations in the end.
    pub(super) task: Task<M, V>,
    /// What a pooled vector passes through, in this order.
    pub(super) projections: Vec<Projection<M>>,
    /// Beginnings of names of tensors that the checkpoint may hold and nothing here needs.
    pub(super) ignored: Vec<String>,
}

/// The way from token ids to activations:
/// `project_normed · norm((table[id] · project_in + position + type) · scale)`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Embedding<M, V> {
    /// One row per token. `[vocab_size, embed_size]`
    pub(super) tokens: M,
    /// From the embedding's width to the layers' (OPT-350m).
    pub(super) project_in: Option<M>,
    /// One row per position.
    pub(super) positions: Option<M>,
    /// Row of position 0.
    pub(super) positions_from: usize,
    /// One row per kind of segment.
    pub(super) types: Option<M>,
    /// Factor.
    pub(super) scale: f32,
    /// Norm after that.
    pub(super) norm: Option<Norm<V>>,
    /// From the width of all tables to the layers' (ALBERT).
    pub(super) project_normed: Option<M>,
}

/// What becomes of the activations in the end.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Task<M, V> {
    /// Logits of the next token.
    Generate(Head<M>),
    /// A vector of the text.
    Embed,
    /// One score per label: how well two texts go together, or which class a text is of.
    Classify(Box<Classifier<M, V>>),
}

/// `out · norm(activation(dense · pooled))`, or `out · pooled`
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Classifier<M, V> {
    /// Which tokens count.
    pub(super) pooling: PoolingKind,
    /// The layer before the last one.
    pub(super) hidden: Option<Hidden<M, V>>,
    /// `[n_labels, hidden_size]`
    pub(super) out: M,
}

/// The layer of a [`Classifier`] before the last one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Hidden<M, V> {
    /// `[hidden_size, hidden_size]`
    pub(super) dense: M,
    /// The activation function; the hyperbolic tangent if it is absent.
    pub(super) activation: Option<Activation>,
    /// Norm after that.
    pub(super) norm: Option<Norm<V>>,
}

/// `weight · x` or `tanh(weight · x)`, for a pooled vector.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Projection<M> {
    /// `[size after, size before]`
    pub(super) weight: M,
    /// Whether tanh follows.
    pub(super) is_tanh: bool,
}

/// `softcap(scale · weight · x)`
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Head<M> {
    /// Absent if the embedding is the head. `[vocab_size, hidden_size]`
    pub(super) weight: Option<M>,
    /// Whether rows are taken at length 1 (Baichuan 2).
    pub(super) has_unit_rows: bool,
    /// Factor of the logits.
    pub(super) scale: f32,
    /// Logits become `softcap · tanh(logit / softcap)`.
    pub(super) softcap: Option<f32>,
}

/// A norm.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Norm<V> {
    /// What is taken out.
    pub(super) kind: NormKind,
    /// Added to the mean square.
    pub(super) eps: f32,
    /// Factor of each element.
    pub(super) weight: Option<V>,
    /// Added in the end.
    pub(super) bias: Option<V>,
}

/// A layer: attention and a feed-forward part, with norms where the family has them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layer<M, V> {
    /// Norms of attention.
    pub(super) attention_norms: Norms<V>,
    /// Attention.
    pub(super) attention: Attention<M, V>,
    /// Norms of the feed-forward part.
    pub(super) ffn_norms: Norms<V>,
    /// The feed-forward part.
    pub(super) ffn: Ffn<M, V>,
    /// Both parts read the layer's input, and their outputs are added to it together. The feed-forward part
    /// then shares attention's input norm unless it has one.
    pub(super) is_parallel: bool,
    /// A part's output is added to its normed input (BLOOM's and ChatGLM's option).
    pub(super) adds_to_normed: bool,
    /// Factor of what a part adds.
    pub(super) residual_scale: f32,
    /// Factor of the residual stream after the layer (Gemma 4). `[1]`
    pub(super) factor: Option<V>,
}

/// The norms around one part of a layer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Norms<V> {
    /// Of what the part reads.
    pub(super) input: Option<Norm<V>>,
    /// Of what it adds.
    pub(super) output: Option<Norm<V>>,
    /// Of the sum.
    pub(super) sum: Option<Norm<V>>,
}

/// Attention.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Attention<M, V> {
    /// Neighbouring query heads share a head of keys and values.
    Grouped(Grouped<M, V>),
    /// Keys and values are computed from one short vector per token (DeepSeek-V2 2024, section 2.1).
    Latent(Box<Latent<M, V>>),
}

/// Grouped-query attention.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Grouped<M, V> {
    /// Query heads.
    pub(super) n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub(super) n_kv_heads: usize,
    /// Elements of a head.
    pub(super) head_dim: usize,
    /// A token sees itself and the `window - 1` tokens before it; where attention is not causal, also those after it.
    pub(super) window: Option<usize>,
    /// Which of the model's rotary positions.
    pub(super) rope: Option<usize>,
    /// Factor of the scores.
    pub(super) scale: f32,
    /// Scores become `softcap · tanh(score / softcap)`.
    pub(super) softcap: Option<f32>,
    /// Per head, what each position of distance takes off a score.
    pub(super) alibi_slopes: Option<Vec<f32>>,
    /// What the distance between two tokens adds to a score.
    pub(super) relative: Option<Relative<M, V>>,
    /// Queries, keys and values are clamped to plus and minus this.
    pub(super) clip: Option<f32>,
    /// Queries, keys, values. `[(n_heads + 2 n_kv_heads) · head_dim, hidden_size]`
    pub(super) qkv: M,
    /// Norms of queries and keys.
    pub(super) qk_norms: Option<QkNorms<V>>,
    /// Per head, a score without a value. `[n_heads]`
    pub(super) sinks: Option<V>,
    /// `[hidden_size, n_heads · head_dim]`
    pub(super) out: M,
}

/// A bias of scores by distance.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Relative<M, V> {
    /// The bucket of each distance from the farthest behind to the farthest ahead, an odd number; longer ones count as
    /// these.
    pub(super) buckets: Vec<u16>,
    /// What is added to the scores of a bucket.
    pub(super) values: RelativeValues<M, V>,
}

/// What a [`Relative`] adds to the scores of a bucket.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum RelativeValues<M, V> {
    /// The same for all tokens. `[n_buckets, n_heads]`
    Table(V),
    /// The scale of scores times products of the two tokens with a vector of the bucket (He et al. 2021, "DeBERTa"). Per
    /// head, `[n_buckets, head_dim]`.
    OfTokens {
        /// What queries are multiplied with.
        with_queries: Option<Vec<M>>,
        /// What keys are multiplied with.
        with_keys: Option<Vec<M>>,
    },
}

/// Norms of queries and keys.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct QkNorms<V> {
    /// Whether they are taken after the rotary positions (Hunyuan), not before.
    pub(super) after_rope: bool,
    /// Over all heads together, or over each on its own.
    pub(super) over_all_heads: bool,
    /// Of queries.
    pub(super) q: Norm<V>,
    /// Of keys.
    pub(super) k: Norm<V>,
    /// Of values, where they have one (Gemma 4).
    pub(super) v: Option<Norm<V>>,
}

/// Multi-head latent attention. A head's query and key are a part without and a part with positions.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Latent<M, V> {
    /// Heads.
    pub(super) n_heads: usize,
    /// Elements of a head without positions.
    pub(super) nope_dim: usize,
    /// Elements of a head with positions.
    pub(super) rope_dim: usize,
    /// Elements of a head's value.
    pub(super) value_dim: usize,
    /// Elements of the vector that keys and values come from.
    pub(super) rank: usize,
    /// Which of the model's rotary positions.
    pub(super) rope: usize,
    /// Factor of the scores.
    pub(super) scale: f32,
    /// `hidden_size` to the short vector of queries, and its norm; absent where queries come at once.
    pub(super) q_down: Option<(M, Norm<V>)>,
    /// Queries. `[n_heads · (nope_dim + rope_dim), …]`
    pub(super) q_up: M,
    /// The short vector of keys and values, and the keys' part with positions. `[rank + rope_dim, hidden_size]`
    pub(super) kv_down: M,
    /// Norm of the short vector.
    pub(super) kv_norm: Norm<V>,
    /// Per head, from a query without positions to what the short vector is multiplied with. `[rank, nope_dim]`
    pub(super) key_up: Vec<M>,
    /// Per head, from a weighted sum of short vectors to the value. `[value_dim, rank]`
    pub(super) value_up: Vec<M>,
    /// `[hidden_size, n_heads · value_dim]`
    pub(super) out: M,
}

/// The feed-forward part.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ffn<M, V> {
    /// The same for every token.
    Dense(Mlp<M>),
    /// The same with an activation function whose parameters are weights (Apertus).
    Xielu(Box<Xielu<M, V>>),
    /// A choice of experts for each token.
    Experts(Box<Moe<M, V>>),
}

/// `down · act(up · x)`, or `down · (act(gate · x) · (up · x))`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mlp<M> {
    /// The activation function.
    pub(super) activation: Activation,
    /// Elements between up and down.
    pub(super) width: usize,
    /// Whether `up` is gate, then up.
    pub(super) is_gated: bool,
    /// `[width, hidden_size]`, or `[2 width, hidden_size]` if gated.
    pub(super) up: M,
    /// `[hidden_size, width]`
    pub(super) down: M,
}

/// `down · xielu(up · x)`
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Xielu<M, V> {
    /// `[width, hidden_size]`
    pub(super) up: M,
    /// Softplus of the first is the curvature above zero, `beta` plus softplus of the second the curvature below it,
    /// and `beta`, the third, the slope at zero. `[3]`
    pub(super) curve: V,
    /// `[hidden_size, width]`
    pub(super) down: M,
}

/// A mixture of experts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Moe<M, V> {
    /// Logits of the experts. `[n_experts, hidden_size]`
    pub(super) router: M,
    /// How scores come from logits.
    pub(super) scoring: Scoring,
    /// Added to the scores for the choice.
    pub(super) choice_bias: Option<V>,
    /// Restriction of the choice.
    pub(super) groups: Option<ExpertGroups>,
    /// Experts of a token.
    pub(super) n_chosen: usize,
    /// Whether the weights of the chosen are made to add up to 1.
    pub(super) renormalise: bool,
    /// Factor of the weights.
    pub(super) scale: f32,
    /// Whether the weights are factors of what the experts read (Llama 4), not of what they return.
    pub(super) weighs_input: bool,
    /// The experts.
    pub(super) experts: Vec<Mlp<M>>,
    /// An expert of every token.
    pub(super) shared: Option<Mlp<M>>,
    /// The shared expert's weight is the sigmoid of this. `[1, hidden_size]`
    pub(super) shared_gate: Option<M>,
}

impl Rows {
    /// Neighbouring rows.
    pub(super) fn block(first: usize, n: usize) -> Rows {
        Rows { first, n, step: 1 }
    }

    /// Their indices.
    pub(super) fn iter(self) -> impl Iterator<Item = usize> {
        (0..self.n).map(move |i| self.first + i * self.step)
    }
}

impl Matrix {
    /// Rows.
    pub(super) fn n_rows(&self) -> usize {
        self.parts.iter().map(Part::n_taken).sum()
    }
}

impl Part {
    /// Rows that are taken.
    pub(super) fn n_taken(&self) -> usize {
        self.taken.iter().map(|rows| rows.n).sum()
    }

    /// The tensors that it is read from.
    fn tensors(&self) -> Vec<TensorSpec> {
        let mut tensors = vec![self.tensor.clone()];
        tensors.extend(self.bias.iter().map(|bias| bias.tensor.clone()));
        match &self.layout {
            Layout::Rows | Layout::Columns => {}
            Layout::Mxfp4 { scales } => tensors.push(scales.clone()),
            Layout::Projected(rows) => {
                tensors.extend(rows.layer.tensors());
                let norm = rows.norm.iter().flat_map(|norm| [&norm.weight, &norm.bias]);
                tensors.extend(norm.flatten().flat_map(|vector| vector.tensors.clone()));
            }
        }
        tensors
    }
}

/// What becomes of a layer.
pub(super) type Converted<C> = Layer<<C as Convert>::Matrix, <C as Convert>::Vector>;

/// Makes something of each weight of a description.
pub(super) trait Convert: Sized {
    /// What becomes of a matrix.
    type Matrix;
    /// What becomes of a vector.
    type Vector;

    /// Converts a matrix.
    fn matrix(&mut self, matrix: &Matrix) -> Self::Matrix;
    /// Converts a vector.
    fn vector(&mut self, vector: &Vector) -> Self::Vector;

    /// Converts a model.
    fn network(&mut self, spec: &ModelSpec) -> Network<Self::Matrix, Self::Vector> {
        let edges = &spec.embedding;
        Network {
            vocab_size: spec.vocab_size,
            hidden_size: spec.hidden_size,
            context_len: spec.context_len,
            is_causal: spec.is_causal,
            embedding: Embedding {
                tokens: self.matrix(&edges.tokens),
                project_in: self.optional(edges.project_in.as_ref()),
                positions: self.optional(edges.positions.as_ref()),
                positions_from: edges.positions_from,
                types: self.optional(edges.types.as_ref()),
                scale: edges.scale,
                norm: self.norm(edges.norm.as_ref()),
                project_normed: self.optional(edges.project_normed.as_ref()),
            },
            ropes: spec.ropes.clone(),
            layers: spec.layers.iter().map(|layer| self.layer(layer)).collect(),
            final_norm: self.norm(spec.final_norm.as_ref()),
            project_out: self.optional(spec.project_out.as_ref()),
            task: self.task(&spec.task),
            projections: spec
                .projections
                .iter()
                .map(|projection| Projection {
                    weight: self.matrix(&projection.weight),
                    is_tanh: projection.is_tanh,
                })
                .collect(),
            ignored: spec.ignored.clone(),
        }
    }

    /// Converts what becomes of the activations.
    fn task(&mut self, task: &Task<Matrix, Vector>) -> Task<Self::Matrix, Self::Vector> {
        match task {
            Task::Generate(head) => Task::Generate(Head {
                weight: self.optional(head.weight.as_ref()),
                has_unit_rows: head.has_unit_rows,
                scale: head.scale,
                softcap: head.softcap,
            }),
            Task::Embed => Task::Embed,
            Task::Classify(of) => Task::Classify(Box::new(Classifier {
                pooling: of.pooling,
                hidden: of.hidden.as_ref().map(|hidden| Hidden {
                    dense: self.matrix(&hidden.dense),
                    activation: hidden.activation,
                    norm: self.norm(hidden.norm.as_ref()),
                }),
                out: self.matrix(&of.out),
            })),
        }
    }

    /// Converts a layer.
    fn layer(&mut self, layer: &LayerSpec) -> Converted<Self> {
        Layer {
            attention_norms: self.norms(&layer.attention_norms),
            attention: match &layer.attention {
                Attention::Grouped(grouped) => Attention::Grouped(self.grouped(grouped)),
                Attention::Latent(latent) => Attention::Latent(Box::new(self.latent(latent))),
            },
            ffn_norms: self.norms(&layer.ffn_norms),
            ffn: match &layer.ffn {
                Ffn::Dense(mlp) => Ffn::Dense(self.mlp(mlp)),
                Ffn::Xielu(of) => Ffn::Xielu(Box::new(Xielu {
                    up: self.matrix(&of.up),
                    curve: self.vector(&of.curve),
                    down: self.matrix(&of.down),
                })),
                Ffn::Experts(moe) => Ffn::Experts(Box::new(self.moe(moe))),
            },
            is_parallel: layer.is_parallel,
            adds_to_normed: layer.adds_to_normed,
            residual_scale: layer.residual_scale,
            factor: layer.factor.as_ref().map(|factor| self.vector(factor)),
        }
    }

    /// Converts grouped-query attention.
    fn grouped(&mut self, of: &Grouped<Matrix, Vector>) -> Grouped<Self::Matrix, Self::Vector> {
        Grouped {
            n_heads: of.n_heads,
            n_kv_heads: of.n_kv_heads,
            head_dim: of.head_dim,
            window: of.window,
            rope: of.rope,
            scale: of.scale,
            softcap: of.softcap,
            alibi_slopes: of.alibi_slopes.clone(),
            relative: of.relative.as_ref().map(|relative| self.relative(relative)),
            clip: of.clip,
            qkv: self.matrix(&of.qkv),
            qk_norms: of.qk_norms.as_ref().map(|norms| QkNorms {
                after_rope: norms.after_rope,
                over_all_heads: norms.over_all_heads,
                q: self.some_norm(&norms.q),
                k: self.some_norm(&norms.k),
                v: self.norm(norms.v.as_ref()),
            }),
            sinks: of.sinks.as_ref().map(|sinks| self.vector(sinks)),
            out: self.matrix(&of.out),
        }
    }

    /// Converts a bias by distance.
    fn relative(&mut self, of: &Relative<Matrix, Vector>) -> Relative<Self::Matrix, Self::Vector> {
        let mut heads = |matrices: &Option<Vec<Matrix>>| {
            let matrices = matrices.as_ref()?;
            Some(matrices.iter().map(|matrix| self.matrix(matrix)).collect())
        };
        let values = match &of.values {
            RelativeValues::OfTokens {
                with_queries,
                with_keys,
            } => RelativeValues::OfTokens {
                with_queries: heads(with_queries),
                with_keys: heads(with_keys),
            },
            RelativeValues::Table(values) => RelativeValues::Table(self.vector(values)),
        };
        Relative {
            buckets: of.buckets.clone(),
            values,
        }
    }

    /// Converts latent attention.
    fn latent(&mut self, of: &Latent<Matrix, Vector>) -> Latent<Self::Matrix, Self::Vector> {
        Latent {
            n_heads: of.n_heads,
            nope_dim: of.nope_dim,
            rope_dim: of.rope_dim,
            value_dim: of.value_dim,
            rank: of.rank,
            rope: of.rope,
            scale: of.scale,
            q_down: of
                .q_down
                .as_ref()
                .map(|(down, norm)| (self.matrix(down), self.some_norm(norm))),
            q_up: self.matrix(&of.q_up),
            kv_down: self.matrix(&of.kv_down),
            kv_norm: self.some_norm(&of.kv_norm),
            key_up: of.key_up.iter().map(|up| self.matrix(up)).collect(),
            value_up: of.value_up.iter().map(|up| self.matrix(up)).collect(),
            out: self.matrix(&of.out),
        }
    }

    /// Converts a mixture of experts.
    fn moe(&mut self, of: &Moe<Matrix, Vector>) -> Moe<Self::Matrix, Self::Vector> {
        Moe {
            router: self.matrix(&of.router),
            scoring: of.scoring,
            choice_bias: of.choice_bias.as_ref().map(|bias| self.vector(bias)),
            groups: of.groups,
            n_chosen: of.n_chosen,
            renormalise: of.renormalise,
            scale: of.scale,
            weighs_input: of.weighs_input,
            experts: of.experts.iter().map(|mlp| self.mlp(mlp)).collect(),
            shared: of.shared.as_ref().map(|mlp| self.mlp(mlp)),
            shared_gate: self.optional(of.shared_gate.as_ref()),
        }
    }

    /// Converts two matrices and an activation.
    fn mlp(&mut self, of: &Mlp<Matrix>) -> Mlp<Self::Matrix> {
        Mlp {
            activation: of.activation,
            width: of.width,
            is_gated: of.is_gated,
            up: self.matrix(&of.up),
            down: self.matrix(&of.down),
        }
    }

    /// Converts the norms around a part.
    fn norms(&mut self, norms: &Norms<Vector>) -> Norms<Self::Vector> {
        Norms {
            input: self.norm(norms.input.as_ref()),
            output: self.norm(norms.output.as_ref()),
            sum: self.norm(norms.sum.as_ref()),
        }
    }

    /// Converts a norm that may be absent.
    fn norm(&mut self, norm: Option<&Norm<Vector>>) -> Option<Norm<Self::Vector>> {
        norm.map(|norm| self.some_norm(norm))
    }

    /// Converts a norm.
    fn some_norm(&mut self, norm: &Norm<Vector>) -> Norm<Self::Vector> {
        let mut vector = |vector: &Option<Vector>| vector.as_ref().map(|v| self.vector(v));
        Norm {
            kind: norm.kind,
            eps: norm.eps,
            weight: vector(&norm.weight),
            bias: vector(&norm.bias),
        }
    }

    /// Converts a matrix that may be absent.
    fn optional(&mut self, matrix: Option<&Matrix>) -> Option<Self::Matrix> {
        matrix.map(|matrix| self.matrix(matrix))
    }
}

/// Every weight of a description. Its place in the list is its number.
#[derive(Debug, Default)]
pub(super) struct WeightList {
    /// The matrices.
    pub(super) matrices: Vec<Matrix>,
    /// The vectors.
    pub(super) vectors: Vec<Vector>,
    /// Numbers of the matrices by the tensor and the element that they start with: layers may share one (ALBERT).
    starts: HashMap<(String, usize), usize>,
}

/// Number of a matrix in a [`WeightList`], and its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MatrixId {
    /// Its number.
    pub(super) index: usize,
    /// Rows.
    pub(super) n_rows: usize,
    /// Columns.
    pub(super) n_cols: usize,
}

/// Number of a vector in a [`WeightList`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct VectorId {
    /// Its number.
    pub(super) index: usize,
}

impl Convert for WeightList {
    type Matrix = MatrixId;
    type Vector = VectorId;

    fn matrix(&mut self, matrix: &Matrix) -> MatrixId {
        let start = matrix
            .parts
            .first()
            .map(|part| (part.tensor.name.clone(), part.first));
        let start = start.unwrap_or_default();
        let shared = self.starts.get(&start).copied();
        let index = shared.filter(|&index| self.matrices[index] == *matrix);
        let index = index.unwrap_or_else(|| {
            self.matrices.push(matrix.clone());
            self.starts.insert(start, self.matrices.len() - 1);
            self.matrices.len() - 1
        });
        MatrixId {
            index,
            n_rows: matrix.n_rows(),
            n_cols: matrix.n_cols,
        }
    }

    fn vector(&mut self, vector: &Vector) -> VectorId {
        self.vectors.push(vector.clone());
        VectorId {
            index: self.vectors.len() - 1,
        }
    }
}

impl WeightList {
    /// Every tensor of the checkpoint, each once, in the order of their names.
    pub(super) fn tensors(&self) -> Vec<TensorSpec> {
        let parts = self.matrices.iter().flat_map(|matrix| &matrix.parts);
        let vectors = self.vectors.iter().flat_map(|vector| &vector.tensors);
        let mut tensors: Vec<TensorSpec> = parts.flat_map(Part::tensors).chain(vectors.cloned()).collect();
        tensors.sort();
        tensors.dedup();
        tensors
    }

    /// Numbers in all weights. Scales of numbers in blocks are not counted, and what is computed at load is.
    pub(super) fn n_params(&self) -> u64 {
        let of_matrix = |matrix: &Matrix| {
            let biased = matrix.parts.iter().filter(|part| part.bias.is_some());
            matrix.n_rows() * matrix.n_cols + biased.map(Part::n_taken).sum::<usize>()
        };
        let matrices = self.matrices.iter().map(of_matrix);
        let vectors = self.vectors.iter().map(Vector::len);
        matrices.chain(vectors).map(|n| n as u64).sum()
    }
}

impl Vector {
    /// Elements.
    pub(super) fn len(&self) -> usize {
        let of_tensor = |tensor: &TensorSpec| tensor.shape.iter().product::<usize>();
        self.tensors.iter().map(of_tensor).sum()
    }
}

impl ModelSpec {
    /// The same description with numbers in the place of weights, and the weights.
    pub(super) fn numbered(&self) -> (Network<MatrixId, VectorId>, WeightList) {
        let mut weights = WeightList::default();
        let network = weights.network(self);
        (network, weights)
    }
}
