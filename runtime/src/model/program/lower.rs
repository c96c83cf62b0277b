//! From a description to ops: the only place that knows where norms are, which blocks are parallel, and what is added
//! to what.

use kernels::{Heads, Mask};

use super::{
    Attend, Buffer, BufferId, CopyHeads, Embed, ExpertScratch, Experts, HeadColumns, Index, Keys, LatentKeys,
    Linear, NormRows, Op, PerHead, Program, Prologue, Relative, RelativeValues, Route, Rows, Sections, Then,
    plan,
};
use crate::model::kv_layout::{KvLayout, Place};
use crate::model::pooling::PoolingKind;
use crate::model::spec::{
    self, Attention, Embedding, Ffn, Grouped, Head, Hidden, Latent, Layer, MatrixId, Mlp, Moe, Network, Norm,
    Projection, Task, VectorId,
};

/// A numbered description.
type Description = Network<MatrixId, VectorId>;

/// Makes the program of a description. `pooling` is how a model that does not generate makes vectors.
pub(in crate::model) fn lower(network: &Description, layout: &KvLayout, pooling: PoolingKind) -> Program {
    let mut lowering = Lowering {
        hidden_size: network.hidden_size,
        is_causal: network.is_causal,
        ops: Vec::new(),
        buffers: Vec::new(),
    };
    let x = lowering.embedding(network);
    let mut layers = Vec::new();
    for (layer, place) in network.layers.iter().zip(layout.places()) {
        let first = lowering.ops.len();
        lowering.layer(layer, *place, x);
        layers.push(first..lowering.ops.len());
    }
    let output = lowering.task(network, x, pooling);
    let Lowering { ops, buffers, .. } = lowering;
    let mut program = Program {
        ops,
        layers,
        buffers,
        sections: Sections::default(),
        runs: Vec::new(),
        output,
    };
    plan::plan(&mut program);
    program
}

/// Ops and buffers so far.
struct Lowering {
    hidden_size: usize,
    is_causal: bool,
    ops: Vec<Op>,
    buffers: Vec<Buffer>,
}

/// What a part of a layer reads.
#[derive(Clone, Copy)]
enum Input<'a> {
    /// A buffer as it is.
    Plain(BufferId),
    /// A norm of a buffer, which the first product may fuse.
    Normed(BufferId, &'a Norm<VectorId>),
}

/// Where the output of a part of a layer goes.
#[derive(Clone, Copy)]
struct Residual<'a> {
    /// The residual stream.
    x: BufferId,
    /// Factor of what is added to it.
    scale: f32,
    /// Norm of what is added to it.
    norm: Option<&'a Norm<VectorId>>,
}

impl Lowering {
    fn buffer(&mut self, name: &'static str, rows: Rows, width: usize) -> BufferId {
        self.buffers.push(Buffer {
            name,
            rows,
            width,
            offset: 0,
        });
        BufferId(self.buffers.len() - 1)
    }

    fn width(&self, id: BufferId) -> usize {
        self.buffers[id.0].width
    }

    /// `project_normed · norm((table[id] · project_in + position + type) · scale)`
    fn embedding(&mut self, network: &Description) -> BufferId {
        let edges = &network.embedding;
        let Some(project) = edges.project_normed else {
            let x = self.buffer("x", Rows::Tokens, self.hidden_size);
            self.embed_into(x, edges);
            return x;
        };
        let narrow = self.buffer("embedded", Rows::Tokens, edges.tokens.n_cols);
        self.embed_into(narrow, edges);
        let x = self.buffer("x", Rows::Tokens, self.hidden_size);
        self.linear(Input::Plain(narrow), project, x, Then::Store);
        x
    }

