//! `chat`: sends a question to a model and prints the answer as it comes; without `-m`, a conversation.

use std::io::{BufRead, IsTerminal, Write};

use serde_json::{Map, Value, json};

use crate::{
    arguments::Chat,
    cluster::Cluster,
    endpoint::{Answer, Endpoint, Piece},
    error::Error,
    replica::Connection,
};

/// Marks of dim text on a terminal.
const DIM: (&str, &str) = ("\x1b[2m", "\x1b[0m");

pub(super) async fn run(arguments: &Chat, cluster: &Cluster) -> Result<(), Error> {
    let endpoint = Endpoint::of(cluster, &arguments.name, arguments.api_key.as_deref()).await?;
    let mut conversation = Conversation {
        connection: endpoint.replicas[0].connect().await?,
        endpoint,
        messages: first_messages(arguments),
        options: options(arguments),
    };
    match &arguments.message {
        Some(text) => conversation.ask(text).await,
        None => interactive(arguments, &mut conversation).await,
    }
}

fn first_messages(arguments: &Chat) -> Vec<Value> {
    let system = arguments.system.iter().map(|text| message("system", text));
    system.collect()
}

fn message(role: &str, text: &str) -> Value {
    json!({"role": role, "content": text})
}

fn options(arguments: &Chat) -> Value {
    let mut options = Map::new();
    if let Some(tokens) = arguments.max_tokens {
        options.insert("max_tokens".into(), tokens.into());
    }
    if let Some(temperature) = arguments.temperature {
        options.insert("temperature".into(), temperature.into());
    }
    Value::Object(options)
}

struct Conversation {
    endpoint: Endpoint,
    connection: Connection,
    messages: Vec<Value>,
    options: Value,
}

impl Conversation {
    /// Asks one question, prints the answer and keeps both. Ctrl-C ends the answer.
    async fn ask(&mut self, text: &str) -> Result<(), Error> {
        self.messages.push(message("user", text));
        let mut answer = match Answer::start(&mut self.connection, &self.messages, &self.options).await {
            // A kept connection may have been closed while the person was typing.
            Err(Error::Connection { .. }) => {
                self.connection = self.endpoint.replicas[0].connect().await?;
                Answer::start(&mut self.connection, &self.messages, &self.options).await
            }
            started => started,
        }
        .inspect_err(|_| {
            self.messages.pop();
        })?;
        let mut printer = Printer::new();
        loop {
            let pieces = tokio::select! {
                pieces = answer.next() => pieces?,
                _ = tokio::signal::ctrl_c() => None,
            };
            let Some(pieces) = pieces else { break };
            for piece in &pieces {
                printer.print(piece);
            }
        }
        let content = printer.finish();
        self.messages.push(message("assistant", &content));
        if std::io::stderr().is_terminal() {
            eprintln!("{}{}{}", DIM.0, figures(&answer), DIM.1);
        }
        Ok(())
    }
}

fn figures(answer: &Answer) -> String {
    let seconds = answer.elapsed().as_secs_f64();
    let first = answer.first.map_or(0.0, |first| first.as_secs_f64());
    let rate = answer.n_tokens.saturating_sub(1) as f64 / (seconds - first).max(f64::EPSILON);
    format!(
        "{} tokens, first after {first:.2} s, then {rate:.1} tokens/s",
        answer.n_tokens
    )
}

/// Prints an answer piece by piece; thoughts are dim on a terminal and go to standard error elsewhere.
struct Printer {
    content: String,
    is_terminal: bool,
}

impl Printer {
    fn new() -> Self {
        Self {
            content: String::new(),
            is_terminal: std::io::stdout().is_terminal(),
        }
    }

    fn print(&mut self, piece: &Piece) {
        match piece {
            Piece::Content(text) => {
                print!("{text}");
                self.content.push_str(text);
            }
            Piece::Thought(text) if self.is_terminal => print!("{}{text}{}", DIM.0, DIM.1),
            Piece::Thought(text) => eprint!("{text}"),
        }
        // A reader that is gone is no reason to lose the conversation.
        let _ = std::io::stdout().flush();
    }

    fn finish(self) -> String {
        println!();
        self.content
    }
}

async fn interactive(arguments: &Chat, conversation: &mut Conversation) -> Result<(), Error> {
    let is_terminal = std::io::stdin().is_terminal();
    if is_terminal {
        eprintln!(
            "chat with {} ({}); /clear forgets, /exit or Ctrl-D ends, Ctrl-C ends an answer",
            arguments.name,
            conversation.connection.pod()
        );
    }
    loop {
        if is_terminal {
            eprint!("> ");
        }
        let Some(text) = read_line().await? else {
            return Ok(());
        };
        match text.trim() {
            "" => {}
            "/exit" | "/quit" => return Ok(()),
            "/clear" => conversation.messages = first_messages(arguments),
            text => match conversation.ask(text).await {
                // The next question may be a better one.
                Err(error @ Error::Answer { .. }) if is_terminal => eprintln!("error: {error}"),
                requested => requested?,
            },
        }
    }
}

/// A line of standard input; `None` at its end.
async fn read_line() -> Result<Option<String>, Error> {
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        let n_bytes = std::io::stdin().lock().read_line(&mut line)?;
        std::io::Result::Ok((n_bytes > 0).then_some(line))
    });
    let read = read.await.map_err(std::io::Error::other).flatten();
    read.map_err(|error| Error::Local {
        operation: "read standard input".into(),
        reason: error.to_string(),
    })
}
