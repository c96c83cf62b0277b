//! Checks the configuration of a model before its weights are downloaded.
//!
//! Owns which files belong to the configuration. Must not know their contents: the check is the caller's.

use std::collections::BTreeSet;

use super::download::Downloads;
use super::error::{FetchError, cannot};
use super::folder::PARTIAL_SUFFIX;
use super::options::FetchOptions;
use super::partial::Verified;
use super::remote_file::RemoteFile;

/// The file without which nothing can be checked.
const MAIN_FILE: &str = "config.json";
/// Largest file that belongs to the configuration, bytes. A larger JSON file is a tokenizer or an index.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// What the name of the folder begins with in which the files are checked.
const FOLDER_PREFIX: &str = ".configuration-";

/// Splits `files` into those of the configuration, which are checked first, and the rest. Without a check, or without
/// config.json, there is no configuration.
pub(super) fn split(options: &FetchOptions, files: Vec<RemoteFile>) -> (Vec<RemoteFile>, Vec<RemoteFile>) {
    let is_checked = options.check.is_some() && files.iter().any(|file| file.path == MAIN_FILE);
    let is_configuration = |file: &RemoteFile| file.path.ends_with(".json") && file.size <= FILE_BYTES_MAX;
    files
        .into_iter()
        .partition(|file| is_checked && is_configuration(file))
}

/// Checks the files of the configuration, of which `verified` still have their partial names. The check needs final
/// names, so it reads copies, in a folder that is removed afterwards.
///
/// # Errors
/// [`FetchError::Refused`] if the check fails.
pub(super) fn check(
    downloads: &Downloads,
    files: &[RemoteFile],
    verified: &[Verified],
) -> Result<(), FetchError> {
    let Some(check) = downloads.options.check.filter(|_| !files.is_empty()) else {
        return Ok(());
    };
    let root = downloads.destination.root();
    let folder = tempfile::Builder::new().prefix(FOLDER_PREFIX).tempdir_in(root);
    let folder = folder.map_err(cannot("create a folder in", root))?;
    let partial: BTreeSet<&str> = verified.iter().map(Verified::path).collect();
    for file in files {
        let place = downloads.destination.place(&file.path);
        let mut place = place.expect("the plan contains only files that have a place");
        if partial.contains(file.path.as_str()) {
            place = place.with_suffix(PARTIAL_SUFFIX);
        }
        let content = place
            .read(FILE_BYTES_MAX)
            .map_err(cannot("read", &place.shown()))?;
        let copy = folder.path().join(&file.path);
        let parent = copy.parent().expect("a file has a folder");
        std::fs::create_dir_all(parent).map_err(cannot("create the folder of", &copy))?;
        std::fs::write(&copy, content).map_err(cannot("write", &copy))?;
    }
    check(folder.path()).map_err(FetchError::Refused)
}
