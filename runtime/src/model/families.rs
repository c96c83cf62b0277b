//! Which architectures are served: one row each, from the name in config.json to a description.
//!
//! A family is a small file whose `describe` maps config.json to a [`ModelSpec`]. Checkpoints that are
//! another family under a name of their own are rows without a file.

mod albert;
mod baichuan;
mod bert;
mod bloom;
mod cohere;
mod dbrx;
mod deberta;
mod deepseek;
mod ernie;
mod exaone;
mod falcon;
mod gemma;
mod gemma4;
mod glm;
mod gpt2;
mod gpt_neox;
mod gpt_oss;
mod granite;
mod hunyuan;
mod internlm2;
mod llama;
mod llama4;
mod mistral;
mod modernbert;
mod nemotron;
mod olmo;
mod opt;
mod parts;
mod phi;
mod qwen;
mod relative;
mod stablelm;
mod stack;
mod starcoder2;
mod t5;

pub(super) use parts::linear;

use super::config::Fields;
use super::error::ModelError;
use super::pooling::PoolingKind;
use super::spec::{Classifier, ModelSpec, Task};
use super::unread;

/// What reads a config.json.
type Describe = fn(&Fields) -> Result<ModelSpec, ModelError>;

/// A row: the name in `architectures`, and what reads its config.json.
const FAMILIES: &[(&str, Describe)] = &[
    ("AlbertForSequenceClassification", albert::describe_classifier),
    ("AlbertModel", albert::describe),
    ("ApertusForCausalLM", nemotron::describe_apertus),
    ("AquilaForCausalLM", llama::describe),
    ("AquilaModel", llama::describe),
    ("ArceeForCausalLM", nemotron::describe_arcee),
    ("BaiChuanForCausalLM", baichuan::describe_7b),
    ("BaichuanForCausalLM", baichuan::describe),
    ("BertForSequenceClassification", bert::describe_bert_classifier),
    ("BertModel", bert::describe_bert),
    ("BloomForCausalLM", bloom::describe),
    (
        "CamembertForSequenceClassification",
        bert::describe_roberta_classifier,
    ),
    ("CamembertModel", bert::describe_roberta),
    ("ChatGLMForConditionalGeneration", glm::describe_chatglm),
    ("ChatGLMModel", glm::describe_chatglm),
    ("Cohere2ForCausalLM", cohere::describe_2),
    ("CohereForCausalLM", cohere::describe),
    ("DbrxForCausalLM", dbrx::describe),
    ("DebertaV2ForSequenceClassification", deberta::describe_classifier),
    ("DebertaV2Model", deberta::describe),
    ("DeciLMForCausalLM", llama::describe_decilm),
    ("DeepseekV2ForCausalLM", deepseek::describe_2),
    ("DeepseekV3ForCausalLM", deepseek::describe_3),
    (
        "DistilBertForSequenceClassification",
        bert::describe_distilbert_classifier,
    ),
    ("DistilBertModel", bert::describe_distilbert),
    ("Dots1ForCausalLM", deepseek::describe_dots),
    ("Ernie4_5ForCausalLM", ernie::describe),
    ("Ernie4_5_MoeForCausalLM", ernie::describe_moe),
    ("Exaone4ForCausalLM", exaone::describe),
    ("FalconForCausalLM", falcon::describe),
    ("GPT2LMHeadModel", gpt2::describe),
    ("GPTBigCodeForCausalLM", gpt2::describe_bigcode),
    ("GPTJForCausalLM", gpt_neox::describe_gptj),
    ("GPTNeoXForCausalLM", gpt_neox::describe),
    ("Gemma2ForCausalLM", gemma::describe_2),
    ("Gemma3ForCausalLM", gemma::describe_3),
    ("Gemma3ForConditionalGeneration", gemma::describe_3),
    ("Gemma4ForCausalLM", gemma4::describe),
    ("Gemma4ForConditionalGeneration", gemma4::describe),
    ("GemmaForCausalLM", gemma::describe_1),
    ("Glm4ForCausalLM", glm::describe_4),
    ("Glm4MoeForCausalLM", glm::describe_4_moe),
    ("GlmForCausalLM", glm::describe),
    ("GptOssForCausalLM", gpt_oss::describe),
    ("GraniteForCausalLM", granite::describe),
    ("GraniteMoeForCausalLM", granite::describe_moe),
    ("GraniteMoeHybridForCausalLM", granite::describe_4),
    ("GraniteMoeSharedForCausalLM", granite::describe_moe),
    ("HeliumForCausalLM", llama::describe_helium),
    ("HunYuanDenseV1ForCausalLM", hunyuan::describe),
    ("InternLM2ForCausalLM", internlm2::describe),
    ("InternLM3ForCausalLM", llama::describe_internlm3),
    ("InternLMForCausalLM", llama::describe_internlm),
    ("JAISLMHeadModel", gpt2::describe_jais),
    ("LLaMAForCausalLM", llama::describe),
    ("Llama4ForCausalLM", llama4::describe),
    ("Llama4ForConditionalGeneration", llama4::describe),
    ("LlamaForCausalLM", llama::describe),
    ("MPNetForSequenceClassification", bert::describe_mpnet_classifier),
    ("MPNetModel", bert::describe_mpnet),
    ("MPTForCausalLM", bloom::describe_mpt),
    ("MiMoForCausalLM", qwen::describe_mimo),
    ("MiniCPM3ForCausalLM", deepseek::describe_minicpm3),
    ("MiniCPMForCausalLM", granite::describe_minicpm),
    ("MiniMaxM2ForCausalLM", mistral::describe_minimax_m2),
    ("Ministral3ForCausalLM", mistral::describe),
    ("MinistralForCausalLM", mistral::describe),
    ("Mistral3ForConditionalGeneration", mistral::describe_with_vision),
    ("MistralForCausalLM", mistral::describe),
    ("MixtralForCausalLM", mistral::describe_mixtral),
    (
        "ModernBertForSequenceClassification",
        modernbert::describe_classifier,
    ),
    ("ModernBertModel", modernbert::describe),
    ("MptForCausalLM", bloom::describe_mpt),
    ("NemotronForCausalLM", nemotron::describe),
    ("OPTForCausalLM", opt::describe),
    ("Olmo2ForCausalLM", olmo::describe_2),
    ("Olmo3ForCausalLM", olmo::describe_3),
    ("OlmoForCausalLM", olmo::describe_1),
    ("OlmoeForCausalLM", olmo::describe_moe),
    ("OrionForCausalLM", stablelm::describe_orion),
    ("Phi3ForCausalLM", phi::describe_3),
    ("PhiForCausalLM", phi::describe),
    ("PhimoeForCausalLM", mistral::describe_phimoe),
    ("QWenLMHeadModel", qwen::describe_1),
    ("Qwen2ForCausalLM", qwen::describe_2),
    ("Qwen2MoeForCausalLM", qwen::describe_2_moe),
    ("Qwen2VLForConditionalGeneration", qwen::describe_2_vl),
    ("Qwen2_5_VLForConditionalGeneration", qwen::describe_2_vl),
    ("Qwen3ForCausalLM", qwen::describe_3),
    ("Qwen3MoeForCausalLM", qwen::describe_3_moe),
    ("Qwen3VLForConditionalGeneration", qwen::describe_3_vl),
    ("Qwen3VLMoeForConditionalGeneration", qwen::describe_3_vl_moe),
    ("RWForCausalLM", falcon::describe),
    (
        "RobertaForSequenceClassification",
        bert::describe_roberta_classifier,
    ),
    ("RobertaModel", bert::describe_roberta),
    ("SeedOssForCausalLM", llama::describe_seed_oss),
    ("SmolLM3ForCausalLM", llama::describe_smollm3),
    ("StableLMEpochForCausalLM", stablelm::describe),
    ("StableLmForCausalLM", stablelm::describe),
    ("Starcoder2ForCausalLM", starcoder2::describe),
    ("T5EncoderModel", t5::describe),
    (
        "XLMRobertaForSequenceClassification",
        bert::describe_roberta_classifier,
    ),
    ("XLMRobertaModel", bert::describe_roberta),
    ("XverseForCausalLM", llama::describe),
    ("YiForCausalLM", llama::describe),
];

