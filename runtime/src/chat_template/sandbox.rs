//! Templates are tried in a process of their own, and those of requests are rendered there, with little memory and
//! little time.
//!
//! A template can be nested so deeply that compiling it overflows the stack. It can double a text in each of a few steps, nest lists until dropping them overflows the stack, or compare
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

use super::{ChatTemplate, Conversation, Ending, RenderError, TemplateError};

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
    /// `None`: the template is only compiled and tried on one message.
    conversation: Option<JobConversation>,
}

#[derive(Debug, Serialize, Deserialize)]
struct JobConversation {
    messages: Vec<Json>,
    adds_prompt: bool,
    variables: Map<String, Json>,
}

type Outcome = Result<String, String>;

/// Variables such as `bos_token`.
type Tokens = BTreeMap<&'static str, String>;

/// Compiles a template in a process of its own. Does nothing where there is none.
pub(super) fn check(source: &str, special_tokens: &Tokens) -> Result<(), TemplateError> {
    if !is_enabled() {
        return Ok(());
    }
    let compiled = run_job(source, special_tokens, None);
    compiled.map(drop).map_err(|reason| TemplateError { reason })
}

/// Renders in a process of its own.
pub(super) fn render(
    source: &str,
    special_tokens: &Tokens,
    conversation: &Conversation,
) -> Result<String, RenderError> {
    let conversation = JobConversation {
        messages: conversation.messages.clone(),
        adds_prompt: conversation.ending == Ending::GenerationPrompt,
        variables: conversation.variables.clone(),
    };
    let rendered = run_job(source, special_tokens, Some(conversation));
    rendered.map_err(|reason| RenderError { reason })
}

fn run_job(source: &str, special_tokens: &Tokens, conversation: Option<JobConversation>) -> Outcome {
    let job = Job {
        source: source.into(),
        special_tokens: special_tokens
            .iter()
            .map(|(name, token)| ((*name).into(), token.clone()))
            .collect(),
        conversation,
    };
    let _seat = SEATS.take();
    let failed = |error: std::io::Error| {
        tracing::error!(%error, "the process that renders a template failed");
        "it could not be rendered; the server's log has the details".to_owned()
    };
    let mut process = spawn().map_err(failed)?;
    let answer = ask(&mut process, &job);
    let status = process.wait().map_err(failed)?;
    match answer.map(|answer| serde_json::from_slice::<Outcome>(&answer)) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) | Err(_) => Err(why(status).to_owned()),
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
        "it nests too deeply or needs too much memory"
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
    let template = ChatTemplate::compile_here(&job.source, tokens).map_err(|error| error.to_string())?;
    let Some(conversation) = job.conversation else {
        return Ok(String::new());
    };
    let conversation = Conversation {
        messages: conversation.messages,
        ending: if conversation.adds_prompt {
            Ending::GenerationPrompt
        } else {
            Ending::Messages
        },
        variables: conversation.variables,
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
