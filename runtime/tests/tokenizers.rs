//! Vocabularies of checkpoints without a `tokenizer.json`, compared with sentencepiece and tiktoken on the same texts;
//! streams of tokens in any chunks; damaged files.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue names the place")]

#[path = "tokenizers/files.rs"]
mod files;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proptest::prelude::*;
use runtime::api::text::{StopStrings, TextStream};
use runtime::tokenizer::{AddedToken, Begin, Special, Tokenizer, TokenizerConfig, TokenizerError};
use serde_json::{Value, json};

const SENTENCEPIECE: [&str; 4] = ["sp-bpe", "sp-unigram", "sp-bpe-rules", "sp-unigram-rules"];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/tokenizers")
        .join(name)
}

fn load(name: &str) -> Tokenizer {
    Tokenizer::load(&folder(name)).unwrap()
}

fn reference(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder(name).join("reference.json")).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The vocabulary of a fixture with another configuration.
fn with_config(name: &str, config: TokenizerConfig) -> Tokenizer {
    let path = Tokenizer::file_in(&folder(name)).unwrap();
    Tokenizer::from_bytes(&path, &std::fs::read(&path).unwrap(), config).unwrap()
}

fn mark(content: &str) -> AddedToken {
    AddedToken::special(content.into(), None)
}

#[test]
fn sentencepiece_gives_the_same_ids_and_texts() {
    for name in SENTENCEPIECE {
        let tokenizer = load(name);
        for case in reference(name).as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let expected = ids(&case["ids"]);
            assert_eq!(
                tokenizer.encode(text, Begin::Add).unwrap(),
                expected,
                "{name} {text:?}"
            );
            // Sentencepiece writes ⁇ for an unknown piece; here it is a special token, as in Python's tokenizers.
            if !case["decoded"].as_str().unwrap().contains('⁇') {
                let decoded = tokenizer.tokens().decode(&expected, Special::Skip);
                assert_eq!(decoded, case["decoded"], "{name} {text:?}");
            }
        }
    }
}

#[test]
fn tiktoken_gives_the_same_ids_and_texts() {
    let tokenizer = load("qwen-tiktoken");
    for case in reference("qwen-tiktoken")["cases"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let expected = ids(&case["ids"]);
        assert_eq!(tokenizer.encode(text, Begin::Add).unwrap(), expected, "{text:?}");
        assert_eq!(tokenizer.tokens().decode(&expected, Special::Show), text);
    }
    // Decomposed characters are composed before they are encoded.
    let encode = |text| tokenizer.encode(text, Begin::Add).unwrap();
    assert_eq!(encode("cafe\u{301}"), encode("café"));
    assert!(tokenizer.tokens().is_special(492));
    assert_eq!(tokenizer.tokens().n_ids(), 491 + 3 + 205);
}

#[test]
fn ranks_in_a_tokenizer_model_need_a_supported_class() {
    let ranks = std::fs::read(folder("qwen-tiktoken").join("qwen.tiktoken")).unwrap();
    let path = Path::new("tokenizer.model");
    let load = |class: &str| {
        let config = TokenizerConfig {
            tokenizer_class: Some(class.into()),
            added_tokens: vec![
                AddedToken::special("[gMASK]".into(), Some(500)),
                AddedToken::special("<sop>".into(), Some(501)),
            ],
            ..TokenizerConfig::default()
        };
        Tokenizer::from_bytes(path, &ranks, config)
    };
    let glm = load("ChatGLM4Tokenizer").unwrap();
    assert_eq!(glm.encode("a", Begin::Add).unwrap(), [500, 501, 97]);
    assert_eq!(glm.encode("[gMASK]<sop>a", Begin::Add).unwrap(), [500, 501, 97]);
    let error = load("OtherTokenizer").unwrap_err().to_string();
    assert!(
        error.contains("OtherTokenizer") && error.contains("tokenizer.model"),
        "{error}"
    );
}

