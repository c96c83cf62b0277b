//! config.json and generation_config.json as the checkpoint's author wrote them.
//!
//! Owns reading (bounded in size and depth), the aliases of fields, their types, and the record of the fields that
//! were read. Must not know architectures: which fields matter is a family's business.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use kernels::DType;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::ModelError;

/// Largest config.json: the largest ones list a hundred thousand labels.
const CONFIG_BYTES_MAX: u64 = 8 << 20;

/// Largest size, count or width in a config; a product of three does not overflow.
const SIZE_MAX: u64 = 1 << 21;

/// Largest number of positions, such as a context or a window. It is never multiplied by two sizes.
const LENGTH_MAX: u64 = 1 << 28;

/// Fields that are numbers of positions.
const LENGTHS: &[&str] = &[
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "original_max_position_embeddings",
    "sliding_window",
    "attention_chunk_size",
    "max_seq_length",
];

/// Names that the same field has in different dialects, the most usual first.
pub(super) type Aliases = &'static [&'static str];

/// Width of the residual stream.
pub(super) const HIDDEN_SIZE: Aliases = &["hidden_size", "n_embd", "d_model", "dim"];
/// Number of layers.
pub(super) const N_LAYERS: Aliases = &["num_hidden_layers", "n_layer", "n_layers", "num_layers"];
/// Rows of the embedding.
pub(super) const VOCAB_SIZE: Aliases = &["vocab_size", "padded_vocab_size"];
/// Query heads.
pub(super) const N_HEADS: Aliases = &["num_attention_heads", "n_head", "n_heads", "num_heads"];
/// Key and value heads.
pub(super) const N_KV_HEADS: Aliases = &["num_key_value_heads", "num_kv_heads", "n_head_kv", "kv_n_heads"];
/// Width of the feed-forward part.
pub(super) const FFN_SIZE: Aliases = &[
    "intermediate_size",
    "n_inner",
    "ffn_dim",
    "ffn_hidden_size",
    "d_ff",
    "hidden_dim",
];
/// What norms add to the variance.
pub(super) const NORM_EPS: Aliases = &[
    "rms_norm_eps",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "norm_epsilon",
    "layernorm_epsilon",
    "norm_eps",
];
/// Name of the activation function.
pub(super) const ACTIVATION: Aliases = &[
    "hidden_act",
    "hidden_activation",
    "activation_function",
    "activation",
];
/// Experts of a mixture.
pub(super) const N_EXPERTS: Aliases = &[
    "num_local_experts",
    "num_experts",
    "n_routed_experts",
    "moe_num_experts",
];
/// Experts of a token.
pub(super) const N_CHOSEN: Aliases = &["num_experts_per_tok", "moe_top_k", "experts_per_token", "moe_k"];
/// Positions the model was trained for.
pub(super) const CONTEXT_LEN: Aliases = &[
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
];

/// The fields of a JSON object, with typed access. Each access is recorded, so that [`Fields::unread`] finds what no
/// code has used. Copies and inner objects share the record.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    map: Map<String, Value>,
    /// The path of this object in the file, with a final dot: `rope_scaling.`; empty for the file itself.
    path: String,
    read: Arc<Mutex<BTreeSet<String>>>,
}

/// A field that no code has read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Unread {
    /// Its name with the objects that contain it: `text_config.rope_scaling.factor`.
    pub(super) path: String,
    /// Its value.
    pub(super) value: Value,
}

impl Fields {
    fn new(map: Map<String, Value>) -> Fields {
        Fields {
            map,
            path: String::new(),
            read: Arc::default(),
        }
    }

    /// Reads config.json.
    pub(super) fn read_config(dir: &Path) -> Result<Fields, ModelError> {
        let path = dir.join("config.json");
        read_json(&path, CONFIG_BYTES_MAX)?.ok_or(ModelError::MissingFile { path })
    }

    /// Reads generation_config.json, which many checkpoints lack.
    pub(super) fn read_generation_config(dir: &Path) -> Result<Option<Fields>, ModelError> {
        read_json(&dir.join("generation_config.json"), CONFIG_BYTES_MAX)
    }

