//! The weight files of a checkpoint: found, opened, and checked against the description before any
//! number is read.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use crds::settings::{Dtype as DtypeChoice, LoadFormat};
use kernels::{DType, MappedFile};
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};

use super::pickle::read_checkpoint;
use super::safetensors::{self, Entry, read_header};
use super::weight_file::WeightFile;
use crate::model::config::read_parsed;
use crate::model::error::ModelError;
use crate::model::spec::TensorSpec;

/// The dtype in memory of weights that the checkpoint has as `stored`.
pub(in crate::model) fn in_memory(choice: DtypeChoice, stored: DType) -> DType {
    match choice {
        DtypeChoice::Auto => stored,
        DtypeChoice::Half | DtypeChoice::Float16 => DType::F16,
        DtypeChoice::Bfloat16 => DType::BF16,
        DtypeChoice::Float | DtypeChoice::Float32 => DType::F32,
    }
}

/// How far loading is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadProgress {
    /// Bytes of weights that are in memory.
    pub bytes_done: u64,
    /// Bytes of all weights.
    pub bytes_total: u64,
}

/// The open files and where in them each tensor of the description lies.
#[derive(Debug)]
pub(in crate::model) struct Checkpoint {
    files: Vec<WeightFile>,
    tensors: HashMap<String, Located>,
}

/// Where a tensor lies.
#[derive(Debug, Clone)]
struct Located {
    file_idx: usize,
    bytes: Range<usize>,
    dtype: Option<DType>,
}

/// A tensor in a file, little-endian and without gaps.
#[derive(Debug, Clone, Copy)]
pub(in crate::model) struct Tensor<'a> {
    /// How its numbers are stored; `None` for bytes that are not numbers by themselves.
    pub(in crate::model) dtype: Option<DType>,
    /// Bytes of its numbers.
    pub(in crate::model) n_bytes: usize,
    file: &'a WeightFile,
    /// Where in the file they start.
    at: usize,
}

impl Tensor<'_> {
    /// Bytes `part` of the tensor.
    ///
    /// # Errors
    /// They cannot be read, or the file is shorter than it was.
    pub(in crate::model) fn read(&self, part: Range<usize>) -> Result<Vec<u8>, ModelError> {
        assert!(part.end <= self.n_bytes, "a part of the tensor");
        self.file.read(self.at + part.start..self.at + part.end)
    }

    /// Fills `bytes` with those of the tensor from `from` on.
    ///
    /// # Errors
    /// As of [`Tensor::read`].
    pub(in crate::model) fn read_into(&self, from: usize, bytes: &mut [u8]) -> Result<(), ModelError> {
        assert!(from + bytes.len() <= self.n_bytes, "a part of the tensor");
        self.file.read_into(self.at + from, bytes)
    }
}

/// Largest index file; the largest published ones have a few megabytes.
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// Most files of one checkpoint; the largest published ones have a few hundred.
const N_FILES_MAX: usize = 4096;

/// Prefixes with which the same tensor appears: exported with or without the head, or from a model of
/// several kinds of input.
const PREFIXES: &[&str] = &[
    "model.",
    "transformer.",
    "language_model.",
    "model.language_model.",
    "bert.",
    "albert.",
    "roberta.",
    "distilbert.",
    "mpnet.",
    "deberta.",
    "decoder.",
];

