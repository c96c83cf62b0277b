//! Selects the files of a repository that a model needs.
//!
//! Owns the matching of patterns and the default selection. Must not know where files come from.

/// Patterns of paths, with the meaning of `allow_patterns` and `ignore_patterns` of `huggingface_hub`: a file is
/// selected if it matches any of `allow` and none of `ignore`. [`matches`] defines the pattern language.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Patterns {
    /// Empty selects the files that a model needs: see [`select`].
    pub allow: Vec<String>,
    /// Wins over `allow`.
    pub ignore: Vec<String>,
}

impl Patterns {
    /// Selects the files of a tokenizer, from a repository that may also contain weights.
    pub fn tokenizer() -> Self {
        Self {
            allow: TOKENIZER_FILES.map(str::to_owned).to_vec(),
            ignore: Vec::new(),
        }
    }
}

/// Configuration, tokenizer and template files, which are small.
const TEXT_FILES: [&str; 7] = [
    "*.json",
    "*.txt",
    "*.model",
    "tokenizer.model.v*",
    "*.tiktoken",
    "*.jinja",
    "*.spm",
];
/// The files of a tokenizer in another model's repository.
const TOKENIZER_FILES: [&str; 11] = [
    "tokenizer*",
    "tekken.json",
    "*.model",
    "*.tiktoken",
    "*.jinja",
    "vocab*",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template*",
    "config.json",
];
const SAFETENSORS: &str = "*.safetensors";
/// Weights as pickles, selected only if there are no safetensors.
const PICKLES: [&str; 3] = ["*.bin", "*.pt", "*.pth"];
/// Copies of the weights in other formats, and files of the training.
const NEVER_BY_DEFAULT: [&str; 9] = [
    "original/*",
    "onnx/*",
    "openvino/*",
    "coreml/*",
    "checkpoint-*",
    "training_args.bin",
    "optimizer*",
    "scheduler*",
    "rng_state*",
];
/// Weights in the layout of Mistral's own loader.
const CONSOLIDATED: &str = "consolidated*";

/// The paths that `patterns` select. Without `allow`, these are text files, and weights as safetensors, or as pickles
/// if there are no safetensors. Weights in several layouts are selected once.
pub(super) fn select<'a>(paths: &[&'a str], patterns: &Patterns) -> Vec<&'a str> {
    let any_matches = |pattern: &str| paths.iter().any(|path| matches(pattern, path));
    let (allow, mut ignore) = if patterns.allow.is_empty() {
        // Safetensors of an adapter or a module are not the model's weights.
        let of_model = |path: &&&str| !path.contains('/') && !path.starts_with("adapter");
        let any_of_model = |pattern| paths.iter().filter(of_model).any(|path| matches(pattern, path));
        let pickled = any_of_model("pytorch_model*.bin") && !any_of_model(SAFETENSORS);
        let safetensors = !pickled && any_matches(SAFETENSORS);
        let weights: &[&str] = if safetensors { &[SAFETENSORS] } else { &PICKLES };
        let mut ignore = NEVER_BY_DEFAULT.to_vec();
        if any_matches("model*.safetensors") || !safetensors && any_matches("pytorch_model*.bin") {
            ignore.push(CONSOLIDATED);
        }
        ([&TEXT_FILES, weights].concat(), ignore)
    } else {
        (patterns.allow.iter().map(String::as_str).collect(), Vec::new())
    };
    ignore.extend(patterns.ignore.iter().map(String::as_str));
    let fits = |list: &[&str], path: &str| list.iter().any(|pattern| matches(pattern, path));
    let selects = |path: &str| match module_weights(path, paths) {
        Some(is_chosen) if patterns.allow.is_empty() => is_chosen,
        _ => fits(&allow, path),
    };
    paths
        .iter()
        .copied()
        .filter(|path| selects(path) && !fits(&ignore, path))
        .collect()
}

