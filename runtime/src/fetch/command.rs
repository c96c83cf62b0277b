//! The command `slipway-runtime fetch`.
//!
//! Owns its arguments and its progress lines.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use crds::settings::{ProcessSettings, TokenizerSettings};
use tokio_util::task::AbortOnDropHandle;

use super::error::{FetchError, cannot};
use super::manifest::Manifest;
use super::options::{ConfigurationCheck, FetchOptions, Verify};
use super::progress::Progress;
use super::repository::fetch;
use super::select::Patterns;
use super::token::Token;
use crate::listen::Address;
use crate::startup::{self, Stage, StartupTracker};

/// The folder, inside the destination, for tokenizer files of another repository.
pub const TOKENIZER_FOLDER: &str = "tokenizer";

/// `slipway-runtime fetch`: downloads a model into a folder, and its tokenizer if that is in another repository.
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
    /// Commit that the revision had when another process downloaded it; it is downloaded again in place of the
    /// revision's present commit.
    #[arg(long, env = "MODEL_COMMIT", value_name = "COMMIT")]
    pub commit: Option<String>,
    /// Folder to download into.
    #[arg(long, value_name = "DIR")]
    pub destination: PathBuf,
    /// File that contains the Hub token.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Address of the Hub; empty means the public one.
    #[arg(long, env = "HF_ENDPOINT", value_name = "URL")]
    pub endpoint: Option<String>,
    /// Files to download, such as "*.safetensors"; may be repeated. Default: the files that a model needs.
    #[arg(long = "allow-pattern", value_name = "PATTERN")]
    pub allow_patterns: Vec<String>,
    /// Files not to download; may be repeated, and wins over --allow-pattern.
    #[arg(long = "ignore-pattern", value_name = "PATTERN")]
    pub ignore_patterns: Vec<String>,
    /// Files to download at once.
    #[arg(long, value_name = "N", default_value = "4")]
    pub parallel: NonZeroUsize,
    /// Seconds without a byte after which an attempt fails.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u64).range(1..))]
    pub stall_timeout_seconds: u64,
    /// Repository of the tokenizer, if it is not the model's. Its files go to DIR/tokenizer.
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
    /// Read every file of a complete folder again and compare its hash, because others may write to the volume.
    #[arg(long)]
    pub verify_contents: bool,
    /// Address on which GET /startupz returns the progress.
    #[arg(long, value_name = "HOST:PORT")]
    pub progress_listen: Option<Address>,
}

/// Runs `slipway-runtime fetch`. A token file wins over the token of the environment. `check` sees the configuration of
/// the model before its weights are downloaded.
///
/// # Errors
/// [`FetchError`]. [`FetchError::failure`] gives the exit code and the termination message.
pub async fn run(
    args: FetchArgs,
    token_in_env: Option<String>,
    check: ConfigurationCheck,
) -> Result<(), FetchError> {
    let tracker = StartupTracker::new();
    let _server = match args.progress_listen.clone() {
        Some(address) => Some(serve_progress(address, tracker.clone()).await?),
        None => None,
    };
    let mut downloads = args.downloads(token_in_env)?;
    downloads[0].check = Some(check);
    for options in downloads {
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
    /// The requested downloads: the model, then its tokenizer. Empty settings count as absent.
    fn downloads(&self, token_in_env: Option<String>) -> Result<Vec<FetchOptions>, FetchError> {
        let given = |text: &str| {
            Some(text.trim())
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        let token = match &self.token_file {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(cannot("read", path))?;
                Token::parse(&text, &path.display().to_string())?
            }
            None => Token::parse(&token_in_env.unwrap_or_default(), "HF_TOKEN")?,
        };
        let revision = self
            .commit
            .as_deref()
            .and_then(given)
            .or_else(|| given(&self.revision));
        let model = FetchOptions {
            revision: revision.unwrap_or_else(|| ProcessSettings::default().model_revision()),
            token,
            endpoint: self.endpoint.as_deref().and_then(given),
            patterns: Patterns {
                allow: self.allow_patterns.clone(),
                ignore: self.ignore_patterns.clone(),
            },
            n_parallel: self.parallel,
            stall_timeout: Duration::from_secs(self.stall_timeout_seconds),
            verify: if self.verify_contents {
                Verify::Contents
            } else {
                Verify::Sizes
            },
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
    address: Address,
    tracker: StartupTracker,
) -> Result<AbortOnDropHandle<io::Result<()>>, FetchError> {
    let listener = address
        .bind()
        .await
        .map_err(|source| FetchError::Listen { address, source })?;
    let router = startup::router(tracker);
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        axum::serve(listener, router).await
    })))
}

/// Prints a progress line. A closed standard output is not an error.
pub fn print_line(progress: &Progress) {
    let line = serde_json::to_string(progress).expect("progress is strings and numbers");
    let _closed = writeln!(io::stdout().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::super::select::select;
    use super::*;

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
        let args = parse(&[
            "--endpoint",
            "",
            "--revision",
            "",
            "--commit",
            "",
            "--tokenizer-repo",
            " ",
        ]);
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
    fn a_known_commit_takes_the_place_of_the_revision_of_the_model() {
        let args = parse(&[
            "--revision",
            "v1",
            "--commit",
            "c0ffee",
            "--tokenizer-repo",
            "acme/t",
        ]);
        let revisions: Vec<String> = args
            .downloads(None)
            .unwrap()
            .into_iter()
            .map(|download| download.revision)
            .collect();
        assert_eq!(revisions, ["c0ffee", "main"]);
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
        assert!(select(&["tokenizer.json", "model.safetensors"], &downloads[1].patterns).len() == 1);
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
}
