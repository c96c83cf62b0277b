//! The command line. Flags of `serve` come from the settings table; this file adds only those that are not settings.
//!
//! Must not know what a setting means: it passes texts on, and `config` checks them.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};
use clap_complete::Shell;
use crds::settings::{GROUPS, SETTINGS, Setting};

use crate::config::ServeArguments;
use crate::fetch::FetchArgs;
use crate::inspect::InspectArguments;

/// What the process does.
#[derive(Debug)]
pub enum Action {
    /// Serve a model.
    Serve(ServeArguments),
    /// Download a model.
    Fetch(Box<FetchArgs>),
    /// Print what a model is, needs and costs.
    Inspect(InspectArguments),
    /// Print the OpenAPI document.
    OpenApi,
    /// Print the reference of all parameters.
    Parameters,
    /// Print the completions of a shell.
    Completions(Shell),
    /// Write the pages of the manual into a folder.
    Man(PathBuf),
}

/// Values of a switch.
const YES_OR_NO: [&str; 8] = ["true", "false", "1", "0", "yes", "no", "on", "off"];

/// Adds the value to each switch without one, as vLLM has them: `--name` becomes `--name true`, and `--no-name`
/// becomes `--name false`.
fn with_words(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let is_switch = |setting: &&Setting| setting.schema()["type"] == "boolean";
    let switches: Vec<String> = SETTINGS.iter().filter(is_switch).map(Setting::flag).collect();
    let mut words = Vec::new();
    let mut arguments = arguments.into_iter().peekable();
    while let Some(argument) = arguments.next() {
        let name = argument
            .to_str()
            .and_then(|text| text.strip_prefix("--"))
            .unwrap_or_default();
        let is = |name: &str| switches.iter().any(|switch| switch == name);
        let is_word = |word: &OsString| {
            let word = word.to_str().unwrap_or_default().to_ascii_lowercase();
            YES_OR_NO.contains(&word.as_str())
        };
        match name.strip_prefix("no-").filter(|name| is(name)) {
            Some(name) => words.extend([format!("--{name}").into(), "false".into()]),
            None if is(name) && !arguments.peek().is_some_and(is_word) => {
                words.extend([argument, "true".into()]);
            }
            None => words.push(argument),
        }
    }
    words
}

/// Reads the command line. Prints help, version or an error and ends the process if the command line requires it.
pub fn parse() -> Action {
    action(command().get_matches_from(with_words(std::env::args_os())))
}

/// The command, for parsing and for `--help`.
pub fn command() -> Command {
    let fetch = FetchArgs::augment_args(Command::new("fetch")).about(
        "Download a model from the hub into a folder, resume if it was interrupted, and verify every file",
    );
    let inspect = InspectArguments::augment_args(Command::new("inspect"))
        .about("Print the size, the memory and the operations of a model, from its config.json");
    let shell = Arg::new("shell")
        .required(true)
        .value_parser(value_parser!(Shell));
    let completions = Command::new("completions").about("Print the completions of a shell");
    let folder = Arg::new("folder")
        .required(true)
        .value_parser(value_parser!(PathBuf));
    let man = Command::new("man").about("Write the pages of the manual into a folder that exists");
    Command::new("slipway-runtime")
        .version(env!("CARGO_PKG_VERSION"))
        .about("An OpenAI-compatible server for one model")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(serve_command())
        .subcommand(fetch)
        .subcommand(inspect)
        .subcommand(Command::new("openapi").about("Print the OpenAPI document"))
        .subcommand(Command::new("parameters").about("Print the reference of all parameters, in Markdown"))
        .subcommand(completions.arg(shell))
        .subcommand(man.arg(folder))
}

fn serve_command() -> Command {
    let file = |name: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
    };
    SETTINGS.iter().fold(
        Command::new("serve")
            .about("Serve a model")
            .after_help("Precedence: command line, environment, file, default.")
            .arg(
                Arg::new(POSITIONAL_MODEL)
                    .value_name("MODEL")
                    .help("Repository on the hub, or a directory; same as --model")
                    .conflicts_with("model"),
            )
            .arg(
                file("config")
                    .help("File with settings by flag name, in YAML")
                    .conflicts_with("from"),
            )
            .arg(file("from").help("File with a ModelDeployment, in YAML")),
        |command, setting| command.arg(argument(setting)),
    )
}

const POSITIONAL_MODEL: &str = "positional-model";

