//! Which architectures are served: one row each, from the name in config.json to a description.
//!
//! A family is a small file whose `describe` maps config.json to a [`DecoderSpec`]. Checkpoints that are
//! another family under a name of their own are rows without a file.

mod llama;
mod mistral;
mod qwen2;

use super::ModelError;
use super::config::Fields;
use super::spec::DecoderSpec;

/// A row: the name in `architectures`, and what reads its config.json.
type Family = (&'static str, fn(&Fields) -> Result<DecoderSpec, ModelError>);

const FAMILIES: &[Family] = &[
    ("LlamaForCausalLM", llama::describe),
    ("LLaMAForCausalLM", llama::describe),
    ("AquilaForCausalLM", llama::describe),
    ("AquilaModel", llama::describe),
    ("InternLMForCausalLM", llama::describe_internlm),
    ("MistralForCausalLM", mistral::describe),
    ("Qwen2ForCausalLM", qwen2::describe),
    ("XverseForCausalLM", llama::describe),
    ("YiForCausalLM", llama::describe),
];

/// Describes the decoder of a checkpoint.
///
/// # Errors
/// An architecture that no row names, an option that no code executes, or fields that make no sense.
pub(super) fn describe(config: &Fields) -> Result<DecoderSpec, ModelError> {
    let architecture = config.architecture()?;
    let Some((_, describe)) = FAMILIES.iter().find(|(name, _)| *name == architecture) else {
        let supported = FAMILIES.iter().map(|(name, _)| *name).collect();
        return Err(ModelError::UnsupportedArchitecture {
            architecture: architecture.to_owned(),
            supported,
        });
    };
    if let Some(quantization) = config.object("quantization_config")? {
        let method = quantization.text(&["quant_method"])?.unwrap_or("unnamed");
        return Err(ModelError::UnsupportedOption {
            option: "quantization_config",
            value: method.to_owned(),
            supported: "unquantized checkpoints",
        });
    }
    describe(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::invalid;
    use crate::model::spec::Bias;

    fn of(architecture: &str, more: &str) -> Result<DecoderSpec, ModelError> {
        describe(&Fields::parse(&format!(
            r#"{{"architectures": ["{architecture}"], "vocab_size": 100, "hidden_size": 32,
                "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
                "max_position_embeddings": 256, "rms_norm_eps": 1e-5 {more}}}"#
        )))
    }

    #[test]
    fn an_unknown_architecture_is_named_with_those_that_are_known() {
        let refused = of("Mamba2ForCausalLM", "").unwrap_err();
        let ModelError::UnsupportedArchitecture {
            architecture,
            supported,
        } = refused
        else {
            panic!("{refused}");
        };
        assert_eq!(architecture, "Mamba2ForCausalLM");
        assert!(supported.contains(&"LlamaForCausalLM") && supported.contains(&"Qwen2ForCausalLM"));
    }

    #[test]
    fn the_least_llama() {
        let spec = of("LlamaForCausalLM", "").unwrap();
        assert_eq!((spec.n_heads, spec.n_kv_heads, spec.head_dim), (4, 4, 8));
        assert_eq!(spec.windows, [None; 3]);
        assert_eq!(spec.names.qkv.bias, Bias::Absent);
        assert_eq!(spec.names.head, Some("lm_head"));
        let names: Vec<String> = spec.tensors().into_iter().map(|tensor| tensor.name).collect();
        assert_eq!(names.len(), 3 + 3 * 9);
        assert!(names.contains(&"model.layers.2.self_attn.k_proj.weight".to_owned()));
    }

    #[test]
    fn heads_of_their_own_size_and_biases() {
        const QKV: [(&str, usize); 3] = [
            ("model.layers.{i}.self_attn.q_proj", 64),
            ("model.layers.{i}.self_attn.k_proj", 32),
            ("model.layers.{i}.self_attn.v_proj", 32),
        ];
        let more = r#", "head_dim": 16, "num_key_value_heads": 2, "attention_bias": true, "mlp_bias": true,
            "tie_word_embeddings": true"#;
        let spec = of("LlamaForCausalLM", more).unwrap();
        assert_eq!(
            (spec.names.qkv.parts.as_slice(), spec.names.out.n_cols),
            (&QKV[..], 64)
        );
        let biases = [
            &spec.names.qkv,
            &spec.names.out,
            &spec.names.gate_up,
            &spec.names.down,
        ]
        .map(|l| l.bias);
        assert_eq!(biases, [Bias::Present; 4]);
        assert_eq!(spec.names.head, None);
    }

    #[test]
    fn qwen2_biases_only_queries_keys_and_values() {
        let spec = of("Qwen2ForCausalLM", "").unwrap();
        assert_eq!(
            (spec.names.qkv.bias, spec.names.out.bias),
            (Bias::Present, Bias::Absent)
        );
    }

    #[test]
    fn windows() {
        let mistral = of("MistralForCausalLM", r#", "sliding_window": 32"#).unwrap();
        assert_eq!(mistral.windows, [Some(32); 3]);
        let newer = of("MistralForCausalLM", r#", "sliding_window": null"#).unwrap();
        assert_eq!(newer.windows, [None; 3]);
        let off = of(
            "Qwen2ForCausalLM",
            r#", "sliding_window": 32, "use_sliding_window": false"#,
        )
        .unwrap();
        assert_eq!(off.windows, [None; 3]);
        let on = r#", "sliding_window": 32, "use_sliding_window": true, "max_window_layers": 2"#;
        assert_eq!(
            of("Qwen2ForCausalLM", on).unwrap().windows,
            [None, None, Some(32)]
        );
        let typed = r#", "sliding_window": 8, "use_sliding_window": true,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"]"#;
        assert_eq!(
            of("Qwen2ForCausalLM", typed).unwrap().windows,
            [None, Some(8), None]
        );
        let short = r#", "sliding_window": 8, "layer_types": ["full_attention"]"#;
        assert!(of("MistralForCausalLM", short).is_err());
        let odd = r#", "sliding_window": 8, "layer_types": ["full_attention", "mamba", "full_attention"]"#;
        assert!(of("MistralForCausalLM", odd).is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for more in [
            r#", "num_attention_heads": 0"#,
            r#", "num_attention_heads": 3"#,
            r#", "num_key_value_heads": 3"#,
            r#", "head_dim": 7"#,
            r#", "vocab_size": 0"#,
            r#", "num_hidden_layers": 100000"#,
            r#", "hidden_act": "gelu""#,
            r#", "max_position_embeddings": 0"#,
            r#", "quantization_config": {"quant_method": "awq"}"#,
        ] {
            assert!(of("LlamaForCausalLM", more).is_err(), "{more}");
        }
        let vocab = invalid("vocab_size", "is 0, must be 1 to 268435456".to_owned());
        let zero = of("LlamaForCausalLM", r#", "vocab_size": 0"#).unwrap_err();
        assert_eq!(zero.to_string(), vocab.to_string());
    }
}
