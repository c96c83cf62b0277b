//! The files of a model and its tokenizer: where they are, and their download to there.

use std::path::{Path, PathBuf};

use crds::failure::{Failure, Reason};

use super::LoadError;
use crate::config::{ModelSource, Repository, ServeConfig};
use crate::fetch::{
    self, ConfigurationCheck, FetchError, FetchOptions, Manifest, Patterns, TOKENIZER_FOLDER, Token,
};
use crate::model::Model;
use crate::startup::StartupTracker;
use crate::tokenizer::Tokenizer;

/// Whether this version supports the model, as far as the JSON files in its directory show: the check before its weights
/// are downloaded. What else may be wrong with them is found by [`load`].
///
/// # Errors
/// The failure that [`load`] would end with.
pub fn check_configuration(directory: &Path) -> Result<(), Failure> {
    let checked = Model::check(directory).map_err(|error| LoadError::Model(error).failure());
    checked.or_else(|failure| match failure.reason {
        Reason::UnsupportedArchitecture => Err(failure),
        _ => Ok(()),
    })
}

/// Which files of a repository are downloaded.
#[derive(Clone, Copy)]
enum Files {
    /// What a model needs.
    Model,
    /// Only the tokenizer, into a folder of its own: the folder of the repository's name is for its weights.
    Tokenizer,
}

/// The directory of the tokenizer of a model that names no other: `fetch` puts a tokenizer of another repository into
/// a folder below the model's.
pub(super) fn own_tokenizer(directory: &Path) -> PathBuf {
    let folder = directory.join(TOKENIZER_FOLDER);
    if Tokenizer::file_in(&folder).is_some() {
        folder
    } else {
        directory.to_path_buf()
    }
}

/// The directories of the model and of its tokenizer. What is on the hub is downloaded first, or with `HF_HUB_OFFLINE` must
/// have been downloaded.
pub(super) async fn directories(
    config: &ServeConfig,
    startup: &StartupTracker,
) -> Result<(PathBuf, PathBuf), LoadError> {
    let directory = directory_of(config, startup, &config.model, Files::Model).await?;
    let tokenizer = match &config.tokenizer {
        Some(source) => directory_of(config, startup, source, Files::Tokenizer).await?,
        None => own_tokenizer(&directory),
    };
    Ok((directory, tokenizer))
}

/// Downloads the model of the settings and its tokenizer to where [`load`](super::load) finds them, and loads nothing.
/// Whether the process may use the hub afterwards is no matter here.
///
/// # Errors
/// [`LoadError`] for a model that is a directory, and for a download that fails.
pub async fn bake(mut config: ServeConfig) -> Result<(), LoadError> {
    if let ModelSource::Directory(path) = &config.model {
        return Err(LoadError::NothingToBake { path: path.clone() });
    }
    config.is_offline = false;
    let (directory, _) = directories(&config, &StartupTracker::new()).await?;
    if let Some(Manifest {
        repo, commit, bytes, ..
    }) = Manifest::read(&directory)
    {
        tracing::info!(repo, commit, bytes, to = %directory.display(), "the download is complete");
    }
    Ok(())
}

async fn directory_of(
    config: &ServeConfig,
    startup: &StartupTracker,
    source: &ModelSource,
    files: Files,
) -> Result<PathBuf, LoadError> {
    let repository = match source {
        ModelSource::Directory(path) => return Ok(path.clone()),
        ModelSource::Repository(repository) => repository,
    };
    let cache = config.cache_directory.as_ref();
    let options = options(repository, files, cache.ok_or(LoadError::NoCacheDirectory)?)?;
    let destination = options.destination.clone();
    let (repo, revision) = (&repository.repo, &repository.revision);
    if config.is_offline {
        let Manifest { commit, .. } = fetch::downloaded(&options)?;
        tracing::info!(repo, revision, commit, from = %destination.display(), "using the downloaded files");
        return Ok(destination);
    }
    tracing::info!(repo, revision, to = %destination.display(), "downloading");
    fetch::fetch(options, startup.clone(), fetch::print_line).await?;
    Ok(destination)
}

fn options(repository: &Repository, files: Files, cache: &Path) -> Result<FetchOptions, FetchError> {
    let folder = repository.repo.replace('/', "--");
    let (folder, patterns, check) = match files {
        Files::Model => (
            folder,
            Patterns {
                allow: repository.allow_patterns.clone(),
                ignore: repository.ignore_patterns.clone(),
            },
            Some(check_configuration as ConfigurationCheck),
        ),
        Files::Tokenizer => (folder + "--tokenizer", Patterns::tokenizer(), None),
    };
    Ok(FetchOptions {
        revision: repository.revision.clone(),
        token: Token::parse(repository.token.as_deref().unwrap_or_default(), "HF_TOKEN")?,
        endpoint: repository.endpoint.clone(),
        patterns,
        check,
        ..FetchOptions::new(&repository.repo, cache.join(folder))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, ServeArguments};

    #[test]
    fn no_weights_are_downloaded_from_a_tokenizers_repository() {
        let repository = Repository {
            repo: "org/name".into(),
            revision: "main".into(),
            endpoint: None,
            token: None,
            allow_patterns: Vec::new(),
            ignore_patterns: vec!["*.txt".into()],
        };
        let of = |files| options(&repository, files, Path::new("/cache")).unwrap();
        let (model, tokenizer) = (of(Files::Model), of(Files::Tokenizer));
        assert_eq!(model.destination, Path::new("/cache/org--name"));
        assert_eq!(model.patterns.ignore, ["*.txt"]);
        assert_eq!(tokenizer.destination, Path::new("/cache/org--name--tokenizer"));
        let allowed = tokenizer.patterns.allow;
        assert!(!allowed.is_empty());
        assert!(allowed.iter().all(|pattern| !pattern.contains("safetensors")));
    }

    #[test]
    fn models_are_downloaded_below_download_dir() {
        for name in ["DOWNLOAD_DIR", "BASE_PATH"] {
            let arguments = ServeArguments {
                flags: vec![("model".into(), "org/name".into())],
                ..ServeArguments::default()
            };
            let environment = [(name, "/volume"), ("HOME", "/home/a")].into_iter().collect();
            let config = config::resolve(&arguments, &environment).unwrap();
            let ModelSource::Repository(repository) = &config.model else {
                panic!("{:?}", config.model)
            };
            let cache = config.cache_directory.as_deref().unwrap();
            let options = options(repository, Files::Model, cache).unwrap();
            assert_eq!(options.destination, Path::new("/volume/org--name"), "{name}");
        }
    }
}