/// Decoders without their head, as embedding models are published.
const HEADLESS: &[(&str, Describe)] = &[
    ("Gemma2Model", gemma::describe_2),
    ("Gemma3TextModel", gemma::describe_3),
    ("LlamaModel", llama::describe),
    ("MistralModel", mistral::describe),
    ("Qwen2Model", qwen::describe_2),
    ("Qwen3Model", qwen::describe_3),
];

/// Decoders with a score for each class in the place of their head: rerankers and reward models.
const CLASSIFIERS: &[(&str, Describe)] = &[
    ("Gemma2ForSequenceClassification", gemma::describe_2),
    ("GemmaForSequenceClassification", gemma::describe_1),
    ("LlamaForSequenceClassification", llama::describe),
    ("MistralForSequenceClassification", mistral::describe),
    ("Phi3ForSequenceClassification", phi::describe_3),
    ("Qwen2ForSequenceClassification", qwen::describe_2),
    ("Qwen3ForSequenceClassification", qwen::describe_3),
];

/// Describes the model of a checkpoint.
///
/// # Errors
/// An architecture that no row names, an option that no code executes, a field that changes numbers and that the family
/// does not read, or fields that make no sense.
pub(super) fn describe(config: &Fields) -> Result<ModelSpec, ModelError> {
    let mut spec = of_architecture(config)?;
    // Several embedding models are decoders that were trained to look both ways.
    if config.flag("is_causal")? == Some(false) {
        spec.is_causal = false;
    }
    unread::check(config)?;
    Ok(spec)
}

