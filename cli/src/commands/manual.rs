//! `completions` and `man`: what a shell and `man` know of this program.

use std::path::Path;

use clap_complete::Shell;

use crate::{arguments, error::Error};

/// The name of the program, which a shell completes; kubectl finds it as `kubectl slipway`.
const NAME: &str = "kubectl-slipway";

pub(super) fn completions(shell: Shell) -> Result<(), Error> {
    let mut command = arguments::command().bin_name(NAME);
    clap_complete::generate(shell, &mut command, NAME, &mut std::io::stdout());
    Ok(())
}

pub(super) fn pages(folder: &Path) -> Result<(), Error> {
    let command = arguments::command().bin_name(NAME);
    clap_mangen::generate_to(command, folder).map_err(|error| Error::Local {
        operation: format!("write pages of the manual into {}", folder.display()),
        reason: error.to_string(),
    })
}
