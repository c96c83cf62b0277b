//! Values that follow files. A file is read again every few seconds, because the kubelet replaces the files of a Secret or a
//! ConfigMap by a link to a new folder, and a value that cannot be used never takes the place of one that can.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{fs, sync::watch, time::sleep};

use super::metrics::Metrics;

/// Time between two looks at the files. The kubelet itself takes up to 90 s.
const PERIOD: Duration = Duration::from_secs(5);

/// Makes a value of the contents of the files, in their order.
pub(super) type Parse<T> = fn(&[Vec<u8>]) -> Result<T, String>;

/// Why there is no value at the start.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct LoadError {
    what: &'static str,
    reason: String,
}

/// A value that follows files.
pub(super) struct Reloaded<T> {
    /// What the files are, as a metric and the log name it.
    what: &'static str,
    paths: Vec<PathBuf>,
    parse: Parse<T>,
    /// What was read last, good or not.
    seen: Result<Vec<Vec<u8>>, String>,
    value: watch::Sender<Arc<T>>,
    metrics: Metrics,
}

impl<T> Reloaded<T> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// A file cannot be read, or the contents are of no use.
    pub(super) async fn load(
        what: &'static str,
        paths: Vec<PathBuf>,
        parse: Parse<T>,
        metrics: Metrics,
    ) -> Result<Reloaded<T>, LoadError> {
        let refused = |reason| LoadError { what, reason };
        let contents = read(&paths).await.map_err(refused)?;
        let value = parse(&contents).map_err(refused)?;
        metrics.reloaded(what, true);
        Ok(Reloaded {
            what,
            paths,
            parse,
            seen: Ok(contents),
            value: watch::Sender::new(Arc::new(value)),
            metrics,
        })
    }

    /// The value as it is at any time.
    pub(super) fn value(&self) -> watch::Receiver<Arc<T>> {
        self.value.subscribe()
    }

    /// Follows the files for ever.
    pub(super) async fn follow(mut self) {
        loop {
            sleep(PERIOD).await;
            self.look().await;
        }
    }

    /// Reads the files again. Each change is tried once.
    pub(super) async fn look(&mut self) {
        let contents = read(&self.paths).await;
        // Files that change between two reads may be of two versions. The next look finds them complete.
        if contents == self.seen || contents != read(&self.paths).await {
            return;
        }
        let parsed = contents.as_ref().map_err(String::clone);
        match parsed.and_then(|contents| (self.parse)(contents)) {
            Ok(value) => {
                self.value.send_replace(Arc::new(value));
                self.metrics.reloaded(self.what, true);
                tracing::info!(what = self.what, "files have changed and were loaded");
            }
            Err(reason) => {
                self.metrics.reloaded(self.what, false);
                tracing::error!(
                    what = self.what,
                    reason,
                    "files have changed and cannot be used; what was loaded before stays"
                );
            }
        }
        self.seen = contents;
    }
}

async fn read(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, String> {
    let mut contents = Vec::with_capacity(paths.len());
    for path in paths {
        let failed = |error: io::Error| format!("cannot read {}: {error}", path.display());
        contents.push(fs::read(path).await.map_err(failed)?);
    }
    Ok(contents)
}