fn of_architecture(config: &Fields) -> Result<ModelSpec, ModelError> {
    let architecture = config.architecture()?;
    let find = |rows: &[(&str, Describe)]| {
        let row = rows.iter().find(|(name, _)| *name == architecture);
        row.map(|(_, describe)| *describe)
    };
    if let Some(describe) = find(FAMILIES) {
        check_quantization(config, architecture)?;
        return describe(config);
    }
    if let Some(describe) = find(HEADLESS) {
        check_quantization(config, architecture)?;
        let mut spec = describe(config)?;
        spec.task = Task::Embed;
        return Ok(spec);
    }
    if let Some(describe) = find(CLASSIFIERS) {
        check_quantization(config, architecture)?;
        let mut spec = describe(config)?;
        spec.task = Task::Classify(Box::new(Classifier {
            pooling: PoolingKind::Last,
            hidden: None,
            out: parts::linear("score", parts::n_labels(config)?, spec.hidden_size, false),
        }));
        return Ok(spec);
    }
    let supported = FAMILIES
        .iter()
        .chain(HEADLESS)
        .chain(CLASSIFIERS)
        .map(|(name, _)| *name)
        .collect();
    Err(ModelError::UnsupportedArchitecture {
        architecture: architecture.to_owned(),
        supported,
    })
}

/// Quantized formats that a family reads.
const QUANTIZED: &[(&str, &str)] = &[("GptOssForCausalLM", "mxfp4")];

