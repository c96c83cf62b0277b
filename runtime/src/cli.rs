//! The command line. Flags of `serve` come from the settings table; this file adds only those that are not settings.
//!
//! Must not know what a setting means: it passes texts on, and `config` checks them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};
use clap_complete::Shell;
use crds::settings::{Foreign, GROUPS, SETTINGS, Setting, foreign};

use crate::bench::{BenchArguments, BenchOptions, SETTINGS_WITHOUT_EFFECT};
use crate::config::{ServeArguments, StartMode};
use crate::fetch::FetchArgs;
use crate::inspect::InspectArguments;

/// What the process does.
#[derive(Debug)]
pub enum Action {
    /// Serve a model.
    Serve(ServeArguments),
    /// Download a model.
    Fetch(Box<FetchArgs>),
    /// Download the model of the settings to where `serve` finds it.
    Bake {
        /// The settings that `serve` will have.
        arguments: ServeArguments,
        /// File with the token of the hub; there may be none.
        token_file: Option<PathBuf>,
    },
    /// Print what a model is, needs and costs.
    Inspect(InspectArguments),
    /// Measure a model on this machine.
    Bench(Box<BenchArguments>),
    /// Print the value of each setting, and where it is from.
    Effective {
        /// The settings of `serve`.
        arguments: ServeArguments,
        /// Print JSON.
        is_json: bool,
    },
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

/// vLLM's short flags, each with its long one.
const SHORT_FLAGS: [(&str, &str); 4] = [
    ("-tp", "--tensor-parallel-size"),
    ("-pp", "--pipeline-parallel-size"),
    ("-dp", "--data-parallel-size"),
    ("-q", "--quantization"),
];

/// Writes the flags as clap reads them. As in vLLM, `--a_b` is `--a-b`, a few flags have short ones, and a switch needs
/// no value: `--name` becomes `--name true`, and `--no-name` becomes `--name false`.
fn with_words(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let is_switch = |setting: &&Setting| setting.schema()["type"] == "boolean";
    let switches: BTreeSet<String> = SETTINGS
        .iter()
        .filter(is_switch)
        .map(Setting::flag)
        .chain(
            foreign()
                .filter(|foreign| foreign.is_switch)
                .flat_map(Foreign::flags),
        )
        .collect();
    let mut words = Vec::new();
    let mut arguments = arguments.into_iter().map(in_kebab_case).peekable();
    while let Some(argument) = arguments.next() {
        let name = argument
            .to_str()
            .and_then(|text| text.strip_prefix("--"))
            .unwrap_or_default();
        let is_word = |word: &OsString| {
            let word = word.to_str().unwrap_or_default().to_ascii_lowercase();
            YES_OR_NO.contains(&word.as_str())
        };
        match name.strip_prefix("no-").filter(|name| switches.contains(*name)) {
            Some(name) => words.extend([format!("--{name}").into(), "false".into()]),
            None if switches.contains(name) && !arguments.peek().is_some_and(is_word) => {
                words.extend([argument, "true".into()]);
            }
            None => words.push(argument),
        }
    }
    words
}

/// A flag by its long name, with dashes for underscores; other words as they are.
fn in_kebab_case(argument: OsString) -> OsString {
    let Some(text) = argument.to_str() else {
        return argument;
    };
    let (flag, value) = match text.split_once('=') {
        Some((flag, value)) => (flag, Some(value)),
        None => (text, None),
    };
    let short = SHORT_FLAGS.iter().find(|(short, _)| *short == flag);
    let flag = match short {
        Some((_, long)) => (*long).to_string(),
        None if flag.starts_with("--") => flag.replace('_', "-"),
        None => return argument,
    };
    match value {
        Some(value) => format!("{flag}={value}").into(),
        None => flag.into(),
    }
}

/// Reads the command line. Prints help, version or an error and ends the process if the command line requires it.
pub fn parse() -> Action {
    let words = with_words(std::env::args_os());
    match effective_words(&words) {
        Some(words) => effective(&effective_command().get_matches_from(words)),
        None => action(command().get_matches_from(words)),
    }
}

/// The words of `inspect --effective` without the name of the program; `None` for another command.
fn effective_words(words: &[OsString]) -> Option<Vec<OsString>> {
    let words = words
        .get(1..)
        .filter(|words| words.first().is_some_and(|word| word == "inspect"))?;
    words
        .iter()
        .any(|word| word == "--effective")
        .then(|| words.to_vec())
}

fn effective(matches: &ArgMatches) -> Action {
    Action::Effective {
        arguments: serve_arguments(matches),
        is_json: matches.get_flag("json"),
    }
}

/// The command, for parsing and for `--help`.
pub fn command() -> Command {
    let fetch = FetchArgs::augment_args(Command::new("fetch")).about(
        "Download a model from the hub into a folder, resume if it was interrupted, and verify every file",
    );
    let inspect = Command::new("inspect")
        .about("Print the size, the memory and the operations of a model, from its config.json")
        .arg(
            Arg::new(EFFECTIVE)
                .long(EFFECTIVE)
                .action(ArgAction::SetTrue)
                .help("Print the value of each setting of `serve` and where it is from; takes the flags of `serve`"),
        );
    let inspect = InspectArguments::augment_args(inspect);
    let run = serve_command("run").about("Serve a model with the defaults of TI-ONE's start command");
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
        .subcommand(serve_command("serve"))
        .subcommand(run)
        .subcommand(fetch)
        .subcommand(bake_command())
        .subcommand(inspect)
        .subcommand(bench_command())
        .subcommand(Command::new("openapi").about("Print the OpenAPI document"))
        .subcommand(Command::new("parameters").about("Print the reference of all parameters, in Markdown"))
        .subcommand(completions.arg(shell))
        .subcommand(man.arg(folder))
}

const EFFECTIVE: &str = "effective";

/// `inspect --effective`: the flags of `serve`, and the form of the report.
fn effective_command() -> Command {
    let switch = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    serve_command("inspect")
        .about("Print the value of each setting and where it is from")
        .arg(switch(EFFECTIVE))
        .arg(switch("json").help("Print JSON"))
}

fn serve_command(name: &'static str) -> Command {
    let file = |name: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
    };
    let command = SETTINGS.iter().fold(
        Command::new(name)
            .about("Serve a model")
            .after_help("Precedence: command line, environment, file, default.")
            // As in Python: of a flag that is given twice the last value counts.
            .args_override_self(true)
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
    );
    foreign().flat_map(Foreign::flags).fold(command, |command, flag| {
        command.arg(
            Arg::new(flag.clone())
                .long(flag)
                .hide(true)
                .allow_hyphen_values(true),
        )
    })
}

