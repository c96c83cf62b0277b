//! DeBERTa v2 and v3: a BERT whose scores add products of both tokens with vectors of their distance (He et al. 2021).

use kernels::Activation;

use super::bert::{of_sum, with_classifier};
use super::parts::{
    Sizes, activation, ffn_size, layer, layer_norm, linear, named_activation, plain_mlp, projected,
    unsupported,
};
use crate::model::config::{Aliases, Fields, NORM_EPS, invalid};
use crate::model::error::ModelError;
use crate::model::spec::{Ffn, Matrix, ModelSpec, Norm, Relative, RelativeValues, Task, Vector};

/// Most positions and buckets; published models have 512.
const N_POSITIONS_MAX: usize = 1 << 14;

/// A cross-encoder: the pooler, then the classifier.
pub(super) fn describe_classifier(config: &Fields) -> Result<ModelSpec, ModelError> {
    let mut spec = with_classifier(config, describe(config)?, ["pooler.dense", "classifier"])?;
    let activation = config.text(&["pooler_hidden_act"])?;
    if let Task::Classify(classifier) = &mut spec.task
        && let Some(hidden) = &mut classifier.hidden
    {
        hidden.activation = Some(activation.map_or(Ok(Activation::Gelu), named_activation)?);
    }
    Ok(spec)
}

/// The encoder.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    // The last two belong to a head that is not here, and to a convolution that is refused.
    config.without_effect(&["tie_word_embeddings", "legacy", "conv_act", "conv_groups"]);
    let mut sizes = Sizes::read(config)?;
    sizes.norm_eps = config.positive(NORM_EPS)?.unwrap_or(1e-7) as f32;
    check(config, &sizes)?;
    let width = ffn_size(config, &sizes)?;
    let activation = activation(config, Activation::Gelu)?;
    let distances = Distances::read(config, &sizes)?;
    let norm = |name: &str| layer_norm(name, sizes.hidden_size, sizes.norm_eps, true);
    let of_layer = |idx: usize| {
        let name = |part: &str| format!("encoder.layer.{idx}.{part}");
        let qkv = ["query", "key", "value"].map(|part| name(&format!("attention.self.{part}_proj")));
        let out = linear(
            &name("attention.output.dense"),
            sizes.hidden_size,
            sizes.q_width(),
            true,
        );
        let up = linear(&name("intermediate.dense"), width, sizes.hidden_size, true);
        let down = linear(&name("output.dense"), sizes.hidden_size, width, true);
        let mut attention = sizes.attention(sizes.separate_qkv(qkv, true), out);
        if let Some(distances) = &distances {
            attention.scale = distances.scale(&sizes);
            attention.relative = Some(distances.of_layer(&sizes, &name("attention.self")));
        }
        layer(
            of_sum(norm(&name("attention.output.LayerNorm"))),
            attention,
            of_sum(norm(&name("output.LayerNorm"))),
            Ffn::Dense(plain_mlp(activation, up, down)),
        )
    };
    let layers = (0..sizes.n_layers).map(of_layer).collect();
    let mut spec = sizes.model("embeddings.word_embeddings", layers, Task::Embed);
    let table = |name: &str, n_rows| {
        linear(
            &format!("embeddings.{name}_embeddings"),
            n_rows,
            sizes.hidden_size,
            false,
        )
    };
    if config.flag("position_biased_input")?.unwrap_or(true) {
        spec.embedding.positions = Some(table("position", sizes.context_len));
    }
    if let Some(n_types) = config.count("type_vocab_size")?.filter(|n| *n > 0) {
        spec.embedding.types = Some(table("token_type", n_types));
    }
    spec.embedding.norm = Some(norm("embeddings.LayerNorm"));
    spec.is_causal = false;
    let unused = [
        "pooler.",
        "embeddings.position_",
        "cls.",
        "lm_predictions.",
        "mask_predictions.",
    ];
    spec.ignored = unused.map(str::to_owned).to_vec();
    Ok(spec)
}

/// Refuses what this description does not express.
fn check(config: &Fields, sizes: &Sizes) -> Result<(), ModelError> {
    let hidden_size: [Aliases; 2] = [&["embedding_size"], &["pooler_hidden_size"]];
    for field in hidden_size {
        let other = config.size(field)?.filter(|size| *size != sizes.hidden_size);
        if let Some(other) = other {
            return Err(unsupported(field[0], &other.to_string(), "the hidden size"));
        }
    }
    if let Some(size) = config.count("conv_kernel_size")?.filter(|size| *size > 0) {
        return Err(unsupported("conv_kernel_size", &size.to_string(), "0"));
    }
    if sizes.context_len > N_POSITIONS_MAX {
        let reason = format!("is {}, must be at most {N_POSITIONS_MAX}", sizes.context_len);
        return Err(invalid("max_position_embeddings", reason));
    }
    Ok(())
}

/// How distances become buckets, and which vectors the buckets have.
struct Distances {
    /// Distances are buckets from `-span` on to before `span`.
    span: usize,
    /// Whether far distances share buckets.
    is_logarithmic: bool,
    /// The distance that the last bucket begins at.
    farthest: usize,
    with_queries: bool,
    with_keys: bool,
    /// Whether the vectors pass through the layers of queries and keys.
    is_shared: bool,
    /// Norm of the vectors.
    norm: Option<Norm<Vector>>,
}