/// Whether the weights of a module of sentence-transformers are selected, whatever the format of the model's weights is:
/// safetensors, or a pickle if the module's folder has none. `None` for other files.
fn module_weights(path: &str, paths: &[&str]) -> Option<bool> {
    let (folder, file) = path
        .split_once('/')
        .filter(|(folder, _)| matches("[0-9]*_*", folder))?;
    let is_pickle = PICKLES.iter().any(|pattern| matches(pattern, file));
    let is_safe = |path: &str| {
        let inner = path.strip_prefix(folder).and_then(|path| path.strip_prefix('/'));
        inner.is_some_and(|inner| matches(SAFETENSORS, inner))
    };
    let has_safe = || paths.iter().any(|path| is_safe(path));
    (is_pickle || is_safe(path)).then(|| !is_pickle || !has_safe())
}

/// Whether `pattern` matches all of `path`. `*` (and so `**`) matches any text, including slashes; `?` matches any
/// character; `[a-z]` and `[!a-z]` match one of a set; a pattern that ends with `/` matches all files in the folder.
/// These are the rules of Python's `fnmatch.fnmatchcase`, which `huggingface_hub` applies to paths. Takes at most
/// `pattern × path` steps.
pub fn matches(pattern: &str, path: &str) -> bool {
    let mut pattern: Vec<char> = pattern.chars().collect();
    if pattern.last() == Some(&'/') {
        pattern.push('*');
    }
    let path: Vec<char> = path.chars().collect();
    let (mut at, mut in_path) = (0, 0);
    // The latest `*`, and the end of the part of the path that it matches so far.
    let mut star: Option<(usize, usize)> = None;
    while in_path < path.len() {
        if pattern.get(at) == Some(&'*') {
            star = Some((at, in_path));
            at += 1;
        } else if let Some(n_chars) = one_matches(&pattern[at..], path[in_path]) {
            at += n_chars;
            in_path += 1;
        } else if let Some((star_at, reach)) = star {
            star = Some((star_at, reach + 1));
            at = star_at + 1;
            in_path = reach + 1;
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|rest| *rest == '*')
}

/// Length of the first element of `pattern`, if it matches `character`.
fn one_matches(pattern: &[char], character: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '[' => {
            let negated = pattern.get(1) == Some(&'!');
            let first = if negated { 2 } else { 1 };
            // A `]` right after the opening bracket is a member of the set, not its end.
            let end = pattern
                .iter()
                .skip(first + 1)
                .position(|c| *c == ']')
                .map(|n| n + first + 1);
            let Some(end) = end else {
                return (character == '[').then_some(1);
            };
            (in_set(&pattern[first..end], character) != negated).then_some(end + 1)
        }
        literal => (*literal == character).then_some(1),
    }
}