#[test]
fn declared_tokens_are_recognised_and_a_class_adds_its_own() {
    let config = |class: Option<&str>, add_bos: Option<bool>| TokenizerConfig {
        bos_token: Some("<s>".into()),
        eos_token: Some("</s>".into()),
        add_bos_token: add_bos,
        tokenizer_class: class.map(String::from),
        added_tokens: vec![mark("<s>"), mark("</s>")],
        ..TokenizerConfig::default()
    };
    let encode = |config: TokenizerConfig, text: &str| {
        let tokenizer = with_config("sp-bpe", config);
        tokenizer.encode(text, Begin::Add).unwrap()
    };
    let the = 263;
    assert_eq!(encode(config(None, None), "the"), [the]);
    assert_eq!(encode(config(Some("LlamaTokenizer"), None), "the"), [1, the]);
    assert_eq!(encode(config(Some("LlamaTokenizer"), Some(false)), "the"), [the]);
    assert_eq!(encode(config(None, None), "<s>the</s>the"), [1, the, 2, the]);
    let with_eos = TokenizerConfig {
        add_eos_token: Some(true),
        ..config(None, Some(true))
    };
    assert_eq!(encode(with_eos, "the"), [1, the, 2]);
    // Without `legacy`, only the first text gets a space: "the" after a special token has none.
    let modern = TokenizerConfig {
        legacy: Some(false),
        ..config(None, None)
    };
    let ids = encode(modern, "the</s>the");
    assert_eq!(ids[..2], [the, 2]);
    assert_ne!(ids[2..], [the]);
}

#[test]
fn the_special_tokens_of_chatglm_follow_its_pieces() {
    let config = TokenizerConfig {
        tokenizer_class: Some("ChatGLMTokenizer".into()),
        ..TokenizerConfig::default()
    };
    let tokenizer = with_config("sp-unigram", config);
    let n_pieces = 800;
    let (gmask, sop, user) = (n_pieces + 1, n_pieces + 3, n_pieces + 6);
    let the = 262;
    assert_eq!(tokenizer.encode("the", Begin::Add).unwrap(), [gmask, sop, the]);
    let chat = tokenizer.encode("[gMASK]sop<|user|>the", Begin::Leave).unwrap();
    assert_eq!(chat, [gmask, sop, user, the]);
    assert_eq!(
        tokenizer.tokens().decode(&chat, Special::Show),
        "[gMASK]sop<|user|> the"
    );
}

#[test]
fn a_pair_needs_a_template() {
    assert!(matches!(
        load("sp-bpe").encode_pair("a", "b").unwrap_err(),
        TokenizerError::NoPairs
    ));
    let pair = WORDS.encode_pair("hello", "hello world").unwrap();
    assert_eq!(pair.ids, [2, 4, 3, 4, 5, 3]);
    assert_eq!(pair.token_types, [0, 0, 0, 1, 1, 1]);
}

/// The tokenizers and references of `fixtures/oracle`, which transformers made.
#[test]
fn prompts_of_every_architecture_have_the_references_ids() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/oracle");
    let read = |path: PathBuf| std::fs::read(path).unwrap();
    let json = |path: PathBuf| serde_json::from_slice::<Value>(&read(path)).unwrap();
    let mut n_checked = 0;
    for entry in std::fs::read_dir(root.join("checkpoints")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        let files = &json(path.clone())["files"];
        let folder = tempfile::tempdir().unwrap();
        for file in ["tokenizer.json", "tokenizer_config.json"] {
            let contents = match &files[file] {
                Value::String(shared) => read(root.join("tokenizers").join(shared)),
                own => own.to_string().into_bytes(),
            };
            std::fs::write(folder.path().join(file), contents).unwrap();
        }
        let tokenizer = Tokenizer::load(folder.path()).unwrap();
        let mut references = json(root.join("references").join(name));
        for prompt in references["prompts"].as_array_mut().unwrap() {
            // Python writes types for every pair; they count where the model reads them.
            if files["config.json"]["type_vocab_size"].as_u64().unwrap_or(0) == 0 {
                prompt["token_type_ids"] = Value::Null;
            }
            check_prompt(&tokenizer, prompt, name.to_str().unwrap());
            n_checked += 1;
        }
    }
    assert!(n_checked > 300, "{n_checked}");
}

