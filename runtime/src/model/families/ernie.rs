//! ERNIE 4.5: neighbouring elements turn together; with experts, whose choice has a bias.

use kernels::RopePairs;

use super::llama::{self, Biases};
use super::parts::{MlpShape, Sizes, Tie, experts, head, llama_mlp, vector_of_shape};
use crate::model::config::Fields;
use crate::model::error::ModelError;
use crate::model::spec::{Ffn, ModelSpec, Task};

/// ERNIE 4.5 0.3B.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let bias = config.flag("use_bias")?.unwrap_or(false);
    let biases = Biases {
        qkv: bias,
        out: bias,
        ffn: bias,
    };
    let mut spec = llama::with_biases(config, biases)?;
    for rope in &mut spec.ropes {
        rope.pairs = RopePairs::Interleaved;
    }
    spec.task = Task::Generate(head(config, "lm_head", Tie::Tied, &sizes)?);
    Ok(spec)
}

/// ERNIE 4.5 21B-A3B and 300B-A47B.
pub(super) fn describe_moe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let mut spec = describe(config)?;
    let width = config.required_size(&["moe_intermediate_size"])?;
    let n_shared = config.count("moe_num_shared_experts")?.unwrap_or(0);
    let interval = config.size(&["moe_layer_interval"])?.unwrap_or(1);
    let first = config.count("moe_layer_start_index")?.unwrap_or(1);
    // A negative number counts from the end, as -1 does for the last layer.
    let last = match config.number(&["moe_layer_end_index"])? {
        Some(last) if last >= 0.0 => last as usize,
        Some(_) | None => spec.layers.len() - 1,
    };
    let hidden_size = spec.hidden_size;
    let shape = MlpShape::unbiased(config, hidden_size, width)?;
    for (idx, layer) in spec.layers.iter_mut().enumerate() {
        if !(first..=last).contains(&idx) || !(idx + 1).is_multiple_of(interval) {
            continue;
        }
        let name = format!("model.layers.{idx}.mlp");
        let expert = |expert: usize| llama_mlp(&format!("{name}.experts.{expert}"), shape);
        let mut moe = experts(config, &format!("{name}.gate"), hidden_size, expert)?;
        let bias = format!("{name}.moe_statics.e_score_correction_bias");
        moe.choice_bias = Some(vector_of_shape(bias, vec![1, moe.experts.len()]));
        if n_shared > 0 {
            let name = format!("{name}.shared_experts");
            let shape = MlpShape {
                width: n_shared * width,
                ..shape
            };
            moe.shared = Some(llama_mlp(&name, shape));
        }
        layer.ffn = Ffn::Experts(Box::new(moe));
    }
    // Layers that predict further tokens, for speculation.
    spec.ignored = [
        "model.mtp_block.",
        "model.mtp_emb_norm.",
        "model.mtp_hidden_norm.",
        "model.mtp_linear_proj.",
    ]
    .map(str::to_owned)
    .to_vec();
    Ok(spec)
}