fn in_set(set: &[char], character: char) -> bool {
    match set {
        [low, '-', high, rest @ ..] => (*low..=*high).contains(&character) || in_set(rest, character),
        [one, rest @ ..] => *one == character || in_set(rest, character),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_mean_what_fnmatch_means() {
        // Each row was checked with Python's fnmatch.fnmatchcase.
        let rows = [
            ("*.json", "config.json", true),
            ("*.json", "sub/config.json", true),
            ("*.json", "config.jsonl", false),
            ("**/x", "a/b/x", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("model-[0-9]*.safetensors", "model-00001-of-2.safetensors", true),
            ("[!.]*", ".gitattributes", false),
            ("[]]x", "]x", true),
            ("[", "[", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("", "", true),
            ("*", "", true),
            ("Config.json", "config.json", false),
        ];
        for (pattern, path, expected) in rows {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
        assert!(matches("original/", "original/params.json"));
    }

    #[test]
    fn the_default_selects_weights_once_and_as_safetensors() {
        let paths = [
            "README.md",
            ".gitattributes",
            "config.json",
            "merges.txt",
            "chat_template.jinja",
            "consolidated.safetensors",
            "model-00001-of-00001.safetensors",
            "model.safetensors.index.json",
            "original/consolidated.00.pth",
            "original/params.json",
            "pytorch_model.bin",
            "model.gguf",
            "onnx/model.onnx",
            "tokenizer.model",
        ];
        let taken = select(&paths, &Patterns::default());
        insta::assert_snapshot!(taken.join(" "), @"config.json merges.txt chat_template.jinja model-00001-of-00001.safetensors model.safetensors.index.json tokenizer.model");
    }

    #[test]
    fn all_files_of_a_tokenizer_or_an_embedding_model_are_selected() {
        let paths = [
            "1_Pooling/config.json",
            "2_Dense/config.json",
            "2_Dense/model.safetensors",
            "2_Dense/pytorch_model.bin",
            "model.safetensors",
            "modules.json",
            "onnx/tokenizer.json",
            "qwen.tiktoken",
            "sentence_bert_config.json",
            "tekken.json",
            "tiktoken.model",
            "tokenizer.model.v3",
            "3_Dense/pytorch_model.bin",
            "spiece.model",
            "tokenization_qwen.py",
            "vocab.txt",
        ];
        let taken = select(&paths, &Patterns::default());
        insta::assert_snapshot!(taken.join(" "), @"1_Pooling/config.json 2_Dense/config.json 2_Dense/model.safetensors model.safetensors modules.json qwen.tiktoken sentence_bert_config.json tekken.json tiktoken.model tokenizer.model.v3 3_Dense/pytorch_model.bin spiece.model vocab.txt");
        let taken = select(&paths, &Patterns::tokenizer());
        insta::assert_snapshot!(taken.join(" "), @"qwen.tiktoken tekken.json tiktoken.model tokenizer.model.v3 spiece.model vocab.txt");
    }

    #[test]
    fn pickles_are_selected_if_there_are_no_safetensors() {
        let paths = [
            "config.json",
            "pytorch_model.bin",
            "training_args.bin",
            "model.onnx",
        ];
        assert_eq!(
            select(&paths, &Patterns::default()),
            ["config.json", "pytorch_model.bin"]
        );
    }

    #[test]
    fn safetensors_of_other_parts_are_not_the_models_weights() {
        let paths = [
            "adapter_model.safetensors",
            "config.json",
            "pytorch_model-00001-of-00002.bin",
            "pytorch_model-00002-of-00002.bin",
            "pytorch_model.bin.index.json",
            "2_Dense/model.safetensors",
        ];
        assert_eq!(select(&paths, &Patterns::default()), paths[1..]);
        let nested = ["config.json", "sub/model.safetensors", "training_args.bin"];
        assert_eq!(select(&nested, &Patterns::default()), nested[..2]);
    }

    #[test]
    fn patterns_replace_the_default_and_ignore_wins() {
        let paths = ["a.gguf", "b.gguf", "original/x.json"];
        let patterns = Patterns {
            allow: vec!["*.gguf".into(), "original/".into()],
            ignore: vec!["b*".into()],
        };
        assert_eq!(select(&paths, &patterns), ["a.gguf", "original/x.json"]);
        let only_ignore = Patterns {
            allow: Vec::new(),
            ignore: vec!["*.json".into()],
        };
        assert_eq!(
            select(&["config.json", "model.safetensors"], &only_ignore),
            ["model.safetensors"]
        );
    }

    proptest! {
        #[test]
        fn a_path_matches_itself_and_stars_before_any_suffix(path in "[a-z./-]{1,30}", at in 0usize..30) {
            prop_assert!(matches(&path, &path));
            let pattern = format!("*{}", &path[at.min(path.len() - 1)..]);
            prop_assert!(matches(&pattern, &path));
        }

        #[test]
        fn any_pattern_ends(pattern in "[*?a\\[\\]!-]{0,40}", path in "a{0,60}") {
            let _ends: bool = matches(&pattern, &path);
        }
    }
}
