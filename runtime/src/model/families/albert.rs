//! ALBERT: a BERT whose layers share weights, with tables that are narrower than the layers.

use kernels::Activation;

use super::bert::{of_sum, with_classifier, with_types};
use super::parts::{Sizes, activation, ffn_size, layer, layer_norm, linear, plain_mlp};
use crate::model::config::{Fields, NORM_EPS, invalid};
use crate::model::error::ModelError;
use crate::model::spec::{Ffn, ModelSpec, Task};

/// A cross-encoder of ALBERT: the pooler, then the classifier.
pub(super) fn describe_classifier(config: &Fields) -> Result<ModelSpec, ModelError> {
    with_classifier(config, describe(config)?, ["pooler", "classifier"])
}

/// The encoder.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    // The last four are of the first code, and nothing has read them since.
    config.without_effect(&[
        "tie_word_embeddings",
        "net_structure_type",
        "down_scale_factor",
        "gap_size",
        "num_memory_blocks",
    ]);
    let mut sizes = Sizes::read(config)?;
    sizes.norm_eps = config.positive(NORM_EPS)?.unwrap_or(1e-12) as f32;
    let width = ffn_size(config, &sizes)?;
    let activation = activation(config, Activation::GeluTanh)?;
    let groups = Groups::read(config, sizes.n_layers)?;
    let norm = |name: &str| layer_norm(name, sizes.hidden_size, sizes.norm_eps, true);
    let of_layer = |group: usize, inner: usize| {
        let name = |part: &str| format!("encoder.albert_layer_groups.{group}.albert_layers.{inner}.{part}");
        let qkv = ["query", "key", "value"].map(|part| name(&format!("attention.{part}")));
        let out = linear(&name("attention.dense"), sizes.hidden_size, sizes.q_width(), true);
        let up = linear(&name("ffn"), width, sizes.hidden_size, true);
        let down = linear(&name("ffn_output"), sizes.hidden_size, width, true);
        layer(
            of_sum(norm(&name("attention.LayerNorm"))),
            sizes.attention(sizes.separate_qkv(qkv, true), out),
            of_sum(norm(&name("full_layer_layer_norm"))),
            Ffn::Dense(plain_mlp(activation, up, down)),
        )
    };
    let layers = (0..sizes.n_layers).flat_map(|idx| {
        let group = groups.of_layer(idx);
        (0..groups.n_inner).map(move |inner| (group, inner))
    });
    let layers = layers.map(|(group, inner)| of_layer(group, inner)).collect();
    let embed_size = config.size(&["embedding_size"])?.unwrap_or(128);
    let of_tables = Sizes {
        hidden_size: embed_size,
        ..sizes
    };
    let mut spec = of_tables.model("embeddings.word_embeddings", layers, Task::Embed);
    spec.hidden_size = sizes.hidden_size;
    let positions = "embeddings.position_embeddings";
    spec.embedding.positions = Some(linear(positions, sizes.context_len, embed_size, false));
    spec.embedding.norm = Some(layer_norm(
        "embeddings.LayerNorm",
        embed_size,
        sizes.norm_eps,
        true,
    ));
    let project = "encoder.embedding_hidden_mapping_in";
    spec.embedding.project_normed = Some(linear(project, sizes.hidden_size, embed_size, true));
    spec.is_causal = false;
    let unused = [
        "pooler.",
        "embeddings.position_ids",
        "predictions.",
        "sop_classifier.",
    ];
    spec.ignored = unused.map(str::to_owned).to_vec();
    with_types(config, spec)
}

/// Groups of neighbouring layers that share their weights.
struct Groups {
    n: usize,
    n_layers: usize,
    /// Layers that each of the model's layers consists of.
    n_inner: usize,
}

impl Groups {
    fn read(config: &Fields, n_layers: usize) -> Result<Groups, ModelError> {
        let n = config.size(&["num_hidden_groups"])?.unwrap_or(1);
        let n_inner = config.size(&["inner_group_num"])?.unwrap_or(1);
        if n > n_layers {
            let reason = format!("is {n}, must be at most {n_layers}, the number of layers");
            return Err(invalid("num_hidden_groups", reason));
        }
        if n_inner > N_INNER_MAX {
            let reason = format!("is {n_inner}, must be at most {N_INNER_MAX}");
            return Err(invalid("inner_group_num", reason));
        }
        Ok(Groups { n, n_layers, n_inner })
    }

    /// Where the numbers do not divide, as transformers computes it.
    fn of_layer(&self, idx: usize) -> usize {
        (idx as f64 / (self.n_layers as f64 / self.n as f64)) as usize
    }
}

/// Most layers in each layer; published models have one.
const N_INNER_MAX: usize = 16;
