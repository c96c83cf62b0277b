//! DBRX: a mixture of experts whose tensors stack all experts of a layer.

use kernels::Activation;

use super::parts::{
    Sizes, Tie, experts, head, input_norm, layer, layer_norm, linear, named_activation, unsupported,
};
use crate::model::config::{Fields, N_EXPERTS, N_KV_HEADS, invalid};
use crate::model::error::ModelError;
use crate::model::rope::RopeSpec;
use crate::model::spec::{Ffn, Layout, Matrix, Mlp, ModelSpec, Part, Rows, Task, TensorSpec};

/// DBRX base and instruct.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let inner = |field| -> Result<Fields, ModelError> {
        config
            .object(field)?
            .ok_or_else(|| invalid(field, "is missing".to_owned()))
    };
    let (attn, ffn) = (inner("attn_config")?, inner("ffn_config")?);
    let mut sizes = Sizes::with_kv_heads(config, attn.required_size(N_KV_HEADS)?)?;
    sizes.norm_eps = 1e-5;
    let clip = attn.positive(&["clip_qkv"])?.map(|clip| clip as f32);
    let activation = match ffn.object("ffn_act_fn")? {
        Some(function) => named_activation(function.text(&["name"])?.unwrap_or("silu"))?,
        None => Activation::Silu,
    };
    let stack = Stack {
        n_experts: ffn.required_size(N_EXPERTS)?,
        width: ffn.required_size(&["ffn_hidden_size"])?,
        hidden_size: sizes.hidden_size,
    };
    // Weights are made to add up to 1 (their 1-norm); another norm occurs in no published model.
    let renormalise = match ffn.number(&["moe_normalize_expert_weights"])? {
        None => false,
        Some(1.0) => true,
        Some(other) => {
            let option = "moe_normalize_expert_weights";
            return Err(unsupported(option, &other.to_string(), "null, 1"));
        }
    };
    let norm = |name: &str| layer_norm(name, sizes.hidden_size, sizes.norm_eps, false);
    let of_layer = |idx: usize| {
        let name = |part: &str| format!("transformer.blocks.{idx}.{part}");
        let qkv = sizes.fused_qkv(&name("norm_attn_norm.attn.Wqkv"), false);
        let out_name = name("norm_attn_norm.attn.out_proj");
        let mut attention =
            sizes.attention(qkv, linear(&out_name, sizes.hidden_size, sizes.q_width(), false));
        attention.rope = Some(0);
        attention.clip = clip;
        let expert = |expert| stack.expert(&name("ffn.experts.mlp"), expert, activation);
        let router = name("ffn.router.layer");
        let counts = ffn.with("num_hidden_layers", sizes.n_layers);
        let mut moe = experts(&counts, &router, sizes.hidden_size, expert)?;
        moe.renormalise = renormalise;
        let norms = ["norm_1", "norm_2"].map(|part| norm(&name(&format!("norm_attn_norm.{part}"))));
        let [before_attention, before_ffn] = norms.map(input_norm);
        Ok(layer(
            before_attention,
            attention,
            before_ffn,
            Ffn::Experts(Box::new(moe)),
        ))
    };
    let layers = (0..sizes.n_layers)
        .map(of_layer)
        .collect::<Result<_, ModelError>>()?;
    let task = Task::Generate(head(config, "lm_head", Tie::Untied, &sizes)?);
    let mut spec = sizes.model("transformer.wte", layers, task);
    let rope = RopeSpec::from_config(&attn, sizes.head_dim)?;
    // Newer programs copy the parameters to config.json, and once wrote another base there.
    if config.is_object("rope_parameters") && RopeSpec::from_config(config, sizes.head_dim)? != rope {
        let reason = "contradicts the rope_theta of attn_config".to_owned();
        return Err(invalid("rope_parameters", reason));
    }
    spec.ropes = vec![rope];
    spec.final_norm = Some(norm("transformer.norm_f"));
    Ok(spec)
}

/// Tensors `[n_experts · width, hidden_size]`, one expert after another.
struct Stack {
    n_experts: usize,
    width: usize,
    hidden_size: usize,
}

impl Stack {
    fn expert(&self, name: &str, expert: usize, activation: Activation) -> Mlp<Matrix> {
        let part = |part: &str, n_rows, layout| Part {
            tensor: TensorSpec {
                name: format!("{name}.{part}"),
                shape: vec![self.n_experts * self.width, self.hidden_size],
            },
            first: expert * self.width * self.hidden_size,
            n_rows,
            layout,
            taken: vec![Rows::block(0, n_rows)],
            bias: None,
        };
        let gate_up = ["w1", "v1"].map(|name| part(name, self.width, Layout::Rows));
        Mlp {
            activation,
            width: self.width,
            is_gated: true,
            up: Matrix {
                n_cols: self.hidden_size,
                parts: gate_up.to_vec(),
            },
            down: Matrix {
                n_cols: self.width,
                parts: vec![part("w2", self.hidden_size, Layout::Columns)],
            },
        }
    }
}