/// The flag of one setting, with a help text from its row.
fn argument(setting: &Setting) -> Arg {
    let schema = setting.schema();
    let choices: Vec<String> = schema["enum"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|choice| !choice.is_null())
        .map(|choice| choice.to_string().replace('"', ""))
        .collect();
    let mut help = setting.description();
    if !choices.is_empty() {
        help += &format!(" One of {}.", choices.join(", "));
    }
    help += &format!(" [default: {}] [env: {}]", setting.default, setting.env());
    let kinds = schema["type"].to_string();
    let (is_list, is_bool) = (kinds.contains("array"), kinds.contains("boolean"));
    let category = GROUPS.iter().find(|(group, _)| *group == setting.group);
    let arg = Arg::new(setting.flag())
        .help_heading(category.map(|(_, title)| *title))
        .long(setting.flag())
        .value_name(if is_list { "A,B" } else { "VALUE" })
        .help(help)
        .action(if is_list {
            ArgAction::Append
        } else {
            ArgAction::Set
        });
    // A flag without a value means true, as in vLLM.
    if is_bool {
        arg.num_args(0..=1).default_missing_value("true")
    } else {
        arg.allow_hyphen_values(true)
    }
}

fn action(matches: ArgMatches) -> Action {
    match matches.subcommand() {
        Some(("serve", serve)) => Action::Serve(serve_arguments(serve)),
        Some(("fetch", fetch)) => Action::Fetch(Box::new(
            FetchArgs::from_arg_matches(fetch).unwrap_or_else(|error| error.exit()),
        )),
        Some(("inspect", inspect)) => {
            Action::Inspect(InspectArguments::from_arg_matches(inspect).unwrap_or_else(|error| error.exit()))
        }
        Some(("openapi", _)) => Action::OpenApi,
        Some(("parameters", _)) => Action::Parameters,
        Some(("completions", given)) => Action::Completions(*given.get_one("shell").expect("it is required")),
        Some(("man", given)) => Action::Man(
            given
                .get_one::<PathBuf>("folder")
                .expect("it is required")
                .clone(),
        ),
        _ => unreachable!("clap requires one of the subcommands"),
    }
}

fn serve_arguments(matches: &ArgMatches) -> ServeArguments {
    let text = |name: &str| {
        let texts: Vec<&str> = matches.get_many::<String>(name)?.map(String::as_str).collect();
        Some(texts.join(","))
    };
    let mut flags: Vec<(String, String)> = SETTINGS
        .iter()
        .filter_map(|setting| text(&setting.flag()).map(|text| (setting.flag(), text)))
        .collect();
    flags.extend(text(POSITIONAL_MODEL).map(|model| ("model".to_string(), model)));
    ServeArguments {
        flags,
        config: matches.get_one("config").cloned(),
        from: matches.get_one("from").cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(arguments: &[&str]) -> Result<ServeArguments, String> {
        let words = ["slipway-runtime", "serve"].iter().chain(arguments).copied();
        match command()
            .try_get_matches_from(with_words(words.map(OsString::from)))
            .map(action)
        {
            Ok(Action::Serve(arguments)) => Ok(arguments),
            Ok(other) => unreachable!("serve became {other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    fn flags(arguments: &[&str]) -> Vec<(String, String)> {
        serve(arguments).unwrap().flags
    }

    #[test]
    fn the_command_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_setting_is_a_flag() {
        for setting in SETTINGS {
            let flag = format!("--{}", setting.flag());
            assert_eq!(flags(&[&flag, "on"]), [(setting.flag(), "on".to_string())]);
        }
    }

    #[test]
    fn a_switch_without_a_value_is_true() {
        let flag = |text: &str| ("enable-prefix-caching".to_string(), text.to_string());
        let model = ("model".to_string(), "org/name".to_string());
        for (arguments, text) in [
            (&["--enable-prefix-caching", "org/name"][..], "true"),
            (&["org/name", "--enable-prefix-caching"], "true"),
            (&["--enable-prefix-caching", "False", "org/name"], "False"),
            (&["--no-enable-prefix-caching", "org/name"], "false"),
            (&["--enable-prefix-caching=0", "org/name"], "0"),
        ] {
            assert_eq!(flags(arguments), [flag(text), model.clone()], "{arguments:?}");
        }
    }

    #[test]
    fn lists_may_be_repeated_and_the_model_needs_no_flag() {
        assert_eq!(
            flags(&["org/name", "--api-key", "a,b", "--api-key", "c"]),
            [
                ("api-key".into(), "a,b,c".into()),
                ("model".into(), "org/name".into())
            ]
        );
        assert!(serve(&["org/name", "--model", "org/other"]).is_err());
    }

    #[test]
    fn help_has_the_settings_by_category() {
        let help = serve_command().render_long_help().to_string();
        for (_, title) in GROUPS {
            assert!(help.contains(&format!("\n{title}:\n")), "{title}");
        }
    }

    #[test]
    fn unknown_flags_are_refused() {
        assert!(
            serve(&["--max-model-length", "3"])
                .unwrap_err()
                .contains("--max-model-len")
        );
    }
}
