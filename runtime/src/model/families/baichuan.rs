//! Baichuan 1 and 2: a Llama with fused queries, keys and values; 13B has distances instead of positions.

use super::llama;
use super::parts::{ALIBI_MAX, Sizes, alibi_slopes, each_attention};
use crate::model::config::Fields;
use crate::model::error::ModelError;
use crate::model::spec::{ModelSpec, Task};

/// Rows of Baichuan 2's embedding, by which it differs from Baichuan 1.
const VOCAB_SIZE_2: usize = 125_696;
/// Width of the 7B models, which have rotary positions under the name they share with the 13B ones.
const HIDDEN_SIZE_7B: usize = 4096;

/// Baichuan 7B, whose architecture is spelt `BaiChuanForCausalLM`.
pub(super) fn describe_7b(config: &Fields) -> Result<ModelSpec, ModelError> {
    let sizes = Sizes::read(config)?;
    let mut spec = llama::describe(config)?;
    each_attention(&mut spec, |idx, attention| {
        let name = format!("model.layers.{idx}.self_attn.W_pack");
        attention.qkv = sizes.fused_qkv(&name, false);
    });
    if let Task::Generate(head) = &mut spec.task {
        head.has_unit_rows = config
            .flag("_norm_head")?
            .unwrap_or(sizes.vocab_size == VOCAB_SIZE_2);
    }
    Ok(spec)
}

/// Baichuan 13B and Baichuan 2.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let mut spec = describe_7b(config)?;
    let has_slopes = match config.text(&["_position_embedding"])? {
        Some(kind) => kind == "ALIBI",
        None => spec.hidden_size != HIDDEN_SIZE_7B,
    };
    if has_slopes {
        spec.ropes.clear();
        each_attention(&mut spec, |_, attention| {
            attention.rope = None;
            attention.alibi_slopes = Some(alibi_slopes(attention.n_heads, ALIBI_MAX));
        });
    }
    Ok(spec)
}
