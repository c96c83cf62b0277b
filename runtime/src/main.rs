//! `slipway-runtime`: serves a model or downloads one, and says why when it cannot.

use std::path::Path;
use std::process::ExitCode;

use crds::failure::Failure;
use crds::settings::{LogFormat, LogLevel};
use runtime::cli::{self, Action};
use runtime::{config, fetch, server};

/// Where a container leaves its last words; exists only under a kubelet.
const TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match cli::parse() {
        Action::Serve(arguments) => serve(&arguments).await,
        Action::Fetch(arguments) => {
            log(LogLevel::Info, LogFormat::Text);
            fetch::run(*arguments).await.map_err(|error| error.failure())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => give_up(&failure),
    }
}

async fn serve(arguments: &cli::ServeArguments) -> Result<(), Failure> {
    let config = config::resolve(arguments, std::env::vars()).map_err(|error| error.failure())?;
    log(config.log_level, config.log_format);
    server::serve(config).await.map_err(|error| error.failure())
}

fn log(level: LogLevel, format: LogFormat) {
    let level = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    // Standard output belongs to the progress lines of `fetch`.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(level)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// Says why on standard error and, under a kubelet, in the termination message.
fn give_up(failure: &Failure) -> ExitCode {
    eprintln!("{}: {}\n{}", failure.reason, failure.message, failure.remedy);
    let path = Path::new(TERMINATION_MESSAGE_PATH);
    if path.exists()
        && let Err(error) = failure.write_termination_message(path)
    {
        eprintln!("cannot write {}: {error}", path.display());
    }
    ExitCode::from(failure.reason.exit_code())
}
