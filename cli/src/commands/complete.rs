//! `complete`: what `kubectl_complete-slipway` prints.

use std::{
    io::{self, Write},
    time::Duration,
};

use crate::{cluster::Cluster, completion::Wanted};

/// Longest wait for the cluster: a person waits for the key that they pressed.
const WAIT: Duration = Duration::from_secs(1);
/// Most names that are proposed.
const NAMES_MAX: u32 = 500;

/// Prints the candidates. A cluster that does not answer has no names; nothing else is said, because the shell would
/// print it into the command line.
pub(super) async fn run(words: &[String]) {
    let wanted = Wanted::of(words);
    let names = match wanted.is_deployment() {
        true => names(&wanted).await,
        false => Vec::new(),
    };
    let mut out = io::stdout();
    let _closed = out
        .write_all(wanted.answer(names).as_bytes())
        .and_then(|()| out.flush());
    // A login program of the kubeconfig may still run, and the end of main would wait for it.
    std::process::exit(0);
}

async fn names(wanted: &Wanted) -> Vec<String> {
    let target = wanted.target();
    let asked = tokio::spawn(async move { Cluster::connect(&target).await?.names(NAMES_MAX).await });
    match tokio::time::timeout(WAIT, asked).await {
        Ok(Ok(Ok(names))) => names,
        Ok(_) | Err(_) => Vec::new(),
    }
}
