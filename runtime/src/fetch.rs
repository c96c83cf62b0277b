//! The model download: from a repository on the Hub to a complete folder on a volume.
//!
//! Owns the order of things: lock, list, compare, check for room, download, put in place, record. A folder is complete
//! when its `manifest.json` is there, and a file has its name only when every file's content is checked. Must not know
//! Kubernetes, nor what is in the files. `hub` speaks to the network, `destination` and `partial` to the disk,
//! `download` joins them.

mod destination;
mod download;
mod error;
mod hub;
mod manifest;
mod partial;
mod progress;
mod retry;
mod select;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use crds::settings::{ProcessSettings, TokenizerSettings};
use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::task::AbortOnDropHandle;

use crate::startup::{self, ModelFacts, Stage, StartupTracker};
use destination::Destination;
use download::Downloads;
use hub::{HubRepo, Listing};
use partial::Whole;
use progress::Meter;
use retry::Retries;

pub use destination::{MANIFEST_FILE, free_bytes};
pub use error::{Credentials, FetchError};
pub use hub::{DEFAULT_ENDPOINT, Identity, RemoteFile, Token};
pub use manifest::Manifest;
pub use progress::Progress;
pub use retry::RetryPolicy;
pub use select::{Patterns, matches};

/// Folder below the destination for tokenizer files of another repository.
pub const TOKENIZER_FOLDER: &str = "tokenizer";
/// Time between two progress lines.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// More connections than this do not help and look like an attack.
const N_PARALLEL_MAX: usize = 64;
/// With a complete model at hand, the Hub is asked this often before going on without it.
const N_ATTEMPTS_WITH_MODEL: u32 = 2;

/// What to download, and how.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// Repository, `owner/name` or, for the oldest ones, `name`.
    pub repo: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// Credential for the endpoint.
    pub token: Option<Token>,
    /// The Hub's address; [`DEFAULT_ENDPOINT`] without one.
    pub endpoint: Option<String>,
    /// Folder for the files, by their names in the repository.
    pub destination: PathBuf,
    /// Which files.
    pub patterns: Patterns,
    /// Files downloaded at a time.
    pub n_parallel: NonZeroUsize,
    /// Silence after which an attempt counts as failed.
    pub stall_timeout: Duration,
    /// How often to try again.
    pub retry: RetryPolicy,
    /// Tells the bytes that can still be written below a folder; tests put another one in.
    pub free_bytes: fn(&Path) -> io::Result<u64>,
}

impl FetchOptions {
    /// The revision `main` of `repo` into `destination`, with every default.
    pub fn new(repo: impl Into<String>, destination: impl Into<PathBuf>) -> Self {
        Self {
            repo: repo.into(),
            revision: "main".to_owned(),
            token: None,
            endpoint: None,
            destination: destination.into(),
            patterns: Patterns::default(),
            n_parallel: NonZeroUsize::new(4).expect("four is not zero"),
            stall_timeout: Duration::from_secs(60),
            retry: RetryPolicy::default(),
            free_bytes,
        }
    }

    fn check(&self) -> Result<(), FetchError> {
        let invalid = |option, value: &str, expected| {
            Err(FetchError::InvalidOption {
                option,
                value: value.to_owned(),
                expected,
            })
        };
        let named = |part: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            !part.is_empty() && !part.starts_with('.') && part.bytes().all(allowed)
        };
        let parts: Vec<&str> = self.repo.split('/').collect();
        if parts.len() > 2 || !parts.iter().all(|part| named(part)) {
            return invalid("MODEL_NAME", &self.repo, "a repository of the form owner/name");
        }
        if self.revision.is_empty()
            || self
                .revision
                .split('/')
                .any(|part| part.is_empty() || part == "..")
        {
            return invalid("MODEL_REVISION", &self.revision, "a branch, tag or commit");
        }
        if self.n_parallel.get() > N_PARALLEL_MAX {
            return invalid("--parallel", &self.n_parallel.to_string(), "a number up to 64");
        }
        Ok(())
    }
}