    /// Reads a JSON object; its depth is bounded by the parser, at 128.
    pub(super) fn from_bytes(json: &[u8]) -> Result<Fields, String> {
        parse(json).map(Fields::new).map_err(|error| error.to_string())
    }

    /// A field that is there and not null.
    fn get(&self, field: &str) -> Option<&Value> {
        self.record(&[field]);
        self.map.get(field).filter(|value| !value.is_null())
    }

    /// The first of the aliases that is there. The others count as read.
    fn find(&self, aliases: Aliases) -> Option<(&'static str, &Value)> {
        self.record(aliases);
        aliases.iter().find_map(|&field| Some((field, self.get(field)?)))
    }

    /// Records fields that have no effect, as `sliding_window` has none beside `use_sliding_window: false`.
    pub(super) fn without_effect(&self, fields: &[&str]) {
        self.record(fields);
    }

    fn record(&self, fields: &[&str]) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.extend(fields.iter().map(|field| format!("{}{field}", self.path)));
    }

    /// The fields that no code has read. Of an object that was read, its own fields are looked at.
    pub(super) fn unread(&self) -> Vec<Unread> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unread = Vec::new();
        let mut objects = vec![(self.path.clone(), &self.map)];
        while let Some((path, map)) = objects.pop() {
            for (name, value) in map {
                let field = format!("{path}{name}");
                let inner = format!("{field}.");
                match value {
                    Value::Object(object) if read.contains(&inner) => objects.push((inner, object)),
                    _ if read.contains(&field) => {}
                    value => unread.push(Unread {
                        path: field,
                        value: value.clone(),
                    }),
                }
            }
        }
        unread.sort_by(|a, b| a.path.cmp(&b.path));
        unread
    }

    /// A size, at least 1.
    pub(super) fn size(&self, aliases: Aliases) -> Result<Option<usize>, ModelError> {
        let Some((field, value)) = self.find(aliases) else {
            return Ok(None);
        };
        match value.as_u64() {
            Some(size) if (1..=size_max(field)).contains(&size) => Ok(Some(size as usize)),
            _ => Err(invalid(
                field,
                format!("is {}, must be 1 to {}", shown(value), size_max(field)),
            )),
        }
    }

    /// A size that must be there.
    pub(super) fn required_size(&self, aliases: Aliases) -> Result<usize, ModelError> {
        self.size(aliases)?
            .ok_or_else(|| invalid(aliases[0], "is missing".to_owned()))
    }

    /// A count, which may be zero.
    pub(super) fn count(&self, field: &'static str) -> Result<Option<usize>, ModelError> {
        let Some(value) = self.get(field) else {
            return Ok(None);
        };
        match value.as_u64() {
            Some(count) if count <= SIZE_MAX => Ok(Some(count as usize)),
            _ => Err(invalid(
                field,
                format!("is {}, must be 0 to {SIZE_MAX}", shown(value)),
            )),
        }
    }

    /// A finite number above zero.
    pub(super) fn positive(&self, aliases: Aliases) -> Result<Option<f64>, ModelError> {
        let Some((field, value)) = self.find(aliases) else {
            return Ok(None);
        };
        match value.as_f64() {
            Some(number) if number.is_finite() && number > 0.0 => Ok(Some(number)),
            _ => Err(invalid(
                field,
                format!("is {}, must be a number above zero", shown(value)),
            )),
        }
    }

    /// A number of any sign.
    pub(super) fn number(&self, aliases: Aliases) -> Result<Option<f64>, ModelError> {
        let Some((field, value)) = self.find(aliases) else {
            return Ok(None);
        };
        match value.as_f64() {
            Some(number) if number.is_finite() => Ok(Some(number)),
            _ => Err(invalid(field, format!("is {}, must be a number", shown(value)))),
        }
    }

    /// A list of finite numbers above zero.
    pub(super) fn positives(&self, field: &'static str) -> Result<Option<Vec<f64>>, ModelError> {
        let positive = |value: &Value| value.as_f64().filter(|n| n.is_finite() && *n > 0.0);
        self.list(field, "numbers above zero", positive)
    }

    /// A list of sizes, each at least 1.
    pub(super) fn sizes(&self, field: &'static str) -> Result<Option<Vec<usize>>, ModelError> {
        let size = |value: &Value| value.as_u64().filter(|n| (1..=SIZE_MAX).contains(n));
        let sizes = self.list(field, "sizes", size)?;
        Ok(sizes.map(|sizes| sizes.into_iter().map(|size| size as usize).collect()))
    }

    /// A list of counts, each of which may be zero.
    pub(super) fn counts(&self, field: &'static str) -> Result<Option<Vec<usize>>, ModelError> {
        let count = |value: &Value| value.as_u64().filter(|n| *n <= SIZE_MAX);
        let counts = self.list(field, "counts", count)?;
        Ok(counts.map(|counts| counts.into_iter().map(|count| count as usize).collect()))
    }

    /// A list of `what`.
    fn list<'a, T>(
        &'a self,
        field: &'static str,
        what: &str,
        item: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>, ModelError> {
        let Some(value) = self.get(field) else {
            return Ok(None);
        };
        let items = value.as_array().and_then(|list| list.iter().map(item).collect());
        let wrong = || invalid(field, format!("is {}, must be a list of {what}", shown(value)));
        items.map(Some).ok_or_else(wrong)
    }

    /// A boolean.
    pub(super) fn flag(&self, field: &'static str) -> Result<Option<bool>, ModelError> {
        let Some(value) = self.get(field) else {
            return Ok(None);
        };
        value
            .as_bool()
            .map(Some)
            .ok_or_else(|| invalid(field, format!("is {}, must be true or false", shown(value))))
    }

    /// A string.
    pub(super) fn text(&self, aliases: Aliases) -> Result<Option<&str>, ModelError> {
        let Some((field, value)) = self.find(aliases) else {
            return Ok(None);
        };
        value
            .as_str()
            .map(Some)
            .ok_or_else(|| invalid(field, format!("is {}, must be a string", shown(value))))
    }

    /// A list of strings.
    pub(super) fn texts(&self, field: &'static str) -> Result<Option<Vec<&str>>, ModelError> {
        self.list(field, "strings", Value::as_str)
    }

    /// A string or a list of strings.
    pub(super) fn text_or_texts(&self, field: &'static str) -> Result<Option<Vec<&str>>, ModelError> {
        let Some(value) = self.get(field) else {
            return Ok(None);
        };
        let texts = match value {
            Value::Array(items) => items.iter().map(Value::as_str).collect(),
            single => single.as_str().map(|text| vec![text]),
        };
        let wrong = || {
            let shown = shown(value);
            invalid(
                field,
                format!("is {shown}, must be a string or a list of strings"),
            )
        };
        texts.map(Some).ok_or_else(wrong)
    }

    /// These fields and one more, for objects within a config that count on a field outside.
    pub(super) fn with(&self, field: &str, size: usize) -> Fields {
        let mut fields = self.clone();
        fields.map.insert(field.to_owned(), Value::from(size));
        fields
    }

    /// An object.
    pub(super) fn object(&self, field: &'static str) -> Result<Option<Fields>, ModelError> {
        let Some(value) = self.get(field) else {
            return Ok(None);
        };
        let wrong = || invalid(field, format!("is {}, must be an object", shown(value)));
        let map = value.as_object().cloned().ok_or_else(wrong)?;
        self.record(&[&format!("{field}.")]);
        Ok(Some(Fields {
            map,
            path: format!("{}{field}.", self.path),
            read: Arc::clone(&self.read),
        }))
    }

    /// Records that `field` has no effect if it has the same value as `other`.
    pub(super) fn same(&self, field: &str, other: &str) {
        if self.map.contains_key(field) && self.map.get(field) == self.map.get(other) {
            self.record(&[field]);
        }
    }

    /// The fields of the part of a model that reads text: `text_config`, or these. What that part lacks of `OUTER` is
    /// taken from these fields, where several programs write it.
    pub(super) fn text_part(&self) -> Result<Fields, ModelError> {
        const OUTER: [&str; 1] = ["tie_word_embeddings"];
        let Some(mut text) = self.object("text_config")? else {
            return Ok(self.clone());
        };
        for field in OUTER {
            if let (None, Some(outer)) = (text.get(field), self.get(field)) {
                text.map.insert(field.to_owned(), outer.clone());
            }
        }
        // A copy of a field of the text's part, as older programs write them.
        let copied = |(field, value): &(&String, &Value)| text.map.get(*field) == Some(value);
        let copies = self.map.iter().filter(copied).map(|(field, _)| field.as_str());
        self.record(&copies.collect::<Vec<_>>());
        Ok(text)
    }

    /// The fields of the part of a model that reads text, to change them.
    pub(super) fn text_fields(&mut self) -> &mut Map<String, Value> {
        if self.is_object("text_config") {
            let part = self.map.get_mut("text_config").and_then(Value::as_object_mut);
            return part.expect("it is an object");
        }
        &mut self.map
    }

    /// Whether a field is an object.
    pub(super) fn is_object(&self, field: &str) -> bool {
        self.map.get(field).is_some_and(Value::is_object)
    }

    /// Token ids: one, or a list of them.
    pub(super) fn token_ids(&self, field: &'static str) -> Result<Option<Vec<u32>>, ModelError> {
        let Some(value) = self.get(field) else {
            return Ok(None);
        };
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = match value {
            Value::Array(list) => list.iter().map(id).collect(),
            single => id(single).map(|id| vec![id]),
        };
        let wrong = || {
            invalid(
                field,
                format!("is {}, must be a token id or a list of them", shown(value)),
            )
        };
        ids.map(Some).ok_or_else(wrong)
    }

    /// The dtype in which the checkpoint's weights are, single precision if the config does not name it. Some models of
    /// several kinds of input name it in `text_config` only.
    pub(super) fn dtype(&self) -> Result<DType, ModelError> {
        const NAMES: Aliases = &["dtype", "torch_dtype"];
        let text_part = self.object("text_config")?;
        let of_text = match &text_part {
            Some(text_part) => text_part.text(NAMES)?,
            None => None,
        };
        match self.text(NAMES)?.or(of_text).unwrap_or("float32") {
            "bfloat16" => Ok(DType::BF16),
            "float16" => Ok(DType::F16),
            "float32" => Ok(DType::F32),
            other => Err(ModelError::UnsupportedOption {
                option: "torch_dtype",
                value: other.to_owned(),
                supported: "bfloat16, float16, float32",
            }),
        }
    }

    /// The first of `architectures`.
    pub(super) fn architecture(&self) -> Result<&str, ModelError> {
        let names = self.texts("architectures")?.unwrap_or_default();
        names
            .first()
            .copied()
            .ok_or_else(|| invalid("architectures", "is missing".to_owned()))
    }
}

