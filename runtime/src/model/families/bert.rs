//! BERT and its kin: encoders of texts, as embedding models and cross-encoders.

use kernels::Activation;

use super::parts::{
    Sizes, activation, each_attention, ffn_size, layer, layer_norm, linear, n_labels, no_norms, plain_mlp,
    unsupported,
};
use super::relative::Buckets;
use crate::model::config::{Fields, NORM_EPS, invalid};
use crate::model::error::ModelError;
use crate::model::pooling::PoolingKind;
use crate::model::spec::{Classifier, Ffn, Hidden, ModelSpec, Norm, Norms, Task, Vector};

/// BERT: positions from row 0.
pub(super) fn describe_bert(config: &Fields) -> Result<ModelSpec, ModelError> {
    with_types(config, describe(config, &BERT, 0)?)
}

/// A cross-encoder of BERT: the pooler, then the classifier.
pub(super) fn describe_bert_classifier(config: &Fields) -> Result<ModelSpec, ModelError> {
    with_classifier(config, describe_bert(config)?, ["pooler.dense", "classifier"])
}

/// RoBERTa, XLM-RoBERTa and CamemBERT: positions start after the padding's row.
pub(super) fn describe_roberta(config: &Fields) -> Result<ModelSpec, ModelError> {
    with_types(config, describe(config, &BERT, positions_from(config)?)?)
}

/// A cross-encoder of RoBERTa, XLM-RoBERTa or CamemBERT.
pub(super) fn describe_roberta_classifier(config: &Fields) -> Result<ModelSpec, ModelError> {
    let names = ["classifier.dense", "classifier.out_proj"];
    with_classifier(config, describe_roberta(config)?, names)
}

/// DistilBERT: a BERT without kinds of segments.
pub(super) fn describe_distilbert(config: &Fields) -> Result<ModelSpec, ModelError> {
    describe(config, &DISTILBERT, 0)
}

/// A cross-encoder of DistilBERT.
pub(super) fn describe_distilbert_classifier(config: &Fields) -> Result<ModelSpec, ModelError> {
    let spec = describe_distilbert(config)?;
    let mut spec = with_classifier(config, spec, ["pre_classifier", "classifier"])?;
    if let Task::Classify(classifier) = &mut spec.task
        && let Some(hidden) = &mut classifier.hidden
    {
        hidden.activation = Some(Activation::Relu);
    }
    Ok(spec)
}

/// Buckets of distances in MPNet, whatever its config names.
const N_BUCKETS: usize = 32;
/// Distance from which on all are in one bucket.
const FARTHEST: usize = 128;

/// MPNet: a RoBERTa whose scores have a bias by distance.
pub(super) fn describe_mpnet(config: &Fields) -> Result<ModelSpec, ModelError> {
    let n_buckets = config.size(&["relative_attention_num_buckets"])?;
    if let Some(other) = n_buckets.filter(|n| *n != N_BUCKETS) {
        return Err(unsupported(
            "relative_attention_num_buckets",
            &other.to_string(),
            "32",
        ));
    }
    let buckets = Buckets::new(N_BUCKETS, FARTHEST)?;
    let mut spec = describe(config, &MPNET, 2)?;
    each_attention(&mut spec, |_, attention| {
        let name = "encoder.relative_attention_bias.weight";
        attention.relative = Some(buckets.bias(name, attention.n_heads));
    });
    Ok(spec)
}

/// A cross-encoder of MPNet.
pub(super) fn describe_mpnet_classifier(config: &Fields) -> Result<ModelSpec, ModelError> {
    let names = ["classifier.dense", "classifier.out_proj"];
    with_classifier(config, describe_mpnet(config)?, names)
}

fn positions_from(config: &Fields) -> Result<usize, ModelError> {
    Ok(config.count("pad_token_id")?.unwrap_or(1) + 1)
}

/// An encoder with a classifier of two layers over its first token.
pub(super) fn with_classifier(
    config: &Fields,
    mut spec: ModelSpec,
    [dense, out]: [&str; 2],
) -> Result<ModelSpec, ModelError> {
    let hidden_size = spec.hidden_size;
    spec.task = Task::Classify(Box::new(Classifier {
        pooling: PoolingKind::First,
        hidden: Some(Hidden {
            dense: linear(dense, hidden_size, hidden_size, true),
            activation: None,
            norm: None,
        }),
        out: linear(out, n_labels(config)?, hidden_size, true),
    }));
    Ok(spec)
}

