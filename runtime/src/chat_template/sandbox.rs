//! Compiles and renders templates in a process of its own, with little memory and little time.
//!
//! A template can be nested so deeply that its compilation overflows the stack. It can double a text in each step, nest
//! lists until their drop overflows the stack, or make slow comparisons. The library bounds none of these; the
//! operating system bounds them all.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::compiled::CompiledTemplate;
use super::conversation::{Conversation, Ending, SpecialTokens};
use super::error::{RenderError, TemplateError};

/// The first argument of the rendering process.
pub const COMMAND: &str = "render";

/// Address space of the process, in bytes, including the program itself.
const MEMORY_BYTES_MAX: u64 = 256 << 20;
/// Processor time of the process, in seconds.
const CPU_SECONDS_MAX: u64 = 1;
/// Processes at once.
const PROCESSES_MAX: usize = 2;

/// The program of the rendering process.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

static SLOTS: Slots = Slots {
    n_taken: Mutex::new(0),
    freed: Condvar::new(),
};

/// Enables the sandbox: `program` renders templates of requests from now on. Without this call, as in a fuzz target,
/// this process renders them.
pub fn enable(program: PathBuf) {
    // A second call has no effect.
    let _already = PROGRAM.set(program);
}

/// Whether another process renders templates of requests.
pub(super) fn is_enabled() -> bool {
    PROGRAM.get().is_some()
}

/// The input of the process.
#[derive(Debug, Serialize, Deserialize)]
struct Job {
    source: String,
    special_tokens: BTreeMap<String, String>,
    /// `None`: the template is compiled and tried on one message, to detect the form of contents.
    conversation: Option<JobConversation>,
}

#[derive(Debug, Serialize, Deserialize)]
struct JobConversation {
    messages: Vec<Json>,
    adds_prompt: bool,
    variables: Map<String, Json>,
}

type Outcome = Result<String, String>;

/// Compiles and tries a template in a process of its own; does nothing unless the sandbox is enabled.
pub(super) fn check(source: &str, special_tokens: &SpecialTokens) -> Result<(), TemplateError> {
    if !is_enabled() {
        return Ok(());
    }
    let compiled = run_job(source, special_tokens, None);
    compiled.map(drop).map_err(|reason| TemplateError { reason })
}

/// Renders a conversation in a process of its own.
pub(super) fn render(
    source: &str,
    special_tokens: &SpecialTokens,
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

fn run_job(source: &str, special_tokens: &SpecialTokens, conversation: Option<JobConversation>) -> Outcome {
    let job = Job {
        source: source.into(),
        special_tokens: special_tokens
            .iter()
            .map(|(name, token)| ((*name).into(), token.clone()))
            .collect(),
        conversation,
    };
    let _slot = SLOTS.take();
    let failed = |error: std::io::Error| {
        tracing::error!(%error, "the rendering process failed");
        "the template could not be rendered; the server's log has the details".to_owned()
    };
    let mut process = spawn().map_err(failed)?;
    let answer = send(&mut process, &job);
    let status = process.wait().map_err(failed)?;
    match answer.map(|answer| serde_json::from_slice::<Outcome>(&answer)) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) | Err(_) => Err(reason(status).to_owned()),
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

/// Sends a job and returns the answer. The process answers only after it has read the complete job, so neither waits
/// for the other.
fn send(process: &mut Child, job: &Job) -> std::io::Result<Vec<u8>> {
    let mut stdin = process.stdin.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
    stdin.write_all(&serde_json::to_vec(job)?)?;
    drop(stdin);
    let mut answer = Vec::new();
    if let Some(stdout) = process.stdout.take() {
        stdout.take(MEMORY_BYTES_MAX).read_to_end(&mut answer)?;
    }
    Ok(answer)
}

/// Why the process ended without an answer.
fn reason(status: ExitStatus) -> &'static str {
    let signal = status.signal();
    let is = |named: Signal| signal == Some(named.as_raw());
    if is(Signal::XCPU) || is(Signal::KILL) {
        "the template takes too long"
    } else {
        "the template is nested too deeply or needs too much memory"
    }
}

/// Runs the rendering process: reads a job from standard input and writes its outcome to standard output.
pub fn run() -> ExitCode {
    // If memory is short, the kernel must end this process and not the server.
    let _best_effort = std::fs::write("/proc/self/oom_score_adj", "1000");
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
    let outcome = serde_json::to_vec(&rendered(job)).expect("texts serialize");
    match std::io::stdout().write_all(&outcome) {
        // The drop of a template's values may overflow the stack, but the outcome is already written.
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn rendered(job: Job) -> Outcome {
    // The process ends soon, so the leak is harmless.
    let tokens = job.special_tokens.into_iter();
    let tokens = tokens.map(|(name, token)| (&*name.leak(), token)).collect();
    let template = CompiledTemplate::compile_here(&job.source, tokens).map_err(|error| error.to_string())?;
    let content_format = template.content_format();
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
    let prompt = template.render(&conversation, content_format);
    prompt.map_err(|error| error.to_string())
}

/// Limits how many processes run at once.
struct Slots {
    n_taken: Mutex<usize>,
    freed: Condvar,
}

struct Slot(&'static Slots);

impl Slots {
    /// Waits for a free slot.
    fn take(&'static self) -> Slot {
        let taken = self.n_taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = self
            .freed
            .wait_while(taken, |n| *n >= PROCESSES_MAX)
            .unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Slot(self)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.n_taken.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.freed.notify_one();
    }
}