fn check_prompt(tokenizer: &Tokenizer, prompt: &Value, name: &str) {
    let mut expected = ids(&prompt["ids"]);
    if let Some(query) = prompt["query"].as_str() {
        let pair = tokenizer
            .encode_pair(query, prompt["document"].as_str().unwrap())
            .unwrap();
        assert_eq!(pair.ids, expected, "{name} {query:?}");
        let types = &prompt["token_type_ids"];
        assert!(
            types.is_null() || pair.token_types == ids(types),
            "{name} {query:?}"
        );
        return;
    }
    let Some(text) = prompt["text"].as_str() else {
        return;
    };
    // These references end with a token that their checkpoints do not add.
    if name.contains("-lasttoken") {
        expected.pop();
    }
    let begin = if prompt["add_special_tokens"] == false {
        Begin::Leave
    } else {
        Begin::Add
    };
    assert_eq!(
        tokenizer.encode(text, begin).unwrap(),
        expected,
        "{name} {text:?}"
    );
}

fn json_tokenizer(tokenizer: &Value) -> Tokenizer {
    let contents = tokenizer.to_string();
    let config = TokenizerConfig::default();
    Tokenizer::from_bytes(Path::new("tokenizer.json"), contents.as_bytes(), config).unwrap()
}

/// A tokenizer like BERT's.
static WORDS: LazyLock<Tokenizer> = LazyLock::new(|| {
    let words = [
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "hello", "world", "##s", ".", "'", "##é", "日",
    ];
    let vocab: serde_json::Map<String, Value> = words
        .iter()
        .zip(0..)
        .map(|(word, id)| ((*word).into(), id.into()))
        .collect();
    let special = |id: usize| {
        json!({"id": id, "content": words[id], "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let token = |id: &str, type_id| json!({"SpecialToken": {"id": id, "type_id": type_id}});
    let text = |id: &str, type_id| json!({"Sequence": {"id": id, "type_id": type_id}});
    json_tokenizer(&json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0), special(1), special(2), special(3)],
        "normalizer": null, "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [token("[CLS]", 0), text("A", 0), token("[SEP]", 0)],
            "pair": [token("[CLS]", 0), text("A", 0), token("[SEP]", 0), text("B", 1), token("[SEP]", 1)],
            "special_tokens": {
                "[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]},
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocab},
    }))
});

/// A tokenizer like XLM-RoBERTa's.
static UNIGRAM: LazyLock<Tokenizer> = LazyLock::new(|| {
    let pieces = ["<unk>", "▁", "▁the", "he", "é", "日", "▁▁", "a", "▁a", "€"];
    let vocab: Vec<Value> = pieces
        .iter()
        .zip(1..)
        .map(|(piece, n)| json!([piece, -f64::from(n)]))
        .collect();
    let metaspace =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    json_tokenizer(&json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": metaspace, "post_processor": null, "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": false},
    }))
});

static TOKENIZERS: LazyLock<Vec<(&'static str, Tokenizer)>> = LazyLock::new(|| {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/tiny-trained");
    let mut all = vec![("byte level", Tokenizer::load(&examples).unwrap())];
    all.extend([("qwen-tiktoken", load("qwen-tiktoken"))]);
    all.extend(SENTENCEPIECE.map(|name| (name, load(name))));
    all
});

/// The text of a stream that receives the tokens' bytes in chunks of these sizes.
fn streamed(tokenizer: &Tokenizer, ids: &[u32], sizes: &[usize], special: Special) -> String {
    let bytes: Vec<u8> = ids
        .iter()
        .flat_map(|id| tokenizer.tokens().shown(*id, special))
        .copied()
        .collect();
    let mut stream = TextStream::new(StopStrings::default());
    let mut text = String::new();
    let mut rest = bytes.as_slice();
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (chunk, after) = rest.split_at((*size).min(rest.len()));
        text.push_str(&stream.push(chunk).text);
        rest = after;
    }
    text + &stream.finish().text
}

