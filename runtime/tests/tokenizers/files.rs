//! Tokenizers of older and of other files than `tokenizer.json`: each has the ids of its reference.

use std::path::Path;

use proptest::prelude::*;
use runtime::chat_template::{ChatTemplate, Conversation, Ending};
use runtime::tokenizer::{
    Begin, Limit, PairLimit, Side, Special, Tokenizer, TokenizerConfig, TokenizerError,
};
use serde_json::{Value, json};

use super::{folder, ids, reference, with_config};

/// A `tokenizer.json` of the oracle's checkpoints.
fn stored(name: &str) -> Value {
    let path = format!("tests/fixtures/oracle/tokenizers/{name}.json");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn of_json(json: &Value, config: TokenizerConfig) -> Tokenizer {
    Tokenizer::from_bytes(Path::new("tokenizer.json"), json.to_string().as_bytes(), config).unwrap()
}

/// A folder with the files.
fn folder_of(files: &[(&str, String)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

/// `vocab.json` and `merges.txt` of a `tokenizer.json`.
fn merges_of(json: &Value) -> [(&'static str, String); 2] {
    let merge = |merge: &Value| match merge {
        Value::Array(pair) => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
        text => text.as_str().unwrap().to_owned(),
    };
    let merges: Vec<String> = json["model"]["merges"]
        .as_array()
        .unwrap()
        .iter()
        .map(merge)
        .collect();
    [
        ("vocab.json", json["model"]["vocab"].to_string()),
        ("merges.txt", format!("#version: 0.2\n{}\n", merges.join("\n"))),
    ]
}

/// `vocab.txt` of a `tokenizer.json`.
fn words_of(json: &Value) -> (&'static str, String) {
    let vocab = json["model"]["vocab"].as_object().unwrap();
    let mut words: Vec<(u64, &str)> = vocab
        .iter()
        .map(|(word, id)| (id.as_u64().unwrap(), word.as_str()))
        .collect();
    words.sort_unstable();
    let words: Vec<&str> = words.into_iter().map(|(_, word)| word).collect();
    ("vocab.txt", words.join("\n") + "\n")
}

const TEXTS: [&str; 8] = [
    "In the beginning God created the heaven and the earth.",
    "  two  spaces\tand\n\n newlines \r\n",
    "Naïve CAFE\u{301} — 你好, 世界! 🙂 3.14159 12345",
    "it's WE'LL don't I'd",
    "a<s>b </s> <|endoftext|>c [SEP] [MASK] <mask>",
    "unbelievable",
    " ",
    "",
];

fn assert_same(tokenizer: &Tokenizer, reference: &Tokenizer) {
    for text in TEXTS {
        for begin in [Begin::Leave, Begin::Add] {
            let expected = reference.encode(text, begin).unwrap();
            assert_eq!(tokenizer.encode(text, begin).unwrap(), expected, "{text:?}");
            let decoded = |tokenizer: &Tokenizer| tokenizer.tokens().decode(&expected, Special::Show);
            assert_eq!(decoded(tokenizer), decoded(reference), "{text:?}");
        }
    }
}

#[test]
fn merges_have_the_ids_of_a_tokenizer_json() {
    let json = stored("gpt2");
    for (tokenizer_config, config) in [
        (r#"{"tokenizer_class": "GPT2Tokenizer"}"#, "{}"),
        (r#"{"tokenizer_class": "GPT2TokenizerFast"}"#, "{}"),
        ("{}", r#"{"model_type": "gpt2"}"#),
    ] {
        let [vocab, merges] = merges_of(&json);
        let own = ("tokenizer_config.json", tokenizer_config.to_owned());
        let dir = folder_of(&[vocab, merges, own, ("config.json", config.to_owned())]);
        let tokenizer = Tokenizer::load(dir.path()).unwrap();
        // The class declares one special token, the file of the fixture many.
        let mut reference = json.clone();
        let added = reference["added_tokens"].as_array_mut().unwrap();
        added.retain(|token| token["content"] == "<|endoftext|>");
        assert_same(&tokenizer, &of_json(&reference, TokenizerConfig::default()));
        assert_eq!(tokenizer.config().eos_token.as_deref(), Some("<|endoftext|>"));
    }
    // OPT: the tokenizer of GPT-2 with another token at the start.
    let [vocab, merges] = merges_of(&json);
    let own = r#"{"tokenizer_class": "GPT2Tokenizer", "bos_token": "</s>", "add_bos_token": true}"#;
    let dir = folder_of(&[vocab, merges, ("tokenizer_config.json", own.to_owned())]);
    let ids = Tokenizer::load(dir.path())
        .unwrap()
        .encode("a", Begin::Add)
        .unwrap();
    assert_eq!(ids[0], json["model"]["vocab"]["</s>"].as_u64().unwrap() as u32);
    assert_eq!(ids.len(), 2);
}

#[test]
fn qwens_merges_have_the_ids_of_a_tokenizer_json() {
    let json = stored("qwen2");
    let [vocab, merges] = merges_of(&json);
    let own = (
        "tokenizer_config.json",
        r#"{"tokenizer_class": "Qwen2Tokenizer"}"#.to_owned(),
    );
    let tokenizer = Tokenizer::load(folder_of(&[vocab, merges, own]).path()).unwrap();
    let mut reference = json;
    let added = reference["added_tokens"].as_array_mut().unwrap();
    added.retain(|token| token["content"] == "<|endoftext|>");
    assert_same(&tokenizer, &of_json(&reference, TokenizerConfig::default()));
}

#[test]
fn robertas_sequences_have_their_ends() {
    let [(_, vocab), merges] = merges_of(&stored("gpt2"));
    let mut vocab: Value = serde_json::from_str(&vocab).unwrap();
    vocab["<mask>"] = json!(512);
    let vocab = ("vocab.json", vocab.to_string());
    let config = ("config.json", r#"{"model_type": "roberta"}"#.to_owned());
    let tokenizer = Tokenizer::load(folder_of(&[vocab, merges, config]).path()).unwrap();
    let a = tokenizer.encode("a", Begin::Leave).unwrap();
    let (begin, end) = (2, 3);
    assert_eq!(
        tokenizer.encode("a", Begin::Add).unwrap(),
        [&[begin], &a[..], &[end]].concat()
    );
    let pair = tokenizer.encode_pair("a", "a").unwrap();
    assert_eq!(pair.ids, [&[begin], &a[..], &[end, end], &a[..], &[end]].concat());
    assert_eq!(pair.token_types, vec![0; pair.ids.len()]);
    // The mask removes the space before it.
    assert_eq!(
        tokenizer.encode("a <mask>", Begin::Leave).unwrap(),
        [&a[..], &[512]].concat()
    );
}

#[test]
fn words_have_the_ids_of_a_tokenizer_json() {
    let json = stored("bert");
    for (own, lowercase) in [("{}", true), (r#"{"do_lower_case": false}"#, false)] {
        let config = ("config.json", r#"{"model_type": "bert"}"#.to_owned());
        let own = ("tokenizer_config.json", own.to_owned());
        let tokenizer = Tokenizer::load(folder_of(&[words_of(&json), config, own]).path()).unwrap();
        let mut reference = json.clone();
        reference["normalizer"]["lowercase"] = lowercase.into();
        let reference = of_json(&reference, TokenizerConfig::default());
        assert_same(&tokenizer, &reference);
        let pair = |tokenizer: &Tokenizer| tokenizer.encode_pair(TEXTS[0], TEXTS[3]).unwrap();
        assert_eq!(pair(&tokenizer), pair(&reference));
    }
}

#[test]
fn what_the_configuration_names_replaces_the_normalisation_of_the_file() {
    let json = stored("bert");
    let encode =
        |config: TokenizerConfig, text: &str| of_json(&json, config).encode(text, Begin::Leave).unwrap();
    let default = TokenizerConfig::default;
    assert_eq!(encode(default(), "GOD"), encode(default(), "god"));
    let cased = || TokenizerConfig {
        do_lower_case: Some(false),
        ..default()
    };
    assert_ne!(encode(cased(), "GOD"), encode(cased(), "god"));
    // sentence-transformers makes texts lower case before a tokenizer that does not.
    let lowered = TokenizerConfig {
        lowers_texts: true,
        ..cased()
    };
    assert_eq!(encode(lowered, "GOD"), encode(cased(), "god"));
}

#[test]
fn a_vocabulary_that_cannot_be_used_is_named() {
    let [vocab, merges] = merges_of(&stored("gpt2"));
    let error = |files: &[(&str, String)]| Tokenizer::load(folder_of(files).path()).unwrap_err().to_string();
    let class = |name: &str| {
        (
            "tokenizer_config.json",
            format!(r#"{{"tokenizer_class": "{name}"}}"#),
        )
    };
    let unknown = error(&[vocab.clone(), merges.clone(), class("CLIPTokenizer")]);
    assert!(
        unknown.contains("CLIPTokenizer") && unknown.contains("vocab.json"),
        "{unknown}"
    );
    assert!(error(&[vocab.clone(), merges.clone()]).contains("names no tokenizer_class"));
    assert!(error(&[vocab.clone(), class("GPT2Tokenizer")]).contains("merges.txt is missing"));
    let broken = error(&[("vocab.json", "[]".into()), merges, class("GPT2Tokenizer")]);
    assert!(broken.contains("vocab.json"), "{broken}");
    let words = error(&[("vocab.txt", "a\nb\n".into()), class("BertTokenizer")]);
    assert!(words.contains("[UNK]"), "{words}");
}

/// The ids of XLM-RoBERTa are those of sentencepiece plus one, behind four marks.
#[test]
fn fairseqs_ids_are_shifted() {
    let config = |class: &str| TokenizerConfig {
        tokenizer_class: Some(class.into()),
        ..TokenizerConfig::default()
    };
    let bytes = std::fs::read(folder("sp-unigram").join("tokenizer.model")).unwrap();
    let load = |config| Tokenizer::from_bytes(Path::new("sentencepiece.bpe.model"), &bytes, config);
    let tokenizer = load(config("XLMRobertaTokenizer")).unwrap();
    let plain = with_config("sp-unigram", TokenizerConfig::default());
    let shifted = |text: &str| -> Vec<u32> {
        let ids = plain.encode(text, Begin::Leave).unwrap();
        ids.into_iter()
            .map(|id| if id == 0 { 3 } else { id + 1 })
            .collect()
    };
    let (a, b) = (shifted("the heaven"), shifted("earth"));
    assert_eq!(
        tokenizer.encode("the heaven", Begin::Add).unwrap(),
        [&[0], &a[..], &[2]].concat()
    );
    let pair = tokenizer.encode_pair("the heaven", "earth").unwrap();
    assert_eq!(pair.ids, [&[0], &a[..], &[2, 2], &b[..], &[2]].concat());
    let n_pieces = plain.tokens().n_ids() as u32;
    assert_eq!(tokenizer.encode("<mask>", Begin::Leave).unwrap(), [n_pieces + 1]);
    assert!(load(config("CamembertTokenizer")).is_err());
}

#[test]
fn a_model_of_t5_ends_its_texts_and_numbers_its_gaps_backwards() {
    let config = |class: &str| TokenizerConfig {
        tokenizer_class: Some(class.into()),
        eos_token: Some("</s>".into()),
        ..TokenizerConfig::default()
    };
    let bytes = std::fs::read(folder("sp-unigram").join("tokenizer.model")).unwrap();
    let load = |config| Tokenizer::from_bytes(Path::new("spiece.model"), &bytes, config);
    let tokenizer = load(config("T5TokenizerFast")).unwrap();
    let plain = with_config("sp-unigram", TokenizerConfig::default());
    let words = plain.encode("the heaven", Begin::Leave).unwrap();
    // `</s>` is the third piece. Nothing begins a text, although this vocabulary has `<s>`.
    assert_eq!(
        tokenizer.encode("the heaven", Begin::Add).unwrap(),
        [words, vec![2]].concat()
    );
    let n_pieces = plain.tokens().n_ids() as u32;
    let gaps = tokenizer
        .encode("<extra_id_0><extra_id_99>", Begin::Leave)
        .unwrap();
    assert_eq!(gaps, [n_pieces + 99, n_pieces]);
    let refused = load(config("XLNetTokenizer")).unwrap_err().to_string();
    assert!(refused.contains("XLNetTokenizer"), "{refused}");
}

#[test]
fn pieces_of_encoders_have_the_ids_of_their_classes() {
    for (name, file, config) in [
        ("sp-albert", "spiece.model", class("AlbertTokenizer")),
        ("sp-albert", "spiece.model", model_type("albert")),
        ("sp-deberta", "spm.model", class("DebertaV2TokenizerFast")),
        ("sp-deberta", "spm.model", model_type("deberta-v2")),
    ] {
        let tokenizer = of_pieces(name, file, config).unwrap();
        for case in reference(name).as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let ids = tokenizer.encode(text, Begin::Add).unwrap();
            assert_eq!(ids, super::ids(&case["ids"]), "{name} {text:?}");
        }
        let words = |text| tokenizer.encode(text, Begin::Leave).unwrap();
        let (first, second) = (words("the earth"), words("heaven"));
        let [begin, end] = [words("[CLS]")[0], words("[SEP]")[0]];
        let pair = tokenizer.encode_pair("the earth", "heaven").unwrap();
        let ids = [&[begin], &first[..], &[end], &second[..], &[end]].concat();
        assert_eq!(pair.ids, ids, "{name}");
        let types = [vec![0; first.len() + 2], vec![1; second.len() + 1]].concat();
        assert_eq!(pair.token_types, types, "{name}");
    }
}

#[test]
fn classes_of_pieces_obey_their_fields() {
    let encode = |name: &str, file: &str, config: TokenizerConfig, text: &str| {
        let tokenizer = of_pieces(name, file, config).unwrap();
        tokenizer.encode(text, Begin::Leave).unwrap()
    };
    let albert = |config, text: &str| encode("sp-albert", "spiece.model", config, text);
    let deberta = |config, text: &str| encode("sp-deberta", "spm.model", config, text);
    let plain = || class("AlbertTokenizer");
    let cased = || TokenizerConfig {
        do_lower_case: Some(false),
        ..plain()
    };
    let accented = TokenizerConfig {
        keep_accents: true,
        ..plain()
    };
    assert_eq!(albert(plain(), "GOD"), albert(cased(), "god"));
    assert_ne!(albert(cased(), "GOD"), albert(cased(), "god"));
    assert_eq!(albert(plain(), "é"), albert(plain(), "e"));
    assert_ne!(albert(accented, "é"), albert(plain(), "e"));
    let lowered = TokenizerConfig {
        do_lower_case: Some(true),
        ..class("DebertaV2Tokenizer")
    };
    assert_eq!(
        deberta(lowered, "GOD"),
        deberta(class("DebertaV2Tokenizer"), "god")
    );
    let apart = TokenizerConfig {
        split_by_punct: true,
        ..class("DebertaV2Tokenizer")
    };
    assert_ne!(deberta(apart, "a,"), deberta(class("DebertaV2Tokenizer"), "a,"));
    let bytes = std::fs::read(folder("sp-bpe").join("tokenizer.model")).unwrap();
    let refused = Tokenizer::from_bytes(Path::new("spm.model"), &bytes, model_type("deberta-v2"));
    assert!(refused.unwrap_err().to_string().contains("unigram"));
}

fn class(name: &str) -> TokenizerConfig {
    TokenizerConfig {
        tokenizer_class: Some(name.into()),
        ..TokenizerConfig::default()
    }
}

fn model_type(name: &str) -> TokenizerConfig {
    TokenizerConfig {
        model_type: Some(name.into()),
        ..TokenizerConfig::default()
    }
}

/// The sentencepiece model of a fixture, read with a configuration.
fn of_pieces(name: &str, file: &str, config: TokenizerConfig) -> Result<Tokenizer, TokenizerError> {
    let bytes = std::fs::read(folder(name).join(file)).unwrap();
    Tokenizer::from_bytes(Path::new(file), &bytes, config)
}

#[test]
fn kimis_pattern_gives_the_ids_of_tiktoken() {
    let ranks = std::fs::read(folder("qwen-tiktoken").join("qwen.tiktoken")).unwrap();
    let config = TokenizerConfig {
        tokenizer_class: Some("TikTokenTokenizer".into()),
        added_tokens: vec![runtime::tokenizer::AddedToken::special("[BOS]".into(), Some(491))],
        ..TokenizerConfig::default()
    };
    let tokenizer = Tokenizer::from_bytes(Path::new("tiktoken.model"), &ranks, config).unwrap();
    let cases: Value =
        serde_json::from_slice(&std::fs::read(folder("qwen-tiktoken").join("kimi.json")).unwrap()).unwrap();
    for case in cases.as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        assert_eq!(
            tokenizer.encode(text, Begin::Add).unwrap(),
            ids(&case["ids"]),
            "{text:?}"
        );
    }
    let marks = tokenizer
        .encode("[BOS]<|reserved_token_492|>", Begin::Add)
        .unwrap();
    assert_eq!(marks, [491, 492]);
    assert_eq!(tokenizer.tokens().n_ids(), 491 + 256);
}

/// The fixture in a version of Mistral's tokenizers.
fn tekken(version: &str) -> Tokenizer {
    let mut file: Value =
        serde_json::from_slice(&std::fs::read(folder("tekken").join("tekken.json")).unwrap()).unwrap();
    file["config"]["version"] = version.into();
    if version != "v3" {
        let marks = ["[ARGS]", "[CALL_ID]"].into_iter().zip(32..);
        let first = [
            "<unk>",
            "<s>",
            "</s>",
            "[INST]",
            "[/INST]",
            "[AVAILABLE_TOOLS]",
            "[/AVAILABLE_TOOLS]",
            "[TOOL_RESULTS]",
            "[/TOOL_RESULTS]",
            "[TOOL_CALLS]",
            "[IMG]",
            "<pad>",
            "[IMG_BREAK]",
            "[IMG_END]",
            "[PREFIX]",
            "[MIDDLE]",
            "[SUFFIX]",
            "[SYSTEM_PROMPT]",
            "[/SYSTEM_PROMPT]",
            "[TOOL_CONTENT]",
        ];
        let marks = first
            .into_iter()
            .zip(0..)
            .chain(marks.filter(|_| version != "v7"));
        file["special_tokens"] = marks
            .map(|(text, rank)| json!({"rank": rank, "token_str": text}))
            .collect();
    }
    let dir = folder_of(&[("tekken.json", file.to_string())]);
    Tokenizer::load(dir.path()).unwrap()
}

#[test]
fn tekken_gives_the_ids_of_mistral_common() {
    let reference: Value = super::reference("tekken");
    let tokenizer = tekken("v3");
    for case in reference["texts"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let expected = ids(&case["ids"]);
        assert_eq!(tokenizer.encode(text, Begin::Add).unwrap(), expected, "{text:?}");
        assert_eq!(tokenizer.tokens().decode(&expected, Special::Skip), text);
    }
    assert!(tokenizer.tokens().is_special(39) && !tokenizer.tokens().is_special(40));
}

#[test]
fn chats_of_mistral_have_the_ids_of_mistral_common() {
    let reference: Value = super::reference("tekken");
    let chats = reference["chats"].as_array().unwrap();
    assert_eq!(chats.len(), 4 * 8);
    for chat in chats {
        let tokenizer = tekken(chat["version"].as_str().unwrap());
        let template = ChatTemplate::choose(None, tokenizer.config()).unwrap().unwrap();
        let mut messages = chat["messages"].as_array().unwrap().clone();
        // The server parses the arguments of a call before it renders them.
        for call in messages
            .iter_mut()
            .filter_map(|message| message["tool_calls"].as_array_mut())
            .flatten()
        {
            let arguments = call["function"]["arguments"].as_str().unwrap();
            call["function"]["arguments"] = serde_json::from_str(arguments).unwrap();
        }
        let tools = chat["tools"].clone();
        let variables = match tools.as_array().unwrap().is_empty() {
            true => json!({}),
            false => json!({"tools": tools}),
        };
        let conversation = Conversation {
            messages,
            ending: Ending::GenerationPrompt,
            variables: variables.as_object().unwrap().clone(),
        };
        let text = template.render(&conversation).unwrap();
        let at = format!("{} {}", chat["version"], chat["name"]);
        assert_eq!(text, chat["text"], "{at}");
        assert_eq!(
            tokenizer.encode(&text, Begin::Leave).unwrap(),
            ids(&chat["ids"]),
            "{at}"
        );
    }
}

#[test]
fn a_tekken_that_contradicts_itself_is_refused() {
    let file: Value =
        serde_json::from_slice(&std::fs::read(folder("tekken").join("tekken.json")).unwrap()).unwrap();
    let refused = |field: &str, value: Value| {
        let mut file = file.clone();
        *file.pointer_mut(field).unwrap() = value;
        let bytes = file.to_string().into_bytes();
        let error =
            Tokenizer::from_bytes(Path::new("tekken.json"), &bytes, TokenizerConfig::default()).unwrap_err();
        assert!(matches!(error, TokenizerError::Invalid { .. }), "{error}");
    };
    for (field, value) in [
        ("/config/default_num_special_tokens", json!(1000)),
        ("/config/default_num_special_tokens", json!(4_000_000_000_u32)),
        ("/config/default_vocab_size", json!(60)),
        ("/config/default_vocab_size", json!(4_000_000_000_u32)),
        ("/config/pattern", json!("(")),
        ("/config/pattern", json!("a".repeat(10_000))),
        ("/vocab/3/token_bytes", json!("?")),
        ("/vocab/3/rank", json!(4)),
        ("/vocab", json!([])),
    ] {
        refused(field, value);
    }
}

/// The library's own truncation, which keeps the marks and shortens the longer text first.
fn truncated(json: &Value, n_max: usize, side: Side) -> tokenizers::Tokenizer {
    let mut json = json.clone();
    let direction = match side {
        Side::Left => "Left",
        Side::Right => "Right",
    };
    json["truncation"] =
        json!({"direction": direction, "max_length": n_max, "strategy": "LongestFirst", "stride": 0});
    serde_json::from_value(json).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_shortened_sequence_is_the_librarys(
        first in "[a-e ]{0,24}", second in "[a-e ]{0,24}", n_max in 4..40_usize, is_left in any::<bool>(),
    ) {
        let side = if is_left { Side::Left } else { Side::Right };
        for name in ["bert", "xlmr", "llama3"] {
            let json = stored(name);
            let (tokenizer, library) = (of_json(&json, TokenizerConfig::default()), truncated(&json, n_max, side));
            let whole = Limit { n_max, side };
            let expected = library.encode(first.as_str(), true).unwrap();
            prop_assert_eq!(tokenizer.encode_within(&first, Begin::Add, whole).unwrap(), expected.get_ids());
            let limit = PairLimit { n_second_max: usize::MAX, whole };
            // Where both texts lose tokens, which of them keeps one more is not defined.
            let length = |text: &str| tokenizer.encode(text, Begin::Leave).unwrap().len();
            let n_marks = tokenizer.encode_pair("", "").unwrap().ids.len();
            if 2 * length(&first).min(length(&second)) + n_marks > n_max {
                continue;
            }
            let expected = library.encode((first.as_str(), second.as_str()), true).unwrap();
            let pair = tokenizer.encode_pair_within(&first, &second, limit).unwrap();
            prop_assert_eq!(pair.ids, expected.get_ids());
            prop_assert_eq!(pair.token_types, expected.get_type_ids());
        }
    }

    #[test]
    fn a_sequence_is_never_longer_than_its_limit(text in "[a-e ]{0,24}", n_max in 0..40_usize) {
        let tokenizer = of_json(&stored("bert"), TokenizerConfig::default());
        for side in [Side::Left, Side::Right] {
            let whole = Limit { n_max, side };
            for begin in [Begin::Add, Begin::Leave] {
                prop_assert!(tokenizer.encode_within(&text, begin, whole).unwrap().len() <= n_max);
            }
            let limit = PairLimit { n_second_max: 2, whole };
            let pair = tokenizer.encode_pair_within("a", &text, limit).unwrap();
            prop_assert!(pair.ids.len() <= n_max && pair.ids.len() <= 3 + 1 + 2);
            prop_assert_eq!(pair.ids.len(), pair.token_types.len());
        }
    }
}