/// Refuses other quantized checkpoints by name.
fn check_quantization(config: &Fields, architecture: &str) -> Result<(), ModelError> {
    let Some(quantization) = config.object("quantization_config")? else {
        return Ok(());
    };
    let method = quantization.text(&["quant_method", "quant_algo"])?;
    let method = method.unwrap_or("an object without quant_method");
    if QUANTIZED.contains(&(architecture, method)) {
        return Ok(());
    }
    Err(ModelError::UnsupportedOption {
        option: "quantization_config",
        value: method.to_owned(),
        supported: "unquantized checkpoints",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::invalid;
    use crate::model::spec::{Attention, Grouped, LayerSpec, Matrix, Vector};

    fn of(architecture: &str, more: &str) -> Result<ModelSpec, ModelError> {
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

    /// The attention of every layer.
    fn attentions(spec: &ModelSpec) -> Vec<Grouped<Matrix, Vector>> {
        let grouped = |layer: &LayerSpec| match &layer.attention {
            Attention::Grouped(grouped) => grouped.clone(),
            Attention::Latent(_) => panic!("latent attention"),
        };
        spec.layers.iter().map(grouped).collect()
    }

    fn names(spec: &ModelSpec) -> Vec<String> {
        spec.numbered()
            .1
            .tensors()
            .into_iter()
            .map(|tensor| tensor.name)
            .collect()
    }

    #[test]
    fn the_least_llama() {
        let spec = of("LlamaForCausalLM", "").unwrap();
        let attention = attentions(&spec)[0].clone();
        assert_eq!(
            (attention.n_heads, attention.n_kv_heads, attention.head_dim),
            (4, 4, 8)
        );
        let names = names(&spec);
        assert_eq!(names.len(), 3 + 3 * 9);
        for name in ["model.layers.2.self_attn.k_proj.weight", "lm_head.weight"] {
            assert!(names.contains(&name.to_owned()));
        }
        assert!(!names.iter().any(|name| name.ends_with(".bias")));
    }

    #[test]
    fn heads_of_their_own_size_and_biases() {
        let more = r#", "head_dim": 16, "num_key_value_heads": 2, "attention_bias": true, "mlp_bias": true,
            "tie_word_embeddings": true"#;
        let spec = of("LlamaForCausalLM", more).unwrap();
        let attention = attentions(&spec)[0].clone();
        let rows: Vec<usize> = attention.qkv.parts.iter().map(|part| part.n_rows).collect();
        assert_eq!((rows, attention.out.n_cols), (vec![64, 32, 32], 64));
        let names = names(&spec);
        assert_eq!(names.iter().filter(|name| name.ends_with(".bias")).count(), 3 * 7);
        assert!(!names.contains(&"lm_head.weight".to_owned()));
    }

    #[test]
    fn qwen2_biases_only_queries_keys_and_values() {
        let names = names(&of("Qwen2ForCausalLM", "").unwrap());
        assert_eq!(names.iter().filter(|name| name.ends_with(".bias")).count(), 3 * 3);
    }

    #[test]
    fn a_decoder_without_a_head_embeds() {
        let spec = of("MistralModel", r#", "sliding_window": 32"#).unwrap();
        assert_eq!(spec.task, Task::Embed);
        assert!(!names(&spec).contains(&"lm_head.weight".to_owned()));
    }

    #[test]
    fn a_decoder_may_look_both_ways() {
        assert!(of("Qwen2Model", "").unwrap().is_causal);
        let both = of("Qwen2Model", r#", "is_causal": false"#).unwrap();
        assert!(!both.is_causal);
        let gemma = r#", "use_bidirectional_attention": true, "sliding_window": 16, "head_dim": 8"#;
        let gemma = of("Gemma3TextModel", gemma).unwrap();
        assert!(!gemma.is_causal);
        assert_eq!(attentions(&gemma)[0].window, Some(9));
    }

    #[test]
    fn a_head_of_its_own_is_named_inside_or_outside_of_the_texts_part() {
        let of = |inner: &str, outer: &str| {
            let json = format!(
                r#"{{"architectures": ["Mistral3ForConditionalGeneration"] {outer}, "text_config": {{"vocab_size": 100,
                "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4
                {inner}}}}}"#
            );
            let names = names(&describe(&Fields::parse(&json)).unwrap());
            names.contains(&"lm_head.weight".to_owned())
        };
        assert!(of("", ""));
        assert!(!of("", r#", "tie_word_embeddings": true"#));
        assert!(!of(
            r#", "tie_word_embeddings": true"#,
            r#", "tie_word_embeddings": false"#
        ));
        assert!(of("", r#", "tie_word_embeddings": false"#));
    }

    #[test]
    fn windows() {
        let of = |architecture, more| -> Result<Vec<Option<usize>>, ModelError> {
            let spec = of(architecture, more)?;
            Ok(attentions(&spec)
                .iter()
                .map(|attention| attention.window)
                .collect())
        };
        let mistral = of("MistralForCausalLM", r#", "sliding_window": 32"#).unwrap();
        assert_eq!(mistral, [Some(32); 3]);
        let newer = of("MistralForCausalLM", r#", "sliding_window": null"#).unwrap();
        assert_eq!(newer, [None; 3]);
        let off = r#", "sliding_window": 32, "use_sliding_window": false"#;
        assert_eq!(of("Qwen2ForCausalLM", off).unwrap(), [None; 3]);
        let on = r#", "sliding_window": 32, "use_sliding_window": true, "max_window_layers": 2"#;
        assert_eq!(of("Qwen2ForCausalLM", on).unwrap(), [None, None, Some(32)]);
        let typed = r#", "sliding_window": 8, "use_sliding_window": true,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"]"#;
        assert_eq!(of("Qwen2ForCausalLM", typed).unwrap(), [None, Some(8), None]);
        let short = r#", "sliding_window": 8, "layer_types": ["full_attention"]"#;
        assert!(of("MistralForCausalLM", short).is_err());
        let odd = r#", "sliding_window": 8, "layer_types": ["full_attention", "mamba", "full_attention"]"#;
        assert!(of("MistralForCausalLM", odd).is_err());
        assert!(of("Gemma2ForCausalLM", "").is_err(), "a window is needed");
    }

    #[test]
    fn which_layers_have_positions() {
        fn ropes(architecture: &str, more: &str) -> Result<Vec<Option<usize>>, ModelError> {
            let spec = of(architecture, more)?;
            Ok(attentions(&spec).iter().map(|attention| attention.rope).collect())
        }
        let smollm = |more| ropes("SmolLM3ForCausalLM", more);
        assert_eq!(smollm("").unwrap(), [Some(0); 3]);
        let every_second = smollm(r#", "no_rope_layer_interval": 2"#).unwrap();
        assert_eq!(every_second, [Some(0), None, Some(0)]);
        assert_eq!(
            smollm(r#", "no_rope_layers": [0, 1, 1]"#).unwrap(),
            [None, Some(0), Some(0)]
        );
        assert!(smollm(r#", "no_rope_layers": [0, 1]"#).is_err());
        let exaone = |more| ropes("Exaone4ForCausalLM", more);
        let letters = r#", "sliding_window": 8, "sliding_window_pattern": "LG""#;
        assert_eq!(exaone(letters).unwrap(), [Some(0), None, None]);
        let number = r#", "sliding_window": 8, "sliding_window_pattern": 3"#;
        assert_eq!(exaone(number).unwrap(), [Some(0), Some(0), None]);
        assert_eq!(exaone("").unwrap(), [Some(0); 3]);
        assert!(exaone(r#", "sliding_window": 8, "sliding_window_pattern": "LX""#).is_err());
        let granite = |more: &str| {
            let layers = r#", "layer_types": ["attention", "attention", "attention"]"#;
            ropes(
                "GraniteMoeHybridForCausalLM",
                &format!(r#", "shared_intermediate_size": 48 {layers} {more}"#),
            )
        };
        assert_eq!(granite("").unwrap(), [None; 3]);
        assert_eq!(
            granite(r#", "position_embedding_type": "rope""#).unwrap(),
            [Some(0); 3]
        );
    }

    #[test]
    fn llama_4_ends_where_its_layers_would_no_longer_see_everything() {
        let of = |more: &str| {
            let moe = r#", "num_local_experts": 2, "num_experts_per_tok": 1"#;
            of("Llama4ForCausalLM", &format!("{moe} {more}"))
                .unwrap()
                .context_len
        };
        assert_eq!(of(""), 256);
        assert_eq!(of(r#", "attention_chunk_size": 64"#), 64);
        assert_eq!(of(r#", "attention_chunk_size": 64, "floor_scale": 64"#), 63);
        let level = r#", "attention_chunk_size": 64, "floor_scale": 64, "attn_temperature_tuning": false"#;
        assert_eq!(of(level), 64);
        let counted = r#", "attention_chunk_size": 64, "floor_scale": 64, "attn_temperature_tuning": 4"#;
        assert_eq!(of(counted), 63);
    }

    #[test]
    fn the_text_part_may_be_tied_from_outside() {
        let text = r#", "text_config": {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 1, "num_attention_heads": 4}"#;
        let head = |more: &str| {
            let spec = of("Qwen3VLForConditionalGeneration", &format!("{text} {more}")).unwrap();
            names(&spec).contains(&"lm_head.weight".to_owned())
        };
        assert!(head(""));
        assert!(head(r#", "tie_word_embeddings": false"#));
        assert!(!head(r#", "tie_word_embeddings": true"#));
    }

    #[test]
    fn a_decoder_with_scores_of_classes() {
        let outs = |more: &str| {
            let spec = of("Qwen2ForSequenceClassification", more).unwrap();
            let Task::Classify(classifier) = &spec.task else {
                panic!("{:?}", spec.task);
            };
            assert_eq!(classifier.pooling, PoolingKind::Last);
            assert!(!names(&spec).contains(&"lm_head.weight".to_owned()));
            classifier.out.n_rows()
        };
        assert_eq!(outs(r#", "id2label": {"0": "LABEL_0"}"#), 1);
        assert_eq!(outs(r#", "num_labels": 1"#), 1);
        assert_eq!(outs(""), 2, "files leave out what is the default");
    }

    #[test]
    fn every_family_refuses_what_its_kernels_would() {
        for (architecture, more) in [
            ("DeepseekV3ForCausalLM", r#", "qk_rope_head_dim": 7"#),
            (
                "MixtralForCausalLM",
                r#", "num_local_experts": 2, "num_experts_per_tok": 3"#,
            ),
            (
                "MixtralForCausalLM",
                r#", "num_local_experts": 100000, "num_experts_per_tok": 3"#,
            ),
            (
                "Phi3ForCausalLM",
                r#", "rope_scaling": {"type": "longrope", "factor": 2.0}"#,
            ),
            ("XLMRobertaModel", r#", "max_position_embeddings": 2"#),
            (
                "DeciLMForCausalLM",
                r#", "num_key_value_heads_per_layer": [4, 3, 1]"#,
            ),
            ("DbrxForCausalLM", ""),
            (
                "GraniteMoeHybridForCausalLM",
                r#", "shared_intermediate_size": 48, "layer_types": ["mamba", "attention", "mamba"]"#,
            ),
            (
                "GraniteMoeHybridForCausalLM",
                r#", "shared_intermediate_size": 48"#,
            ),
            (
                "MiniMaxM2ForCausalLM",
                r#", "num_local_experts": 2, "num_experts_per_tok": 1, "rotary_dim": 9"#,
            ),
            (
                "MiniMaxM2ForCausalLM",
                r#", "num_local_experts": 2, "num_experts_per_tok": 1, "scoring_func": "softmax""#,
            ),
            (
                "PhimoeForCausalLM",
                r#", "num_local_experts": 4, "num_experts_per_tok": 1"#,
            ),
            (
                "Gemma4ForCausalLM",
                r#", "sliding_window": 8, "enable_moe_block": true, "num_experts": 2, "top_k_experts": 1"#,
            ),
            (
                "Gemma4ForCausalLM",
                r#", "sliding_window": 8, "hidden_size_per_layer_input": 256"#,
            ),
            ("ApertusForCausalLM", r#", "hidden_act": "silu""#),
            ("MPNetModel", r#", "relative_attention_num_buckets": 64"#),
            (
                "ModernBertForSequenceClassification",
                r#", "classifier_pooling": "max""#,
            ),
            ("MPTForCausalLM", r#", "attn_config": {"rope": true}"#),
        ] {
            assert!(of(architecture, more).is_err(), "{architecture} {more}");
        }
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
            r#", "hidden_act": "xielu""#,
            r#", "max_position_embeddings": 0"#,
            r#", "quantization_config": {"quant_method": "awq"}"#,
            r#", "attention_multiplier": 0.5"#,
            r#", "block_configs": [{"attention": {"n_heads_in_group": 8}}]"#,
            r#", "rope_parameters": {"rope_theta": 1e6, "llama_4_scaling_beta": 0.1}"#,
            r#", "rope_parameters": {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}"#,
            r#", "sliding_window": 64"#,
        ] {
            assert!(of("LlamaForCausalLM", more).is_err(), "{more}");
        }
        let vocab = invalid("vocab_size", "is 0, must be 1 to 2097152".to_owned());
        let zero = of("LlamaForCausalLM", r#", "vocab_size": 0"#).unwrap_err();
        assert_eq!(zero.to_string(), vocab.to_string());
    }
}
