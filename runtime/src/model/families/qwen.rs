//! Qwen 1, 2, 2.5 and 3, with and without experts, the text parts of Qwen-VL, and MiMo.

use kernels::Activation;

use super::llama::{self, Biases};
use super::parts::{
    MlpShape, Sizes, Tie, activation, each_attention, experts, gated_mlp, head, input_norm, layer, linear,
    llama_mlp, rms_norm, rms_qk_norms, vision_parts, windows,
};
use super::stack::Stack;
use crate::model::config::{FFN_SIZE, Fields, N_EXPERTS, invalid};
use crate::model::error::ModelError;
use crate::model::rope::RopeSpec;
use crate::model::spec::{Ffn, LayerSpec, Layout, Matrix, Mlp, ModelSpec, Task};

/// Qwen2 and Qwen2.5: a Llama with biased queries, keys and values.
pub(super) fn describe_2(config: &Fields) -> Result<ModelSpec, ModelError> {
    let biases = Biases {
        qkv: true,
        out: false,
        ffn: false,
    };
    windowed(config, llama::with_biases(config, biases)?)
}

/// Qwen3: a Llama with norms of queries and keys.
pub(super) fn describe_3(config: &Fields) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    // It has these norms whatever the field says.
    config.without_effect(&["use_qk_norm"]);
    let mut spec = windowed(config, llama::describe(config)?)?;
    each_attention(&mut spec, |idx, attention| {
        let name = format!("model.layers.{idx}.self_attn");
        attention.qk_norms = Some(rms_qk_norms(&name, &sizes));
    });
    Ok(spec)
}

/// Qwen2-MoE: some layers have experts, one of them shared and weighed by a gate.
pub(super) fn describe_2_moe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let shared_width = config.required_size(&["shared_expert_intermediate_size"])?;
    let mut spec = with_experts(config, describe_2(config)?)?;
    let hidden_size = spec.hidden_size;
    let shape = MlpShape::unbiased(config, hidden_size, shared_width)?;
    for (idx, layer) in spec.layers.iter_mut().enumerate() {
        if let Ffn::Experts(moe) = &mut layer.ffn {
            moe.shared = Some(llama_mlp(&format!("model.layers.{idx}.mlp.shared_expert"), shape));
            let gate = format!("model.layers.{idx}.mlp.shared_expert_gate");
            moe.shared_gate = Some(linear(&gate, 1, shape.hidden_size, false));
        }
    }
    Ok(spec)
}

/// Qwen3-MoE.
pub(super) fn describe_3_moe(config: &Fields) -> Result<ModelSpec, ModelError> {
    with_experts(config, describe_3(config)?)
}

/// MiMo 7B: a Qwen2 with layers that predict further tokens, for speculation.
pub(super) fn describe_mimo(config: &Fields) -> Result<ModelSpec, ModelError> {
    let mut spec = describe_2(config)?;
    spec.ignored = vec!["model.mtp_layers.".to_owned()];
    Ok(spec)
}

/// The text part of Qwen2-VL and Qwen2.5-VL. A token of a picture has three coordinates, those of a text are all equal
/// and turn as a position does.
pub(super) fn describe_2_vl(config: &Fields) -> Result<ModelSpec, ModelError> {
    without_vision(config, describe_2)
}

/// The text part of Qwen3-VL.
pub(super) fn describe_3_vl(config: &Fields) -> Result<ModelSpec, ModelError> {
    without_vision(config, describe_3)
}

/// The text part of Qwen3-VL with experts, whose tensors hold all experts of a layer.
pub(super) fn describe_3_vl_moe(config: &Fields) -> Result<ModelSpec, ModelError> {
    without_vision(config, |config| {
        let spec = describe_3(config)?;
        let stack = Stack {
            n_experts: config.required_size(N_EXPERTS)?,
            width: config.required_size(&["moe_intermediate_size"])?,
            hidden_size: spec.hidden_size,
            layout: Layout::Columns,
            activation: activation(config, Activation::Silu)?,
        };
        with_experts_of(config, spec, |name, expert| {
            let names = ["gate_up_proj", "down_proj"].map(|part| format!("{name}.experts.{part}"));
            stack.expert(names, expert)
        })
    })
}

fn without_vision(
    config: &Fields,
    describe: fn(&Fields) -> Result<ModelSpec, ModelError>,
) -> Result<ModelSpec, ModelError> {
    let mut spec = describe(&config.text_part()?)?;
    spec.ignored = vision_parts();
    Ok(spec)
}

