//! DeepSeek-V2 and V3 and MiniCPM3: latent attention, and experts in groups. dots.llm1 has these experts.

use kernels::{ExpertGroups, GroupScore, RopePairs, Scoring};

use super::granite::Multipliers;
use super::llama;
use super::parts::{
    MlpShape, Sizes, each_attention, experts, linear, llama_mlp, rms_norm, rms_qk_norms, unsupported, vector,
    windows,
};
use crate::model::config::{Aliases, Fields, N_EXPERTS, invalid};
use crate::model::error::ModelError;
use crate::model::spec::{
    Attention, Ffn, Latent, Layout, Matrix, ModelSpec, Moe, Part, Rows, TensorSpec, Vector,
};

/// DeepSeek-V2 and V2-Lite.
pub(super) fn describe_2(config: &Fields) -> Result<ModelSpec, ModelError> {
    let method = config.text(&["topk_method"])?;
    check_choice(config, &["scoring_func"], &["softmax"], "softmax")?;
    let ways = ["greedy", "group_limited_greedy"];
    check_choice(config, &["topk_method"], &ways, "greedy, group_limited_greedy")?;
    let router = Router {
        scoring: Scoring::Softmax,
        group_score: (method == Some("group_limited_greedy")).then_some(GroupScore::Best),
        has_choice_bias: false,
        renormalise: config.flag("norm_topk_prob")?.unwrap_or(false),
    };
    with_experts(
        config,
        with_latent_attention(config, rope_pairs(config)?)?,
        &router,
    )
}

/// DeepSeek-V3 and R1.
pub(super) fn describe_3(config: &Fields) -> Result<ModelSpec, ModelError> {
    check_choice(config, &["scoring_func"], &["sigmoid"], "sigmoid")?;
    check_choice(config, &["topk_method"], &["noaux_tc"], "noaux_tc")?;
    let router = Router::of_3(config)?;
    with_experts(
        config,
        with_latent_attention(config, rope_pairs(config)?)?,
        &router,
    )
}

/// dots.llm1: DeepSeek-V3's experts, and grouped attention with norms of queries and keys.
pub(super) fn describe_dots(config: &Fields) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let first = config.count("max_window_layers")?.unwrap_or(sizes.n_layers);
    let windows = windows(config, sizes.n_layers, |idx| idx >= first)?;
    let mut spec = llama::describe(config)?;
    each_attention(&mut spec, |idx, attention| {
        let name = format!("model.layers.{idx}.self_attn");
        attention.qk_norms = Some(rms_qk_norms(&name, &sizes));
        attention.window = windows[idx];
    });
    let router = Router {
        renormalise: config.flag("norm_topk_prob")?.unwrap_or(false),
        ..Router::of_3(config)?
    };
    with_experts(config, spec, &router)
}

/// MiniCPM3: latent attention in a MiniCPM.
pub(super) fn describe_minicpm3(config: &Fields) -> Result<ModelSpec, ModelError> {
    let mut spec = with_latent_attention(config, RopePairs::HalfSplit)?;
    Multipliers::of_minicpm(config, &spec)?.apply(&mut spec);
    Ok(spec)
}

/// Refuses another way to choose experts than the implemented ones.
fn check_choice(
    config: &Fields,
    option: Aliases,
    implemented: &[&str],
    supported: &'static str,
) -> Result<(), ModelError> {
    match config.text(option)? {
        Some(value) if !implemented.contains(&value) => Err(unsupported(option[0], value, supported)),
        _ => Ok(()),
    }
}

/// Which elements of queries and keys are turned together; `rope_interleave` is absent in checkpoints of DeepSeek.
fn rope_pairs(config: &Fields) -> Result<RopePairs, ModelError> {
    Ok(match config.flag("rope_interleave")? {
        Some(false) => RopePairs::HalfSplit,
        Some(true) | None => RopePairs::Interleaved,
    })
}

/// What the routers differ in.
pub(super) struct Router {
    scoring: Scoring,
    group_score: Option<GroupScore>,
    has_choice_bias: bool,
    renormalise: bool,
}

impl Router {
    /// DeepSeek-V3's.
    pub(super) fn of_3(config: &Fields) -> Result<Router, ModelError> {
        Ok(Router {
            scoring: Scoring::Sigmoid,
            group_score: Some(GroupScore::BestTwo),
            has_choice_bias: true,
            renormalise: config.flag("norm_topk_prob")?.unwrap_or(true),
        })
    }
}