/// Makes the destination hold the selected files of the repository, and says which they are. A folder that is complete
/// already costs one request, or none for a revision that is a commit; if the Hub is out of reach, it is used as it is.
///
/// Counts its bytes in `tracker`, and calls `progress` at most once a second and once at the end.
///
/// # Errors
/// [`FetchError`]. What has arrived stays, and the next call goes on from there.
pub async fn fetch(
    options: FetchOptions,
    tracker: StartupTracker,
    progress: impl Fn(&Progress),
) -> Result<Manifest, FetchError> {
    options.check()?;
    let hub = HubRepo::new(&options)?;
    let destination = Destination::lock(&options.destination).await?;
    let (before, meter) = (destination.manifest(), Meter::new(tracker.clone()));
    let complete = before.as_ref().filter(|manifest| {
        manifest.answers(&options) && manifest.files.iter().all(|file| destination.has(file))
    });
    if let Some(manifest) = complete.filter(|manifest| manifest.commit == options.revision) {
        return Ok(manifest.clone());
    }
    let listing = match (
        hub.listing(listing_retries(&options, complete, &meter)).await,
        complete,
    ) {
        (Ok(listing), Some(manifest)) if manifest.commit == listing.commit => return Ok(manifest.clone()),
        (Ok(listing), _) => listing,
        (Err(error), Some(manifest)) if error.is_transient() => {
            let (error, commit) = (error.failure().message, &manifest.commit);
            tracing::warn!(
                error,
                commit,
                "the Hub is out of reach: using the model that is here"
            );
            return Ok(manifest.clone());
        }
        (Err(error), _) => return Err(error),
    };
    let files = plan(&options, &listing, &destination)?;
    let commit = listing.commit;
    let downloads = Arc::new(Downloads {
        options,
        hub,
        destination,
        commit,
        before,
        meter: meter.clone(),
    });
    begin(&downloads, &files, &tracker)?;
    let whole = report_while(download_all(&downloads, &files), || progress(&meter.progress())).await?;
    let manifest = complete_with(&downloads, files, whole)?;
    progress(&meter.progress());
    Ok(manifest)
}

fn listing_retries(options: &FetchOptions, complete: Option<&Manifest>, meter: &Meter) -> Retries {
    let mut policy = options.retry;
    if complete.is_some() {
        policy.n_attempts_max = policy.n_attempts_max.min(N_ATTEMPTS_WITH_MODEL);
    }
    Retries::new(policy, meter.clone())
}

/// The files of the listing that the patterns select and the folder can hold.
fn plan(
    options: &FetchOptions,
    listing: &Listing,
    destination: &Destination,
) -> Result<Vec<RemoteFile>, FetchError> {
    let paths: Vec<&str> = listing.files.iter().map(|file| file.path.as_str()).collect();
    let selected: BTreeSet<&str> = select::select(&paths, &options.patterns).into_iter().collect();
    let repo = || options.repo.clone();
    let mut files = Vec::with_capacity(selected.len());
    for file in listing
        .files
        .iter()
        .filter(|file| selected.contains(file.path.as_str()))
    {
        if file.path == MANIFEST_FILE {
            tracing::warn!(
                repo = repo(),
                "the repository's own manifest.json is left out: the name is taken"
            );
        } else if destination.place(&file.path).is_none() {
            let problem = format!("{:?} is no path for a file", file.path);
            return Err(FetchError::InvalidListing {
                repo: repo(),
                problem,
            });
        } else {
            files.push(file.clone());
        }
    }
    if files.is_empty() {
        return Err(FetchError::NothingSelected {
            repo: repo(),
            n_files: listing.files.len(),
        });
    }
    Ok(files)
}

