//! InternLM 2: a Llama under other names, each group of queries with its key and value.

use kernels::Activation;

use super::llama;
use super::parts::{
    MlpShape, Sizes, Tie, activation, each_attention, ffn_size, gated_mlp, head, input_norm, linear,
    rms_norm, taking,
};
use crate::model::config::Fields;
use crate::model::error::ModelError;
use crate::model::spec::{Ffn, ModelSpec, Task};

/// InternLM 2 and 2.5.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let bias = config.flag("bias")?.unwrap_or(false);
    let width = ffn_size(config, &sizes)?;
    let activation = activation(config, Activation::Silu)?;
    let mut spec = llama::describe(config)?;
    each_attention(&mut spec, |idx, attention| {
        let name = |part: &str| format!("model.layers.{idx}.attention.{part}");
        let fused = sizes.fused_qkv(&name("wqkv"), bias);
        attention.qkv = taking(fused, &sizes.ungrouped());
        attention.out = linear(&name("wo"), sizes.hidden_size, sizes.q_width(), bias);
    });
    for (idx, layer) in spec.layers.iter_mut().enumerate() {
        let name = |part: &str| format!("model.layers.{idx}.{part}");
        let norm = |part: &str| input_norm(rms_norm(&name(part), sizes.hidden_size, sizes.norm_eps));
        layer.attention_norms = norm("attention_norm");
        layer.ffn_norms = norm("ffn_norm");
        let names = ["w1", "w3", "w2"].map(|part| name(&format!("feed_forward.{part}")));
        layer.ffn = Ffn::Dense(gated_mlp(
            names,
            MlpShape {
                hidden_size: sizes.hidden_size,
                width,
                activation,
                bias: false,
            },
        ));
    }
    spec.embedding.tokens = linear("model.tok_embeddings", sizes.vocab_size, sizes.hidden_size, false);
    spec.task = Task::Generate(head(config, "output", Tie::Untied, &sizes)?);
    Ok(spec)
}