/// Gives experts to the layers from `first_k_dense_replace` on.
pub(super) fn with_experts(
    config: &Fields,
    mut spec: ModelSpec,
    router: &Router,
) -> Result<ModelSpec, ModelError> {
    let first = config.count("first_k_dense_replace")?.unwrap_or(0);
    let step = config.size(&["moe_layer_freq"])?.unwrap_or(1);
    if config.size(N_EXPERTS)?.is_some() {
        let hidden_size = spec.hidden_size;
        for (idx, layer) in spec.layers.iter_mut().enumerate().skip(first) {
            if idx.is_multiple_of(step) {
                let name = format!("model.layers.{idx}.mlp");
                layer.ffn = Ffn::Experts(Box::new(moe(config, &name, hidden_size, router)?));
            }
        }
    }
    // Layers that predict further tokens, for speculation.
    let n_layers = spec.layers.len();
    let n_further = config.count("num_nextn_predict_layers")?.unwrap_or(0).min(16);
    spec.ignored = (n_layers..n_layers + n_further)
        .map(|idx| format!("model.layers.{idx}."))
        .collect();
    Ok(spec)
}

fn moe(
    config: &Fields,
    name: &str,
    hidden_size: usize,
    router: &Router,
) -> Result<Moe<Matrix, Vector>, ModelError> {
    let width = config.required_size(&["moe_intermediate_size"])?;
    let shape = MlpShape::unbiased(config, hidden_size, width)?;
    let expert = |expert: usize| llama_mlp(&format!("{name}.experts.{expert}"), shape);
    let mut moe = experts(config, &format!("{name}.gate"), hidden_size, expert)?;
    let n_experts = moe.experts.len();
    moe.scoring = router.scoring;
    moe.renormalise = router.renormalise;
    moe.scale = config.positive(&["routed_scaling_factor"])?.unwrap_or(1.0) as f32;
    if router.has_choice_bias {
        moe.choice_bias = Some(vector(format!("{name}.gate.e_score_correction_bias"), n_experts));
    }
    if let Some(shared) = config.count("n_shared_experts")?.filter(|n| *n > 0) {
        let shape = MlpShape {
            width: shared * width,
            ..shape
        };
        moe.shared = Some(llama_mlp(&format!("{name}.shared_experts"), shape));
    }
    let n_groups = config.size(&["n_group"])?.unwrap_or(1);
    if let Some(score) = router.group_score.filter(|_| n_groups > 1) {
        let n_kept = config.size(&["topk_group"])?.unwrap_or(1);
        if !n_experts.is_multiple_of(n_groups)
            || n_kept > n_groups
            || n_kept * (n_experts / n_groups) < moe.n_chosen
        {
            let reason = format!(
                "is {n_groups} with {n_kept} kept: not a division of {n_experts} experts that leaves enough"
            );
            return Err(invalid("n_group", reason));
        }
        moe.groups = Some(ExpertGroups {
            n_groups,
            n_kept,
            score,
        });
    }
    Ok(moe)
}

/// A Llama with latent attention.
fn with_latent_attention(config: &Fields, pairs: RopePairs) -> Result<ModelSpec, ModelError> {
    // The sizes of a head are fields of their own here, and its rotary part is a head to its positions.
    let rope_dim = config.required_size(&["qk_rope_head_dim"])?;
    let config = &config.with("head_dim", rope_dim);
    let mut spec = llama::describe(config)?;
    let sizes = Sizes::read(config)?;
    for rope in &mut spec.ropes {
        rope.pairs = pairs;
    }
    let nope_dim = config.required_size(&["qk_nope_head_dim"])?;
    let scale = ((nope_dim + rope_dim) as f32).powf(-0.5) * magnitude(config)?;
    let eps = match pairs {
        RopePairs::Interleaved => 1e-6,
        RopePairs::HalfSplit => sizes.norm_eps,
    };
    let shape = Shape {
        hidden_size: sizes.hidden_size,
        n_heads: sizes.n_heads,
        nope_dim,
        rope_dim,
        value_dim: config.required_size(&["v_head_dim"])?,
        rank: config.required_size(&["kv_lora_rank"])?,
        q_rank: config.size(&["q_lora_rank"])?,
        bias: config.flag("attention_bias")?.unwrap_or(false),
        eps,
        scale,
    };
    for (idx, layer) in spec.layers.iter_mut().enumerate() {
        let latent = shape.attention(&format!("model.layers.{idx}.self_attn"));
        layer.attention = Attention::Latent(Box::new(latent));
    }
    Ok(spec)
}

