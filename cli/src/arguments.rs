//! The command line.

use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use crate::cluster::Target;

/// How long is waited for a ModelDeployment, unless something else is said.
const WAIT_SECONDS: u64 = 1800;

/// Deploy models on Kubernetes and talk to them.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-slipway",
    bin_name = "kubectl slipway",
    version,
    after_help = "Every command has the rights of your kubeconfig and no others. docs/kubectl.md has examples."
)]
pub struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Deploy a model and wait until it is ready
    Deploy(Box<Deploy>),
    /// List ModelDeployments
    List(List),
    /// Show conditions, the last failure with its remedy, and the progress of a ModelDeployment
    Status(Status),
    /// Print the logs of its pods
    Logs(Logs),
    /// Talk to a model
    Chat(Chat),
    /// Measure tokens per second and the time to the first token
    Bench(Bench),
    /// Estimate which GPUs a model fits
    Fit(Fit),
    /// Print what a setting, a variable or a field is; without a name, all settings
    Explain(Explain),
    /// Make the ModelDeployment of a RunPod block of environment variables
    ImportRunpod(ImportRunpod),
    /// Print the completions of a shell
    Completions {
        /// Shell
        shell: Shell,
    },
    /// Print what kubectl proposes for the last of these words
    #[command(hide = true)]
    Complete {
        /// Words after `kubectl slipway`
        #[arg(last = true)]
        words: Vec<String>,
    },
    /// Print the manifest for krew
    #[command(hide = true)]
    Krew,
    /// Write the pages of the manual into a folder that exists
    Man {
        /// Folder
        folder: PathBuf,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Deploy {
    /// Repository of the Hugging Face Hub (owner/name), or pvc:CLAIM/DIRECTORY
    pub(crate) model: String,
    /// Name of the ModelDeployment; by default it follows from the model's name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Number of replicas
    #[arg(long, help_heading = "Replicas", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(crate) replicas: Option<u32>,
    /// GPUs of a replica
    #[arg(long, help_heading = "Replicas", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=64))]
    pub(crate) gpus: Option<u32>,
    /// CPU cores of a replica, as in 4
    #[arg(long, help_heading = "Replicas", value_name = "CORES")]
    pub(crate) cpu: Option<String>,
    /// Memory of a replica, as in 16Gi
    #[arg(long, help_heading = "Replicas", value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Keep the downloaded model in a volume of this size, as in 50Gi
    #[arg(long, help_heading = "Replicas", value_name = "SIZE")]
    pub(crate) cache: Option<String>,
    /// Longest context in tokens
    #[arg(long, help_heading = "Engine", value_name = "TOKENS")]
    pub(crate) max_model_len: Option<String>,
    /// Number type of the weights
    #[arg(long, help_heading = "Engine")]
    pub(crate) dtype: Option<String>,
    /// Names of the model for clients, with commas between them
    #[arg(long, help_heading = "Model", value_name = "NAMES")]
    pub(crate) served_name: Option<String>,
    /// Branch, tag or commit of the repository
    #[arg(long, help_heading = "Model")]
    pub(crate) revision: Option<String>,
    /// Address of the hub, if it is not the public one
    #[arg(long, help_heading = "Model", value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// Secret with the hub's token
    #[arg(long, help_heading = "Model", value_name = "NAME[:KEY]")]
    pub(crate) token_secret: Option<String>,
    /// Secret with the keys that clients must have
    #[arg(long, help_heading = "Model", value_name = "NAME[:KEY]")]
    pub(crate) api_keys_secret: Option<String>,
    /// Any setting by any of its names, or any field by its path; may be repeated
    #[arg(long, help_heading = "Engine", value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
    /// Variable for the containers; may be repeated
    #[arg(long, help_heading = "Engine", value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Print the YAML and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Take over fields that others have written
    #[arg(long)]
    pub(crate) force: bool,
    /// Do not wait until it is ready
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Longest time to wait
    #[arg(long, value_name = "SECONDS", default_value_t = WAIT_SECONDS)]
    pub(crate) timeout_seconds: u64,
}

#[derive(Args, Debug)]
pub(crate) struct List {
    /// Of all namespaces
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Status {
    /// Name of the ModelDeployment
    pub(crate) name: String,
    /// Show the progress until it is ready
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Longest time to watch
    #[arg(long, value_name = "SECONDS", default_value_t = WAIT_SECONDS)]
    pub(crate) timeout_seconds: u64,
}

#[derive(Args, Debug)]
pub(crate) struct Logs {
    /// Name of the ModelDeployment
    pub(crate) name: String,
    /// Go on as lines are logged
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Of the container before its last restart
    #[arg(short, long)]
    pub(crate) previous: bool,
    /// Container; by default the one that serves, or before it has started the download
    #[arg(short, long)]
    pub(crate) container: Option<String>,
    /// Only so many lines from the end
    #[arg(long, value_name = "LINES")]
    pub(crate) tail: Option<i64>,
}

#[derive(Args, Debug)]
pub(crate) struct Chat {
    /// Name of the ModelDeployment
    pub(crate) name: String,
    /// Ask one question and end
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    /// System message before the first question
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Most tokens of an answer
    #[arg(long, value_name = "TOKENS")]
    pub(crate) max_tokens: Option<u32>,
    /// Temperature; 0 gives the most probable answer
    #[arg(long)]
    pub(crate) temperature: Option<f64>,
    /// Key of the model; by default the first one of the Secret that it names, read with your rights
    #[arg(long, env = "SLIPWAY_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub(crate) api_key: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Bench {
    /// Name of the ModelDeployment
    pub(crate) name: String,
    /// Answers that are streamed at the same time
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) streams: u16,
    /// How long
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    /// Tokens of each answer
    #[arg(long, value_name = "TOKENS", default_value_t = 128)]
    pub(crate) max_tokens: u32,
    /// The question; a number is put before it
    #[arg(
        short,
        long,
        value_name = "TEXT",
        default_value = "Tell me a long story about the sea."
    )]
    pub(crate) message: String,
    /// Key of the model; by default the first one of the Secret that it names, read with your rights
    #[arg(long, env = "SLIPWAY_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub(crate) api_key: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Fit {
    /// Repository of the Hugging Face Hub (owner/name), or a folder with config.json
    pub(crate) model: String,
    /// Branch, tag or commit of the repository
    #[arg(long)]
    pub(crate) revision: Option<String>,
    /// Address of the hub, if it is not the public one
    #[arg(long, env = "HF_ENDPOINT", value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// Read the configuration in a pod, even if slipway-runtime is installed here
    #[arg(long)]
    pub(crate) in_cluster: bool,
    /// Image of that pod; by default that of a ModelDeployment
    #[arg(long)]
    pub(crate) image: Option<String>,
    /// Secret with the hub's token for that pod; on this machine HF_TOKEN is used
    #[arg(long, value_name = "NAME[:KEY]")]
    pub(crate) token_secret: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// A setting by field, variable or flag, a field by its path, or a variable of another server
    pub(crate) setting: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct ImportRunpod {
    /// File with the block, or - for standard input: a YAML or JSON list 'env', lines NAME=VALUE, or docker's -e options
    pub(crate) file: PathBuf,
    /// Name of the ModelDeployment; by default it follows from the model's name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// GPUs of a replica; a RunPod worker has at least one
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=64))]
    pub(crate) gpus: u32,
}

/// The command, for parsing, completions and pages of the manual.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Reads the command line. Prints help, version or an error and ends the process if the command line requires it.
pub fn parse() -> Cli {
    Cli::from_arg_matches(&command().get_matches()).unwrap_or_else(|error| error.exit())
}

/// The command line of a test.
#[cfg(test)]
pub(crate) fn parse_from<'a>(words: impl IntoIterator<Item = &'a str>) -> Cli {
    Cli::try_parse_from(words).expect("the test gives a valid command line")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_is_sound() {
        super::command().debug_assert();
    }
}