/// Starts the count and checks for room.
fn begin(downloads: &Downloads, files: &[RemoteFile], tracker: &StartupTracker) -> Result<(), FetchError> {
    let Downloads {
        options,
        destination,
        commit,
        ..
    } = downloads;
    let bytes_total = bytes_of(files);
    let bytes_present: u64 = files.iter().map(|file| downloads.bytes_present(file)).sum();
    tracker.begin(Stage::Downloading, bytes_present, bytes_total);
    let (needed_bytes, root) = (bytes_total - bytes_present, destination.root());
    let free_bytes = (options.free_bytes)(root).map_err(error::cannot("measure", root))?;
    if needed_bytes > free_bytes {
        return Err(FetchError::DiskFull {
            path: root.to_owned(),
            needed_bytes,
            free_bytes,
        });
    }
    tracker.set_model(ModelFacts {
        revision: Some(commit.clone()),
        bytes: Some(bytes_total),
        ..ModelFacts::default()
    });
    tracing::info!(
        repo = options.repo,
        commit,
        n_files = files.len(),
        bytes_total,
        bytes_present,
        "downloading"
    );
    Ok(())
}

/// Changes the folder from what it was before to the new files, all of which are whole: until here an older model is
/// untouched and stays usable, from here to the manifest takes milliseconds.
fn complete_with(
    downloads: &Downloads,
    files: Vec<RemoteFile>,
    whole: Vec<Whole>,
) -> Result<Manifest, FetchError> {
    let Downloads {
        options,
        destination,
        before,
        commit,
        ..
    } = downloads;
    destination.remove_manifest()?;
    whole.into_iter().try_for_each(Whole::put_in_place)?;
    let kept: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let former = before.iter().flat_map(|manifest| &manifest.files);
    former
        .filter(|file| !kept.contains(file.path.as_str()))
        .try_for_each(|file| destination.remove(&file.path))?;
    let manifest = Manifest {
        repo: options.repo.clone(),
        revision: options.revision.clone(),
        commit: commit.clone(),
        patterns: options.patterns.clone(),
        bytes: bytes_of(&files),
        files,
        finished_at: unix_time(),
    };
    destination.write_manifest(&manifest)?;
    Ok(manifest)
}

fn bytes_of(files: &[RemoteFile]) -> u64 {
    files.iter().map(|file| file.size).sum()
}

/// Downloads the files, the largest first so that none is left over at the end. The first error ends all.
async fn download_all(downloads: &Arc<Downloads>, files: &[RemoteFile]) -> Result<Vec<Whole>, FetchError> {
    let mut files = files.to_vec();
    files.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.path.cmp(&b.path)));
    stream::iter(files)
        .map(|file| {
            let downloads = Arc::clone(downloads);
            AbortOnDropHandle::new(tokio::spawn(async move { downloads.fetch(&file).await }))
        })
        .buffer_unordered(downloads.options.n_parallel.get())
        .map(|ended| ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())))
        .try_filter_map(async |whole| Ok(whole))
        .try_collect()
        .await
}

/// Runs `work` to its end and calls `report` every second meanwhile.
async fn report_while<T>(work: impl Future<Output = T>, report: impl Fn()) -> T {
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.reset();
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            ended = &mut work => return ended,
            _ = ticks.tick() => report(),
        }
    }
}

fn unix_time() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

/// `slipway-runtime fetch`: downloads a model, and its tokenizer where that lies elsewhere, into a folder.
///
/// The token comes from --token-file or the environment variable HF_TOKEN, never from the command line. Progress is
/// printed as one JSON object per line.
#[derive(Args, Clone, Debug)]
pub struct FetchArgs {
    /// Repository to download, owner/name.
    #[arg(long, env = "MODEL_NAME", value_name = "OWNER/NAME")]
    pub repo: String,
    /// Branch, tag or commit of the repository.
    #[arg(long, env = "MODEL_REVISION", value_name = "REVISION", default_value_t = ProcessSettings::default().model_revision())]
    pub revision: String,
    /// Folder to download into.
    #[arg(long, value_name = "DIR")]
    pub destination: PathBuf,
    /// File that holds the Hub token.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Address of the Hub; empty means the public one.
    #[arg(long, env = "HF_ENDPOINT", value_name = "URL")]
    pub endpoint: Option<String>,
    /// Files to take, as in "*.safetensors"; may be repeated. Without any: what a model needs.
    #[arg(long = "allow-pattern", value_name = "PATTERN")]
    pub allow_patterns: Vec<String>,
    /// Files to leave; may be repeated, and wins over --allow-pattern.
    #[arg(long = "ignore-pattern", value_name = "PATTERN")]
    pub ignore_patterns: Vec<String>,
    /// Files to download at a time.
    #[arg(long, value_name = "N", default_value = "4")]
    pub parallel: NonZeroUsize,
    /// Seconds of silence after which a connection is given up.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u64).range(1..))]
    pub stall_timeout_seconds: u64,
    /// Repository of the tokenizer, if not the model's; its files go to DIR/tokenizer.
    #[arg(long, env = "TOKENIZER", value_name = "OWNER/NAME")]
    pub tokenizer_repo: Option<String>,
    /// Branch, tag or commit of the tokenizer's repository.
    #[arg(
        long,
        env = "TOKENIZER_REVISION",
        value_name = "REVISION",
        default_value_t = TokenizerSettings::default().tokenizer_revision()
    )]
    pub tokenizer_revision: String,
    /// Address on which GET /startupz answers with the progress.
    #[arg(long, value_name = "ADDRESS")]
    pub progress_listen: Option<SocketAddr>,
}