/// Whether a stream equals the decoded text, except for spaces that only the start of a text loses.
fn is_same(stream: &str, decoded: &str) -> bool {
    let trimmed = |text: &str| text.trim_start_matches(' ').to_string();
    stream == decoded || trimmed(stream) == trimmed(decoded)
}

proptest! {
    #[test]
    fn streams_equal_the_decoded_text_in_any_chunks(
        which in any::<prop::sample::Index>(),
        seeds in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        sizes in prop::collection::vec(1..9usize, 1..8),
    ) {
        let (name, tokenizer) = which.get(&TOKENIZERS);
        let ids: Vec<u32> = seeds.iter().map(|seed| seed.index(tokenizer.tokens().n_ids() + 2) as u32).collect();
        for special in [Special::Skip, Special::Show] {
            let decoded = tokenizer.tokens().decode(&ids, special);
            let stream = streamed(tokenizer, &ids, &sizes, special);
            prop_assert!(is_same(&stream, &decoded), "{name}: {stream:?} {decoded:?}");
        }
    }

    #[test]
    fn streams_of_words_equal_the_decoded_text(
        ids in prop::collection::vec(0..11u32, 0..20),
        sizes in prop::collection::vec(1..9usize, 1..8),
    ) {
        for tokenizer in [&*WORDS, &*UNIGRAM] {
            for special in [Special::Skip, Special::Show] {
                let decoded = tokenizer.tokens().decode(&ids, special);
                let stream = streamed(tokenizer, &ids, &sizes, special);
                // Metaspace removes the spaces of the first token; WordPiece writes the prefix of the first token.
                let n_first = decoded.len().min(8);
                let end: String = decoded.chars().skip(n_first).collect();
                prop_assert!(stream.ends_with(&end), "{stream:?} {decoded:?}");
            }
        }
    }

    #[test]
    fn any_text_survives_the_round_trip(text in "[ -~äé€日\u{1F600}\n\t]{0,60}") {
        for name in ["sp-bpe", "sp-unigram", "qwen-tiktoken"] {
            let tokenizer = &TOKENIZERS.iter().find(|(other, _)| *other == name).unwrap().1;
            let ids = tokenizer.encode(&text, Begin::Leave).unwrap();
            prop_assert_eq!(tokenizer.tokens().decode(&ids, Special::Show), text.clone());
        }
    }
}

/// A file of each format; the tests damage them.
static FILES: LazyLock<Vec<(PathBuf, Vec<u8>)>> = LazyLock::new(|| {
    let folders = SENTENCEPIECE
        .iter()
        .chain(&["qwen-tiktoken"])
        .map(|name| folder(name));
    let path = |folder: PathBuf| Tokenizer::file_in(&folder).unwrap();
    let mut files: Vec<(PathBuf, Vec<u8>)> = folders
        .map(path)
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    let small = r###"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{"id":5,"content":"<s>",
        "single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
        "normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,
        "use_regex":true},"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>",
        "type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[{"Sequence":{"id":"A","type_id":0}},
        {"Sequence":{"id":"B","type_id":1}}],"special_tokens":{"<s>":{"id":"<s>","ids":[5],"tokens":["<s>"]}}},
        "decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},
        "model":{"type":"BPE","dropout":null,"unk_token":"a","continuing_subword_prefix":null,
        "end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"ignore_merges":false,
        "vocab":{"a":0,"b":1,"ab":2,"Ġ":3,"Ġab":4},"merges":[["a","b"],["Ġ","ab"]]}}"###;
    files.push((PathBuf::from("tokenizer.json"), small.as_bytes().to_vec()));
    files
});

