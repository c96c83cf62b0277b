//! Checkpoint folders of every architecture, made on the spot from the descriptions in `fixtures/oracle`.
//!
//! Nobody stores their weights: each number is a function of a seed, the tensor's name and an index, and is the
//! same to the bit as in `fixtures/oracle/weights.py`, with which the references were computed. That file also
//! explains what a description holds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// The mean of the sum of four independent uniform 16-bit integers, and its standard deviation.
const SUM_MEAN: i32 = 2 * 65535;
const SUM_STD: f64 = 37_837.227_237_206_48;

#[derive(Deserialize)]
struct Description {
    seed: u64,
    /// Of the bytes of all tensors, in order.
    sha256: String,
    /// Of tensors that name none.
    dtype: Dtype,
    #[serde(default = "one")]
    shards: usize,
    /// Name in the folder: its JSON, or the name of a file in `tokenizers`.
    files: BTreeMap<String, Value>,
    tensors: Vec<Row>,
}

fn one() -> usize {
    1
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Dtype {
    F32,
    F16,
    BF16,
    U8,
}

/// One tensor, or one for every number of the ranges `{0..3}` in its name.
#[derive(Deserialize)]
struct Row {
    name: String,
    shape: Vec<usize>,
    dtype: Option<Dtype>,
    #[serde(default)]
    std: f64,
    #[serde(default)]
    mean: f64,
    /// Lowest and highest of uniform integers.
    range: Option<(u8, u8)>,
}

struct Tensor {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/oracle")
}

/// The fixtures there are, in order.
pub(crate) fn names() -> Vec<String> {
    let entries = fs::read_dir(root().join("checkpoints")).unwrap();
    let files = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = files
        .filter_map(|file| Some(file.strip_suffix(".json")?.to_owned()))
        .collect();
    names.sort();
    names
}

/// The checkpoint folder of a fixture, with its `reference.json`. Panics unless its weights are those that the
/// reference was computed with.
pub(crate) fn materialise(name: &str) -> TempDir {
    let read = |folder: &str, file: &str| fs::read(root().join(folder).join(file)).unwrap();
    let file = format!("{name}.json");
    let description: Description = serde_json::from_slice(&read("checkpoints", &file)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("reference.json"), read("references", &file)).unwrap();
    for (path, content) in &description.files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let bytes = match content {
            Value::String(file) => read("tokenizers", file),
            content => serde_json::to_vec(content).unwrap(),
        };
        fs::write(path, bytes).unwrap();
    }
    let tensors: Vec<Tensor> = description
        .tensors
        .iter()
        .flat_map(|row| row.tensors(&description))
        .collect();
    let mut digest = Sha256::new();
    tensors.iter().for_each(|tensor| digest.update(&tensor.bytes));
    assert_eq!(
        hex::encode(digest.finalize()),
        description.sha256,
        "{name}: other weights than numpy's"
    );
    // A name with a slash is of a module with a file of its own: `2_Dense/linear.weight`.
    let (of_modules, of_model): (Vec<Tensor>, Vec<Tensor>) =
        tensors.into_iter().partition(|tensor| tensor.name.contains('/'));
    let mut modules: BTreeMap<String, Vec<Tensor>> = BTreeMap::new();
    for mut tensor in of_modules {
        let (module, name) = tensor.name.split_once('/').unwrap();
        let (module, name) = (module.to_owned(), name.to_owned());
        tensor.name = name;
        modules.entry(module).or_default().push(tensor);
    }
    for (module, tensors) in modules {
        fs::write(
            dir.path().join(module).join("model.safetensors"),
            safetensors(&tensors),
        )
        .unwrap();
    }
    write_shards(dir.path(), &of_model, description.shards);
    dir
}

