//! The tokenizer equals the library that it wraps: same tokens and same text, for any chunks.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::api::text::{StopStrings, TextStream};

fn tiny_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/tiny-trained")
}

static TINY: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::load(&tiny_folder()).unwrap());

/// A tokenizer like Llama 2's: `▁` for spaces, bytes for text outside the vocabulary.
static LLAMA_LIKE: LazyLock<Tokenizer> = LazyLock::new(|| {
    let decoders = json!([
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    ]);
    made(
        json!({"type": "Sequence", "decoders": decoders}),
        json!({"bos_token": "<s>", "add_bos_token": true}),
    )
});

/// The same with a Metaspace decoder.
static METASPACE: LazyLock<Tokenizer> = LazyLock::new(|| {
    let decoder = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
    made(decoder, json!({}))
});

/// Separates words by spaces, unless a token begins with `▁`.
static WORDPIECE: LazyLock<Tokenizer> = LazyLock::new(|| {
    made(
        json!({"type": "WordPiece", "prefix": "▁", "cleanup": true}),
        json!({}),
    )
});

/// Separates words by spaces.
static NO_DECODER: LazyLock<Tokenizer> = LazyLock::new(|| made(Value::Null, json!({})));

fn made(decoder: Value, config: Value) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &decoder, &config);
    Tokenizer::load(folder.path()).unwrap()
}

fn write(folder: &Path, decoder: &Value, config: &Value) {
    let mut vocab: serde_json::Map<String, Value> = serde_json::Map::new();
    let words = [
        "<unk>", "<s>", "</s>", "▁", "▁a", "▁the", "b", "c", "ab", "€", "é", "▁▁",
    ];
    let bytes = (0..=255u32).map(|byte| format!("<0x{byte:02X}>"));
    for (id, token) in words.iter().map(ToString::to_string).chain(bytes).enumerate() {
        vocab.insert(token, json!(id));
    }
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null, "post_processor": null, "decoder": decoder,
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
                  "vocab": vocab, "merges": []}
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
}

#[test]
fn the_shipped_models_prompts_have_the_reference_ids_and_text() {
    let text = std::fs::read_to_string(tiny_folder().join("reference.json")).unwrap();
    let reference: Value = serde_json::from_str(&text).unwrap();
    let ids = |value: &Value| -> Vec<u32> { serde_json::from_value(value.clone()).unwrap() };
    let prompts = reference["prompts"].as_array().unwrap();
    assert!(!prompts.is_empty());
    for prompt in prompts {
        let text = prompt["prompt"].as_str().unwrap();
        assert_eq!(TINY.encode(text, Begin::Add).unwrap(), ids(&prompt["ids"]));
        assert_eq!(
            TINY.tokens().decode(&ids(&prompt["greedy"]), Special::Show),
            prompt["greedy_text"]
        );
    }
}

#[test]
fn a_sequence_begins_as_the_config_requires() {
    assert_eq!(LLAMA_LIKE.encode("b", Begin::Add).unwrap()[0], 1);
    assert_eq!(
        LLAMA_LIKE
            .encode("<s>b", Begin::Add)
            .unwrap()
            .iter()
            .filter(|id| **id == 1)
            .count(),
        1
    );
    assert_ne!(LLAMA_LIKE.encode("b", Begin::Leave).unwrap()[0], 1);
}

#[test]
fn a_sequence_ends_as_the_config_requires() {
    let encode = |config: Value, text: &str| {
        let tokenizer = made(json!({"type": "Fuse"}), config);
        tokenizer.encode(text, Begin::Add).unwrap()
    };
    let config = json!({"eos_token": "</s>", "add_eos_token": true});
    assert_eq!(encode(config.clone(), "b").last(), Some(&2));
    assert_eq!(encode(config, "b</s>").iter().filter(|id| **id == 2).count(), 1);
    assert_ne!(encode(json!({"eos_token": "</s>"}), "b").last(), Some(&2));
}

#[test]
fn a_text_that_is_too_long_is_detected_before_it_is_encoded() {
    assert!(TINY.n_tokens_min(10) <= 10);
    assert!(TINY.n_tokens_min(1 << 20) > 10);
    assert!((10..1 << 20).contains(&TINY.prompt_bytes_max(10)));
}

