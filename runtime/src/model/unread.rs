//! Fields of config.json that no code has read: which of them are harmless, and which would change what the model
//! computes.
//!
//! The fields that a family knows are not listed: they are those that it reads (see [`Fields::unread`]), so the two
//! cannot differ. A field that is left over is
//! - passed over if its value switches it off (null, false, zero, empty, or the value in [`CHANGES_NUMBERS`]), or if it
//!   is in [`HARMLESS`];
//! - an error if it is in [`CHANGES_NUMBERS`] or in an object of rotary parameters, where nearly every field changes
//!   numbers;
//! - a warning if it is in neither list. Tomorrow's configs have new fields, and most of them are harmless: to refuse
//!   them all would refuse most new models, and to pass over them in silence would hide the others.

use serde_json::Value;

use super::config::{Fields, Unread, shown};
use super::error::ModelError;

/// Objects that hold rotary parameters.
const ROPE_OBJECTS: [&str; 2] = ["rope_parameters", "rope_scaling"];

/// Fields of these objects that count for one type of scaling and, as in the reference, have no effect beside another.
const OF_OTHER_TYPES: [&str; 9] = [
    "original_max_position_embeddings",
    "max_position_embeddings",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "low_freq_factor",
    "high_freq_factor",
    "truncate",
];

/// Fields without an effect on what a served model computes, by reason.
const HARMLESS: &[(&str, &[&str])] = &[
    (
        "names, versions and code of other programs",
        &[
            "architectures",
            "auto_map",
            "model_type",
            "transformers_version",
            "torchscript",
            "use_bfloat16",
            "quantization_config",
            "sentence_transformers",
            "tokenizer_class",
            "transformers.js_config",
            "task_specific_params",
            "finetuning_task",
            "is_llama_config",
            "_name_or_path",
            "_from_model_config",
            "_attn_implementation_autoset",
        ],
    ),
    (
        "how another program computes the same numbers, or in which precision",
        &[
            "torch_dtype",
            "dtype",
            "attn_implementation",
            "attn_impl",
            "_attn_implementation",
            "_flash_attn_2_enabled",
            "flash_attn",
            "flash_rotary",
            "fused_dense",
            "use_flash_attn",
            "use_cache",
            "cache_implementation",
            "bf16",
            "fp16",
            "fp32",
            "fp32_residual_connection",
            "attention_softmax_in_fp32",
            "scale_attention_softmax_in_fp32",
            "apply_query_key_layer_scaling",
            "bias_dropout_fusion",
            "slow_but_exact",
            "reorder_and_upcast_attn",
            "chunk_size_feed_forward",
            "gradient_checkpointing",
            "use_gradient_checkpointing",
            "pretraining_tp",
            "ep_size",
            "prefill_chunk_size",
            "context_window_size",
            "max_batch_size",
            "tensor_parallel_shards",
            "use_cache_quantization",
            "use_cache_kernel",
            "init_device",
            "softmax_precision",
        ],
    ),
    (
        "training: initial values, dropout and losses",
        &[
            "initializer_range",
            "initializer_factor",
            "initializer_cutoff_factor",
            "init_std",
            "init_method",
            "init_config",
            "summary_activation",
            "summary_first_dropout",
            "summary_proj_to_labels",
            "summary_type",
            "summary_use_proj",
            "seq_aux",
            "router_jitter_noise",
            "input_jitter_noise",
            "layerdrop",
            "verbose",
            "tie_encoder_decoder",
            "pruned_heads",
            "problem_type",
            "label2id",
            "id2label",
            "num_labels",
            "classifier_activation",
            "output_router_logits",
            "output_attentions",
            "output_hidden_states",
            "return_dict",
            "predict_special_tokens",
            "vocab_size_per_layer_input",
        ],
    ),
    (
        "generation and tokens: the request, generation_config.json and the tokenizer decide",
        &[
            "max_length",
            "max_new_tokens",
            "min_length",
            "do_sample",
            "early_stopping",
            "num_beams",
            "num_beam_groups",
            "num_return_sequences",
            "diversity_penalty",
            "length_penalty",
            "no_repeat_ngram_size",
            "repetition_penalty",
            "encoder_no_repeat_ngram_size",
            "bad_words_ids",
            "suppress_tokens",
            "begin_suppress_tokens",
            "temperature",
            "top_k",
            "top_p",
            "typical_p",
            "output_scores",
            "return_dict_in_generate",
            "remove_invalid_values",
            "exponential_decay_length_penalty",
            "prefix",
            "n_special",
            "is_decoder",
            "is_encoder_decoder",
        ],
    ),
    (
        "the parts that read pictures and sound, which are left out",
        &[
            "vision_config",
            "audio_config",
            "img_processor",
            "embd_layer",
            "mm_tokens_per_image",
            "spatial_merge_size",
            "projector_hidden_act",
            "multimodal_projector_bias",
            "vision_feature_layer",
            "vision_feature_select_strategy",
        ],
    ),
    (
        "lengths that another field decides, and sizes that follow from others",
        &[
            "n_ctx",
            "max_sequence_length",
            "runner_max_sequence_length",
            "initial_context_length",
            "qk_head_dim",
            "original_max_position_embeddings",
            "rope_theta",
            "rotary_emb_base",
            "rotary",
            "rope_interleaved",
            "attention_sink_size",
            "sliding_window_size",
            "matryoshka_dimensions",
            "is_matryoshka",
        ],
    ),
    (
        "biases and norms: each is a tensor, and loading refuses a tensor that no description names",
        &[
            "attention_bias",
            "attention_out_bias",
            "qkv_bias",
            "o_bias",
            "mlp_bias",
            "use_bias",
            "use_qkv_bias",
            "bias",
            "no_bias",
            "lm_head_bias",
            "num_nextn_predict_layers",
        ],
    ),
    (
        "activations of a score, which are applied after the model",
        &["sbert_ce_default_activation_function"],
    ),
];