/// generation_config.json in `dir` as JSON; `None` if there is none.
///
/// # Errors
/// The file is too large, or not a JSON object.
pub fn generation_config(dir: &Path) -> Result<Option<Value>, ModelError> {
    let fields = Fields::read_generation_config(dir)?;
    Ok(fields.map(|fields| Value::Object(fields.map)))
}

/// Tokens that each end a text. generation_config.json wins over config.json.
pub(super) fn eos_token_ids(config: &Fields, generation: Option<&Fields>) -> Result<Vec<u32>, ModelError> {
    const FIELD: &str = "eos_token_id";
    if let Some(generation) = generation
        && let Some(ids) = generation.token_ids(FIELD)?
    {
        return Ok(ids);
    }
    let own = config.token_ids(FIELD)?;
    let ids = own.map_or_else(|| config.text_part()?.token_ids(FIELD), |ids| Ok(Some(ids)))?;
    Ok(ids.unwrap_or_default())
}

/// An error about a field's value.
pub(super) fn invalid(field: &'static str, reason: String) -> ModelError {
    ModelError::Config { field, reason }
}

/// Largest value of a field that is a size.
fn size_max(field: &str) -> u64 {
    if LENGTHS.contains(&field) {
        LENGTH_MAX
    } else {
        SIZE_MAX
    }
}