#[test]
fn an_error_names_what_cannot_be_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let error = Tokenizer::load(folder.path()).unwrap_err();
    assert!(error.to_string().contains("has no tokenizer"), "{error}");
    std::fs::write(folder.path().join("tokenizer.json"), "{\"model\": 1}").unwrap();
    assert!(matches!(
        Tokenizer::load(folder.path()).unwrap_err(),
        TokenizerError::Invalid { .. }
    ));
    for decoder in [
        json!({"type": "BPEDecoder", "suffix": "</w>"}),
        json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}),
        json!({"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": ""}, "content": "a"}]}),
    ] {
        write(folder.path(), &decoder, &json!({}));
        assert!(matches!(
            Tokenizer::load(folder.path()).unwrap_err(),
            TokenizerError::Decoder { .. }
        ));
    }
}

fn library_of(tokenizer: &Tokenizer) -> &tokenizers::Tokenizer {
    match &tokenizer.encoder {
        Encoder::Library(library) => library,
        Encoder::Plain(_) | Encoder::Skipped => panic!("not a tokenizer of the library"),
    }
}

fn streamed(tokenizer: &Tokenizer, ids: &[u32], special: Special) -> String {
    let mut stream = TextStream::new(StopStrings::default());
    let sent: String = ids
        .iter()
        .map(|id| stream.push(tokenizer.tokens().shown(*id, special)).text)
        .collect();
    sent + &stream.finish().text
}

fn ids_below(tokenizer: &Tokenizer) -> impl Strategy<Value = Vec<u32>> + use<> {
    // Two ids too many: the library leaves unknown ids out, and so must this.
    prop::collection::vec(0..tokenizer.tokens().n_ids() as u32 + 2, 0..40)
}

/// The library replaces each byte of a run by U+FFFD if one of them is invalid; a stream has already sent the valid
/// ones. So texts are compared only where the library replaced none.
fn agrees_or_is_damaged(ours: &str, library: &str) -> bool {
    ours == library || library.contains('\u{fffd}')
}

proptest! {
    #[test]
    fn byte_level_streams_are_the_librarys_text(ids in ids_below(&TINY)) {
        for special in [Special::Skip, Special::Show] {
            let library = library_of(&TINY).decode(&ids, special == Special::Skip).unwrap();
            prop_assert_eq!(streamed(&TINY, &ids, special), library.clone());
            prop_assert_eq!(TINY.tokens().decode(&ids, special), library);
        }
    }

    #[test]
    fn byte_fallback_texts_are_the_librarys(ids in ids_below(&LLAMA_LIKE)) {
        for special in [Special::Skip, Special::Show] {
            let library = library_of(&LLAMA_LIKE).decode(&ids, special == Special::Skip).unwrap();
            let text = LLAMA_LIKE.tokens().decode(&ids, special);
            prop_assert!(agrees_or_is_damaged(&text, &library), "{text:?} {library:?}");
            // An answer continues its prompt, so its first space stays.
            let stream = streamed(&LLAMA_LIKE, &ids, special);
            prop_assert_eq!(stream.strip_prefix(' ').unwrap_or(&stream), text);
        }
    }

    #[test]
    fn texts_of_words_are_the_librarys(ids in prop::collection::vec(0..12u32, 0..40)) {
        for tokenizer in [&*METASPACE, &*WORDPIECE, &*NO_DECODER] {
            for special in [Special::Skip, Special::Show] {
                let library = library_of(tokenizer).decode(&ids, special == Special::Skip).unwrap();
                prop_assert_eq!(tokenizer.tokens().decode(&ids, special), library);
            }
        }
    }

    #[test]
    fn text_survives_the_round_trip(text in "[ -~äé€\u{1F600}\n]{0,40}") {
        for tokenizer in [&*TINY, &*LLAMA_LIKE] {
            let ids = tokenizer.encode(&text, Begin::Leave).unwrap();
            prop_assert_eq!(tokenizer.tokens().decode(&ids, Special::Show), text.clone());
        }
    }
}