/// Runs `slipway-runtime fetch`. A token file wins over the token of the environment.
///
/// # Errors
/// [`FetchError`], whose [`FetchError::failure`] is the exit code and termination message.
pub async fn run(args: FetchArgs, token_in_env: Option<String>) -> Result<(), FetchError> {
    let tracker = StartupTracker::new();
    let _server = match args.progress_listen {
        Some(address) => Some(serve_progress(address, tracker.clone()).await?),
        None => None,
    };
    for options in args.downloads(token_in_env)? {
        let manifest = fetch(options, tracker.clone(), print_line).await?;
        let Manifest {
            repo,
            commit,
            files,
            bytes,
            ..
        } = manifest;
        tracing::info!(
            repo,
            commit,
            n_files = files.len(),
            bytes,
            "the download is complete"
        );
    }
    tracker.enter(Stage::Ready);
    Ok(())
}

impl FetchArgs {
    /// The downloads asked for: the model, then its tokenizer. Empty settings count as absent, as forms send them.
    fn downloads(&self, token_in_env: Option<String>) -> Result<Vec<FetchOptions>, FetchError> {
        let given = |text: &str| {
            Some(text.trim())
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        let token = match &self.token_file {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(error::cannot("read", path))?;
                Token::parse(&text, &path.display().to_string())?
            }
            None => Token::parse(&token_in_env.unwrap_or_default(), "HF_TOKEN")?,
        };
        let model = FetchOptions {
            revision: given(&self.revision).unwrap_or_else(|| ProcessSettings::default().model_revision()),
            token,
            endpoint: self.endpoint.as_deref().and_then(given),
            patterns: Patterns {
                allow: self.allow_patterns.clone(),
                ignore: self.ignore_patterns.clone(),
            },
            n_parallel: self.parallel,
            stall_timeout: Duration::from_secs(self.stall_timeout_seconds),
            ..FetchOptions::new(self.repo.trim(), &self.destination)
        };
        let tokenizer = self
            .tokenizer_repo
            .as_deref()
            .and_then(given)
            .map(|repo| FetchOptions {
                repo,
                revision: given(&self.tokenizer_revision)
                    .unwrap_or_else(|| TokenizerSettings::default().tokenizer_revision()),
                destination: self.destination.join(TOKENIZER_FOLDER),
                patterns: Patterns::tokenizer(),
                ..model.clone()
            });
        let same = |other: &FetchOptions| other.repo == model.repo && other.revision == model.revision;
        let tokenizer = tokenizer.filter(|tokenizer| !same(tokenizer));
        Ok([Some(model), tokenizer].into_iter().flatten().collect())
    }
}

async fn serve_progress(
    address: SocketAddr,
    tracker: StartupTracker,
) -> Result<AbortOnDropHandle<io::Result<()>>, FetchError> {
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|source| FetchError::Listen { address, source })?;
    let router = startup::router(tracker);
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        axum::serve(listener, router).await
    })))
}

