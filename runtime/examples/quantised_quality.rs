//! What quantised weights cost a model: `quantised_quality FOLDER TEXT`. The folder holds a Llama in one safetensors file and
//! its tokenizer, the text is one that it was not trained on.
//!
//! Rounds the weights of a copy as quantisation would, and computes with it as with any checkpoint. Prints the perplexity
//! of the text in windows of 256 tokens, and against the model as stored the mean divergence of the next token's
//! distribution and the share of positions with the same most probable token.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use kernels::{DType, QuantFormat};
use runtime::batch::{Batch, BatchRow, BlockId};
use runtime::model::{LoadOptions, Model};
use runtime::tokenizer::{Begin, Tokenizer};
use serde_json::{Value, json};

const WINDOW: usize = 256;
const BLOCK_SIZE: usize = 16;

/// A tensor in f32.
struct Tensor {
    shape: Vec<usize>,
    numbers: Vec<f32>,
}

/// Which matrices are rounded.
#[derive(Clone, Copy, PartialEq)]
enum Extent {
    /// Those of the layers.
    Layers,
    /// Also the embedding, which is the head of a model with tied weights.
    Everything,
}

/// The logarithms of the probabilities of every token after each position of a text.
type LogProbs = Vec<Vec<f32>>;

fn main() -> Result<()> {
    let usage = "usage: quantised_quality FOLDER TEXT";
    let mut arguments = env::args().skip(1);
    let folder = arguments.next().context(usage)?;
    let text = fs::read_to_string(arguments.next().context(usage)?)?;
    let folder = Path::new(&folder);
    let tokens = Tokenizer::load(folder)?.encode(&text, Begin::Leave)?;
    let tensors = read(&fs::read(folder.join("model.safetensors"))?)?;
    let stored = computed(folder, &LoadOptions::default(), &tokens)?;
    println!("| weights | columns per scale | matrices | perplexity | divergence | same token |");
    println!("|---|---|---|---|---|---|");
    print_row(["as stored", "", ""], &stored, &stored, &tokens);
    for extent in [Extent::Layers, Extent::Everything] {
        for format in [QuantFormat::Int8, QuantFormat::Fp8, QuantFormat::Nf4] {
            for group in [32, 64, 128, usize::MAX] {
                let copy = tempfile::tempdir()?;
                for file in ["config.json", "generation_config.json"] {
                    fs::copy(folder.join(file), copy.path().join(file))?;
                }
                let rounded = written(&tensors, |name| {
                    is_rounded(name, extent).then_some((format, group))
                })?;
                fs::write(copy.path().join("model.safetensors"), rounded)?;
                let quantised = computed(copy.path(), &LoadOptions::default(), &tokens)?;
                let columns = if group == usize::MAX {
                    "all".into()
                } else {
                    group.to_string()
                };
                let matrices = if extent == Extent::Layers {
                    "layers"
                } else {
                    "layers and embedding"
                };
                print_row([format.name(), &columns, matrices], &quantised, &stored, &tokens);
            }
        }
    }
    for format in [QuantFormat::Int8, QuantFormat::Fp8, QuantFormat::Nf4] {
        let options = LoadOptions {
            quantization: Some(format),
            ..LoadOptions::default()
        };
        let served = computed(folder, &options, &tokens)?;
        print_row(
            [format.name(), "as served", "as served"],
            &served,
            &stored,
            &tokens,
        );
    }
    Ok(())
}

fn is_rounded(name: &str, extent: Extent) -> bool {
    let in_layers = name.contains(".layers.") && name.ends_with("_proj.weight");
    in_layers || extent == Extent::Everything && name.ends_with("embed_tokens.weight")
}

