//! Templates that requests bring are rendered in a process of their own, with little memory and little time.
//!
//! A template can double a text in each of a few steps, nest lists until dropping them overflows the stack, or compare
//! what takes ages to compare. The library bounds none of these; the operating system bounds all.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::{ChatTemplate, Conversation, Ending, RenderError};

/// First argument of a process that renders.
pub const COMMAND: &str = "render";

/// Address space of such a process, bytes; the program itself takes a part of it.
const MEMORY_BYTES_MAX: u64 = 256 << 20;
/// Its processor time, seconds.
const CPU_SECONDS_MAX: u64 = 1;
/// Such processes at a time.
const PROCESSES_MAX: usize = 2;

/// The program that renders.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

static SEATS: Seats = Seats {
    n_taken: Mutex::new(0),
    freed: Condvar::new(),
};

/// Renders templates of requests with `program` from now on. A process that never says so, such as a fuzz target,
/// renders them itself.
pub fn enable(program: PathBuf) {
    // Whoever was first is as good.
    let _already = PROGRAM.set(program);
}

/// Whether templates of requests are rendered elsewhere.
pub(super) fn is_enabled() -> bool {
    PROGRAM.get().is_some()
}

/// What a rendering needs.
#[derive(Debug, Serialize, Deserialize)]
struct Job {
    source: String,
    special_tokens: BTreeMap<String, String>,
    messages: Vec<Json>,
    adds_prompt: bool,
    variables: Map<String, Json>,
}

type Outcome = Result<String, String>;

/// Renders in a process of its own.
pub(super) fn render(
    source: &str,
    special_tokens: &BTreeMap<&'static str, String>,
    conversation: &Conversation,
) -> Result<String, RenderError> {
    let job = Job {
        source: source.into(),
        special_tokens: special_tokens
            .iter()
            .map(|(name, token)| ((*name).into(), token.clone()))
            .collect(),
        messages: conversation.messages.clone(),
        adds_prompt: conversation.ending == Ending::GenerationPrompt,
        variables: conversation.variables.clone(),
    };
    let _seat = SEATS.take();
    let failed = |error: std::io::Error| {
        tracing::error!(%error, "a template could not be rendered in a process of its own");
        refused("it could not be rendered; the server's log has the details")
    };
    let mut process = spawn().map_err(failed)?;
    let said = ask(&mut process, &job);
    let status = process.wait().map_err(failed)?;
    match said.map(|said| serde_json::from_slice::<Outcome>(&said)) {
        Ok(Ok(outcome)) => outcome.map_err(|reason| refused(&reason)),
        Ok(Err(_)) | Err(_) => Err(refused(why(status))),
    }
}

fn spawn() -> std::io::Result<Child> {
    let program = PROGRAM.get().ok_or(std::io::ErrorKind::NotFound)?;
    Command::new(program)
        .arg(COMMAND)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
}

/// The process answers only after it has read everything, so neither waits for the other.
fn ask(process: &mut Child, job: &Job) -> std::io::Result<Vec<u8>> {
    let mut stdin = process.stdin.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
    stdin.write_all(&serde_json::to_vec(job)?)?;
    drop(stdin);
    let mut said = Vec::new();
    if let Some(stdout) = process.stdout.take() {
        stdout.take(MEMORY_BYTES_MAX).read_to_end(&mut said)?;
    }
    Ok(said)
}

fn why(status: ExitStatus) -> &'static str {
    let signal = status.signal();
    let is = |named: Signal| signal == Some(named.as_raw());
    if is(Signal::XCPU) || is(Signal::KILL) {
        "it takes too long"
    } else {
        "it needs more memory than it may"
    }
}

fn refused(reason: &str) -> RenderError {
    RenderError {
        reason: reason.into(),
    }
}

/// The life of a process that renders: a job from standard input, an outcome to standard output.
pub fn run() -> ExitCode {
    // Where memory is short, this process is to go, and not the server.
    let _not_vital = std::fs::write("/proc/self/oom_score_adj", "1000");
    let limit = |resource, n: u64| {
        let limit = Rlimit {
            current: Some(n),
            maximum: Some(n),
        };
        setrlimit(resource, limit).is_ok()
    };
    let is_bounded = limit(Resource::Core, 0)
        && limit(Resource::Cpu, CPU_SECONDS_MAX)
        && limit(Resource::As, MEMORY_BYTES_MAX);
    let mut job = Vec::new();
    if !is_bounded || std::io::stdin().read_to_end(&mut job).is_err() {
        return ExitCode::FAILURE;
    }
    let Ok(job) = serde_json::from_slice::<Job>(&job) else {
        return ExitCode::FAILURE;
    };
    let said = serde_json::to_vec(&rendered(job)).expect("texts serialize");
    match std::io::stdout().write_all(&said) {
        // Dropping what a template made may overflow the stack; there is nothing left to lose.
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn rendered(job: Job) -> Outcome {
    // As long as this process lives, which is not long.
    let tokens = job.special_tokens.into_iter();
    let tokens = tokens.map(|(name, token)| (&*name.leak(), token)).collect();
    let template = ChatTemplate::compile(&job.source, tokens).map_err(|error| error.to_string())?;
    let conversation = Conversation {
        messages: job.messages,
        ending: if job.adds_prompt {
            Ending::GenerationPrompt
        } else {
            Ending::Messages
        },
        variables: job.variables,
    };
    template.render(&conversation).map_err(|error| error.to_string())
}

/// Processes that may run at a time.
struct Seats {
    n_taken: Mutex<usize>,
    freed: Condvar,
}

struct Seat(&'static Seats);

impl Seats {
    fn take(&'static self) -> Seat {
        let taken = self.n_taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = self
            .freed
            .wait_while(taken, |n| *n >= PROCESSES_MAX)
            .unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Seat(self)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        *self.0.n_taken.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.freed.notify_one();
    }
}