    fn embed_into(&mut self, x: BufferId, edges: &Embedding<MatrixId, VectorId>) {
        let of_tokens = |out| {
            Op::Embed(Embed {
                table: edges.tokens,
                index: Index::Tokens,
                out,
                then: kernels::Then::Store,
            })
        };
        match edges.project_in {
            None => self.ops.push(of_tokens(x)),
            Some(project_in) => {
                let embedded = self.buffer("embedded", Rows::Tokens, edges.tokens.n_cols);
                self.ops.push(of_tokens(embedded));
                self.linear(Input::Plain(embedded), project_in, x, Then::Store);
            }
        }
        let from = edges.positions_from;
        for (table, index) in [
            (edges.positions, Index::Positions { from }),
            (edges.types, Index::Types),
        ] {
            self.ops.extend(table.map(|table| {
                Op::Embed(Embed {
                    table,
                    index,
                    out: x,
                    then: kernels::Then::AddTo { scale: 1.0 },
                })
            }));
        }
        if edges.scale != 1.0 {
            self.ops.push(Op::Scale {
                x,
                factor: edges.scale,
            });
        }
        self.norm_in_place(x, edges.norm.as_ref());
    }

    fn layer(&mut self, layer: &Layer<MatrixId, VectorId>, place: Place, x: BufferId) {
        if layer.is_parallel {
            return self.parallel_layer(layer, place, x);
        }
        let residual = |norm| Residual {
            x,
            scale: layer.residual_scale,
            norm,
        };
        let norms = &layer.attention_norms;
        let input = self.input(norms.input.as_ref(), x, layer.adds_to_normed);
        self.attention(&layer.attention, place, input, residual(norms.output.as_ref()));
        self.norm_in_place(x, norms.sum.as_ref());
        let norms = &layer.ffn_norms;
        let input = self.input(norms.input.as_ref(), x, layer.adds_to_normed);
        self.feed_forward(&layer.ffn, input, residual(norms.output.as_ref()));
        self.norm_in_place(x, norms.sum.as_ref());
        self.ops
            .extend(layer.factor.map(|factor| Op::Multiply { x, factor }));
    }

