//! BERT, RoBERTa and XLM-RoBERTa: encoders of texts, as embedding models and cross-encoders.

use kernels::Activation;

use super::parts::{
    Sizes, activation, ffn_size, layer, layer_norm, linear, no_norms, plain_mlp, unsupported,
};
use crate::model::config::{Fields, invalid};
use crate::model::error::ModelError;
use crate::model::spec::{Ffn, Matrix, ModelSpec, Norm, Norms, Task, Vector};

/// BERT: positions from row 0.
pub(super) fn describe_bert(config: &Fields) -> Result<ModelSpec, ModelError> {
    describe(config, 0, Task::Embed)
}

/// A cross-encoder of BERT: the pooler, then the classifier.
pub(super) fn describe_bert_classifier(config: &Fields) -> Result<ModelSpec, ModelError> {
    let task = classifier(config, "pooler.dense", "classifier")?;
    describe(config, 0, task)
}

/// RoBERTa and XLM-RoBERTa: positions start after the padding's row.
pub(super) fn describe_roberta(config: &Fields) -> Result<ModelSpec, ModelError> {
    describe(config, positions_from(config)?, Task::Embed)
}

/// A cross-encoder of RoBERTa or XLM-RoBERTa.
pub(super) fn describe_roberta_classifier(config: &Fields) -> Result<ModelSpec, ModelError> {
    let task = classifier(config, "classifier.dense", "classifier.out_proj")?;
    describe(config, positions_from(config)?, task)
}

fn positions_from(config: &Fields) -> Result<usize, ModelError> {
    Ok(config.count("pad_token_id")?.unwrap_or(1) + 1)
}

fn classifier(config: &Fields, dense: &str, out: &str) -> Result<Task<Matrix>, ModelError> {
    let hidden_size = Sizes::read(config)?.hidden_size;
    let n_labels = match config.object("id2label")? {
        Some(labels) => labels.entries().count(),
        None => config.size(&["num_labels"])?.unwrap_or(1),
    };
    Ok(Task::Classify {
        dense: linear(dense, hidden_size, hidden_size, true),
        out: linear(out, n_labels, hidden_size, true),
    })
}

fn describe(config: &Fields, positions_from: usize, task: Task<Matrix>) -> Result<ModelSpec, ModelError> {
    if let Some(kind) = config
        .text(&["position_embedding_type"])?
        .filter(|kind| *kind != "absolute")
    {
        return Err(unsupported("position_embedding_type", kind, "absolute"));
    }
    config.without_effect(&["tie_word_embeddings"]);
    let mut sizes = Sizes::read(config)?;
    let n_positions = sizes.context_len;
    sizes.context_len = n_positions.saturating_sub(positions_from);
    if sizes.context_len == 0 {
        let reason = format!("is {n_positions}, all of them before the first");
        return Err(invalid("max_position_embeddings", reason));
    }
    let width = ffn_size(config, &sizes)?;
    let n_types = config.size(&["type_vocab_size"])?.unwrap_or(2);
    let activation = activation(config, Activation::Gelu)?;
    let norm = |name: &str| layer_norm(name, sizes.hidden_size, sizes.norm_eps, true);
    let of_layer = |idx: usize| {
        let name = |part: &str| format!("encoder.layer.{idx}.{part}");
        let names = ["query", "key", "value"].map(|part| name(&format!("attention.self.{part}")));
        let out = linear(
            &name("attention.output.dense"),
            sizes.hidden_size,
            sizes.q_width(),
            true,
        );
        let up = linear(&name("intermediate.dense"), width, sizes.hidden_size, true);
        let down = linear(&name("output.dense"), sizes.hidden_size, width, true);
        layer(
            of_sum(norm(&name("attention.output.LayerNorm"))),
            sizes.attention(sizes.separate_qkv(names, true), out),
            of_sum(norm(&name("output.LayerNorm"))),
            Ffn::Dense(plain_mlp(activation, up, down)),
        )
    };
    let layers = (0..sizes.n_layers).map(of_layer).collect();
    let mut spec = sizes.model("embeddings.word_embeddings", layers, task);
    let table = |name, n_rows| Some(linear(name, n_rows, sizes.hidden_size, false));
    spec.embedding.positions = table("embeddings.position_embeddings", n_positions);
    spec.embedding.positions_from = positions_from;
    spec.embedding.types = table("embeddings.token_type_embeddings", n_types);
    spec.embedding.norm = Some(norm("embeddings.LayerNorm"));
    spec.is_causal = false;
    let unused = ["pooler.", "embeddings.position_ids", "cls.", "lm_head."];
    spec.ignored = unused.map(str::to_owned).to_vec();
    Ok(spec)
}

fn of_sum(norm: Norm<Vector>) -> Norms<Vector> {
    Norms {
        sum: Some(norm),
        ..no_norms()
    }
}
