//! One file for each command: it reads its arguments, calls the pure parts and the cluster, and prints.

mod bench;
mod chat;
mod complete;
mod deploy;
mod explain;
mod fit;
mod import_runpod;
mod list;
mod logs;
mod manual;
mod status;

use crate::{
    arguments::{Cli, Command},
    cluster::Cluster,
    error::Error,
    krew,
};

/// Runs the command of a command line.
///
/// # Errors
/// What the person has to know; [`Error::next`] has the command that helps.
pub async fn run(cli: Cli) -> Result<(), Error> {
    let Cli { command, target } = cli;
    let connect = || Cluster::connect(&target);
    match command {
        Command::Deploy(arguments) => deploy::run(&arguments, &target).await,
        Command::List(arguments) => list::run(&arguments, &connect().await?).await,
        Command::Status(arguments) => status::run(&arguments, &connect().await?).await,
        Command::Logs(arguments) => logs::run(&arguments, &connect().await?).await,
        Command::Chat(arguments) => chat::run(&arguments, &connect().await?).await,
        Command::Bench(arguments) => bench::run(&arguments, &connect().await?).await,
        Command::Fit(arguments) => fit::run(&arguments, &target).await,
        Command::Explain(arguments) => explain::run(&arguments),
        Command::ImportRunpod(arguments) => import_runpod::run(&arguments, target.namespace),
        Command::Krew => {
            print!("{}", krew::manifest());
            Ok(())
        }
        Command::Complete { words } => {
            complete::run(&words).await;
            Ok(())
        }
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { folder } => manual::pages(&folder),
    }
}