/// Ends of the names of harmless fields: dropout, losses, and tokens with a meaning.
const HARMLESS_ENDS: [&str; 11] = [
    "dropout",
    "_pdrop",
    "dropout_prob",
    "dropout_p",
    "dropout_rate",
    "_loss_coef",
    "_loss_alpha",
    "_loss_weight",
    "_token_id",
    "_token_index",
    "_token_ids",
];

/// Fields that change what some model computes, each with a value that stands for "off" beside the general ones. Where
/// a family does not read one of them, its numbers would be wrong without a sign of it.
const CHANGES_NUMBERS: &[(&str, &str)] = &[
    // Factors and caps.
    ("attention_multiplier", "null"),
    ("embedding_multiplier", "1.0"),
    ("residual_multiplier", "1.0"),
    ("logits_scaling", "1.0"),
    ("logit_scale", "1.0"),
    ("key_multiplier", "1.0"),
    ("attention_in_multiplier", "1.0"),
    ("attention_out_multiplier", "1.0"),
    ("mlp_multipliers", "[1.0,1.0]"),
    ("lm_head_multiplier", "1.0"),
    ("scale_emb", "1.0"),
    ("scale_depth", "1.0"),
    ("dim_model_base", "null"),
    ("embedding_scale", "1.0"),
    ("embeddings_scale", "1.0"),
    ("width_scale", "1.0"),
    ("mup_embeddings_scale", "1.0"),
    ("mup_output_alpha", "1.0"),
    ("mup_width_scale", "1.0"),
    ("mup_scale_qk_dot_by_d", "false"),
    ("scale_qk_dot_by_d", "false"),
    ("embedding_fraction", "1.0"),
    ("routed_scaling_factor", "1.0"),
    ("moe_router_scaling_factor", "1.0"),
    ("softmax_scale", "null"),
    ("attn_scale", "null"),
    ("query_pre_attn_scalar", "null"),
    ("scale_attn_weights", "true"),
    ("scale_attn_by_inverse_layer_idx", "false"),
    ("attn_logit_softcapping", "null"),
    ("attention_logit_cap", "null"),
    ("final_logit_softcapping", "null"),
    ("output_logit_cap", "null"),
    ("clip_qkv", "null"),
    ("swiglu_limit", "null"),
    ("swiglu_alpha", "1.702"),
    ("activation_situ_beta", "null"),
    // Which positions a token sees.
    ("use_bidirectional_attention", "false"),
    ("sliding_window", "null"),
    ("sliding_window_pattern", "null"),
    ("_sliding_window_pattern", "null"),
    ("local_attention", "null"),
    ("global_attn_every_n_layers", "null"),
    ("attention_chunk_size", "null"),
    ("layer_types", "null"),
    ("attention_types", "null"),
    ("use_logn_attn", "false"),
    ("use_dynamic_ntk", "false"),
    ("attn_temperature_tuning", "false"),
    ("llama_4_scaling_beta", "null"),
    ("llama_4_scaling", "null"),
    ("floor_scale", "null"),
    ("index_topk", "null"),
    ("sparse_attention_config", "null"),
    ("attention_sink", "false"),
    ("add_swa_attention_sink_bias", "false"),
    ("add_full_attention_sink_bias", "false"),
    // Positions.
    ("factor", "1.0"),
    ("alibi", "false"),
    ("position_embedding_type", "\"absolute\""),
    ("relative_attention", "false"),
    ("partial_rotary_factor", "1.0"),
    ("rotary_pct", "1.0"),
    ("rope_pct", "1.0"),
    ("rotary_dim", "null"),
    ("rope_ratio", "1.0"),
    ("rope_local_base_freq", "null"),
    ("local_rope_theta", "null"),
    ("rope_interleave", "null"),
    ("no_rope_layers", "null"),
    ("no_rope_layer_interval", "null"),
    ("nope_layer_interval", "null"),
    ("use_mrope", "false"),
    ("mrope_section", "null"),
    ("learned_pos_emb", "true"),
    // The shape of a layer and of the model.
    ("block_configs", "null"),
    ("num_key_value_heads_per_layer", "null"),
    ("num_attention_heads_per_layer", "null"),
    ("block_types", "null"),
    ("layers_block_type", "null"),
    ("hybrid_override_pattern", "null"),
    ("full_attention_interval", "null"),
    ("attn_output_gate", "false"),
    ("num_kv_shared_layers", "null"),
    ("hidden_size_per_layer_input", "null"),
    ("activation_sparsity_pattern", "null"),
    ("attention_k_eq_v", "false"),
    ("use_parallel_residual", "true"),
    ("parallel_attn", "false"),
    ("new_decoder_architecture", "false"),
    ("apply_residual_connection_post_layernorm", "false"),
    ("do_layer_norm_before", "true"),
    ("layer_norm_elementwise_affine", "true"),
    ("use_post_norm", "false"),
    ("normalize_before", "true"),
    ("post_layer_norm", "true"),
    ("_remove_final_layer_norm", "false"),
    ("use_qk_norm", "false"),
    ("qk_layernorm", "false"),
    ("qk_norm", "false"),
    ("qk_ln", "false"),
    ("norm_head", "false"),
    ("_norm_head", "false"),
    ("rmsnorm", "true"),
    ("mlp_type", "\"default\""),
    ("norm_type", "\"layer_norm\""),
    ("full_attn_mod", "1"),
    ("interpolate_factor", "1"),
    ("add_cross_attention", "false"),
    ("cross_attention_layers", "null"),
    // Experts.
    ("norm_topk_prob", "null"),
    ("moe_renormalize", "null"),
    ("scoring_func", "null"),
    ("topk_method", "null"),
    ("n_group", "1"),
    ("topk_group", "1"),
    ("decoder_sparse_step", "1"),
    ("moe_layer_freq", "1"),
    ("interleave_moe_layer_step", "1"),
    ("first_k_dense_replace", "null"),
    ("mlp_only_layers", "null"),
    ("moe_layers", "null"),
    ("moe_intermediate_size", "null"),
    ("shared_expert_intermediate_size", "null"),
    ("n_shared_experts", "null"),
    ("num_local_experts", "1"),
    ("num_experts", "1"),
    ("n_routed_experts", "1"),
    ("zero_expert_num", "null"),
];