/// The tensors of a safetensors file.
fn read(file: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    let (length, rest) = file.split_first_chunk::<8>().context("no header")?;
    let (header, data) = rest.split_at(usize::try_from(u64::from_le_bytes(*length))?);
    let header: BTreeMap<String, Value> = serde_json::from_slice(header)?;
    let mut tensors = BTreeMap::new();
    for (name, entry) in header {
        if name == "__metadata__" {
            continue;
        }
        let shape: Vec<usize> = serde_json::from_value(entry["shape"].clone())?;
        let [begin, end]: [usize; 2] = serde_json::from_value(entry["data_offsets"].clone())?;
        let dtype = match entry["dtype"].as_str() {
            Some("F32") => DType::F32,
            Some("F16") => DType::F16,
            Some("BF16") => DType::BF16,
            other => anyhow::bail!("{name} has dtype {other:?}"),
        };
        let numbers = dtype.widen(data.get(begin..end).context("the file is too short")?)?;
        tensors.insert(name, Tensor { shape, numbers });
    }
    Ok(tensors)
}

/// The tensors as a safetensors file in f32; those for which `format` returns one are rounded row by row.
fn written(
    tensors: &BTreeMap<String, Tensor>,
    format: impl Fn(&str) -> Option<(QuantFormat, usize)>,
) -> Result<Vec<u8>> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, tensor) in tensors {
        let mut numbers = tensor.numbers.clone();
        if let Some((format, group)) = format(name) {
            let n_cols = *tensor.shape.last().context("no columns")?;
            for row in numbers.chunks_mut(n_cols) {
                format.round(row, group.min(n_cols))?;
            }
        }
        let begin = data.len();
        data.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        let entry = json!({"dtype": "F32", "shape": tensor.shape, "data_offsets": [begin, data.len()]});
        header.insert(name.clone(), entry);
    }
    let header = serde_json::to_vec(&header)?;
    let length = (header.len() as u64).to_le_bytes();
    Ok([&length[..], &header, &data].concat())
}

/// What the model in a folder makes of a text, window by window.
fn computed(folder: &Path, options: &LoadOptions, tokens: &[u32]) -> Result<LogProbs> {
    let mut model = Model::load(folder, options, &|_| {})?;
    model.allocate_cache(WINDOW / BLOCK_SIZE, BLOCK_SIZE, 0)?;
    let mut all = Vec::new();
    for window in tokens[..tokens.len() - 1].chunks(WINDOW) {
        let n = window.len();
        let output = model.forward(&Batch {
            tokens: window.to_vec(),
            positions: (0..n as u32).collect(),
            logits_at: (0..n as u32).collect(),
            rows: vec![BatchRow {
                query_len: n,
                context_len: n,
                prompt_len: n,
                block_tables: vec![(0..WINDOW / BLOCK_SIZE).map(|i| BlockId(i as u32)).collect()],
                ..BatchRow::default()
            }],
            ..Batch::default()
        })?;
        all.extend((0..n).map(|row| log_probs(output.logits.row(row))));
    }
    ensure!(
        all.iter().flatten().all(|p| p.is_finite()),
        "logits are not finite"
    );
    Ok(all)
}

fn log_probs(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::MIN, f32::max);
    let total: f64 = logits.iter().map(|v| f64::from(v - max).exp()).sum();
    let shift = f64::from(max) + total.ln();
    logits.iter().map(|v| (f64::from(*v) - shift) as f32).collect()
}

fn print_row([weights, columns, matrices]: [&str; 3], model: &LogProbs, stored: &LogProbs, tokens: &[u32]) {
    let n = model.len() as f64;
    let next = tokens[1..].iter();
    let surprise = |(row, token): (&Vec<f32>, &u32)| -f64::from(row[*token as usize]);
    let perplexity = (model.iter().zip(next).map(surprise).sum::<f64>() / n).exp();
    let both = || model.iter().zip(stored);
    let divergence = |(model, stored): (&Vec<f32>, &Vec<f32>)| -> f64 {
        let terms = model.iter().zip(stored);
        terms.map(|(q, p)| f64::from(*p).exp() * f64::from(p - q)).sum()
    };
    let divergence = both().map(divergence).sum::<f64>() / n;
    let same = both().filter(|(model, stored)| most_probable(model) == most_probable(stored));
    let same = 100.0 * same.count() as f64 / n;
    println!("| {weights} | {columns} | {matrices} | {perplexity:.3} | {divergence:.5} | {same:.2} % |");
}

fn most_probable(row: &[f32]) -> Option<usize> {
    let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map(|(token, _)| token)
}