/// Reads a JSON object of at most `bytes_max`; `None` if there is no such file.
pub(super) fn read_json(path: &Path, bytes_max: u64) -> Result<Option<Fields>, ModelError> {
    let map: Option<Map<String, Value>> = read_parsed(path, bytes_max)?;
    Ok(map.map(Fields::new))
}

/// The same for a list.
pub(super) fn read_list(path: &Path, bytes_max: u64) -> Result<Option<Vec<Value>>, ModelError> {
    read_parsed(path, bytes_max)
}

pub(super) fn read_parsed<T: DeserializeOwned>(path: &Path, bytes_max: u64) -> Result<Option<T>, ModelError> {
    let failed = |source| ModelError::Read {
        path: path.to_owned(),
        source,
    };
    let broken = |reason: String| ModelError::Json {
        path: path.to_owned(),
        reason,
    };
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(broken("it is not a regular file".to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        return Err(broken(format!("it is larger than {bytes_max} bytes")));
    }
    parse(&bytes).map(Some).map_err(|error| broken(error.to_string()))
}

/// Parses JSON as Python writes it: `NaN` and `Infinity`, which are no JSON, become strings, so that a field that needs
/// a number is refused and one that nobody reads does no harm.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(bytes).or_else(|error| match quoted_constants(bytes) {
        Some(quoted) => serde_json::from_slice(&quoted),
        None => Err(error),
    })
}

