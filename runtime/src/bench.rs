//! `slipway-runtime bench`: how fast a model computes on this machine, and how near to what the machine can do.
//!
//! Owns the measurements and their report. Must not know HTTP.

mod error;
mod machine;
mod progress;
mod report;
mod roofline;
mod served;
mod statistics;
mod steps;
mod table;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::{self, Environment, ModelSource, ServeArguments, ServeConfig};
use crate::model::{LoadFormat, Model, ModelError, ModelInfo, Outline, Task, available_threads};
use crate::serving;

pub use error::BenchError;
pub use machine::{Limits, Machine};
pub use report::{Bound, ModelFacts, OpTime, Phase, PhaseKind, Probe, Rates, Report, Served, WeightsFrom};
pub use statistics::Spread;

use progress::Progress;
use served::{StepLog, Streams};
use steps::{Measured, Shape, Steps};

/// Settings of the group `engine` that change nothing that is measured, and so are no flags of `bench`.
pub const SETTINGS_WITHOUT_EFFECT: [&str; 4] = [
    "enable_prefix_caching",
    "max_logprobs",
    "scheduling_policy",
    "seed",
];

/// The command line of `bench`.
#[derive(Clone, Debug)]
pub struct BenchArguments {
    /// What to measure.
    pub options: BenchOptions,
    /// Settings as `(flag without dashes, text)`.
    pub flags: Vec<(String, String)>,
}

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchOptions {
    /// The model's folder; where it has no weights, a config.json is enough: weights are random numbers then
    pub model: String,
    /// Lengths of the prompts that are measured; 0 leaves them out [default: 512]
    #[arg(long, value_name = "TOKENS", value_delimiter = ',')]
    pub prefill: Vec<usize>,
    /// Numbers of sequences that are decoded together; 0 leaves them out [default: 1,4,8,16]
    #[arg(long, value_name = "SEQUENCES", value_delimiter = ',')]
    pub decode: Vec<usize>,
    /// Tokens of each of these sequences [default: 256]
    #[arg(long, value_name = "TOKENS")]
    pub context: Option<usize>,
    /// Streams that are served at once through the engine; 0 leaves them out [default: 8]
    #[arg(long, value_name = "COUNT")]
    pub streams: Option<usize>,
    /// Tokens of the prompt of each stream [default: 200]
    #[arg(long, value_name = "TOKENS")]
    pub prompt: Option<usize>,
    /// Tokens of the answer of each stream [default: 128]
    #[arg(long, value_name = "TOKENS")]
    pub output: Option<usize>,
    /// Time for all measurements; each is made at least once, however long it takes
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    pub seconds: f64,
    /// Compute threads [default: all that the process may use]
    #[arg(long, value_name = "COUNT")]
    pub threads: Option<usize>,
    /// Also measure each kind of op
    #[arg(long)]
    pub profile: bool,
    /// Also write the results to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Also draw the results below the limits of the machine, as an SVG file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

impl BenchOptions {
    /// The first given flag that concerns the tokens of an answer.
    fn generating(&self) -> Option<&'static str> {
        let flags = [
            ("--decode", !self.decode.is_empty()),
            ("--context", self.context.is_some()),
            ("--streams", self.streams.is_some()),
            ("--prompt", self.prompt.is_some()),
            ("--output", self.output.is_some()),
        ];
        flags
            .into_iter()
            .find(|(_, is_given)| *is_given)
            .map(|(flag, _)| flag)
    }
}

/// What to measure of a certain model.
struct Plan {
    shapes: Vec<Shape>,
    streams: Option<Streams>,
    /// Time of each measurement.
    time: Duration,
}

/// The device of a model that the processor computes.
const CPU: &str = "CPU";
/// Parts of the time that streams get, where a shape gets one.
const STREAMS_PARTS: u32 = 3;
/// Defaults, for models whose context has room for them.
const PREFILL_TOKENS: usize = 512;
const DECODE_SEQUENCES: [usize; 4] = [1, 4, 8, 16];
const CONTEXT_TOKENS: usize = 256;
const STREAMS: usize = 8;
const PROMPT_TOKENS: usize = 200;
const OUTPUT_TOKENS: usize = 128;

