//! The pieces that families put descriptions together from.

use std::ops::Range;

use kernels::{Activation, NormKind, Scoring};

use crate::model::config::{
    ACTIVATION, Aliases, CONTEXT_LEN, FFN_SIZE, Fields, HIDDEN_SIZE, N_CHOSEN, N_EXPERTS, N_HEADS,
    N_KV_HEADS, N_LAYERS, NORM_EPS, VOCAB_SIZE, invalid,
};
use crate::model::error::ModelError;
use crate::model::spec::{
    Attention, Embedding, Ffn, Grouped, Head, LayerSpec, Layout, Matrix, Mlp, ModelSpec, Moe, Norm, Norms,
    Part, PartBias, ProjectedRows, QkNorms, Rows, Task, TensorSpec, Vector,
};

/// Most layers; published models have at most a few hundred.
const N_LAYERS_MAX: usize = 1024;
/// Most query heads; published models have at most a few hundred.
const N_HEADS_MAX: usize = 4096;
/// Most experts of all layers together; published models have some ten thousand.
const N_EXPERTS_MAX: usize = 1 << 16;
/// Most heads of all layers together: some families have a matrix or a norm for each.
const ALL_HEADS_MAX: usize = 1 << 16;

/// Where a config names no context, as those of models without positions do not.
const DEFAULT_CONTEXT_LEN: usize = 2048;

/// Sizes that all families have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// Rows of the embedding.
    pub(super) vocab_size: usize,
    /// Width of the residual stream.
    pub(super) hidden_size: usize,
    /// Layers.
    pub(super) n_layers: usize,
    /// Query heads.
    pub(super) n_heads: usize,
    /// Key and value heads.
    pub(super) n_kv_heads: usize,
    /// Elements of a head.
    pub(super) head_dim: usize,
    /// Positions.
    pub(super) context_len: usize,
    /// What norms add.
    pub(super) norm_eps: f32,
}

impl Sizes {
    /// Reads and checks them.
    pub(super) fn read(config: &Fields) -> Result<Sizes, ModelError> {
        let n_heads = config.required_size(N_HEADS)?;
        let n_kv_heads = config.size(N_KV_HEADS)?.unwrap_or(n_heads);
        Sizes::with_kv_heads(config, n_kv_heads)
    }

    /// The same with another number of key and value heads.
    pub(super) fn with_kv_heads(config: &Fields, n_kv_heads: usize) -> Result<Sizes, ModelError> {
        let hidden_size = config.required_size(HIDDEN_SIZE)?;
        let n_heads = config.required_size(N_HEADS)?;
        let head_dim = match config.size(&["head_dim", "kv_channels", "d_kv"])? {
            Some(head_dim) => head_dim,
            None if hidden_size.is_multiple_of(n_heads) => hidden_size / n_heads,
            None => {
                let reason = format!("is {n_heads}, which does not divide the hidden size {hidden_size}");
                return Err(invalid("num_attention_heads", reason));
            }
        };
        let sizes = Sizes {
            vocab_size: config.required_size(VOCAB_SIZE)?,
            hidden_size,
            n_layers: config.required_size(N_LAYERS)?,
            n_heads,
            n_kv_heads,
            head_dim,
            context_len: config.size(CONTEXT_LEN)?.unwrap_or(DEFAULT_CONTEXT_LEN),
            norm_eps: config.positive(NORM_EPS)?.unwrap_or(1e-6) as f32,
        };
        sizes.check()?;
        Ok(sizes)
    }

    /// What loading would multiply without an end.
    fn check(&self) -> Result<(), ModelError> {
        let limits = [
            ("num_hidden_layers", self.n_layers, N_LAYERS_MAX),
            ("num_attention_heads", self.n_heads, N_HEADS_MAX),
        ];
        for (field, size, limit) in limits {
            if size > limit {
                return Err(invalid(field, format!("is {size}, must be at most {limit}")));
            }
        }
        if self.n_heads * self.n_layers > ALL_HEADS_MAX {
            let reason = format!(
                "is {} in each of {} layers, must be at most {ALL_HEADS_MAX} in all",
                self.n_heads, self.n_layers
            );
            return Err(invalid("num_attention_heads", reason));
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            let reason = format!(
                "is {}, which does not divide the {} attention heads",
                self.n_kv_heads, self.n_heads
            );
            return Err(invalid("num_key_value_heads", reason));
        }
        Ok(())
    }