/// Settings of `bake`: which files it downloads and to where, and what it only checks.
const BAKED_SETTINGS: [&str; 6] = [
    "model",
    "model_revision",
    "tokenizer",
    "tokenizer_revision",
    "download_dir",
    "quantization",
];
const TOKEN_FILE: &str = "token-file";

fn bake_command() -> Command {
    let command = Command::new("bake")
        .about("Download a model into an image, to where `serve` with the same settings and HF_HUB_OFFLINE=1 finds it")
        .arg(
            Arg::new(TOKEN_FILE)
                .long(TOKEN_FILE)
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("File with the token of the hub, such as a build secret; there may be none. Default: HF_TOKEN"),
        );
    baked_settings().fold(command, |command, setting| command.arg(argument(setting)))
}

fn baked_settings() -> impl Iterator<Item = &'static Setting> {
    SETTINGS
        .iter()
        .filter(|setting| BAKED_SETTINGS.contains(&setting.field))
}

fn bench_command() -> Command {
    let command = Command::new("bench")
        .about("Measure how fast a model computes on this machine, and how near to what the machine can do");
    measured_settings().fold(BenchOptions::augment_args(command), |command, setting| {
        command.arg(argument(setting))
    })
}

/// The settings that change what `bench` measures.
fn measured_settings() -> impl Iterator<Item = &'static Setting> {
    let is_measured =
        |setting: &&Setting| setting.group == "engine" && !SETTINGS_WITHOUT_EFFECT.contains(&setting.field);
    SETTINGS.iter().filter(is_measured)
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
        .aliases(setting.row.flag_aliases)
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
        Some(("run", run)) => Action::Serve(ServeArguments {
            start_mode: StartMode::Run,
            ..serve_arguments(run)
        }),
        Some(("fetch", fetch)) => Action::Fetch(Box::new(
            FetchArgs::from_arg_matches(fetch).unwrap_or_else(|error| error.exit()),
        )),
        Some(("bake", bake)) => Action::Bake {
            arguments: ServeArguments {
                flags: flags_of(bake, baked_settings()),
                ..ServeArguments::default()
            },
            token_file: bake.get_one(TOKEN_FILE).cloned(),
        },
        Some(("inspect", inspect)) => {
            Action::Inspect(InspectArguments::from_arg_matches(inspect).unwrap_or_else(|error| error.exit()))
        }
        Some(("bench", bench)) => Action::Bench(Box::new(BenchArguments {
            options: BenchOptions::from_arg_matches(bench).unwrap_or_else(|error| error.exit()),
            flags: flags_of(bench, measured_settings()),
        })),
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
    let mut flags = flags_of(matches, SETTINGS.iter());
    flags.extend(
        foreign()
            .flat_map(Foreign::flags)
            .filter_map(|flag| Some((flag.clone(), text_of(matches, &flag)?))),
    );
    flags.extend(text_of(matches, POSITIONAL_MODEL).map(|model| ("model".to_string(), model)));
    ServeArguments {
        flags,
        config: matches.get_one("config").cloned(),
        from: matches.get_one("from").cloned(),
        start_mode: StartMode::Serve,
    }
}