/// Measures, prints the table, and writes the files.
///
/// # Errors
/// [`BenchError`] for the first thing that cannot be measured or written.
pub async fn run(arguments: &BenchArguments, environment: &Environment) -> Result<(), BenchError> {
    let report = measure(arguments, environment).await?;
    print!("{report}");
    if let Some(path) = &arguments.options.json {
        let text = format!("{:#}\n", serde_json::json!(report));
        write(path, &text)?;
    }
    if let Some(path) = &arguments.options.svg {
        write(path, &report.svg())?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), BenchError> {
    std::fs::write(path, text).map_err(|error| BenchError::Write {
        path: path.to_owned(),
        error,
    })
}

/// Measures.
///
/// # Errors
/// [`BenchError`] for the first thing that cannot be measured.
pub async fn measure(arguments: &BenchArguments, environment: &Environment) -> Result<Report, BenchError> {
    let options = &arguments.options;
    let progress = Progress::new();
    let config = settings(arguments, environment)?;
    let n_threads = threads(options)?;
    let (mut model, facts) = load(&config, (&options.model, n_threads), progress)?;
    check_device(options, model.info())?;
    let plan = Plan::of(options, model.info())?;
    progress.begin("probe of the machine");
    let start = machine::probe(n_threads)?;
    let info = model.info().clone();
    let costs = model.costs();
    let measured = steps(&mut model, &plan, (&config, options), progress)?;
    let served = match plan.streams {
        Some(streams) => Some(serve(model, streams, (&config, plan.time * STREAMS_PARTS), progress).await?),
        None => None,
    };
    progress.begin("probe of the machine, again");
    let probe = Probe {
        start,
        end: machine::probe(n_threads)?,
    };
    progress.end();
    let limits = probe.limits().filter(|_| info.device == CPU);
    let limits = limits.as_ref();
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        machine: Machine::of(&info.device, n_threads),
        model: facts,
        steps: measured.into_iter().filter_map(|of| of.phase(limits)).collect(),
        served: served.and_then(|(streams, runs, log)| streams.served(&runs, &log, &costs, limits)),
        probe,
    })
}

/// The settings of `serve`, with random weights where the folder has none.
fn settings(arguments: &BenchArguments, environment: &Environment) -> Result<ServeConfig, BenchError> {
    let model = &arguments.options.model;
    let mut flags = arguments.flags.clone();
    flags.push(("model".to_owned(), model.clone()));
    let with = |flags: Vec<(String, String)>| {
        let arguments = ServeArguments {
            flags,
            ..ServeArguments::default()
        };
        config::resolve(&arguments, environment)
    };
    let config = with(flags.clone())?;
    let ModelSource::Directory(folder) = &config.model else {
        return Err(BenchError::NoFolder { model: model.clone() });
    };
    let is_open = config.engine.load_format() == LoadFormat::Auto;
    if is_open && has_no_weights(folder)? {
        flags.retain(|(name, _)| name != "load-format");
        flags.push(("load-format".to_owned(), LoadFormat::Dummy.name().to_owned()));
        return Ok(with(flags)?);
    }
    Ok(config)
}

fn has_no_weights(folder: &Path) -> Result<bool, ModelError> {
    let checked = Outline::read(folder)?.check_weights(folder);
    Ok(matches!(checked, Err(ModelError::MissingFile { .. })))
}

fn threads(options: &BenchOptions) -> Result<usize, BenchError> {
    match options.threads {
        Some(0) => Err(BenchError::Flag {
            flag: "--threads",
            reason: "at least one thread computes".to_owned(),
        }),
        Some(n_threads) => Ok(n_threads),
        None => Ok(available_threads()),
    }
}

/// Limits and times of ops are those of the processor.
fn check_device(options: &BenchOptions, info: &ModelInfo) -> Result<(), BenchError> {
    let given = [("--profile", options.profile), ("--svg", options.svg.is_some())];
    match given.into_iter().find(|(_, is_given)| *is_given) {
        Some((flag, _)) if info.device != CPU => Err(BenchError::Flag {
            flag,
            reason: format!(
                "{} computes, and only the processor is probed; --device cpu measures it",
                info.device
            ),
        }),
        Some(_) | None => Ok(()),
    }
}

fn load(
    config: &ServeConfig,
    (name, n_threads): (&str, usize),
    progress: Progress,
) -> Result<(Model, ModelFacts), BenchError> {
    let ModelSource::Directory(folder) = &config.model else {
        return Err(BenchError::NoFolder {
            model: name.to_owned(),
        });
    };
    progress.begin("load");
    let mut options = serving::load_options(&config.engine, &Outline::read(folder)?)?;
    options.n_threads = Some(n_threads);
    let begun = Instant::now();
    let model = Model::load(folder, &options, &|done| {
        let percent = 100 * done.bytes_done / done.bytes_total.max(1);
        progress.detail("load", &format!("{percent} %"));
    })?;
    let info = model.info();
    let facts = ModelFacts {
        folder: name.to_owned(),
        architecture: info.architecture.clone(),
        parameters: info.n_params,
        weights: match options.format {
            LoadFormat::Dummy => WeightsFrom::Random,
            LoadFormat::Auto | LoadFormat::Safetensors | LoadFormat::Pt | LoadFormat::Npcache => {
                WeightsFrom::Files
            }
        },
        weights_bytes: info.weights_bytes,
        dtype: info.dtype,
        kv_bytes_per_token: info.kv_bytes_per_token,
        load_s: begun.elapsed().as_secs_f64(),
    };
    Ok((model, facts))
}

