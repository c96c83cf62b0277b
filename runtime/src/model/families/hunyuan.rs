//! Hunyuan: norms of queries and keys after they have turned.

use super::llama;
use super::parts::{Sizes, each_attention, rms_norm};
use crate::model::config::Fields;
use crate::model::error::ModelError;
use crate::model::spec::{ModelSpec, QkNorms};

/// Hunyuan 0.5B to 7B.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let mut spec = llama::describe(config)?;
    if !config.flag("use_qk_norm")?.unwrap_or(true) {
        return Ok(spec);
    }
    each_attention(&mut spec, |idx, attention| {
        let norm = |part: &str| {
            let name = format!("model.layers.{idx}.self_attn.{part}");
            rms_norm(&name, sizes.head_dim, sizes.norm_eps)
        };
        attention.qk_norms = Some(QkNorms {
            after_rope: true,
            over_all_heads: false,
            q: norm("query_layernorm"),
            k: norm("key_layernorm"),
            v: None,
        });
    });
    Ok(spec)
}
