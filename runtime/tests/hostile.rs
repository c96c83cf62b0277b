//! Hostile checkpoints: each ends the process with its reason and a message that names the fault, in bounded memory.
//! And the readers themselves, over the seeds of the fuzz targets and earlier findings.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue names the place")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use crds::failure::{Failure, Reason};
use runtime::fuzzing;
use runtime::model::{LoadOptions, Model};
use runtime::tokenizer::Tokenizer;

/// Memory that a process may allocate, in KiB, used or not: far more than a case needs, far less than a hostile file
/// claims.
const MEMORY_KIB_MAX: u32 = 1 << 20;

/// The files of a checkpoint.
type Files = BTreeMap<&'static str, Vec<u8>>;

/// A checkpoint, and how the process must end.
struct Case {
    name: String,
    files: Files,
    reason: Reason,
    /// Part of the failure's message.
    message: &'static str,
}

const CONFIG: &str = r#""architectures": ["LlamaForCausalLM"], "vocab_size": 4, "hidden_size": 4,
    "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 64,
    "tie_word_embeddings": true"#;

const TOKENIZER: &str = r#"{"version": "1.0", "added_tokens": [], "decoder": {"type": "ByteLevel",
    "add_prefix_space": false, "trim_offsets": true, "use_regex": true}, "model": {"type": "BPE",
    "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3}, "merges": [["a", "b"]]}}"#;

const TENSORS: [(&str, &[usize]); 11] = [
    ("model.embed_tokens.weight", &[4, 4]),
    ("model.norm.weight", &[4]),
    ("model.layers.0.input_layernorm.weight", &[4]),
    ("model.layers.0.post_attention_layernorm.weight", &[4]),
    ("model.layers.0.self_attn.q_proj.weight", &[4, 4]),
    ("model.layers.0.self_attn.k_proj.weight", &[4, 4]),
    ("model.layers.0.self_attn.v_proj.weight", &[4, 4]),
    ("model.layers.0.self_attn.o_proj.weight", &[4, 4]),
    ("model.layers.0.mlp.gate_proj.weight", &[4, 4]),
    ("model.layers.0.mlp.up_proj.weight", &[4, 4]),
    ("model.layers.0.mlp.down_proj.weight", &[4, 4]),
];

/// A safetensors file with this header and zeros.
fn safetensors(header: &str, n_data_bytes: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + n_data_bytes, 0);
    file
}