/// What an encoder calls its tensors.
struct Names {
    layers: &'static str,
    qkv: [&'static str; 3],
    out: &'static str,
    attention_norm: &'static str,
    up: &'static str,
    down: &'static str,
    ffn_norm: &'static str,
}

const BERT: Names = Names {
    layers: "encoder.layer",
    qkv: [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
    ],
    out: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    ffn_norm: "output.LayerNorm",
};

const DISTILBERT: Names = Names {
    layers: "transformer.layer",
    qkv: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
    out: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    up: "ffn.lin1",
    down: "ffn.lin2",
    ffn_norm: "output_layer_norm",
};

const MPNET: Names = Names {
    qkv: ["attention.attn.q", "attention.attn.k", "attention.attn.v"],
    out: "attention.attn.o",
    attention_norm: "attention.LayerNorm",
    ..BERT
};

/// Adds the table of kinds of segments, which is as wide as that of tokens.
pub(super) fn with_types(config: &Fields, mut spec: ModelSpec) -> Result<ModelSpec, ModelError> {
    let n_types = config.size(&["type_vocab_size"])?.unwrap_or(2);
    let table = linear(
        "embeddings.token_type_embeddings",
        n_types,
        spec.embedding.tokens.n_cols,
        false,
    );
    spec.embedding.types = Some(table);
    Ok(spec)
}

fn describe(config: &Fields, names: &Names, positions_from: usize) -> Result<ModelSpec, ModelError> {
    if let Some(kind) = config
        .text(&["position_embedding_type"])?
        .filter(|kind| *kind != "absolute")
    {
        return Err(unsupported("position_embedding_type", kind, "absolute"));
    }
    config.without_effect(&["tie_word_embeddings"]);
    let mut sizes = Sizes::read(config)?;
    sizes.norm_eps = config.positive(NORM_EPS)?.unwrap_or(1e-12) as f32;
    let n_positions = sizes.context_len;
    sizes.context_len = n_positions.saturating_sub(positions_from);
    if sizes.context_len == 0 {
        let reason = format!("is {n_positions}, all of them before the first");
        return Err(invalid("max_position_embeddings", reason));
    }
    let width = ffn_size(config, &sizes)?;
    let activation = activation(config, Activation::Gelu)?;
    let norm = |name: &str| layer_norm(name, sizes.hidden_size, sizes.norm_eps, true);
    let of_layer = |idx: usize| {
        let name = |part: &str| format!("{}.{idx}.{part}", names.layers);
        let out = linear(&name(names.out), sizes.hidden_size, sizes.q_width(), true);
        let up = linear(&name(names.up), width, sizes.hidden_size, true);
        let down = linear(&name(names.down), sizes.hidden_size, width, true);
        layer(
            of_sum(norm(&name(names.attention_norm))),
            sizes.attention(sizes.separate_qkv(names.qkv.map(name), true), out),
            of_sum(norm(&name(names.ffn_norm))),
            Ffn::Dense(plain_mlp(activation, up, down)),
        )
    };
    let layers = (0..sizes.n_layers).map(of_layer).collect();
    let mut spec = sizes.model("embeddings.word_embeddings", layers, Task::Embed);
    let positions = "embeddings.position_embeddings";
    spec.embedding.positions = Some(linear(positions, n_positions, sizes.hidden_size, false));
    spec.embedding.positions_from = positions_from;
    spec.embedding.norm = Some(norm("embeddings.LayerNorm"));
    spec.is_causal = false;
    let unused = ["pooler.", "embeddings.position_ids", "cls.", "lm_head.", "vocab_"];
    spec.ignored = unused.map(str::to_owned).to_vec();
    Ok(spec)
}

pub(super) fn of_sum(norm: Norm<Vector>) -> Norms<Vector> {
    Norms {
        sum: Some(norm),
        ..no_norms()
    }
}