impl Plan {
    /// What is measured: given numbers must fit the model, defaults are made to.
    fn of(options: &BenchOptions, info: &ModelInfo) -> Result<Plan, BenchError> {
        let room = Room {
            n_tokens: info.max_model_len as usize,
        };
        let mut shapes = Vec::new();
        for n_tokens in list(&options.prefill, &[PREFILL_TOKENS.min(room.n_tokens)]) {
            shapes.push(Shape::prefill(room.check("--prefill", n_tokens)?));
        }
        let mut streams = None;
        if info.task == Task::Generate {
            let context = options.context.unwrap_or(CONTEXT_TOKENS.min(room.n_tokens));
            let context = room.check("--context", context)?;
            let decode = list(&options.decode, &DECODE_SEQUENCES);
            shapes.extend(decode.map(|n_sequences| Shape::decode(n_sequences, context)));
            streams = room.streams(options)?;
        } else if let Some(flag) = options.generating() {
            return Err(BenchError::Flag {
                flag,
                reason: "the model makes vectors and generates no tokens".to_owned(),
            });
        }
        let n_parts = shapes.len() as u32 + streams.map_or(0, |_| STREAMS_PARTS);
        Ok(Plan {
            shapes,
            streams,
            time: Duration::try_from_secs_f64(options.seconds / f64::from(n_parts.max(1))).map_err(
                |error| BenchError::Flag {
                    flag: "--seconds",
                    reason: error.to_string(),
                },
            )?,
        })
    }
}

/// The numbers of a flag, or the default; zeros are left out.
fn list<'a>(given: &'a [usize], default: &'a [usize]) -> impl Iterator<Item = usize> + 'a {
    let numbers = if given.is_empty() { default } else { given };
    numbers.iter().copied().filter(|n| *n > 0)
}

/// The model's context.
struct Room {
    n_tokens: usize,
}

impl Room {
    fn check(&self, flag: &'static str, n_tokens: usize) -> Result<usize, BenchError> {
        if (1..=self.n_tokens).contains(&n_tokens) {
            return Ok(n_tokens);
        }
        Err(BenchError::Flag {
            flag,
            reason: format!(
                "{n_tokens} tokens, where the model's context is 1 to {}",
                self.n_tokens
            ),
        })
    }

    fn streams(&self, options: &BenchOptions) -> Result<Option<Streams>, BenchError> {
        let n_streams = options.streams.unwrap_or(STREAMS);
        if n_streams == 0 {
            return Ok(None);
        }
        let n_prompt = options.prompt.unwrap_or(PROMPT_TOKENS.min(self.n_tokens / 2));
        let n_output = options.output.unwrap_or(OUTPUT_TOKENS.min(self.n_tokens / 2));
        self.check("--prompt", n_prompt)?;
        self.check("--output", n_output)?;
        self.check("--prompt with --output", n_prompt.saturating_add(n_output))?;
        Ok(Some(Streams {
            n_streams,
            n_prompt,
            n_output,
        }))
    }
}

fn steps(
    model: &mut Model,
    plan: &Plan,
    (config, options): (&ServeConfig, &BenchOptions),
    progress: Progress,
) -> Result<Vec<Measured>, BenchError> {
    if plan.shapes.is_empty() {
        return Ok(Vec::new());
    }
    let sizes = (
        config.engine.block_size() as usize,
        config.engine.max_num_batched_tokens() as usize,
    );
    let mut steps = Steps::new(model, &plan.shapes, sizes)?;
    let mut all = Vec::new();
    for shape in &plan.shapes {
        let title = shape.title();
        progress.begin(&title);
        let mut measured = steps.measure(*shape, plan.time, &|n_runs| {
            progress.detail(&title, &format!("run {n_runs}"));
        })?;
        if options.profile {
            progress.detail(&title, "profile");
            steps.profile(&mut measured)?;
        }
        all.push(measured);
    }
    Ok(all)
}

async fn serve(
    model: Model,
    streams: Streams,
    (config, time): (&ServeConfig, Duration),
    progress: Progress,
) -> Result<(Streams, Vec<served::Run>, StepLog), BenchError> {
    let info = model.info().clone();
    let log = StepLog::default();
    let engine = serving::start_engine(model, &info, config, |model| log.of(model))?;
    let warm_up = Streams {
        n_output: streams.n_output.min(2),
        n_prompt: streams.n_prompt.min(2),
        ..streams
    };
    warm_up.run(&engine, info.vocab_size, 0).await?;
    log.clear();
    let mut runs = Vec::new();
    let begun = Instant::now();
    while runs.is_empty() || begun.elapsed() < time {
        progress.begin(&format!(
            "{} streams through the engine, run {}",
            streams.n_streams,
            runs.len() + 1
        ));
        runs.push(streams.run(&engine, info.vocab_size, runs.len() + 1).await?);
    }
    Ok((streams, runs, log))
}