    /// Elements of all query heads.
    pub(super) fn q_width(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Elements of all key heads.
    pub(super) fn kv_width(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// `head_dim^-½`
    pub(super) fn scale(&self) -> f32 {
        (self.head_dim as f32).powf(-0.5)
    }

    /// Attention without options.
    pub(super) fn attention(&self, qkv: Matrix, out: Matrix) -> Grouped<Matrix, Vector> {
        Grouped {
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            head_dim: self.head_dim,
            window: None,
            rope: None,
            scale: self.scale(),
            softcap: None,
            alibi_slopes: None,
            relative: None,
            clip: None,
            qkv,
            qk_norms: None,
            sinks: None,
            out,
        }
    }

    /// Queries, keys and values from three tensors.
    pub(super) fn separate_qkv(&self, names: [String; 3], bias: bool) -> Matrix {
        let [q, k, v] = names;
        concat(vec![
            linear(&q, self.q_width(), self.hidden_size, bias),
            linear(&k, self.kv_width(), self.hidden_size, bias),
            linear(&v, self.kv_width(), self.hidden_size, bias),
        ])
    }

    /// Queries, keys and values from one tensor, all queries first, then all keys.
    pub(super) fn fused_qkv(&self, name: &str, bias: bool) -> Matrix {
        linear(name, self.q_width() + 2 * self.kv_width(), self.hidden_size, bias)
    }

    /// The rows of one tensor in which the queries that share a key come together with it and its value, in
    /// the order of [`Sizes::fused_qkv`].
    pub(super) fn ungrouped(&self) -> Vec<Rows> {
        let (d, group) = (self.head_dim, self.n_heads / self.n_kv_heads);
        let of = |kv_head: usize, at: usize, n: usize| Rows::block((kv_head * (group + 2) + at) * d, n * d);
        let each = |at, n| (0..self.n_kv_heads).map(move |kv_head| of(kv_head, at, n));
        each(0, group)
            .chain(each(group, 1))
            .chain(each(group + 1, 1))
            .collect()
    }

    /// A description with everything but layers, the last norm and the head.
    pub(super) fn model(&self, embed: &str, layers: Vec<LayerSpec>, task: Task<Matrix, Vector>) -> ModelSpec {
        ModelSpec {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            context_len: self.context_len,
            is_causal: true,
            embedding: Embedding {
                tokens: linear(embed, self.vocab_size, self.hidden_size, false),
                project_in: None,
                positions: None,
                positions_from: 0,
                types: None,
                scale: 1.0,
                norm: None,
                project_normed: None,
            },
            ropes: Vec::new(),
            layers,
            final_norm: None,
            project_out: None,
            task,
            projections: Vec::new(),
            ignored: Vec::new(),
        }
    }
}

fn tensor(name: String, shape: Vec<usize>) -> TensorSpec {
    TensorSpec { name, shape }
}

/// A layer stored as `{name}.weight` of `[n_rows, n_cols]`, with `{name}.bias` if it has one.
pub(in crate::model) fn linear(name: &str, n_rows: usize, n_cols: usize, bias: bool) -> Matrix {
    part(name, Layout::Rows, n_rows, n_cols).biased(bias.then_some(name))
}

/// A layer stored as `[n_cols, n_rows]` (GPT-2's Conv1D).
pub(super) fn linear_transposed(name: &str, n_rows: usize, n_cols: usize, bias: bool) -> Matrix {
    part(name, Layout::Columns, n_rows, n_cols).biased(bias.then_some(name))
}

fn part(name: &str, layout: Layout, n_rows: usize, n_cols: usize) -> Matrix {
    let shape = match layout {
        Layout::Columns => vec![n_cols, n_rows],
        Layout::Rows | Layout::Mxfp4 { .. } | Layout::Projected(_) => vec![n_rows, n_cols],
    };
    let part = Part {
        tensor: tensor(format!("{name}.weight"), shape),
        first: 0,
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

/// The products of some rows of a layer of one part with the `n_rows` rows of the table `{name}.weight`, which are
/// normed first.
pub(super) fn projected(
    name: &str,
    n_rows: usize,
    norm: Option<Norm<Vector>>,
    layer: &Matrix,
    rows: Range<usize>,
) -> Matrix {
    let taken = [Rows::block(rows.start, rows.len())];
    let layer = taking(layer.clone(), &taken);
    let mut matrix = linear(name, n_rows, layer.n_cols, false);
    let parts = matrix.parts.iter_mut().zip(layer.parts);
    parts.for_each(|(part, layer)| {
        part.layout = Layout::Projected(Box::new(ProjectedRows {
            norm: norm.clone(),
            layer,
        }));
    });
    matrix.n_cols = rows.len();
    matrix
}

impl Matrix {
    /// The same with the bias `{name}.bias` of each part, if there is a name.
    fn biased(mut self, name: Option<&str>) -> Matrix {
        for part in &mut self.parts {
            part.bias = name.map(|name| PartBias {
                tensor: tensor(format!("{name}.bias"), vec![part.n_rows]),
                first: 0,
            });
        }
        self
    }
}

/// The rows of several layers of the same width, one after another.
pub(super) fn concat(matrices: Vec<Matrix>) -> Matrix {
    let n_cols = matrices.first().map_or(0, |first| first.n_cols);
    Matrix {
        n_cols,
        parts: matrices.into_iter().flat_map(|matrix| matrix.parts).collect(),
    }
}

/// Some rows of a layer of one part.
pub(super) fn taking(mut matrix: Matrix, rows: &[Rows]) -> Matrix {
    for part in &mut matrix.parts {
        part.taken = rows.to_vec();
    }
    matrix
}

/// A tensor of one dimension.
pub(super) fn vector(name: String, len: usize) -> Vector {
    Vector {
        tensors: vec![tensor(name, vec![len])],
        offset: 0.0,
    }
}

/// A vector stored as a tensor of several dimensions.
pub(super) fn vector_of_shape(name: String, shape: Vec<usize>) -> Vector {
    Vector {
        tensors: vec![tensor(name, shape)],
        offset: 0.0,
    }
}

/// A root mean square norm `{name}.weight`.
pub(super) fn rms_norm(name: &str, len: usize, eps: f32) -> Norm<Vector> {
    Norm {
        kind: NormKind::Rms,
        eps,
        weight: Some(vector(format!("{name}.weight"), len)),
        bias: None,
    }
}

/// A layer norm `{name}.weight`, with `{name}.bias` if it has one.
pub(super) fn layer_norm(name: &str, len: usize, eps: f32, bias: bool) -> Norm<Vector> {
    Norm {
        kind: NormKind::Layer,
        eps,
        weight: Some(vector(format!("{name}.weight"), len)),
        bias: bias.then(|| vector(format!("{name}.bias"), len)),
    }
}

/// Norms of what a part reads, and nowhere else.
pub(super) fn input_norm(norm: Norm<Vector>) -> Norms<Vector> {
    Norms {
        input: Some(norm),
        ..no_norms()
    }
}

/// No norms.
pub(super) fn no_norms() -> Norms<Vector> {
    Norms {
        input: None,
        output: None,
        sum: None,
    }
}

/// A layer of grouped-query attention and a feed-forward part, one after the other, each with its norms.
pub(super) fn layer(
    attention_norms: Norms<Vector>,
    attention: Grouped<Matrix, Vector>,
    ffn_norms: Norms<Vector>,
    ffn: Ffn<Matrix, Vector>,
) -> LayerSpec {
    LayerSpec {
        attention_norms,
        attention: Attention::Grouped(attention),
        ffn_norms,
        ffn,
        is_parallel: false,
        adds_to_normed: false,
        residual_scale: 1.0,
        factor: None,
    }
}

impl MlpShape {
    /// One of this width without biases, with the config's activation function, or SiLU if it names none.
    pub(super) fn unbiased(
        config: &Fields,
        hidden_size: usize,
        width: usize,
    ) -> Result<MlpShape, ModelError> {
        Ok(MlpShape {
            hidden_size,
            width,
            activation: activation(config, Activation::Silu)?,
            bias: false,
        })
    }
}

/// What a feed-forward part of three tensors is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct MlpShape {
    /// Width of the residual stream.
    pub(super) hidden_size: usize,
    /// Elements between up and down.
    pub(super) width: usize,
    /// The activation function.
    pub(super) activation: Activation,
    /// Whether its layers have a bias.
    pub(super) bias: bool,
}

/// `down · (act(gate · x) · (up · x))` from three tensors.
pub(super) fn gated_mlp(names: [String; 3], shape: MlpShape) -> Mlp<Matrix> {
    let MlpShape {
        hidden_size,
        width,
        activation,
        bias,
    } = shape;
    let [gate, up, down] = names;
    let gate_up = concat(vec![
        linear(&gate, width, hidden_size, bias),
        linear(&up, width, hidden_size, bias),
    ]);
    Mlp {
        activation,
        width,
        is_gated: true,
        up: gate_up,
        down: linear(&down, hidden_size, width, bias),
    }
}

/// [`gated_mlp`] of `{name}.gate_proj`, `{name}.up_proj` and `{name}.down_proj`.
pub(super) fn llama_mlp(name: &str, shape: MlpShape) -> Mlp<Matrix> {
    let names = ["gate_proj", "up_proj", "down_proj"].map(|part| format!("{name}.{part}"));
    gated_mlp(names, shape)
}

/// `down · act(up · x)`
pub(super) fn plain_mlp(activation: Activation, up: Matrix, down: Matrix) -> Mlp<Matrix> {
    Mlp {
        activation,
        width: up.n_rows(),
        is_gated: false,
        up,
        down,
    }
}

/// A mixture of experts without options: softmax over a router, the config's number of experts and choices.
pub(super) fn experts(
    config: &Fields,
    router: &str,
    hidden_size: usize,
    expert: impl Fn(usize) -> Mlp<Matrix>,
) -> Result<Moe<Matrix, Vector>, ModelError> {
    let n_experts = config.required_size(N_EXPERTS)?;
    let n_chosen = config.required_size(N_CHOSEN)?;
    let n_layers = config.required_size(N_LAYERS)?;
    if n_experts.saturating_mul(n_layers) > N_EXPERTS_MAX {
        let reason =
            format!("is {n_experts} in each of {n_layers} layers, must be at most {N_EXPERTS_MAX} in all");
        return Err(invalid(N_EXPERTS[0], reason));
    }
    if n_chosen > n_experts {
        let reason = format!("is {n_chosen}, more than the {n_experts} experts");
        return Err(invalid(N_CHOSEN[0], reason));
    }
    Ok(Moe {
        router: linear(router, n_experts, hidden_size, false),
        scoring: Scoring::Softmax,
        choice_bias: None,
        groups: None,
        n_chosen,
        renormalise: true,
        scale: 1.0,
        weighs_input: false,
        experts: (0..n_experts).map(expert).collect(),
        shared: None,
        shared_gate: None,
    })
}

/// Norms of each query and key head: root mean square, one weight `[head_dim]` for all heads.
pub(super) fn rms_qk_norms(attention: &str, sizes: &Sizes) -> QkNorms<Vector> {
    let of = |name: &str| rms_norm(&format!("{attention}.{name}"), sizes.head_dim, sizes.norm_eps);
    QkNorms {
        after_rope: false,
        over_all_heads: false,
        q: of("q_norm"),
        k: of("k_norm"),
        v: None,
    }
}

/// Norms of all query heads together and all key heads together.
pub(super) fn rms_qk_norms_over_all(attention: &str, sizes: &Sizes) -> QkNorms<Vector> {
    let of = |name: &str, len| rms_norm(&format!("{attention}.{name}"), len, sizes.norm_eps);
    QkNorms {
        after_rope: false,
        over_all_heads: true,
        q: of("q_norm", sizes.q_width()),
        k: of("k_norm", sizes.kv_width()),
        v: None,
    }
}

/// Whether the embedding is the head of a model whose config does not name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tie {
    /// It is.
    Tied,
    /// The head has weights of its own.
    Untied,
}

/// A head stored as `{name}.weight`, unless the embedding is the head: the config decides, and `default` where it does
/// not name it.
pub(super) fn head(
    config: &Fields,
    name: &str,
    default: Tie,
    sizes: &Sizes,
) -> Result<Head<Matrix>, ModelError> {
    let is_tied = config
        .flag("tie_word_embeddings")?
        .unwrap_or(default == Tie::Tied);
    Ok(Head {
        weight: (!is_tied).then(|| linear(name, sizes.vocab_size, sizes.hidden_size, false)),
        has_unit_rows: false,
        scale: 1.0,
        softcap: None,
    })
}

/// Changes the attention of every layer that has grouped heads.
pub(super) fn each_attention(
    spec: &mut ModelSpec,
    mut change: impl FnMut(usize, &mut Grouped<Matrix, Vector>),
) {
    for (idx, layer) in spec.layers.iter_mut().enumerate() {
        if let Attention::Grouped(attention) = &mut layer.attention {
            change(idx, attention);
        }
    }
}

/// The width of the feed-forward part, four times the residual stream's if the config names none.
pub(super) fn ffn_size(config: &Fields, sizes: &Sizes) -> Result<usize, ModelError> {
    Ok(config.size(FFN_SIZE)?.unwrap_or(4 * sizes.hidden_size))
}

/// The activation function that the config names, or `default` if it names none.
pub(super) fn activation(config: &Fields, default: Activation) -> Result<Activation, ModelError> {
    match config.text(ACTIVATION)? {
        None => Ok(default),
        Some(name) => named_activation(name),
    }
}

/// An activation function by the name it has in configs.
pub(super) fn named_activation(name: &str) -> Result<Activation, ModelError> {
    match name {
        "silu" | "swish" | "swiglu" => Ok(Activation::Silu),
        "gelu" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" | "gelu_tanh" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        "relu2" => Ok(Activation::SquaredRelu),
        other => Err(unsupported(
            "hidden_act",
            other,
            "silu, gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, relu, relu2",
        )),
    }
}

/// An option that no code executes.
pub(super) fn unsupported(option: &'static str, value: &str, supported: &'static str) -> ModelError {
    ModelError::UnsupportedOption {
        option,
        value: value.to_owned(),
        supported,
    }
}

/// Refuses a switch that is on; what it would change is not implemented.
pub(super) fn refuse_flag(config: &Fields, option: &'static str) -> Result<(), ModelError> {
    match config.flag(option)? {
        Some(true) => Err(unsupported(option, "true", "false")),
        Some(false) | None => Ok(()),
    }
}

/// How far each layer looks back: `layer_types` has it layer by layer, else `is_windowed` decides.
pub(super) fn windows(
    config: &Fields,
    n_layers: usize,
    is_windowed: impl Fn(usize) -> bool,
) -> Result<Vec<Option<usize>>, ModelError> {
    let types = layer_types(config, n_layers)?;
    let Some(window) = config.size(&["sliding_window"])? else {
        return Ok(vec![None; n_layers]);
    };
    let windowed = match types {
        Some(types) => types,
        None => (0..n_layers).map(is_windowed).collect(),
    };
    Ok(windowed.into_iter().map(|is| is.then_some(window)).collect())
}

/// The layers that are windowed by `layer_types`.
pub(super) fn layer_types(config: &Fields, n_layers: usize) -> Result<Option<Vec<bool>>, ModelError> {
    let Some(types) = config.texts("layer_types")? else {
        return Ok(None);
    };
    if types.len() != n_layers {
        return Err(invalid(
            "layer_types",
            format!("has {} entries for {n_layers} layers", types.len()),
        ));
    }
    let is_windowed = |kind: &str| match kind {
        "sliding_attention" => Ok(true),
        "full_attention" => Ok(false),
        other => Err(unsupported(
            "layer_types",
            other,
            "full_attention, sliding_attention",
        )),
    };
    let types: Result<_, _> = types.into_iter().map(is_windowed).collect();
    types.map(Some)
}

/// The layers that have rotary positions by `no_rope_layers`, which has a 1 for each of them, or all but every
/// `no_rope_layer_interval`-th one.
pub(super) fn rotary_layers(config: &Fields, n_layers: usize) -> Result<Vec<bool>, ModelError> {
    const LAYERS: &str = "no_rope_layers";
    /// What transformers takes where the field is missing.
    const DEFAULT_INTERVAL: usize = 4;
    let interval = config.size(&["no_rope_layer_interval"])?;
    match config.counts(LAYERS)? {
        Some(layers) if layers.len() >= n_layers => Ok(layers.into_iter().map(|has| has > 0).collect()),
        Some(layers) if !layers.is_empty() => {
            let reason = format!("has {} entries for {n_layers} layers", layers.len());
            Err(invalid(LAYERS, reason))
        }
        _ => {
            let interval = interval.unwrap_or(DEFAULT_INTERVAL);
            Ok((0..n_layers)
                .map(|idx| !(idx + 1).is_multiple_of(interval))
                .collect())
        }
    }
}

/// Classes of a classifier.
pub(super) fn n_labels(config: &Fields) -> Result<usize, ModelError> {
    /// What transformers takes, and leaves out of the files it writes.
    const DEFAULT: usize = 2;
    match config.object("id2label")? {
        Some(labels) => Ok(labels.entries().count()),
        None => Ok(config.size(&["num_labels"])?.unwrap_or(DEFAULT)),
    }
}

/// Tensors of the parts of a model that read pictures and sound, which are left out.
pub(super) fn vision_parts() -> Vec<String> {
    let stems = [
        "vision_tower.",
        "vision_model.",
        "embed_vision.",
        "multi_modal_projector.",
        "visual.",
        "audio_tower.",
        "embed_audio.",
    ];
    let inner = stems.map(|stem| format!("model.{stem}"));
    stems.map(str::to_owned).into_iter().chain(inner).collect()
}

/// A factor that the config names, or 1.
pub(super) fn factor(config: &Fields, name: Aliases) -> Result<f32, ModelError> {
    Ok(config.positive(name)?.unwrap_or(1.0) as f32)
}

/// What distance takes off the scores of each head (Press et al. 2022): powers of `2^(-max/n)` for the largest
/// power of two `n` of heads, and every second one of twice as many heads for the rest. `max` is 8 but in MPT.
pub(super) fn alibi_slopes(n_heads: usize, max: f64) -> Vec<f32> {
    let of = |n: usize| move |i: usize| 2_f64.powf(-max * (i + 1) as f64 / n as f64) as f32;
    let n_first = if n_heads.is_power_of_two() {
        n_heads
    } else {
        n_heads.next_power_of_two() / 2
    };
    let rest = (0..).step_by(2).map(of(2 * n_first));
    (0..n_first).map(of(n_first)).chain(rest).take(n_heads).collect()
}

/// The exponent of [`alibi_slopes`] everywhere but in MPT.
pub(super) const ALIBI_MAX: f64 = 8.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_of_any_number_of_heads() {
        assert_eq!(
            alibi_slopes(4, ALIBI_MAX),
            [0.25, 0.0625, 0.015_625, 0.003_906_25]
        );
        let six = alibi_slopes(6, ALIBI_MAX);
        assert_eq!((six[0], six[4], six[5]), (0.25, 0.5, 0.125));
    }

    #[test]
    fn queries_keys_and_values_that_come_together_are_sorted() {
        let sizes = Sizes {
            vocab_size: 1,
            hidden_size: 1,
            n_layers: 1,
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 3,
            context_len: 1,
            norm_eps: 1e-5,
        };
        let rows: Vec<usize> = sizes.ungrouped().into_iter().flat_map(Rows::iter).collect();
        let of = |blocks: &[usize]| -> Vec<usize> { blocks.iter().flat_map(|b| 3 * b..3 * b + 3).collect() };
        assert_eq!(rows, of(&[0, 1, 4, 5, 2, 6, 3, 7]));
    }
}