impl Checkpoint {
    /// Opens the files in `dir` and finds every tensor of `wanted`. Tensors whose names start with one of
    /// `ignored` may be there too.
    ///
    /// # Errors
    /// A file is missing or broken, a wanted tensor is missing or has another shape or a dtype that cannot
    /// be computed with, or a file holds a tensor that is not wanted.
    pub(in crate::model) fn open(
        dir: &Path,
        format: LoadFormat,
        wanted: &[TensorSpec],
        ignored: &[String],
    ) -> Result<Checkpoint, ModelError> {
        let mut files = Vec::new();
        let mut stored: HashMap<String, (usize, Entry)> = HashMap::new();
        let of_model = weight_files(dir, format)?
            .into_iter()
            .map(|path| (String::new(), path));
        for (prefix, path) in of_model.chain(module_files(dir, wanted)?) {
            let file = WeightFile::open(&path)?;
            let broken = |reason| ModelError::WeightFile {
                path: path.clone(),
                reason,
            };
            for mut entry in entries(&file, &path)?.map_err(broken)? {
                entry.name.insert_str(0, &prefix);
                if let Some((_, twice)) = stored.insert(entry.name.clone(), (files.len(), entry)) {
                    return Err(broken(format!("{} is also in another file", twice.name)));
                }
            }
            files.push(file);
        }
        let mut tensors = HashMap::new();
        for spec in wanted {
            let (file_idx, entry) = take(&mut stored, &spec.name)?;
            let dtype = check(spec, &entry)?;
            tensors.insert(
                spec.name.clone(),
                Located {
                    file_idx,
                    bytes: entry.bytes,
                    dtype,
                },
            );
        }
        let leftover: BTreeSet<String> = stored
            .into_keys()
            .filter(|name| !is_ignored(name, wanted, ignored))
            .collect();
        match leftover.into_iter().next() {
            Some(name) => Err(ModelError::UnknownTensor { name }),
            None => Ok(Checkpoint { files, tensors }),
        }
    }

    /// A tensor of the description this was opened with.
    pub(in crate::model) fn tensor(&self, name: &str) -> Result<Tensor<'_>, ModelError> {
        let missing = || ModelError::MissingTensor {
            name: name.to_owned(),
        };
        let Located {
            file_idx,
            bytes,
            dtype,
        } = self.tensors.get(name).ok_or_else(missing)?;
        let file = &self.files[*file_idx];
        Ok(Tensor {
            dtype: *dtype,
            n_bytes: bytes.len(),
            file,
            at: bytes.start,
        })
    }

    /// Bytes of all tensors of the description.
    pub(in crate::model) fn size_bytes(&self) -> u64 {
        self.tensors
            .values()
            .map(|located| located.bytes.len() as u64)
            .sum()
    }
}

/// Where weights of one format are: in one file, or in the files that an index names.
struct WeightFiles {
    single: &'static str,
    index: &'static str,
}

const SAFETENSORS: WeightFiles = WeightFiles {
    single: "model.safetensors",
    index: "model.safetensors.index.json",
};

const PT: WeightFiles = WeightFiles {
    single: "pytorch_model.bin",
    index: "pytorch_model.bin.index.json",
};

/// The checkpoint's files. The first format that is there counts: a repository that has both kinds has the same
/// weights twice.
fn weight_files(dir: &Path, format: LoadFormat) -> Result<Vec<PathBuf>, ModelError> {
    let formats: &[WeightFiles] = match format {
        LoadFormat::Auto => &[SAFETENSORS, PT],
        LoadFormat::Safetensors => &[SAFETENSORS],
        LoadFormat::Pt | LoadFormat::Npcache => &[PT],
        LoadFormat::Dummy => return Ok(Vec::new()),
    };
    for WeightFiles { single, index } in formats {
        let single = dir.join(single);
        if single.is_file() {
            return Ok(vec![single]);
        }
        let index_path = dir.join(index);
        if let Some(index) = read_parsed::<Index>(&index_path, INDEX_BYTES_MAX)? {
            return indexed_files(dir, &index_path, index.weight_map.0);
        }
    }
    Err(ModelError::MissingFile {
        path: dir.join(formats[0].single),
    })
}

/// The weight files of modules beside the model, each with the beginning that the names of its tensors have in a
/// description: `2_Dense/`.
fn module_files(dir: &Path, wanted: &[TensorSpec]) -> Result<Vec<(String, PathBuf)>, ModelError> {
    let folder = |spec: &TensorSpec| Some(spec.name.split_once('/')?.0.to_owned());
    let folders: BTreeSet<String> = wanted.iter().filter_map(folder).collect();
    let mut files = Vec::new();
    for folder in folders {
        let of_folder = weight_files(&dir.join(&folder), LoadFormat::Auto)?;
        files.extend(of_folder.into_iter().map(|path| (format!("{folder}/"), path)));
    }
    Ok(files)
}

/// An index of weight files, of which only the files' names are kept: the files themselves name their tensors.
#[derive(Deserialize)]
struct Index {
    weight_map: FileNames,
}

/// The distinct files of an index, at most one more than a checkpoint may have.
struct FileNames(BTreeSet<String>);