fn write_shards(folder: &Path, tensors: &[Tensor], n_shards: usize) {
    if n_shards == 1 {
        return fs::write(folder.join("model.safetensors"), safetensors(tensors)).unwrap();
    }
    let mut weight_map = BTreeMap::new();
    for (i, part) in tensors.chunks(tensors.len().div_ceil(n_shards)).enumerate() {
        let file = format!("model-{:05}-of-{n_shards:05}.safetensors", i + 1);
        fs::write(folder.join(&file), safetensors(part)).unwrap();
        weight_map.extend(part.iter().map(|tensor| (&tensor.name, file.clone())));
    }
    let total_size: usize = tensors.iter().map(|tensor| tensor.bytes.len()).sum();
    let index = json!({"metadata": {"total_size": total_size}, "weight_map": weight_map});
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

fn safetensors(tensors: &[Tensor]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut end = 0;
    for tensor in tensors {
        let start = end;
        end += tensor.bytes.len();
        let entry = json!({
            "dtype": tensor.dtype.name(),
            "shape": tensor.shape,
            "data_offsets": [start, end],
        });
        header.insert(tensor.name.clone(), entry);
    }
    let mut header = Value::Object(header).to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    tensors.iter().for_each(|tensor| file.extend(&tensor.bytes));
    file
}

impl Row {
    fn tensors<'a>(&'a self, description: &'a Description) -> impl Iterator<Item = Tensor> + 'a {
        let dtype = self.dtype.unwrap_or(description.dtype);
        expand(&self.name).into_iter().map(move |name| Tensor {
            bytes: self.bytes(description.seed, &name, dtype),
            name,
            dtype,
            shape: self.shape.clone(),
        })
    }

    fn bytes(&self, seed: u64, name: &str, dtype: Dtype) -> Vec<u8> {
        let words = words(seed, name, self.shape.iter().product());
        let scale = (self.std / SUM_STD) as f32;
        let mean = self.mean as f32;
        let number = |word: u64| normal(word) * scale + mean;
        match dtype {
            Dtype::F32 => words.flat_map(|word| number(word).to_le_bytes()).collect(),
            Dtype::F16 => words
                .flat_map(|word| f16::from_f32(number(word)).to_le_bytes())
                .collect(),
            Dtype::BF16 => words
                .flat_map(|word| bf16::from_f32(number(word)).to_le_bytes())
                .collect(),
            Dtype::U8 => {
                let (low, high) = self.range.expect("integers have a range");
                let n = u64::from(high - low) + 1;
                words.map(|word| low + (((word >> 32) * n) >> 32) as u8).collect()
            }
        }
    }
}

impl Dtype {
    fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::U8 => "U8",
        }
    }
}

/// Every name that a name with ranges expands to; the last range runs fastest.
fn expand(name: &str) -> Vec<String> {
    let Some((before, rest)) = name.split_once('{') else {
        return vec![name.to_owned()];
    };
    let (range, after) = rest.split_once('}').unwrap();
    let (low, high) = range.split_once("..").unwrap();
    let numbers = low.parse::<usize>().unwrap()..=high.parse().unwrap();
    let tails = expand(after);
    numbers
        .flat_map(|number| tails.iter().map(move |tail| format!("{before}{number}{tail}")))
        .collect()
}

/// Approximately normal, an integer: the sum of the four 16-bit pieces of `word` less its mean.
fn normal(word: u64) -> f32 {
    let sum: i32 = (0..4).map(|i| ((word >> (16 * i)) & 0xFFFF) as i32).sum();
    (sum - SUM_MEAN) as f32
}

/// The splitmix64 stream of a tensor; its state starts at FNV-1a of the name, mixed with the seed.
fn words(seed: u64, name: &str, n: usize) -> impl Iterator<Item = u64> {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let fnv = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    });
    let start = mix(fnv ^ mix(seed));
    (1..=n as u64).map(move |i| mix(start.wrapping_add(i.wrapping_mul(GOLDEN))))
}

/// The finaliser of splitmix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[test]
fn weights_are_those_of_the_references() {
    let names = names();
    assert!(names.len() >= 114, "fixtures are missing: {names:?}");
    for name in names {
        let dir = materialise(&name);
        let written = |file: &str| dir.path().join(file).exists();
        assert!(written("config.json") && written("tokenizer.json") && written("reference.json"));
        assert!(written("model.safetensors") || written("model.safetensors.index.json"));
    }
}

#[test]
fn ranges_in_names_are_written_out() {
    assert_eq!(expand("norm.weight"), ["norm.weight"]);
    assert_eq!(
        expand("l.{1..2}.e.{0..1}"),
        ["l.1.e.0", "l.1.e.1", "l.2.e.0", "l.2.e.1"]
    );
}