/// Refuses a field that would change numbers, and returns the names of the fields whose meaning is not known.
///
/// # Errors
/// [`ModelError::UnreadField`] names the field and its value.
pub(super) fn check(config: &Fields) -> Result<Vec<String>, ModelError> {
    let mut unknown = Vec::new();
    for Unread { path, value } in config.unread() {
        let name = path.rsplit('.').next().unwrap_or(&path);
        let in_rope = path
            .split('.')
            .rev()
            .skip(1)
            .any(|part| ROPE_OBJECTS.contains(&part));
        let off = CHANGES_NUMBERS.iter().find(|(field, _)| *field == name);
        if is_off(&value, off.map(|(_, off)| *off)) || in_rope && OF_OTHER_TYPES.contains(&name) {
            continue;
        }
        if in_rope || off.is_some() || ROPE_OBJECTS.contains(&name) {
            let value = shown(&value);
            return Err(ModelError::UnreadField {
                file: "config.json".to_owned(),
                field: path,
                value,
            });
        }
        if !is_harmless(name, &path) {
            unknown.push(path);
        }
    }
    Ok(unknown)
}

/// Whether a value switches its field off: `off` is the value that does so for this field.
fn is_off(value: &Value, off: Option<&str>) -> bool {
    let is_named = |off: &str| serde_json::from_str::<Value>(off).is_ok_and(|off| equal(value, &off));
    let is_full = |kind: &Value| kind == "full_attention";
    match value {
        Value::Null => true,
        Value::Bool(false) => off != Some("true"),
        Value::Number(number) if number.as_f64() == Some(0.0) => true,
        Value::String(text) if text.is_empty() || text == "default" => true,
        // A list of kinds of layers that are all of the usual kind.
        Value::Array(items) if items.iter().all(is_full) => true,
        Value::Object(fields) if fields.is_empty() => true,
        _ => off.is_some_and(is_named),
    }
}