/// The same text with Python's constants in quotation marks; `None` if it has none outside strings.
fn quoted_constants(bytes: &[u8]) -> Option<Vec<u8>> {
    const CONSTANTS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let mut quoted = Vec::with_capacity(bytes.len());
    let (mut rest, mut in_string, mut n_found) = (bytes, false, 0);
    while let Some(&byte) = rest.first() {
        let constant = CONSTANTS
            .iter()
            .find(|constant| !in_string && rest.starts_with(constant));
        let length = match (constant, byte) {
            (Some(constant), _) => constant.len(),
            (None, b'\\') if in_string && rest.len() > 1 => 2,
            (None, _) => 1,
        };
        if let Some(constant) = constant {
            n_found += 1;
            quoted.extend([b"\"", *constant, b"\""].concat());
        } else {
            quoted.extend_from_slice(&rest[..length]);
        }
        in_string ^= byte == b'"';
        rest = &rest[length..];
    }
    (n_found > 0).then_some(quoted)
}

/// A value for an error message, shortened.
pub(super) fn shown(value: &Value) -> String {
    const CHARS_MAX: usize = 60;
    let text = value.to_string();
    if text.chars().count() <= CHARS_MAX {
        return text;
    }
    text.chars().take(CHARS_MAX).chain("…".chars()).collect()
}

