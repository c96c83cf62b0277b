//! Downloads a repository into a folder.
//!
//! Owns the order of the steps: lock, list, compare, check the free space, download and check the configuration,
//! download the rest, rename, record.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::task::AbortOnDropHandle;

use super::configuration;
use super::destination::Destination;
use super::download::Downloads;
use super::error::{FetchError, cannot};
use super::hub::{HubRepo, Listing};
use super::manifest::Manifest;
use super::options::{FetchOptions, Verify};
use super::partial::{self, Verified};
use super::progress::{Meter, Progress};
use super::remote_file::RemoteFile;
use super::retry::Retries;
use super::select;
use crate::clock::unix_time_s;
use crate::startup::{ModelFacts, Stage, StartupTracker};

/// Time between two progress reports.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// Attempts to reach the Hub when the folder already contains a complete model.
const N_ATTEMPTS_WITH_MODEL: u32 = 2;

/// Downloads the selected files of a repository and returns their manifest. A folder that is already complete costs one
/// request, or none for a revision that is a commit. If the Hub is unreachable, a complete folder is used unchanged.
///
/// Counts bytes in `tracker`, and calls `progress` at most once a second and once at the end.
///
/// # Errors
/// [`FetchError`]. Received bytes stay on the disk, and the next call continues from them.
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
        manifest.satisfies(&options) && manifest.files.iter().all(|file| destination.has(file))
    });
    // Where others write to the volume, the manifest may be theirs, too: only the listing's hashes count.
    let trusted = complete.filter(|_| options.verify == Verify::Sizes);
    if let Some(manifest) = trusted.filter(|manifest| manifest.commit == options.revision) {
        return Ok(manifest.clone());
    }
    let listing = match (
        hub.listing(listing_retries(&options, complete, &meter)).await,
        complete,
    ) {
        (Ok(listing), Some(manifest)) if trusted.is_some() && manifest.commit == listing.commit => {
            return Ok(manifest.clone());
        }
        (Ok(listing), _) => listing,
        (Err(error), Some(manifest)) if error.is_transient() => {
            check_contents(&options, manifest, &destination).await?;
            let (error, commit) = (error.failure().message, &manifest.commit);
            tracing::warn!(
                error,
                commit,
                "the Hub is unreachable: using the downloaded model"
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
    let verified = report_while(download(&downloads, &files), || progress(&meter.progress())).await?;
    let manifest = replace(&downloads, files, verified)?;
    progress(&meter.progress());
    Ok(manifest)
}

/// Compares the files with their manifest, if sizes do not prove that they are intact.
async fn check_contents(
    options: &FetchOptions,
    manifest: &Manifest,
    destination: &Destination,
) -> Result<(), FetchError> {
    if options.verify == Verify::Sizes {
        return Ok(());
    }
    for file in &manifest.files {
        let place = destination.place(&file.path);
        if !partial::has_content_of(place.expect("a complete folder has places only"), file).await? {
            return Err(FetchError::Changed {
                path: destination.root().join(&file.path),
            });
        }
    }
    Ok(())
}

fn listing_retries(options: &FetchOptions, complete: Option<&Manifest>, meter: &Meter) -> Retries {
    let mut policy = options.retry;
    if complete.is_some() {
        policy.n_attempts_max = policy.n_attempts_max.min(N_ATTEMPTS_WITH_MODEL);
    }
    Retries::new(policy, meter.clone())
}

/// The files of the listing that the patterns select.
fn plan(
    options: &FetchOptions,
    listing: &Listing,
    destination: &Destination,
) -> Result<Vec<RemoteFile>, FetchError> {
    let paths: Vec<&str> = listing.files.iter().map(|file| file.path.as_str()).collect();
    let selected: BTreeSet<&str> = select::select(&paths, &options.patterns).into_iter().collect();
    let repo = || options.repo.clone();
    let mut files = Vec::with_capacity(selected.len());
    let mut seen = BTreeSet::new();
    for file in listing
        .files
        .iter()
        .filter(|file| selected.contains(file.path.as_str()))
    {
        if Destination::is_own(&file.path) {
            tracing::warn!(
                repo = repo(),
                path = file.path,
                "skipping a file of the repository: the download writes a file of this name"
            );
        } else if !seen.insert(&file.path) {
            return Err(FetchError::InvalidListing {
                repo: repo(),
                problem: format!("it has {:?} twice", file.path),
            });
        } else if destination.place(&file.path).is_none() {
            let problem = format!("{:?} is not a path inside the folder", file.path);
            return Err(FetchError::InvalidListing {
                repo: repo(),
                problem,
            });
        } else {
            files.push(file.clone());
        }
    }
    if bytes_of(&files).is_none() {
        return Err(FetchError::InvalidListing {
            repo: repo(),
            problem: "the sum of the sizes of its files is larger than 2^63 bytes".into(),
        });
    }
    if files.is_empty() {
        return Err(FetchError::NothingSelected {
            repo: repo(),
            n_files: listing.files.len(),
        });
    }
    Ok(files)
}

/// Starts the byte count and checks the free space.
fn begin(downloads: &Downloads, files: &[RemoteFile], tracker: &StartupTracker) -> Result<(), FetchError> {
    let Downloads {
        options,
        destination,
        commit,
        ..
    } = downloads;
    let bytes_total = bytes_of(files).unwrap_or_default();
    let bytes_present: u64 = files.iter().map(|file| downloads.bytes_present(file)).sum();
    tracker.begin(Stage::Downloading, bytes_present, bytes_total);
    let (needed_bytes, root) = (bytes_total - bytes_present, destination.root());
    let free_bytes = (options.free_bytes)(root).map_err(cannot("measure the free space of", root))?;
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

/// Replaces an older model in the folder by the verified files. Until here the older model is unchanged and usable.
/// From here to the new manifest takes milliseconds.
fn replace(
    downloads: &Downloads,
    files: Vec<RemoteFile>,
    verified: Vec<Verified>,
) -> Result<Manifest, FetchError> {
    let Downloads {
        options,
        destination,
        before,
        commit,
        ..
    } = downloads;
    destination.remove_manifest()?;
    verified.into_iter().try_for_each(Verified::put_in_place)?;
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
        bytes: bytes_of(&files).unwrap_or_default(),
        files,
        finished_at: unix_time_s(),
    };
    destination.write_manifest(&manifest)?;
    Ok(manifest)
}

/// Sum of the sizes; `None` if no volume is that large.
fn bytes_of(files: &[RemoteFile]) -> Option<u64> {
    let sum = files
        .iter()
        .try_fold(0_u64, |sum, file| sum.checked_add(file.size));
    sum.filter(|sum| i64::try_from(*sum).is_ok())
}

/// Downloads the files of the configuration and checks them, then downloads the rest.
async fn download(downloads: &Arc<Downloads>, files: &[RemoteFile]) -> Result<Vec<Verified>, FetchError> {
    let (configuration, rest) = configuration::split(&downloads.options, files.to_vec());
    let mut verified = download_all(downloads, configuration.clone()).await?;
    configuration::check(downloads, &configuration, &verified)?;
    verified.extend(download_all(downloads, rest).await?);
    Ok(verified)
}

/// Downloads the files, largest first, so that no large one is downloaded alone at the end. The first error cancels
/// all.
async fn download_all(
    downloads: &Arc<Downloads>,
    mut files: Vec<RemoteFile>,
) -> Result<Vec<Verified>, FetchError> {
    files.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.path.cmp(&b.path)));
    stream::iter(files)
        .map(|file| {
            let downloads = Arc::clone(downloads);
            AbortOnDropHandle::new(tokio::spawn(async move { downloads.fetch(&file).await }))
        })
        .buffer_unordered(downloads.options.n_parallel.get())
        .map(|ended| ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())))
        .try_filter_map(async |verified| Ok(verified))
        .try_collect()
        .await
}