/// Qwen 1: Qwen2 under the names of GPT-2, `w2` the gate. Positions beyond `seq_length` would need log-n
/// attention and a grown rotary base; the context ends there.
pub(super) fn describe_1(config: &Fields) -> Result<ModelSpec, ModelError> {
    let mut sizes = Sizes::read(config)?;
    config.without_effect(&["use_dynamic_ntk", "use_logn_attn"]);
    if let Some(trained) = config.size(&["seq_length"])? {
        sizes.context_len = sizes.context_len.min(trained);
    }
    let bias = !config.flag("no_bias")?.unwrap_or(true);
    let width = config.required_size(FFN_SIZE)? / 2;
    if width == 0 {
        return Err(invalid(FFN_SIZE[0], "is 1, must be at least 2".to_owned()));
    }
    let of_layer = |idx: usize| {
        let name = |part: &str| format!("transformer.h.{idx}.{part}");
        let norm = |part: &str| input_norm(rms_norm(&name(part), sizes.hidden_size, sizes.norm_eps));
        let out = linear(&name("attn.c_proj"), sizes.hidden_size, sizes.q_width(), bias);
        let mut attention = sizes.attention(sizes.fused_qkv(&name("attn.c_attn"), true), out);
        attention.rope = Some(0);
        let names = ["w2", "w1", "c_proj"].map(|part| name(&format!("mlp.{part}")));
        let mlp = gated_mlp(
            names,
            MlpShape {
                hidden_size: sizes.hidden_size,
                width,
                activation: Activation::Silu,
                bias,
            },
        );
        layer(norm("ln_1"), attention, norm("ln_2"), Ffn::Dense(mlp))
    };
    let layers = (0..sizes.n_layers).map(of_layer).collect();
    let task = Task::Generate(head(config, "lm_head", Tie::Untied, &sizes)?);
    let mut spec = sizes.model("transformer.wte", layers, task);
    spec.ropes = vec![RopeSpec::from_config(config, sizes.head_dim)?];
    spec.final_norm = Some(rms_norm("transformer.ln_f", sizes.hidden_size, sizes.norm_eps));
    Ok(spec)
}

/// Layers from `max_window_layers` on look back over a window if the config switches that on; zero, so all of
/// them, is a value that occurs.
fn windowed(config: &Fields, mut spec: ModelSpec) -> Result<ModelSpec, ModelError> {
    /// What transformers takes where the field is missing.
    const DEFAULT_MAX_WINDOW_LAYERS: usize = 28;
    if config.flag("use_sliding_window")?.unwrap_or(false) {
        let first = config.count("max_window_layers")?;
        let first = first.unwrap_or(DEFAULT_MAX_WINDOW_LAYERS);
        let windows = windows(config, spec.layers.len(), |layer| layer >= first)?;
        each_attention(&mut spec, |idx, attention| attention.window = windows[idx]);
    } else {
        config.without_effect(&["sliding_window", "max_window_layers", "layer_types"]);
    }
    Ok(spec)
}

/// [`with_experts_of`] three tensors for each expert.
fn with_experts(config: &Fields, spec: ModelSpec) -> Result<ModelSpec, ModelError> {
    let width = config.required_size(&["moe_intermediate_size"])?;
    let shape = MlpShape::unbiased(config, spec.hidden_size, width)?;
    with_experts_of(config, spec, |name, expert| {
        llama_mlp(&format!("{name}.experts.{expert}"), shape)
    })
}

/// Gives experts to every `decoder_sparse_step`-th layer that `mlp_only_layers` does not name. `expert` makes one of
/// those below a name.
fn with_experts_of(
    config: &Fields,
    mut spec: ModelSpec,
    expert: impl Fn(&str, usize) -> Mlp<Matrix>,
) -> Result<ModelSpec, ModelError> {
    let step = config.size(&["decoder_sparse_step"])?.unwrap_or(1);
    let dense = config.counts("mlp_only_layers")?.unwrap_or_default();
    let renormalise = config.flag("norm_topk_prob")?.unwrap_or(false);
    let hidden_size = spec.hidden_size;
    let is_sparse = |idx: usize| (idx + 1).is_multiple_of(step) && !dense.contains(&idx);
    let sparse = |(idx, _): &(usize, &mut LayerSpec)| is_sparse(*idx);
    for (idx, layer) in spec.layers.iter_mut().enumerate().filter(sparse) {
        let name = format!("model.layers.{idx}.mlp");
        let mut moe = experts(config, &format!("{name}.gate"), hidden_size, |idx| {
            expert(&name, idx)
        })?;
        moe.renormalise = renormalise;
        layer.ffn = Ffn::Experts(Box::new(moe));
    }
    Ok(spec)
}
