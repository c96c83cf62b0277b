//! A complete folder in the place of the Hub: no request is made, and nothing is written.

use std::fs;

use super::error::FetchError;
use super::manifest::Manifest;
use super::options::FetchOptions;

/// The manifest of a folder that [`super::fetch`] filled with the same options.
///
/// # Errors
/// [`FetchError::NotDownloaded`] if it contains another download, or not all of this one.
pub fn downloaded(options: &FetchOptions) -> Result<Manifest, FetchError> {
    options.check()?;
    let folder = &options.destination;
    let is_there = |manifest: &Manifest| {
        manifest.files.iter().all(|file| {
            let metadata = fs::metadata(folder.join(&file.path));
            metadata.is_ok_and(|metadata| metadata.is_file() && metadata.len() == file.size)
        })
    };
    match Manifest::read(folder) {
        Some(manifest) if manifest.satisfies(options) && is_there(&manifest) => Ok(manifest),
        found => Err(FetchError::NotDownloaded {
            repo: options.repo.clone(),
            revision: options.revision.clone(),
            folder: folder.clone(),
            found: found.map_or_else(
                || "no complete download".into(),
                |Manifest { repo, revision, .. }| format!("{repo} at {revision}"),
            ),
        }),
    }
}