impl<'de> Deserialize<'de> for FileNames {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfTensors;
        impl<'de> Visitor<'de> for OfTensors {
            type Value = FileNames;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object that maps each tensor to the name of its file")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<FileNames, M::Error> {
                let mut names = BTreeSet::new();
                while let Some((IgnoredAny, name)) = map.next_entry::<IgnoredAny, String>()? {
                    if names.len() <= N_FILES_MAX {
                        names.insert(name);
                    }
                }
                Ok(FileNames(names))
            }
        }
        deserializer.deserialize_map(OfTensors)
    }
}

/// The files that an index names.
fn indexed_files(dir: &Path, index_path: &Path, names: BTreeSet<String>) -> Result<Vec<PathBuf>, ModelError> {
    let broken = |reason: String| ModelError::Json {
        path: index_path.to_owned(),
        reason,
    };
    if names.is_empty() || names.len() > N_FILES_MAX {
        return Err(broken(format!("it does not name 1 to {N_FILES_MAX} files")));
    }
    let is_inside = |file: &String| Path::new(file).file_name() == Some(file.as_ref());
    if let Some(file) = names.iter().find(|file| !is_inside(file)) {
        return Err(broken(format!(
            "{file:?} is not the name of a file in this folder"
        )));
    }
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

/// Where the tensors of a file are, or why it is no weight file, in words. The pickle of a file of torch may be anywhere
/// in it, so such a file is mapped until its pickle is read.
fn entries(file: &WeightFile, path: &Path) -> Result<Result<Vec<Entry>, String>, ModelError> {
    if path
        .extension()
        .is_none_or(|extension| extension != "safetensors")
    {
        let map = MappedFile::open(path).map_err(|source| ModelError::Read {
            path: path.to_owned(),
            source,
        })?;
        return Ok(read_checkpoint(&map));
    }
    let n_bytes = file.n_bytes();
    let length = file.read(0..n_bytes.min(safetensors::LENGTH_BYTES))?;
    let head = file.read(0..safetensors::head_bytes(&length).min(n_bytes))?;
    Ok(read_header(&head, n_bytes))
}

/// Takes a tensor out of the stored ones, by its name or with a prefix more, less or other.
fn take(stored: &mut HashMap<String, (usize, Entry)>, name: &str) -> Result<(usize, Entry), ModelError> {
    let shorter: Vec<&str> = PREFIXES
        .iter()
        .filter_map(|prefix| name.strip_prefix(prefix))
        .collect();
    let stems = std::iter::once(name).chain(shorter);
    let candidates = stems.flat_map(|stem| {
        let longer = PREFIXES.iter().map(move |prefix| format!("{prefix}{stem}"));
        std::iter::once(stem.to_owned()).chain(longer)
    });
    let found = candidates
        .into_iter()
        .find_map(|candidate| stored.remove(&candidate));
    found.ok_or_else(|| ModelError::MissingTensor {
        name: name.to_owned(),
    })
}

/// Checks a tensor's shape; returns its dtype.
fn check(spec: &TensorSpec, entry: &Entry) -> Result<Option<DType>, ModelError> {
    let name = entry.name.clone();
    if entry.shape != spec.shape {
        return Err(ModelError::TensorShape {
            name,
            got: entry.shape.clone(),
            want: spec.shape.clone(),
        });
    }
    match entry.dtype.as_str() {
        "F32" => Ok(Some(DType::F32)),
        "F16" => Ok(Some(DType::F16)),
        "BF16" => Ok(Some(DType::BF16)),
        "U8" => Ok(None),
        other => Err(ModelError::TensorDtype {
            name,
            got: other.to_owned(),
        }),
    }
}

/// What older exports carry although it is computed, the head of a model whose head is its embedding, and
/// what the family ignores.
fn is_ignored(name: &str, wanted: &[TensorSpec], ignored: &[String]) -> bool {
    const COMPUTED: &[&str] = &[
        ".inv_freq",
        ".attn.bias",
        ".attn.masked_bias",
        ".attention.bias",
        ".attention.masked_bias",
        "relative_pe.slopes",
    ];
    const HEAD: &str = "lm_head.weight";
    let tied = !wanted.iter().any(|spec| spec.name == HEAD);
    let starts = |stem: &str| ignored.iter().any(|start| stem.starts_with(start.as_str()));
    COMPUTED.iter().any(|suffix| name.ends_with(suffix))
        || (tied && name.ends_with(HEAD))
        || starts(name)
        || PREFIXES
            .iter()
            .any(|prefix| name.strip_prefix(prefix).is_some_and(starts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chosen_dtype_replaces_the_stored_one() {
        assert_eq!(in_memory(DtypeChoice::Auto, DType::BF16), DType::BF16);
        assert_eq!(in_memory(DtypeChoice::Half, DType::BF16), DType::F16);
        assert_eq!(in_memory(DtypeChoice::Float32, DType::BF16), DType::F32);
    }

    /// A folder with the given files.
    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        dir
    }

    /// A safetensors file of f32 vectors of two elements.
    fn shard(names: &[&str]) -> Vec<u8> {
        let entry = |(i, name): (usize, &&str)| {
            format!(
                r#""{name}": {{"dtype": "F32", "shape": [2], "data_offsets": [{}, {}]}}"#,
                8 * i,
                8 * i + 8
            )
        };
        let header = format!(
            "{{{}}}",
            names.iter().enumerate().map(entry).collect::<Vec<_>>().join(",")
        );
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend(names.iter().enumerate().flat_map(|(i, _)| [i as u8; 8]));
        file
    }

    fn wanted(names: &[&str]) -> Vec<TensorSpec> {
        names
            .iter()
            .map(|name| TensorSpec {
                name: (*name).to_owned(),
                shape: vec![2],
            })
            .collect()
    }

    fn bytes_of(checkpoint: &Checkpoint, name: &str) -> Vec<u8> {
        let tensor = checkpoint.tensor(name).unwrap();
        tensor.read(0..tensor.n_bytes).unwrap()
    }

    #[track_caller]
    fn check_refused(files: &[(&str, &[u8])], names: &[&str], message: &str) {
        let dir = folder(files);
        let refused = Checkpoint::open(dir.path(), LoadFormat::Auto, &wanted(names), &[])
            .unwrap_err()
            .to_string();
        assert!(refused.contains(message), "{refused}");
    }

    #[test]
    fn prefixes_come_and_go() {
        let names = [
            "norm.weight",
            "language_model.model.embed.weight",
            "model.layers.0.inv.weight",
        ];
        let dir = folder(&[("model.safetensors", &shard(&names))]);
        let wanted = wanted(&["model.norm.weight", "model.embed.weight", "layers.0.inv.weight"]);
        let checkpoint = Checkpoint::open(dir.path(), LoadFormat::Auto, &wanted, &[]).unwrap();
        assert_eq!(bytes_of(&checkpoint, "model.embed.weight"), [1; 8]);
        assert_eq!(checkpoint.size_bytes(), 24);
    }

    #[test]
    fn shards_are_joined() {
        let index = br#"{"metadata": {}, "weight_map": {"a": "x.safetensors", "b": "y.safetensors"}}"#;
        let files: &[(&str, &[u8])] = &[
            ("model.safetensors.index.json", index),
            ("x.safetensors", &shard(&["a"])),
            ("y.safetensors", &shard(&["b"])),
        ];
        let dir = folder(files);
        assert!(Checkpoint::open(dir.path(), LoadFormat::Auto, &wanted(&["a", "b"]), &[]).is_ok());
        check_refused(&files[..2], &["a", "b"], "y.safetensors is missing");
        check_refused(
            &[files[0], files[1], ("y.safetensors", &shard(&["a"]))],
            &["a"],
            "also in another file",
        );
    }

    #[test]
    fn pickles_count_where_there_are_no_safetensors() {
        let pickle = std::fs::read("tests/fixtures/pickle/vectors.bin").unwrap();
        let wanted = wanted(&["a", "b"]);
        let of_b = |files: &[(&str, &[u8])]| {
            let dir = folder(files);
            let checkpoint = Checkpoint::open(dir.path(), LoadFormat::Auto, &wanted, &[]).unwrap();
            bytes_of(&checkpoint, "b")
        };
        let saved = [2f32, 3.].map(f32::to_le_bytes).concat();
        assert_eq!(of_b(&[("pytorch_model.bin", &pickle)]), saved);
        let index = br#"{"weight_map": {"a": "one.pt", "b": "one.pt"}}"#;
        assert_eq!(
            of_b(&[("pytorch_model.bin.index.json", index), ("one.pt", &pickle)]),
            saved
        );
        let both: &[(&str, &[u8])] = &[
            ("model.safetensors", &shard(&["a", "b"])),
            ("pytorch_model.bin", &pickle),
        ];
        assert_eq!(of_b(both), [1; 8]);
        check_refused(
            &[("pytorch_model.bin", b"x")],
            &["a"],
            "pytorch_model.bin is not a usable weight file",
        );
        let of_format = |files: &[(&str, &[u8])], format| {
            let dir = folder(files);
            let checkpoint = Checkpoint::open(dir.path(), format, &wanted, &[]);
            checkpoint.map(|checkpoint| bytes_of(&checkpoint, "b"))
        };
        assert_eq!(of_format(both, LoadFormat::Safetensors).unwrap(), [1; 8]);
        assert_eq!(of_format(both, LoadFormat::Pt).unwrap(), saved);
        assert_eq!(of_format(both, LoadFormat::Npcache).unwrap(), saved);
        for (files, format, missing) in [
            (&both[..1], LoadFormat::Pt, "pytorch_model.bin is missing"),
            (
                &both[1..],
                LoadFormat::Safetensors,
                "model.safetensors is missing",
            ),
        ] {
            let refused = of_format(files, format).unwrap_err().to_string();
            assert!(refused.contains(missing), "{refused}");
        }
    }

    #[test]
    fn an_index_stays_in_its_folder() {
        for file in ["../x", "/etc/passwd", "a/b", "", ".", ".."] {
            let index = format!(r#"{{"weight_map": {{"a": "{file}"}}}}"#);
            let files: &[(&str, &[u8])] = &[("model.safetensors.index.json", index.as_bytes())];
            check_refused(files, &["a"], "is not the name of a file in this folder");
        }
        for (index, message) in [
            ("{}", "missing field `weight_map`"),
            (r#"{"weight_map": {}}"#, "does not name 1 to 4096 files"),
            (r#"{"weight_map": {"a": 1}}"#, "expected a string"),
            ("nonsense", "not usable JSON"),
        ] {
            check_refused(
                &[("model.safetensors.index.json", index.as_bytes())],
                &["a"],
                message,
            );
        }
    }

    #[test]
    fn what_is_missing_unknown_or_misshapen_is_named() {
        check_refused(&[], &["a"], "model.safetensors is missing");
        check_refused(&[("model.safetensors", b"")], &["a"], "shorter than 8 bytes");
        let file = shard(&["a.weight", "b.weight"]);
        let file = &file[..];
        check_refused(
            &[("model.safetensors", file)],
            &["a.weight", "c.weight"],
            "tensor c.weight is missing",
        );
        check_refused(
            &[("model.safetensors", file)],
            &["a.weight"],
            "tensor b.weight is not part of",
        );
        let dir = folder(&[("model.safetensors", file)]);
        let long = TensorSpec {
            name: "a.weight".to_owned(),
            shape: vec![1, 2],
        };
        let refused = Checkpoint::open(dir.path(), LoadFormat::Auto, &[long], &[])
            .unwrap_err()
            .to_string();
        assert_eq!(refused, "tensor a.weight has shape [2], config.json gives [1, 2]");
        let at = file.windows(3).position(|window| window == b"F32").unwrap();
        let mut ints = file.to_vec();
        ints[at] = b'I';
        check_refused(
            &[("model.safetensors", &ints)],
            &["a.weight", "b.weight"],
            "dtype I32",
        );
    }

    #[test]
    fn computed_tensors_and_a_tied_head_are_ignored() {
        let names = [
            "a",
            "model.layers.0.self_attn.rotary_emb.inv_freq",
            "lm_head.weight",
        ];
        let files: &[(&str, &[u8])] = &[("model.safetensors", &shard(&names))];
        assert!(Checkpoint::open(folder(files).path(), LoadFormat::Auto, &wanted(&["a"]), &[]).is_ok());
        check_refused(files, &["lm_head.weight"], "tensor a is not part of");
    }
}