/// Uses each function of a tokenizer, if the file loads.
fn exercise(path: &Path, contents: &[u8]) {
    let config = TokenizerConfig {
        bos_token: Some("<s>".into()),
        add_bos_token: Some(true),
        added_tokens: vec![mark("<s>"), AddedToken::special("<x>".into(), Some(900))],
        ..TokenizerConfig::default()
    };
    let Ok(tokenizer) = Tokenizer::from_bytes(path, contents, config) else {
        return;
    };
    for text in ["", " ab<s>  ab <x>ﬁve 日本 \u{1F600}\n"] {
        let Ok(ids) = tokenizer.encode(text, Begin::Add) else {
            continue;
        };
        let _shown = tokenizer.tokens().decode(&ids, Special::Show);
        let _hidden = tokenizer.tokens().decode(&ids, Special::Skip);
    }
    let _pair = tokenizer.encode_pair("ab", "b");
    let n_ids = tokenizer.tokens().n_ids() as u32;
    let _all = tokenizer
        .tokens()
        .decode(&(0..n_ids + 2).collect::<Vec<_>>(), Special::Show);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_files_are_errors_or_tokenizers(
        which in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        length in prop::option::of(any::<prop::sample::Index>()),
        inserts in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let (path, contents) = which.get(&FILES);
        let mut contents = contents.clone();
        for (at, byte) in flips {
            let at = at.index(contents.len());
            contents[at] = byte;
        }
        for (at, byte) in inserts {
            contents.insert(at.index(contents.len()), byte);
        }
        if let Some(length) = length {
            contents.truncate(length.index(contents.len() + 1));
        }
        exercise(path, &contents);
    }

    #[test]
    fn json_with_other_values_is_an_error_or_a_tokenizer(
        place in any::<prop::sample::Index>(),
        other in prop::sample::select(vec![
            "0", "-1", "4294967295", "1e300", "99999999999999999999", "null", "true", "\"\"", "\"a\"", "\"<s>\"", "[]", "{}",
            "[[]]", "\"(\"", "{\"type\":\"Strip\",\"content\":\" \",\"start\":18446744073709551615,\"stop\":0}",
            "{\"type\":\"Fixed\",\"length\":0}", "[0,0]", "{\"a\":0,\"b\":0}", "{\"a\":2097152}",
        ]),
    ) {
        let (path, contents) = FILES.last().unwrap();
        let text = std::str::from_utf8(contents).unwrap();
        let value: Value = serde_json::from_str(text).unwrap();
        let mut paths = Vec::new();
        pointers(&value, String::new(), &mut paths);
        let mut value = value;
        *value.pointer_mut(&paths[place.index(paths.len())]).unwrap() = serde_json::from_str(other).unwrap();
        exercise(path, value.to_string().as_bytes());
    }
}

fn pointers(value: &Value, path: String, paths: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                pointers(
                    value,
                    format!("{path}/{}", name.replace('~', "~0").replace('/', "~1")),
                    paths,
                );
            }
        }
        Value::Array(items) => {
            for (idx, value) in items.iter().enumerate() {
                pointers(value, format!("{path}/{idx}"), paths);
            }
        }
        _ => {}
    }
    paths.push(path);
}

#[test]
fn hostile_files_are_refused_and_allocate_little() {
    let refused = |path: &str, contents: &[u8]| {
        Tokenizer::from_bytes(Path::new(path), contents, TokenizerConfig::default())
            .unwrap_err()
            .to_string()
    };
    // Deep nesting.
    assert!(refused("tokenizer.json", "[".repeat(1 << 20).as_bytes()).contains("recursion"));
    // An id that would need a table of 16 GiB.
    let (path, contents) = FILES.last().unwrap();
    let large = std::str::from_utf8(contents)
        .unwrap()
        .replace("\"Ġab\":4", "\"Ġab\":4294967295");
    assert!(refused(path.to_str().unwrap(), large.as_bytes()).contains("4294967295"));
    let config = TokenizerConfig {
        added_tokens: vec![AddedToken::special("<far>".into(), Some(u32::MAX))],
        ..TokenizerConfig::default()
    };

    let sentencepiece = &FILES[0];
    assert!(matches!(
        Tokenizer::from_bytes(&sentencepiece.0, &sentencepiece.1, config).unwrap_err(),
        TokenizerError::Id { id: u32::MAX, .. }
    ));
    // A message that claims to be longer than the file.
    assert!(refused("tokenizer.model", b"\x0a\xff\xff\xff\xff\x7f").contains("truncated"));
    assert!(refused("tokenizer.model", b"").contains("UNKNOWN"));
    assert!(refused("qwen.tiktoken", b"").contains("has no token"));
}
