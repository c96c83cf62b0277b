//! `kubectl-slipway`: a plugin of kubectl, called as `kubectl slipway`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    // Two TLS providers can be in one build; without a choice the client panics.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        eprintln!("another TLS provider was installed first");
        return ExitCode::FAILURE;
    }
    match cli::run(cli::arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            if let Some(next) = error.next() {
                eprintln!("next:  {next}");
            }
            ExitCode::FAILURE
        }
    }
}