/// The header of all tensors in f32, and the number of their bytes.
fn header() -> (String, usize) {
    let mut end = 0;
    let entries = TENSORS.map(|(name, shape)| {
        let start = end;
        end += 4 * shape.iter().product::<usize>();
        format!(r#""{name}": {{"dtype": "F32", "shape": {shape:?}, "data_offsets": [{start}, {end}]}}"#)
    });
    (format!("{{{}}}", entries.join(",")), end)
}

/// A checkpoint that loads.
fn good() -> Files {
    let (header, n_bytes) = header();
    Files::from([
        ("config.json", format!("{{{CONFIG}}}").into_bytes()),
        ("tokenizer.json", TOKENIZER.as_bytes().to_vec()),
        ("model.safetensors", safetensors(&header, n_bytes)),
    ])
}

/// The good checkpoint with these files replaced; an empty file is removed.
fn with<const N: usize>(name: &str, files: [(&'static str, Vec<u8>); N], message: &'static str) -> Case {
    let mut all = good();
    all.extend(files);
    all.retain(|_, content| !content.is_empty());
    Case {
        name: name.to_owned(),
        files: all,
        reason: Reason::InvalidCheckpoint,
        message,
    }
}

/// Nesting that is deeper than any reader allows.
fn deep() -> Vec<u8> {
    [br#"{"a":"#.repeat(100_000), b"1".to_vec(), b"}".repeat(100_000)].concat()
}

fn safetensors_cases() -> Vec<Case> {
    let (header, n_bytes) = header();
    let of = |name: &str, file: Vec<u8>, message| with(name, [("model.safetensors", file)], message);
    let changed = |name: &str, from: &str, to: &str, message| {
        assert!(header.contains(from), "{from}");
        of(name, safetensors(&header.replacen(from, to, 1), n_bytes), message)
    };
    let embed = "model.embed_tokens.weight";
    vec![
        of("header length of all ones", vec![0xff; 64], "longer than 32 MiB"),
        of(
            "header longer than the file",
            [&9_000_000u64.to_le_bytes()[..], b"{}"].concat(),
            "ends within its header",
        ),
        of("shorter than a length", vec![1; 7], "shorter than 8 bytes"),
        of("data cut", safetensors(&header, n_bytes - 1), "outside the file"),
        of(
            "data longer",
            safetensors(&header, n_bytes + 1),
            "its tensors end at byte",
        ),
        of(
            "deep header",
            safetensors(std::str::from_utf8(&deep()).unwrap(), 0),
            "header is not usable",
        ),
        of(
            "no tensors",
            safetensors("{}", 0),
            "tensor model.embed_tokens.weight is missing",
        ),
        changed(
            "offsets that overflow",
            "[0, 64]",
            "[18446744073709551615, 64]",
            embed,
        ),
        changed(
            "an end that overflows",
            "[0, 64]",
            "[0, 18446744073709551615]",
            embed,
        ),
        changed("negative offsets", "[0, 64]", "[-64, 64]", "header is not usable"),
        changed(
            "a shape that overflows",
            "[4, 4]",
            "[9223372036854775807, 4]",
            embed,
        ),
        changed("overlapping tensors", "[64, 80]", "[48, 64]", "model.norm.weight"),
        changed(
            "a dtype of integers",
            "F32",
            "I32",
            "tensor model.embed_tokens.weight has dtype I32",
        ),
        changed(
            "an unknown dtype",
            "F32",
            "F33",
            "tensor model.embed_tokens.weight has dtype F33",
        ),
        changed(
            "another name",
            "model.norm.weight",
            "model.gnome.weight",
            "tensor model.norm.weight is missing",
        ),
        changed("another shape", "[4, 4]", "[2, 8]", "config.json gives [4, 4]"),
    ]
}

fn config_cases() -> Vec<Case> {
    let raw = |name: &str, config: Vec<u8>, message| with(name, [("config.json", config)], message);
    let mut cases = vec![
        raw("deep config", deep(), "not usable JSON"),
        raw("a list", b"[]".to_vec(), "not usable JSON"),
        raw("no UTF-8", b"{\"a\": \"\xff\"}".to_vec(), "not usable JSON"),
        raw("long config", vec![b' '; 9 << 20], "larger than"),
        raw("nothing in it", b"{}".to_vec(), "architectures is missing"),
    ];
    for (fields, message) in [
        (r#""num_hidden_layers": 1000000"#, "num_hidden_layers"),
        (r#""num_hidden_layers": 4096"#, "must be at most 1024"),
        (r#""num_hidden_layers": 1024"#, "model.layers.1."),
        (
            r#""num_hidden_layers": 18446744073709551616"#,
            "num_hidden_layers",
        ),
        (r#""num_hidden_layers": -1"#, "num_hidden_layers is -1"),
        (r#""num_hidden_layers": 1.0"#, "num_hidden_layers is 1.0"),
        (r#""num_hidden_layers": "1""#, "num_hidden_layers"),
        (r#""num_hidden_layers": [1]"#, "num_hidden_layers"),
        (
            r#""vocab_size": 2097152"#,
            "tensor model.embed_tokens.weight has shape",
        ),
        (r#""vocab_size": 2097153"#, "vocab_size is 2097153"),
        (r#""vocab_size": 0"#, "vocab_size is 0"),
        (r#""hidden_size": 2097152"#, "config.json gives [4, 2097152]"),
        (
            r#""intermediate_size": 2097152"#,
            "config.json gives [4, 2097152]",
        ),
        (
            r#""num_attention_heads": 2097152, "head_dim": 2097152"#,
            "num_attention_heads is 2097152, must be at most 4096",
        ),
        (r#""head_dim": 2097152"#, "k_proj.weight has shape"),
        (r#""num_attention_heads": 3"#, "num_attention_heads is 3"),
        (r#""num_key_value_heads": 7"#, "num_key_value_heads is 7"),
        (r#""num_key_value_heads": 0"#, "num_key_value_heads is 0"),
        (r#""head_dim": 3"#, "head_dim"),
        (r#""rms_norm_eps": -1e-5"#, "rms_norm_eps is -0.00001"),
        (r#""rms_norm_eps": 1e999"#, "not usable JSON"),
        (r#""rms_norm_eps": NaN"#, "rms_norm_eps is \"NaN\""),
        (r#""rope_theta": -Infinity"#, "rope_theta is \"-Infinity\""),
        (r#""rope_theta": 0"#, "rope_theta is 0"),
        (r#""rope_scaling": "far""#, "rope_scaling"),
        (r#""rope_scaling": {"rope_type": "linear"}"#, "needs a factor"),
        (
            r#""rope_scaling": {"rope_type": "linear", "factor": -2}"#,
            "factor is -2",
        ),
        (
            r#""max_position_embeddings": 1152921504606846976"#,
            "max_position_embeddings",
        ),
        (r#""eos_token_id": -1"#, "eos_token_id is -1"),
        (r#""eos_token_id": [[0]]"#, "eos_token_id"),
        (r#""tie_word_embeddings": "yes""#, "tie_word_embeddings"),
        (r#""architectures": []"#, "architectures is missing"),
        (r#""architectures": 7"#, "architectures is 7"),
    ] {
        let config = format!("{{{CONFIG}, {fields}}}").into_bytes();
        cases.push(raw(fields, config, message));
    }
    for (fields, message) in [
        (
            r#""architectures": ["DefinitelyNotForCausalLM"]"#,
            "DefinitelyNotForCausalLM",
        ),
        (r#""hidden_act": "exec""#, "hidden_act = exec"),
        (r#""rope_scaling": {"rope_type": "wild", "factor": 2}"#, "wild"),
    ] {
        let config = format!("{{{CONFIG}, {fields}}}").into_bytes();
        let reason = Reason::UnsupportedArchitecture;
        cases.push(Case {
            reason,
            ..raw(fields, config, message)
        });
    }
    cases
}

fn index_cases() -> Vec<Case> {
    let of = |name: &str, index: Vec<u8>, message| {
        with(
            name,
            [
                ("model.safetensors", vec![]),
                ("model.safetensors.index.json", index),
            ],
            message,
        )
    };
    let naming = |file: &str, message| {
        let index = format!(r#"{{"weight_map": {{"model.norm.weight": "{file}"}}}}"#);
        of(file, index.into_bytes(), message)
    };
    let many = (0..5000)
        .map(|i| format!(r#""{i}": "{i}.safetensors""#))
        .collect::<Vec<_>>();
    let many = format!(r#"{{"weight_map": {{{}}}}}"#, many.join(","));
    vec![
        naming("../model.safetensors", "not the name of a file in this folder"),
        naming("/etc/passwd", "not the name of a file in this folder"),
        naming("a/b.safetensors", "not the name of a file in this folder"),
        naming("..", "not the name of a file in this folder"),
        naming("nowhere.safetensors", "nowhere.safetensors is missing"),
        naming("config.json", "config.json is not a usable weight file"),
        of("deep index", deep(), "not usable JSON"),
        of(
            "an index of no map",
            br#"{"weight_map": 3}"#.to_vec(),
            "an object that maps each tensor",
        ),
        of(
            "an index of many files",
            many.into_bytes(),
            "does not name 1 to 4096 files",
        ),
    ]
}

/// A file of torch before 1.6 that contains the pickle `code`.
fn legacy(code: &[u8]) -> Vec<u8> {
    let start = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.";
    let system = b"\x80\x02}X\x0d\0\0\0little_endian\x88s.";
    let no_storages = b"\x80\x02].";
    [&start[..], system, code, no_storages].concat()
}

fn pickle_cases() -> Vec<Case> {
    let of = |name: &str, file: Vec<u8>, message| {
        with(
            name,
            [("model.safetensors", vec![]), ("pytorch_model.bin", file)],
            message,
        )
    };
    let storage = b"\x80\x02(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu";
    let length = b"\xff\xff\xff\xff\xff\xff\xff\x7f";
    let huge = [
        &storage[..],
        b"\x8a\x08",
        length,
        b"tQ.\x80\x02]X\x01\0\0\x000a.",
        length,
    ]
    .concat();
    vec![
        of(
            "os.system",
            legacy(b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R."),
            "os.system",
        ),
        of(
            "eval",
            legacy(b"\x80\x02c__builtin__\neval\nX\x01\0\0\x001\x85R."),
            "__builtin__.eval",
        ),
        of(
            "getattr",
            legacy(b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93."),
            "builtins.getattr",
        ),
        of(
            "an old instance",
            legacy(b"\x80\x02(X\x02\0\0\0idios\nsystem\n."),
            "opcode 0x69",
        ),
        of(
            "a number of 2 GB",
            legacy(b"\x80\x02\x8b\xff\xff\xff\x7f"),
            "opcode 0x8b",
        ),
        of(
            "a text of 16 EB",
            legacy(b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff"),
            "18446744073709551615 bytes",
        ),
        of("a storage of 32 EB", legacy(&huge), "9223372036854775807"),
        of(
            "itself in itself",
            legacy(b"\x80\x02}q\0X\x05\0\0\0modelh\0s."),
            "holds no tensors",
        ),
        of(
            "nested lists",
            legacy(&[b"\x80\x02", &b"]".repeat(1 << 20)[..]].concat()),
            "stack is higher",
        ),
        of(
            "a bomb of lists",
            legacy(&[b"\x80\x02]", &b"]a".repeat(1 << 20)[..]].concat()),
            "more than",
        ),
        of(
            "an archive without an end",
            b"PK\x03\x04rest".to_vec(),
            "without an end",
        ),
        of(
            "a page of HTML",
            b"<html>404</html>".to_vec(),
            "pytorch_model.bin is not a usable weight file",
        ),
    ]
}

fn tokenizer_cases() -> Vec<Case> {
    let of = |name: &str, tokenizer: &str| {
        with(
            name,
            [("tokenizer.json", tokenizer.as_bytes().to_vec())],
            "tokenizer",
        )
    };
    let changed = |name: &str, from: &str, to: &str| {
        assert!(TOKENIZER.contains(from), "{from}");
        of(name, &TOKENIZER.replacen(from, to, 1))
    };
    let beside = |name: &str, file, content: Vec<u8>| with(name, [(file, content)], file);
    let other = |name: &str, file, content: &[u8]| {
        with(name, [("tokenizer.json", vec![]), (file, content.to_vec())], file)
    };
    let mut cases = vec![
        other(
            "a piece of 16 EB",
            "tokenizer.model",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01a",
        ),
        other("a model of text", "tokenizer.model", b"version https://git-lfs"),
        other("a rank twice", "qwen.tiktoken", b"YQ== 0\nYQ== 1\n"),
        other("a rank of 32 bits", "qwen.tiktoken", b"YQ== 4294967295\n"),
        other("ranks that are no base64", "qwen.tiktoken", b"!!!! 0\n"),
        with("no tokenizer", [("tokenizer.json", vec![])], "tokenizer"),
        of("deep tokenizer", std::str::from_utf8(&deep()).unwrap()),
        of("an empty tokenizer", "{}"),
        changed("an id of 32 bits", r#""ab": 3"#, r#""ab": 4294967295"#),
        changed("an id of 31 bits", r#""ab": 3"#, r#""ab": 2147483647"#),
        changed("a negative id", r#""ab": 3"#, r#""ab": -3"#),
        changed("a merge of nothing", r#"["a", "b"]"#, r#"["x", "y"]"#),
        changed("an unknown model", "BPE", "Mystery"),
        changed(
            "an unknown decoder",
            r#""type": "ByteLevel""#,
            r#""type": "CTC", "pad_token": "p", "word_delimiter_token": "|", "cleanup": true"#,
        ),
        changed(
            "a broken pattern",
            r#""added_tokens": []"#,
            r#""added_tokens": [], "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": false}"#,
        ),
        beside("deep tokenizer config", "tokenizer_config.json", deep()),
        beside("deep defaults", "generation_config.json", deep()),
        beside(
            "a temperature of text",
            "generation_config.json",
            br#"{"temperature": "hot"}"#.to_vec(),
        ),
    ];
    let template = [("chat_template.jinja", b"{% for m in %}".to_vec())];
    cases.push(Case {
        reason: Reason::InvalidSetting,
        ..with("a broken template", template, "chat template")
    });
    cases
}

fn cases() -> Vec<Case> {
    let groups = [
        safetensors_cases(),
        config_cases(),
        index_cases(),
        pickle_cases(),
        tokenizer_cases(),
    ];
    groups.into_iter().flatten().collect()
}

fn folder(files: &Files) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

/// A loopback address that is unique for each process and call.
fn own_address() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    format!("127.{high}.{low}.{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Serves a checkpoint until the process ends or is ready. Returns the exit code and the failure, or the log.
fn serve(model: &Path) -> Result<(Option<i32>, Failure), String> {
    let message = tempfile::NamedTempFile::new().unwrap();
    let limited = format!("ulimit -d {MEMORY_KIB_MAX}; exec \"$0\" \"$@\"");
    let mut process = Command::new("/bin/sh")
        .args(["-c", &limited, env!("CARGO_BIN_EXE_slipway-runtime"), "serve"])
        .args(["--host", &own_address(), "--model"])
        .arg(model)
        .env_clear()
        .env("TERMINATION_MESSAGE_PATH", message.path())
        .env("TOKIO_WORKER_THREADS", "2")
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut log = String::new();
    for line in BufReader::new(process.stderr.take().unwrap()).lines() {
        log += &line.unwrap();
        log.push('\n');
        if log.contains("ready") {
            process.kill().unwrap();
        }
    }
    let code = process.wait().unwrap().code();
    let text = std::fs::read_to_string(message.path()).unwrap();
    let failure = Failure::from_termination_message(&text);
    failure
        .map(|failure| (code, failure))
        .ok_or(format!("no termination message:\n{log}"))
}

fn check(case: &Case) -> Result<(), String> {
    let (code, failure) = serve(folder(&case.files).path())?;
    if failure.reason != case.reason || code != Some(case.reason.exit_code().into()) {
        return Err(format!("exit {code:?}, {failure:?}"));
    }
    if !failure.message.contains(case.message) {
        return Err(format!("{:?} does not name {:?}", failure.message, case.message));
    }
    Ok(())
}

#[test]
fn the_good_checkpoint_loads() {
    let folder = folder(&good());
    Tokenizer::load(folder.path()).unwrap();
    Model::load(folder.path(), &LoadOptions::default(), &|_| {}).unwrap();
}

#[test]
fn every_hostile_checkpoint_ends_with_its_reason() {
    let cases = cases();
    let (rest, wrong) = (Mutex::new(cases.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let next = rest.lock().unwrap().next();
                    let Some(case) = next else {
                        return;
                    };
                    if let Err(problem) = check(case) {
                        wrong.lock().unwrap().push(format!("{}: {problem}", case.name));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

/// The name of a reader, which is also the folder of its inputs, and its function.
type Reader = (&'static str, fn(&[u8]));

const READERS: &[Reader] = &[
    ("safetensors", fuzzing::safetensors),
    ("pickle", fuzzing::pickle),
    ("config", fuzzing::config),
    ("tokenizer", fuzzing::tokenizer),
    ("vocabulary", fuzzing::vocabulary),
    ("chat_template", fuzzing::chat_template),
];

#[test]
fn earlier_findings_break_no_reader() {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hostile");
    for (name, read) in READERS {
        let inputs = std::fs::read_dir(corpus.join(name)).unwrap();
        assert!(
            inputs
                .map(|input| read(&std::fs::read(input.unwrap().path()).unwrap()))
                .count()
                > 0,
            "{name}"
        );
    }
}