/// The settings that are given as flags.
fn flags_of(matches: &ArgMatches, settings: impl Iterator<Item = &'static Setting>) -> Vec<(String, String)> {
    settings
        .filter_map(|setting| text_of(matches, &setting.flag()).map(|text| (setting.flag(), text)))
        .collect()
}

fn text_of(matches: &ArgMatches, name: &str) -> Option<String> {
    let texts: Vec<&str> = matches.get_many::<String>(name)?.map(String::as_str).collect();
    Some(texts.join(","))
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
        effective_command().debug_assert();
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
    fn flags_have_the_names_of_other_servers() {
        let named = |arguments: &[&str]| -> Vec<(String, String)> {
            let flags = flags(arguments).into_iter();
            flags.filter(|(name, _)| name != "model").collect()
        };
        let is = |name: &str, text: &str| [(name.to_string(), text.to_string())];
        assert_eq!(
            named(&["--gpu_memory_utilization", "0.5"]),
            is("gpu-memory-utilization", "0.5")
        );
        assert_eq!(named(&["--max_num_seqs=4"]), is("max-num-seqs", "4"));
        assert_eq!(
            named(&["--limit-worker-concurrency", "3"]),
            is("max-concurrency", "3")
        );
        assert_eq!(
            named(&["--response-role", "bot"]),
            is("openai-response-role", "bot")
        );
        assert_eq!(named(&["-tp", "1"]), is("tensor-parallel-size", "1"));
        assert_eq!(named(&["--num-gpus=1"]), is("num-gpus", "1"));
        assert_eq!(
            named(&["--trust-remote-code", "org/name"]),
            is("trust-remote-code", "true")
        );
        assert_eq!(flags(&["--model-path", "/m"]), is("model", "/m"));
    }

    #[test]
    fn of_a_flag_that_is_given_twice_the_last_value_counts() {
        assert_eq!(flags(&["--seed", "1", "--seed=2"]), [("seed".into(), "2".into())]);
    }

    #[test]
    fn the_command_of_ti_one_is_read() {
        let words = "slipway-runtime run --model-path /m --num-gpus 1 --use-v2-block-manager --enforce-eager";
        let words = with_words(words.split(' ').map(OsString::from));
        let Ok(Action::Serve(arguments)) = command().try_get_matches_from(words).map(action) else {
            panic!("not the command of a server");
        };
        assert_eq!(arguments.start_mode, StartMode::Run);
        assert_eq!(arguments.flags.len(), 4, "{:?}", arguments.flags);
    }

    #[test]
    fn the_effective_settings_are_those_of_serve() {
        let words = [
            "slipway-runtime",
            "inspect",
            "--effective",
            "--json",
            "org/name",
            "--seed",
            "3",
        ];
        let words = with_words(words.map(OsString::from));
        let words = effective_words(&words).unwrap();
        let Action::Effective { arguments, is_json } =
            effective(&effective_command().try_get_matches_from(words).unwrap())
        else {
            panic!("another action");
        };
        assert!(is_json);
        assert_eq!(
            arguments.flags,
            [
                ("seed".to_string(), "3".to_string()),
                ("model".to_string(), "org/name".to_string())
            ]
        );
        let other = ["slipway-runtime", "inspect", "DIR"].map(OsString::from);
        assert_eq!(effective_words(&other), None);
    }

    #[test]
    fn help_has_the_settings_by_category() {
        let help = serve_command("serve").render_long_help().to_string();
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