/// YaRN's factor of the scores: `(0.1 · mscale_all_dim · ln factor + 1)²`.
fn magnitude(config: &Fields) -> Result<f32, ModelError> {
    let parameters = match config.object("rope_parameters")? {
        Some(parameters) => Some(parameters),
        None => config.object("rope_scaling")?,
    };
    let Some(parameters) = parameters else {
        return Ok(1.0);
    };
    let factor = parameters.positive(&["factor"])?;
    let magnitude = match (parameters.positive(&["mscale_all_dim"])?, factor) {
        (Some(mscale), Some(factor)) if factor > 1.0 => 0.1 * mscale * factor.ln() + 1.0,
        _ => 1.0,
    };
    Ok((magnitude * magnitude) as f32)
}

/// Sizes of latent attention.
struct Shape {
    hidden_size: usize,
    n_heads: usize,
    nope_dim: usize,
    rope_dim: usize,
    value_dim: usize,
    rank: usize,
    q_rank: Option<usize>,
    bias: bool,
    eps: f32,
    scale: f32,
}

impl Shape {
    fn attention(&self, name: &str) -> Latent<Matrix, Vector> {
        let of = |part: &str| format!("{name}.{part}");
        let q_width = self.n_heads * (self.nope_dim + self.rope_dim);
        let (q_down, q_up) = match self.q_rank {
            Some(rank) => (
                Some((
                    linear(&of("q_a_proj"), rank, self.hidden_size, self.bias),
                    rms_norm(&of("q_a_layernorm"), rank, self.eps),
                )),
                linear(&of("q_b_proj"), q_width, rank, false),
            ),
            None => (None, linear(&of("q_proj"), q_width, self.hidden_size, false)),
        };
        let per_head = |part: fn(&Shape, &str, usize) -> Matrix| {
            (0..self.n_heads)
                .map(|head| part(self, &of("kv_b_proj"), head))
                .collect()
        };
        Latent {
            n_heads: self.n_heads,
            nope_dim: self.nope_dim,
            rope_dim: self.rope_dim,
            value_dim: self.value_dim,
            rank: self.rank,
            rope: 0,
            scale: self.scale,
            q_down,
            q_up,
            kv_down: linear(
                &of("kv_a_proj_with_mqa"),
                self.rank + self.rope_dim,
                self.hidden_size,
                self.bias,
            ),
            kv_norm: rms_norm(&of("kv_a_layernorm"), self.rank, self.eps),
            key_up: per_head(Shape::key_up),
            value_up: per_head(Shape::value_up),
            out: linear(
                &of("o_proj"),
                self.hidden_size,
                self.n_heads * self.value_dim,
                self.bias,
            ),
        }
    }

    /// A head's keys `[nope_dim, rank]`, as what queries are multiplied with.
    fn key_up(&self, name: &str, head: usize) -> Matrix {
        let keys = HeadPart {
            first_row: 0,
            n_rows: self.rank,
            n_cols: self.nope_dim,
            layout: Layout::Columns,
        };
        self.of_head(name, head, keys)
    }

    /// A head's values `[value_dim, rank]`.
    fn value_up(&self, name: &str, head: usize) -> Matrix {
        let values = HeadPart {
            first_row: self.nope_dim,
            n_rows: self.value_dim,
            n_cols: self.rank,
            layout: Layout::Rows,
        };
        self.of_head(name, head, values)
    }

    /// A part of the tensor that holds, head after head, the rows of keys and then of values.
    fn of_head(&self, name: &str, head: usize, part: HeadPart) -> Matrix {
        let HeadPart {
            first_row,
            n_rows,
            n_cols,
            layout,
        } = part;
        let n_per_head = self.nope_dim + self.value_dim;
        let part = Part {
            tensor: TensorSpec {
                name: format!("{name}.weight"),
                shape: vec![self.n_heads * n_per_head, self.rank],
            },
            first: (head * n_per_head + first_row) * self.rank,
            n_rows,
            layout,
            taken: vec![Rows::block(0, n_rows)],
            bias: None,
        };
        Matrix {
            n_cols,
            parts: vec![part],
        }
    }
}

/// What a matrix takes of the rows of one head.
struct HeadPart {
    /// First row, within the head.
    first_row: usize,
    /// Rows of the matrix.
    n_rows: usize,
    /// Columns of the matrix.
    n_cols: usize,
    /// How the matrix is stored.
    layout: Layout,
}