    /// What a part reads, whose output is added to `x` or to `x` after its norm.
    fn input<'a>(
        &mut self,
        norm: Option<&'a Norm<VectorId>>,
        x: BufferId,
        adds_to_normed: bool,
    ) -> Input<'a> {
        match norm {
            Some(norm) if !adds_to_normed => Input::Normed(x, norm),
            norm => {
                self.norm_in_place(x, norm);
                Input::Plain(x)
            }
        }
    }

    /// Both parts read the layer's input, so what they read is computed before anything is added to it.
    fn parallel_layer(&mut self, layer: &Layer<MatrixId, VectorId>, place: Place, x: BufferId) {
        let input = self.copy_or_norm(layer.attention_norms.input.as_ref(), x);
        let ffn_input = match &layer.ffn_norms.input {
            Some(norm) => self.copy_or_norm(Some(norm), x),
            None => input,
        };
        let residual = Residual {
            x,
            scale: layer.residual_scale,
            norm: None,
        };
        self.attention(&layer.attention, place, Input::Plain(input), residual);
        self.feed_forward(&layer.ffn, Input::Plain(ffn_input), residual);
        self.ops
            .extend(layer.factor.map(|factor| Op::Multiply { x, factor }));
    }

    fn copy_or_norm(&mut self, norm: Option<&Norm<VectorId>>, x: BufferId) -> BufferId {
        if let Some(norm) = norm {
            return self.normed(Input::Normed(x, norm), Rows::Tokens);
        }
        let out = self.buffer("input", Rows::Tokens, self.hidden_size);
        let all = HeadColumns { first: 0, step: 0 };
        self.ops.push(Op::CopyHeads(CopyHeads {
            x,
            x_at: all,
            n_heads: 1,
            width: self.hidden_size,
            out,
            out_at: all,
        }));
        out
    }

    /// A buffer of what a part reads, for parts that read it more than once.
    fn normed(&mut self, input: Input<'_>, rows: Rows) -> BufferId {
        match input {
            Input::Plain(x) => x,
            Input::Normed(x, norm) => {
                let out = self.buffer("normed", rows, self.width(x));
                self.ops.push(Op::Norm(NormRows {
                    x,
                    heads: Heads::whole(self.width(x)),
                    norm: norm.clone(),
                    out,
                }));
                out
            }
        }
    }

    fn norm_in_place(&mut self, x: BufferId, norm: Option<&Norm<VectorId>>) {
        self.ops.extend(norm.map(|norm| {
            Op::Norm(NormRows {
                x,
                heads: Heads::whole(self.buffers[x.0].width),
                norm: norm.clone(),
                out: x,
            })
        }));
    }

    fn linear(&mut self, input: Input<'_>, weight: MatrixId, out: BufferId, then: Then) {
        // Rows of intermediate results are those of the output; where that is the residual stream, those of the input.
        let (x, norm) = match input {
            Input::Plain(x) => (x, None),
            Input::Normed(x, norm) => {
                let normed = self.buffer("normed", self.buffers[out.0].rows, self.width(x));
                (
                    x,
                    Some(Prologue {
                        norm: norm.clone(),
                        normed,
                    }),
                )
            }
        };
        self.ops.push(Op::Linear(Linear {
            x,
            norm,
            weight,
            out,
            then,
        }));
    }

    /// The last product of a part: its result is added to the residual stream.
    fn project(&mut self, from: BufferId, weight: MatrixId, to: Residual<'_>) {
        if to.norm.is_none() {
            let then = Then::AddTo { scale: to.scale };
            return self.linear(Input::Plain(from), weight, to.x, then);
        }
        let computed = self.buffer("added", self.buffers[from.0].rows, weight.n_rows);
        self.linear(Input::Plain(from), weight, computed, Then::Store);
        self.add(computed, to);
    }

    /// Adds the output of a part to the residual stream.
    fn add(&mut self, computed: BufferId, to: Residual<'_>) {
        self.norm_in_place(computed, to.norm);
        self.ops.push(Op::Add {
            x: to.x,
            y: computed,
            scale: to.scale,
        });
    }

    fn attention(
        &mut self,
        of: &Attention<MatrixId, VectorId>,
        place: Place,
        input: Input<'_>,
        to: Residual<'_>,
    ) {
        match of {
            Attention::Grouped(grouped) => self.grouped(grouped, place, input, to),
            Attention::Latent(latent) => self.latent(latent, place, input, to),
        }
    }

    fn grouped(
        &mut self,
        of: &Grouped<MatrixId, VectorId>,
        place: Place,
        input: Input<'_>,
        to: Residual<'_>,
    ) {
        let qkv = self.buffer("qkv", Rows::Tokens, of.qkv.n_rows);
        self.linear(input, of.qkv, qkv, Then::Store);
        let queries = Heads {
            row_stride: of.qkv.n_rows,
            first: 0,
            n_heads: of.n_heads,
            head_dim: of.head_dim,
        };
        self.ops.push(Op::Keys(Keys {
            qkv,
            place,
            queries,
            keys: Heads {
                first: of.n_heads * of.head_dim,
                n_heads: of.n_kv_heads,
                ..queries
            },
            clip: of.clip,
            norms: of.qk_norms.clone(),
            rope: of.rope,
        }));
        let relative = of.relative.as_ref().map(|relative| Relative {
            buckets: relative.buckets.clone(),
            values: self.relative_values(&relative.values, qkv, queries),
        });
        let out = self.buffer("attended", Rows::Tokens, of.n_heads * of.head_dim);
        self.ops.push(Op::Attend(Attend {
            q: qkv,
            n_heads: of.n_heads,
            key_dim: of.head_dim,
            kv_floats: 2 * of.n_kv_heads * of.head_dim,
            place,
            scale: of.scale,
            softcap: of.softcap,
            alibi_slopes: of.alibi_slopes.clone(),
            relative,
            sinks: of.sinks,
            mask: match of.window {
                window if self.is_causal => Mask::Causal { window },
                Some(window) => Mask::Around {
                    reach: window.saturating_sub(1),
                },
                None => Mask::Full,
            },
            out,
        }));
        self.project(out, of.out, to);
    }

    /// What distances add to scores: products of queries and keys with the vectors of the buckets, where those are what
    /// is added. Keys follow queries, and there are as many.
    fn relative_values(
        &mut self,
        of: &spec::RelativeValues<MatrixId, VectorId>,
        qkv: BufferId,
        queries: Heads,
    ) -> RelativeValues {
        let (with_queries, with_keys) = match of {
            spec::RelativeValues::Table(values) => return RelativeValues::Table(*values),
            spec::RelativeValues::OfTokens {
                with_queries,
                with_keys,
            } => (with_queries, with_keys),
        };
        let either = with_queries.iter().chain(with_keys).flatten().next();
        let n_buckets = either.map_or(0, |weight| weight.n_rows);
        let mut products = |weights: &Option<Vec<MatrixId>>, name, first| {
            let weights = weights.clone()?;
            let out = self.buffer(name, Rows::Tokens, queries.n_heads * n_buckets);
            let (x_at, out_at) = (queries.head_dim, n_buckets);
            self.ops.push(Op::PerHead(PerHead {
                x: qkv,
                x_at: HeadColumns { first, step: x_at },
                weights,
                out,
                out_at: HeadColumns {
                    first: 0,
                    step: out_at,
                },
            }));
            Some(out)
        };
        RelativeValues::OfTokens {
            queries: products(with_queries, "query biases", 0),
            keys: products(with_keys, "key biases", queries.n_heads * queries.head_dim),
            n_buckets,
        }
    }

    /// Latent attention in its absorbed form: queries are brought to the short vectors instead of keys to the
    /// queries, so that the cache holds nothing but short vectors and their rotary part, for all heads at once
    /// (DeepSeek-V2 2024, appendix C).
    fn latent(&mut self, of: &Latent<MatrixId, VectorId>, place: Place, input: Input<'_>, to: Residual<'_>) {
        let x = self.normed(input, Rows::Tokens);
        let (head_dim, key_dim) = (of.nope_dim + of.rope_dim, of.rank + of.rope_dim);
        let q = self.buffer("q", Rows::Tokens, of.n_heads * head_dim);
        match &of.q_down {
            None => self.linear(Input::Plain(x), of.q_up, q, Then::Store),
            Some((down, norm)) => {
                let short = self.buffer("short q", Rows::Tokens, down.n_rows);
                self.linear(Input::Plain(x), *down, short, Then::Store);
                self.linear(Input::Normed(short, norm), of.q_up, q, Then::Store);
            }
        }
        let short = self.buffer("short kv", Rows::Tokens, key_dim);
        self.linear(Input::Plain(x), of.kv_down, short, Then::Store);
        self.ops.push(Op::LatentKeys(LatentKeys {
            q,
            heads: Heads {
                row_stride: of.n_heads * head_dim,
                first: 0,
                n_heads: of.n_heads,
                head_dim,
            },
            turn_from: of.nope_dim,
            short,
            rank: of.rank,
            norm: of.kv_norm.clone(),
            rope: of.rope,
            place,
        }));
        let absorbed = self.absorbed(of, q);
        let attended = self.buffer("attended", Rows::Tokens, of.n_heads * of.rank);
        self.ops.push(Op::Attend(Attend {
            q: absorbed,
            n_heads: of.n_heads,
            key_dim,
            kv_floats: key_dim,
            place,
            scale: of.scale,
            softcap: None,
            alibi_slopes: None,
            relative: None,
            sinks: None,
            mask: Mask::Causal { window: None },
            out: attended,
        }));
        let values = self.buffer("values", Rows::Tokens, of.n_heads * of.value_dim);
        self.ops.push(Op::PerHead(PerHead {
            x: attended,
            x_at: HeadColumns {
                first: 0,
                step: of.rank,
            },
            weights: of.value_up.clone(),
            out: values,
            out_at: HeadColumns {
                first: 0,
                step: of.value_dim,
            },
        }));
        self.project(values, of.out, to);
    }

    /// Queries as the cache's short vectors need them: per head `rank` elements without positions, then `rope_dim`
    /// with.
    fn absorbed(&mut self, of: &Latent<MatrixId, VectorId>, q: BufferId) -> BufferId {
        let (head_dim, key_dim) = (of.nope_dim + of.rope_dim, of.rank + of.rope_dim);
        let absorbed = self.buffer("absorbed q", Rows::Tokens, of.n_heads * key_dim);
        let columns = |first, step| HeadColumns { first, step };
        self.ops.push(Op::PerHead(PerHead {
            x: q,
            x_at: columns(0, head_dim),
            weights: of.key_up.clone(),
            out: absorbed,
            out_at: columns(0, key_dim),
        }));
        self.ops.push(Op::CopyHeads(CopyHeads {
            x: q,
            x_at: columns(of.nope_dim, head_dim),
            n_heads: of.n_heads,
            width: of.rope_dim,
            out: absorbed,
            out_at: columns(of.rank, key_dim),
        }));
        absorbed
    }

    fn feed_forward(&mut self, of: &Ffn<MatrixId, VectorId>, input: Input<'_>, to: Residual<'_>) {
        match of {
            Ffn::Dense(mlp) => {
                let activated = self.up(mlp, input);
                self.project(activated, mlp.down, to);
            }
            Ffn::Xielu(of) => {
                let activated = self.buffer("activated", Rows::Chunk, of.up.n_rows);
                self.linear(input, of.up, activated, Then::Store);
                self.ops.push(Op::Xielu {
                    x: activated,
                    curve: of.curve,
                });
                self.project(activated, of.down, to);
            }
            Ffn::Experts(moe) => self.experts(moe, input, to),
        }
    }

    /// The first half of a feed-forward part.
    fn up(&mut self, of: &Mlp<MatrixId>, input: Input<'_>) -> BufferId {
        let activated = self.buffer("activated", Rows::Chunk, of.width);
        let then = if of.is_gated {
            let product = self.buffer("gate and up", Rows::Chunk, of.up.n_rows);
            Then::Gated {
                activation: of.activation,
                product,
            }
        } else {
            Then::Act(of.activation)
        };
        self.linear(input, of.up, activated, then);
        activated
    }

    fn experts(&mut self, of: &Moe<MatrixId, VectorId>, input: Input<'_>, to: Residual<'_>) {
        let x = self.normed(input, Rows::Chunk);
        let logits = self.buffer("router", Rows::Chunk, of.router.n_rows);
        self.linear(Input::Plain(x), of.router, logits, Then::Store);
        self.ops.push(Op::Route(Route {
            logits,
            n_experts: of.experts.len(),
            n_chosen: of.n_chosen,
            scoring: of.scoring,
            choice_bias: of.choice_bias,
            groups: of.groups,
            renormalise: of.renormalise,
            scale: of.scale,
        }));
        let out = self.buffer("added", Rows::Chunk, self.hidden_size);
        let scratch = self.expert_scratch(&of.experts);
        self.ops.push(Op::Experts(Experts {
            x,
            experts: of.experts.clone(),
            n_chosen: of.n_chosen,
            weighs_input: of.weighs_input,
            scratch,
            out,
        }));
        if let Some(shared) = &of.shared {
            self.shared_expert(shared, of.shared_gate, x, out);
        }
        self.add(out, to);
    }

    fn expert_scratch(&mut self, experts: &[Mlp<MatrixId>]) -> ExpertScratch {
        let widest = |of: fn(&Mlp<MatrixId>) -> usize| experts.iter().map(of).max().unwrap_or(0);
        let is_gated = experts.iter().any(|mlp| mlp.is_gated);
        let product = self.buffer("expert's up", Rows::Chunk, widest(|mlp| mlp.up.n_rows));
        ExpertScratch {
            rows: self.buffer("expert's rows", Rows::Chunk, self.hidden_size),
            product,
            activated: if is_gated {
                self.buffer("expert's activated", Rows::Chunk, widest(|mlp| mlp.width))
            } else {
                product
            },
            computed: self.buffer("expert's down", Rows::Chunk, self.hidden_size),
        }
    }

    fn shared_expert(&mut self, of: &Mlp<MatrixId>, gate: Option<MatrixId>, x: BufferId, out: BufferId) {
        let activated = self.up(of, Input::Plain(x));
        let Some(gate) = gate else {
            let then = Then::AddTo { scale: 1.0 };
            return self.linear(Input::Plain(activated), of.down, out, then);
        };
        let computed = self.buffer("shared", Rows::Chunk, self.hidden_size);
        self.linear(Input::Plain(activated), of.down, computed, Then::Store);
        let gates = self.buffer("gate", Rows::Chunk, gate.n_rows);
        self.linear(Input::Plain(x), gate, gates, Then::Store);
        self.ops.push(Op::Gate { x: computed, gates });
        self.ops.push(Op::Add {
            x: out,
            y: computed,
            scale: 1.0,
        });
    }

    fn task(&mut self, network: &Description, x: BufferId, pooling: PoolingKind) -> BufferId {
        let norm = network.final_norm.as_ref();
        match &network.task {
            Task::Generate(head) => {
                let rows = self.buffer("last", Rows::Logits, self.hidden_size);
                self.ops.push(Op::Gather { x, out: rows });
                let input = norm.map_or(Input::Plain(rows), |norm| Input::Normed(rows, norm));
                let input = self.project_out(network, input, Rows::Logits);
                self.head(head, head.weight.unwrap_or(network.embedding.tokens), input)
            }
            Task::Embed => {
                let pooled = self.pool(network, x, pooling);
                self.projections(&network.projections, pooled)
            }
            Task::Classify(of) => {
                let mut x = self.pool(network, x, pooling);
                if let Some(hidden) = &of.hidden {
                    x = self.hidden(hidden, x);
                }
                let scores = self.buffer("scores", Rows::Pooled, of.out.n_rows);
                self.linear(Input::Plain(x), of.out, scores, Then::Store);
                scores
            }
        }
    }

    /// The layer of a classifier before the last one.
    fn hidden(&mut self, of: &Hidden<MatrixId, VectorId>, x: BufferId) -> BufferId {
        let hidden = self.buffer("dense", Rows::Pooled, of.dense.n_rows);
        match of.activation {
            Some(activation) => self.linear(Input::Plain(x), of.dense, hidden, Then::Act(activation)),
            None => {
                self.linear(Input::Plain(x), of.dense, hidden, Then::Store);
                self.ops.push(Op::Softcap { x: hidden, cap: 1.0 });
            }
        }
        self.norm_in_place(hidden, of.norm.as_ref());
        hidden
    }

    fn projections(&mut self, projections: &[Projection<MatrixId>], pooled: BufferId) -> BufferId {
        projections.iter().fold(pooled, |x, projection| {
            let out = self.buffer("projected", Rows::Pooled, projection.weight.n_rows);
            self.linear(Input::Plain(x), projection.weight, out, Then::Store);
            if projection.is_tanh {
                self.ops.push(Op::Softcap { x: out, cap: 1.0 });
            }
            out
        })
    }

    fn project_out<'a>(&mut self, network: &Description, input: Input<'a>, rows: Rows) -> Input<'a> {
        let Some(project_out) = network.project_out else {
            return input;
        };
        let projected = self.buffer("projected", rows, project_out.n_rows);
        self.linear(input, project_out, projected, Then::Store);
        Input::Plain(projected)
    }

    fn head(&mut self, head: &Head<MatrixId>, weight: MatrixId, input: Input<'_>) -> BufferId {
        let logits = self.buffer("logits", Rows::Logits, weight.n_rows);
        self.linear(input, weight, logits, Then::Store);
        if head.has_unit_rows {
            self.ops.push(Op::UnitRows { x: logits, weight });
        }
        if head.scale != 1.0 {
            self.ops.push(Op::Scale {
                x: logits,
                factor: head.scale,
            });
        }
        self.ops
            .extend(head.softcap.map(|cap| Op::Softcap { x: logits, cap }));
        logits
    }

    fn pool(&mut self, network: &Description, x: BufferId, kind: PoolingKind) -> BufferId {
        self.norm_in_place(x, network.final_norm.as_ref());
        let x = match self.project_out(network, Input::Plain(x), Rows::Tokens) {
            Input::Plain(x) | Input::Normed(x, _) => x,
        };
        let out = self.buffer("pooled", Rows::Pooled, self.width(x));
        self.ops.push(Op::Pool { x, kind, out });
        out
    }
}
