//! `slipway-runtime`: serves a model or downloads one, and says why when it cannot.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use crds::failure::Failure;
use crds::settings::{LogFormat, LogLevel};
use runtime::api::openapi;
use runtime::chat_template::sandbox;
use runtime::cli::{self, Action};
use runtime::{config, fetch, server};

/// A third of what a request costs was spent in the C library's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Where a container leaves its last words if `TERMINATION_MESSAGE_PATH` names no other place.
const TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";

fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|command| command == sandbox::COMMAND)
    {
        return sandbox::run();
    }
    let action = cli::parse();
    let runtime = tokio::runtime::Runtime::new().expect("the operating system gives threads");
    let outcome = runtime.block_on(run(action));
    // A model that is still being loaded is no reason to stay.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => give_up(&failure),
    }
}

async fn run(action: Action) -> Result<(), Failure> {
    match action {
        Action::Serve(arguments) => serve(&arguments).await,
        Action::Fetch(arguments) => {
            log(LogLevel::Info, LogFormat::Text);
            fetch::run(*arguments).await.map_err(|error| error.failure())
        }
        Action::OpenApi => {
            println!("{:#}", openapi::document());
            Ok(())
        }
        Action::Parameters => {
            print!("{}", openapi::markdown());
            Ok(())
        }
    }
}

async fn serve(arguments: &cli::ServeArguments) -> Result<(), Failure> {
    // A variable that is no text is none of ours.
    let variables = std::env::vars_os()
        .filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)));
    let config = config::resolve(arguments, variables).map_err(|error| error.failure())?;
    log(config.log_level, config.log_format);
    match std::env::current_exe() {
        Ok(program) => sandbox::enable(program),
        Err(error) => tracing::warn!(%error, "templates of requests share this process"),
    }
    server::serve(config).await.map_err(|error| error.failure())
}

fn log(level: LogLevel, format: LogFormat) {
    // Standard output belongs to the progress lines of `fetch`.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(level.name())
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// Says why on standard error and, under a kubelet, in the termination message.
fn give_up(failure: &Failure) -> ExitCode {
    eprintln!("{}: {}\n{}", failure.reason, failure.message, failure.remedy);
    let named = std::env::var_os("TERMINATION_MESSAGE_PATH").map(PathBuf::from);
    let path = named.clone().unwrap_or_else(|| TERMINATION_MESSAGE_PATH.into());
    // The usual place exists only under a kubelet.
    if (named.is_some() || path.exists())
        && let Err(error) = failure.write_termination_message(&path)
    {
        eprintln!("cannot write {}: {error}", path.display());
    }
    ExitCode::from(failure.reason.exit_code())
}
