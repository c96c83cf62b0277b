//! OPT: learned positions that start at row 2; the 350M model norms sums and has a narrower embedding.

use kernels::Activation;

use super::parts::{
    Sizes, Tie, activation, ffn_size, head, input_norm, layer, layer_norm, linear, no_norms, plain_mlp,
};
use crate::model::config::Fields;
use crate::model::error::ModelError;
use crate::model::spec::{Ffn, ModelSpec, Norm, Norms, Task, Vector};

/// Rows of the table of positions before that of position 0.
const POSITIONS_FROM: usize = 2;

/// Every size of OPT, and Galactica-like models of its shape.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let mut sizes = Sizes::read(config)?;
    sizes.norm_eps = 1e-5;
    let width = ffn_size(config, &sizes)?;
    let activation = activation(config, Activation::Relu)?;
    let bias = config.flag("enable_bias")?.unwrap_or(true);
    let norms_input = config.flag("do_layer_norm_before")?.unwrap_or(true);
    let has_weights = config.flag("layer_norm_elementwise_affine")?.unwrap_or(true);
    let norm = |name: &str| {
        let mut norm = layer_norm(name, sizes.hidden_size, sizes.norm_eps, has_weights);
        norm.weight = norm.weight.filter(|_| has_weights);
        norm
    };
    let of_layer = |idx: usize| {
        let name = |part: &str| format!("model.decoder.layers.{idx}.{part}");
        let names = ["q_proj", "k_proj", "v_proj"].map(|part| name(&format!("self_attn.{part}")));
        let out = linear(
            &name("self_attn.out_proj"),
            sizes.hidden_size,
            sizes.q_width(),
            bias,
        );
        let attention = sizes.attention(sizes.separate_qkv(names, bias), out);
        let up = linear(&name("fc1"), width, sizes.hidden_size, bias);
        let down = linear(&name("fc2"), sizes.hidden_size, width, bias);
        let around = |part: &str| around(norm(&name(part)), norms_input);
        layer(
            around("self_attn_layer_norm"),
            attention,
            around("final_layer_norm"),
            Ffn::Dense(plain_mlp(activation, up, down)),
        )
    };
    let layers = (0..sizes.n_layers).map(of_layer).collect();
    let embed_size = config
        .size(&["word_embed_proj_dim"])?
        .unwrap_or(sizes.hidden_size);
    let embed_sizes = Sizes {
        hidden_size: embed_size,
        ..sizes
    };
    let task = Task::Generate(head(config, "lm_head", Tie::Tied, &embed_sizes)?);
    let mut spec = embed_sizes.model("model.decoder.embed_tokens", layers, task);
    spec.hidden_size = sizes.hidden_size;
    if embed_size != sizes.hidden_size {
        let project = |name, n_rows, n_cols| Some(linear(name, n_rows, n_cols, false));
        spec.embedding.project_in = project("model.decoder.project_in", sizes.hidden_size, embed_size);
        spec.project_out = project("model.decoder.project_out", embed_size, sizes.hidden_size);
    }
    let n_rows = sizes.context_len + POSITIONS_FROM;
    let positions = linear("model.decoder.embed_positions", n_rows, sizes.hidden_size, false);
    spec.embedding.positions = Some(positions);
    spec.embedding.positions_from = POSITIONS_FROM;
    if norms_input && !config.flag("_remove_final_layer_norm")?.unwrap_or(false) {
        spec.final_norm = Some(norm("model.decoder.final_layer_norm"));
    }
    Ok(spec)
}

/// The norm of a part: of its input, or of the sum.
fn around(norm: Norm<Vector>, norms_input: bool) -> Norms<Vector> {
    if norms_input {
        input_norm(norm)
    } else {
        Norms {
            sum: Some(norm),
            ..no_norms()
        }
    }
}