/// Runs `work` to its end, and calls `report` every second until then.
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

#[cfg(test)]
mod tests {
    use super::super::remote_file::Identity;
    use super::*;

    #[tokio::test]
    async fn a_listing_cannot_name_a_path_outside_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let destination = Destination::lock(folder.path()).await.unwrap();
        let file = |path: &str| RemoteFile {
            path: path.into(),
            size: 1,
            identity: Identity::Sha256("0".into()),
        };
        let plan = |paths: &[&str]| {
            let mut files: Vec<RemoteFile> = paths.iter().map(|path| file(path)).collect();
            for file in files.iter_mut().filter(|file| file.path.starts_with("huge")) {
                file.size = 1 << 63;
            }
            let listing = Listing {
                commit: "c".into(),
                files,
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
        for huge in [&["huge.json"][..], &["huge1.json", "huge2.json"]] {
            let refused = plan(huge).unwrap_err().to_string();
            assert!(refused.contains("sum of the sizes"), "{refused}");
        }
        let twice = plan(&["a.json", "a.json"]).unwrap_err().to_string();
        assert!(twice.contains("twice"), "{twice}");
        assert_eq!(plan(&["a.json", "x.json.partial"]).unwrap(), [file("a.json")]);
        assert!(matches!(
            plan(&["README.md"]),
            Err(FetchError::NothingSelected { n_files: 1, .. })
        ));
    }
}
