//! `slipway-runtime`: serves a model or downloads one, and reports why if it cannot.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use crds::failure::{Failure, Reason};
use crds::settings::{LogFormat, LogLevel};
use runtime::api::openapi;
use runtime::cli::{self, Action};
use runtime::config::{self, Environment, ServeArguments};
use runtime::http::routes;
use runtime::{bench, fetch, inspect, server, serving};

/// The C library's allocator took a third of a request's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// File for the failure of a container, if `TERMINATION_MESSAGE_PATH` names no other.
const TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";

fn main() -> ExitCode {
    let environment = Environment::of_process();
    let action = cli::parse();
    let runtime = tokio::runtime::Runtime::new().expect("the operating system gives threads");
    let outcome = runtime.block_on(run(action, &environment));
    // Do not wait for a model that is still being loaded.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => give_up(&failure, &environment),
    }
}

async fn run(action: Action, environment: &Environment) -> Result<(), Failure> {
    match action {
        Action::Serve(arguments) => serve(&arguments, environment).await,
        Action::Fetch(arguments) => {
            log(LogLevel::Info, LogFormat::Text);
            let fetched = fetch::run(*arguments, environment.hub_token(), serving::check_configuration).await;
            fetched.map_err(|error| error.failure())
        }
        Action::Bake {
            arguments,
            token_file,
        } => {
            log(LogLevel::Info, LogFormat::Text);
            let config = config::resolve_with_token(arguments, environment, token_file.as_deref());
            serving::bake(config.map_err(|error| error.failure())?)
                .await
                .map_err(|error| error.failure())
        }
        Action::Effective { arguments, is_json } => {
            let effective = config::effective(&arguments, environment).map_err(|error| error.failure())?;
            print!("{}", inspect::effective::text(&effective, is_json));
            Ok(())
        }
        Action::Inspect(arguments) => {
            if let Some(file) = &arguments.config {
                check(&arguments.model, file, environment)?;
            }
            print!("{}", inspect::text(&arguments));
            Ok(())
        }
        Action::Bench(arguments) => {
            log(LogLevel::Warn, LogFormat::Text);
            let measured = bench::run(&arguments, environment).await;
            measured.map_err(|error| error.failure())
        }
        Action::OpenApi => {
            println!("{:#}", openapi::document(&routes::docs()));
            Ok(())
        }
        Action::Parameters => {
            print!("{}", openapi::markdown(&routes::docs()));
            Ok(())
        }
        Action::Completions(shell) => {
            let name = env!("CARGO_BIN_NAME");
            clap_complete::generate(shell, &mut cli::command(), name, &mut std::io::stdout());
            Ok(())
        }
        Action::Man(folder) => clap_mangen::generate_to(cli::command(), &folder).map_err(|error| {
            let message = format!(
                "cannot write pages of the manual into {}: {error}",
                folder.display()
            );
            Failure::new(
                Reason::InvalidSetting,
                message,
                "name a folder that you may write",
            )
        }),
    }
}

/// Fails as `serve` would before it loads weights.
fn check(model: &Path, file: &Path, environment: &Environment) -> Result<(), Failure> {
    let arguments = ServeArguments {
        flags: vec![("model".into(), model.display().to_string())],
        config: Some(file.to_path_buf()),
        ..ServeArguments::default()
    };
    let config = config::resolve(&arguments, environment).map_err(|error| error.failure())?;
    serving::check(&config).map_err(|error| error.failure())
}

async fn serve(arguments: &ServeArguments, environment: &Environment) -> Result<(), Failure> {
    let config = config::resolve(arguments, environment).map_err(|error| error.failure())?;
    log(config.serving.log_level(), config.serving.log_format());
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

/// Writes the failure to standard error and, under a kubelet, to the termination message.
fn give_up(failure: &Failure, environment: &Environment) -> ExitCode {
    eprintln!("{}: {}\n{}", failure.reason, failure.message, failure.remedy);
    let named = environment.termination_message_path();
    let is_named = named.is_some();
    let path = named.unwrap_or_else(|| TERMINATION_MESSAGE_PATH.into());
    // The default file exists only under a kubelet.
    if (is_named || path.exists())
        && let Err(error) = failure.write_termination_message(&path)
    {
        eprintln!("cannot write {}: {error}", path.display());
    }
    ExitCode::from(failure.reason.exit_code())
}