impl Fields {
    /// The entries, for files that are maps themselves.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &Value)> {
        let names: Vec<&str> = self.map.keys().map(String::as_str).collect();
        self.record(&names);
        self.map.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Fields of a JSON text.
    #[cfg(test)]
    pub(super) fn parse(json: &str) -> Fields {
        Fields::from_bytes(json.as_bytes()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_field_by_any_alias() {
        let config = Fields::parse(r#"{"hidden_size": null, "n_embd": 64}"#);
        assert_eq!(config.size(HIDDEN_SIZE).unwrap(), Some(64));
        assert_eq!(config.size(N_LAYERS).unwrap(), None);
        let missing = config.required_size(N_LAYERS).unwrap_err();
        assert_eq!(missing.to_string(), "config.json: num_hidden_layers is missing");
    }

    #[test]
    fn the_dtype_may_be_that_of_the_text_part() {
        let dtype = |json: &str| Fields::parse(json).dtype().unwrap();
        assert_eq!(dtype("{}"), DType::F32);
        assert_eq!(dtype(r#"{"text_config": {"dtype": "bfloat16"}}"#), DType::BF16);
        let both = r#"{"torch_dtype": "float16", "text_config": {"dtype": "bfloat16"}}"#;
        assert_eq!(dtype(both), DType::F16);
    }

    #[test]
    fn refuses_values_that_make_no_sense() {
        for value in ["0", "-1", "1.5", "1e30", "\"64\"", "[]", "true"] {
            let config = Fields::parse(&format!(r#"{{"hidden_size": {value}}}"#));
            assert!(config.size(HIDDEN_SIZE).is_err(), "{value}");
        }
        for value in ["0", "-1e-5", "\"x\"", "{}"] {
            let config = Fields::parse(&format!(r#"{{"rms_norm_eps": {value}}}"#));
            assert!(config.positive(NORM_EPS).is_err(), "{value}");
        }
        let config = Fields::parse(r#"{"architectures": [1], "mlp_bias": "no", "rope_scaling": 3}"#);
        assert!(config.architecture().is_err());
        assert!(config.flag("mlp_bias").is_err());
        assert!(config.object("rope_scaling").is_err());
    }

    #[test]
    fn fields_that_no_code_read_are_found() {
        let config = Fields::parse(
            r#"{"n_embd": 8, "hidden_size": 8, "beta": 1, "rope_scaling": {"factor": 2, "spiral": 3}, "text_config":
            {"rope_scaling": {"factor": 2}, "hidden_size": 8}, "unused": {"a": 1}, "sliding_window": 4, "null": null}"#,
        );
        config.size(HIDDEN_SIZE).unwrap();
        config.without_effect(&["sliding_window"]);
        let copy = config.with("head_dim", 4);
        let inner = copy.object("rope_scaling").unwrap().unwrap();
        inner.positive(&["factor"]).unwrap();
        config.object("text_config").unwrap();
        let unread = config.unread();
        let unread: Vec<&str> = unread.iter().map(|unread| unread.path.as_str()).collect();
        let expected = [
            "beta",
            "null",
            "rope_scaling.spiral",
            "text_config.hidden_size",
            "text_config.rope_scaling",
            "unused",
        ];
        assert_eq!(unread, expected);
    }

    #[test]
    fn constants_of_python_are_read_and_are_no_numbers() {
        let json =
            r#"{"a": [0.0, Infinity], "b": -Infinity, "c": NaN, "d": "\"NaN Infinity", "hidden_size": NaN}"#;
        let config = Fields::parse(json);
        assert_eq!(config.text(&["d"]).unwrap(), Some("\"NaN Infinity"));
        assert_eq!(config.text(&["b"]).unwrap(), Some("-Infinity"));
        let refused = config.size(HIDDEN_SIZE).unwrap_err().to_string();
        assert!(refused.contains("\"NaN\""), "{refused}");
        for broken in ["{\"a\": Inf}", "{\"a\": \"NaN}", "{Infinity"] {
            assert!(Fields::from_bytes(broken.as_bytes()).is_err(), "{broken}");
        }
    }

    #[test]
    fn generation_config_wins() {
        let config = Fields::parse(r#"{"eos_token_id": 2}"#);
        let generation = Fields::parse(r#"{"eos_token_id": [5, 6]}"#);
        assert_eq!(eos_token_ids(&config, Some(&generation)).unwrap(), [5, 6]);
        let silent = Fields::parse("{}");
        assert_eq!(eos_token_ids(&config, Some(&silent)).unwrap(), [2]);
        assert_eq!(eos_token_ids(&config, None).unwrap(), [2]);
        assert!(eos_token_ids(&silent, None).unwrap().is_empty());
        let negative = Fields::parse(r#"{"eos_token_id": -1}"#);
        assert!(eos_token_ids(&negative, None).is_err());
    }

    #[test]
    fn a_long_value_is_shortened_in_the_message() {
        let config = Fields::parse(&format!(r#"{{"hidden_size": "{}"}}"#, "é".repeat(1000)));
        assert!(config.size(HIDDEN_SIZE).unwrap_err().to_string().len() < 300);
    }
}