/// Prints a progress line. Nobody reading it is no reason to stop.
pub fn print_line(progress: &Progress) {
    let line = serde_json::to_string(progress).expect("progress is strings and numbers");
    let _closed = writeln!(io::stdout().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: FetchArgs,
    }

    fn parse(flags: &[&str]) -> FetchArgs {
        let required = ["fetch", "--repo", "acme/m", "--destination", "models"];
        Command::try_parse_from(required.iter().chain(flags))
            .unwrap()
            .args
    }

    #[test]
    fn empty_settings_count_as_absent() {
        let args = parse(&["--endpoint", "", "--revision", "", "--tokenizer-repo", " "]);
        let downloads = args.downloads(Some("\n".to_owned())).unwrap();
        assert_eq!(downloads.len(), 1);
        let FetchOptions {
            revision,
            token,
            endpoint,
            ..
        } = &downloads[0];
        assert_eq!((revision.as_str(), token, endpoint), ("main", &None, &None));
    }

    #[test]
    fn a_tokenizer_of_another_repository_goes_into_its_own_folder() {
        let downloads = parse(&["--tokenizer-repo", "acme/t", "--parallel", "2"])
            .downloads(None)
            .unwrap();
        assert_eq!(
            (downloads[1].repo.as_str(), downloads[1].n_parallel.get()),
            ("acme/t", 2)
        );
        assert_eq!(downloads[1].destination, Path::new("models/tokenizer"));
        assert!(select::select(&["tokenizer.json", "model.safetensors"], &downloads[1].patterns).len() == 1);
        assert_eq!(
            parse(&["--tokenizer-repo", "acme/m"])
                .downloads(None)
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn the_token_file_wins_over_the_environment_and_must_be_readable() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "from_file\n").unwrap();
        let args = parse(&["--token-file", file.to_str().unwrap()]);
        let token = args
            .downloads(Some("from_env".to_owned()))
            .unwrap()
            .remove(0)
            .token;
        assert_eq!(token, Token::parse("from_file", "test").unwrap());
        let missing = parse(&["--token-file", "no/such/file"]);
        assert!(matches!(
            missing.downloads(None),
            Err(FetchError::Io {
                operation: "read",
                ..
            })
        ));
    }

    #[test]
    fn names_that_would_change_an_address_are_refused() {
        for repo in ["", "a/b/c", "../x", "a/..", "a b/c", "a/b?c", "/b", "a/"] {
            let refused = FetchOptions::new(repo, "unused").check();
            assert!(
                matches!(
                    refused,
                    Err(FetchError::InvalidOption {
                        option: "MODEL_NAME",
                        ..
                    })
                ),
                "{repo}"
            );
        }
        for revision in ["", "a//b", "../main"] {
            let options = FetchOptions {
                revision: revision.into(),
                ..FetchOptions::new("a/b", "unused")
            };
            assert!(options.check().is_err(), "{revision}");
        }
        let pull_request = FetchOptions {
            revision: "refs/pr/1".into(),
            ..FetchOptions::new("gpt2", "unused")
        };
        assert!(pull_request.check().is_ok());
    }

    #[tokio::test]
    async fn a_listing_cannot_name_a_place_outside_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let destination = Destination::lock(folder.path()).await.unwrap();
        let file = |path: &str| RemoteFile {
            path: path.into(),
            size: 1,
            identity: Identity::Sha256("0".into()),
        };
        let plan = |paths: &[&str]| {
            let listing = Listing {
                commit: "c".into(),
                files: paths.iter().map(|path| file(path)).collect(),
            };
            super::plan(
                &FetchOptions::new("acme/m", folder.path()),
                &listing,
                &destination,
            )
        };
        assert_eq!(plan(&["a.json", "manifest.json"]).unwrap(), [file("a.json")]);
        assert!(matches!(
            plan(&["../a.json"]),
            Err(FetchError::InvalidListing { .. })
        ));
        assert!(matches!(
            plan(&["README.md"]),
            Err(FetchError::NothingSelected { n_files: 1, .. })
        ));
    }
}