impl Distances {
    fn read(config: &Fields, sizes: &Sizes) -> Result<Option<Distances>, ModelError> {
        let kinds = match config.text_or_texts("pos_att_type")? {
            Some(kinds) => kinds.iter().flat_map(|kinds| kinds.split('|')).collect(),
            None => Vec::new(),
        };
        let farthest = at_least_one(config, &["max_relative_positions"])?.unwrap_or(sizes.context_len);
        let n_buckets = at_least_one(config, &["position_buckets"])?;
        let is_shared = config.flag("share_att_key")?.unwrap_or(false);
        let norms = config.text(&["norm_rel_ebd"])?.unwrap_or("none");
        if !config.flag("relative_attention")?.unwrap_or(false) {
            return Ok(None);
        }
        let norm = match norms {
            "none" => None,
            "layer_norm" => {
                let (name, eps) = ("encoder.LayerNorm", sizes.norm_eps);
                Some(layer_norm(name, sizes.hidden_size, eps, true))
            }
            other => return Err(unsupported("norm_rel_ebd", other, "none, layer_norm")),
        };
        let distances = Distances {
            span: n_buckets.unwrap_or(farthest),
            is_logarithmic: n_buckets.is_some(),
            farthest,
            with_queries: kinds.contains(&"c2p"),
            with_keys: kinds.contains(&"p2c"),
            is_shared,
            norm,
        };
        if let Some(other) = kinds.iter().find(|kind| !["c2p", "p2c"].contains(kind)) {
            return Err(unsupported("pos_att_type", other, "c2p, p2c"));
        }
        let is_known = distances.span <= N_POSITIONS_MAX && distances.farthest > distances.span / 2 + 1;
        if !is_known && distances.is_logarithmic {
            let reason = format!(
                "is {}, must be at most {N_POSITIONS_MAX} and less than twice max_relative_positions, {farthest}",
                distances.span
            );
            return Err(invalid("position_buckets", reason));
        }
        if distances.span > N_POSITIONS_MAX {
            let reason = format!("is {farthest}, must be at most {N_POSITIONS_MAX}");
            return Err(invalid("max_relative_positions", reason));
        }
        let has_any = distances.with_queries || distances.with_keys;
        Ok(has_any.then_some(distances))
    }

    /// The factor of scores, which are sums of up to three products.
    fn scale(&self, sizes: &Sizes) -> f32 {
        let n_products = 1 + usize::from(self.with_queries) + usize::from(self.with_keys);
        ((sizes.head_dim * n_products) as f32).powf(-0.5)
    }

    /// The bias of the layer whose attention is called `name`.
    fn of_layer(&self, sizes: &Sizes, name: &str) -> Relative<Matrix, Vector> {
        let reach = sizes.context_len as i32;
        // Queries meet what keys are made of, and the other way round.
        let (of_keys, of_queries) = match self.is_shared {
            true => ("key_proj", "query_proj"),
            false => ("pos_key_proj", "pos_query_proj"),
        };
        let matrices = |through: &str| {
            let layer = linear(
                &format!("{name}.{through}"),
                sizes.q_width(),
                sizes.hidden_size,
                true,
            );
            let table = "encoder.rel_embeddings";
            (0..sizes.n_heads)
                .map(|head| {
                    let rows = head * sizes.head_dim..(head + 1) * sizes.head_dim;
                    projected(table, 2 * self.span, self.norm.clone(), &layer, rows)
                })
                .collect()
        };
        Relative {
            buckets: (-reach..=reach).map(|ahead| self.bucket(-ahead)).collect(),
            values: RelativeValues::OfTokens {
                with_queries: self.with_queries.then(|| matrices(of_keys)),
                with_keys: self.with_keys.then(|| matrices(of_queries)),
            },
        }
    }

    /// The bucket of a distance `query - key`.
    fn bucket(&self, distance: i32) -> u16 {
        let span = self.span as i32;
        let bucket = if self.is_logarithmic {
            self.logarithmic(distance)
        } else {
            distance
        };
        (span + bucket).clamp(0, 2 * span - 1) as u16
    }

    /// Short distances are themselves, others are ever wider.
    fn logarithmic(&self, distance: i32) -> i32 {
        let middle = self.span as i32 / 2;
        let size = distance.abs();
        if size <= middle {
            return distance;
        }
        let exact = middle as f32;
        let wide = (size as f32 / exact).ln() / ((self.farthest - 1) as f32 / exact).ln();
        let bucket = (wide * (exact - 1.0)).ceil() as i32 + middle;
        bucket * distance.signum()
    }
}

/// A number that means "none" below 1.
fn at_least_one(config: &Fields, field: Aliases) -> Result<Option<usize>, ModelError> {
    Ok(config.number(field)?.filter(|n| *n >= 1.0).map(|n| n as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_of_distances() {
        // As transformers' build_relative_position gives them for deberta-v3, plus the span.
        let distances = Distances {
            span: 256,
            is_logarithmic: true,
            farthest: 512,
            with_queries: true,
            with_keys: true,
            is_shared: true,
            norm: None,
        };
        let of = |all: [i32; 8]| all.map(|distance| distances.bucket(distance));
        assert_eq!(
            of([0, 1, -1, 127, 128, 129, -128, -129]),
            [256, 257, 255, 383, 384, 385, 128, 127]
        );
        assert_eq!(
            of([200, 300, 511, 512, 4000, -200, -511, -512]),
            [425, 463, 511, 511, 511, 87, 1, 0]
        );
    }
}