/// Whether two values are the same, whether a number is written with a point or without.
fn equal(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().is_some_and(|number| b.as_f64() == Some(number))
}

fn is_harmless(name: &str, path: &str) -> bool {
    let mut parts = path.split('.').chain([path]);
    let is_listed = |name: &str| HARMLESS.iter().any(|(_, names)| names.contains(&name));
    HARMLESS_ENDS.iter().any(|end| name.ends_with(end)) || parts.any(is_listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Result<Vec<String>, ModelError> {
        let config = Fields::parse(json);
        config
            .object("rope_scaling")?
            .map(|rope| rope.positive(&["factor"]));
        config.object("text_config")?;
        check(&config)
    }

    #[test]
    fn a_field_that_changes_numbers_is_refused_by_name() {
        for (json, field) in [
            (r#"{"attention_multiplier": 0.5}"#, "attention_multiplier = 0.5"),
            (
                r#"{"text_config": {"logit_scale": 2}}"#,
                "text_config.logit_scale = 2",
            ),
            (
                r#"{"rope_scaling": {"factor": 2, "spiral": 3}}"#,
                "rope_scaling.spiral = 3",
            ),
            (r#"{"rope_parameters": {"factor": 2}}"#, "rope_parameters = "),
            (
                r#"{"text_config": {"rope_parameters": {"a": {"b": 1}}}}"#,
                "text_config.rope_parameters = ",
            ),
            (
                r#"{"layer_types": ["full_attention", "mamba"]}"#,
                "layer_types = ",
            ),
            (r#"{"block_configs": [{"attention": {}}]}"#, "block_configs = "),
            (r#"{"rmsnorm": false}"#, "rmsnorm = false"),
        ] {
            let refused = of(json).unwrap_err().to_string();
            assert!(refused.contains(field), "{refused}");
        }
    }

    #[test]
    fn values_that_are_off_and_harmless_fields_pass_and_others_are_returned() {
        let json = r#"{"attention_multiplier": null, "logit_scale": 1, "embedding_multiplier": 1.0, "n_group": 1,
            "layer_types": ["full_attention", "full_attention"], "mlp_type": "default", "clip_qkv": false,
            "rope_scaling": {"factor": 2, "beta": null, "beta_fast": 32, "max_position_embeddings": 64},
            "attn_pdrop": 0.1, "text_config": {"use_cache": true},
            "new_flag": false, "new_scale": 3, "pad_token_id": 4, "scale_attn_weights": true,
            "vision_config": {"hidden_size": 3}, "text_config.x": 1}"#;
        assert_eq!(of(json).unwrap(), ["new_scale", "text_config.x"]);
    }

    #[test]
    fn no_field_is_in_two_lists() {
        let mut names: Vec<&str> = CHANGES_NUMBERS.iter().map(|(name, _)| *name).collect();
        names.extend(HARMLESS.iter().flat_map(|(_, names)| *names));
        let n_names = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), n_names);
        let is_json = |off: &str| serde_json::from_str::<Value>(off).is_ok();
        assert!(CHANGES_NUMBERS.iter().all(|(_, off)| is_json(off)));
    }
}
