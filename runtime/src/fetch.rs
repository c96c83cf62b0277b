//! Downloads a model from a repository on the Hub into a folder.
//!
//! A folder is complete when it contains `manifest.json`, and a file has its final name only after its content is
//! verified. Must not know Kubernetes, or the contents of the files; the caller may give a check of the configuration. Only `hub` uses the network; `folder`,
//! `destination`, `partial` and `disk` use the file system; `download` joins both.

mod command;
mod configuration;
mod destination;
mod disk;
mod download;
mod error;
mod folder;
mod hub;
mod manifest;
mod offline;
mod options;
mod partial;
mod progress;
mod remote_file;
mod repository;
mod retry;
mod select;
mod token;

pub use command::{FetchArgs, TOKENIZER_FOLDER, print_line, run};
pub use disk::free_bytes;
pub use error::{Credentials, FetchError};
pub use hub::DEFAULT_ENDPOINT;
pub use manifest::{MANIFEST_FILE, Manifest};
pub use offline::downloaded;
pub use options::{ConfigurationCheck, FetchOptions, Verify};
pub use progress::Progress;
pub use remote_file::{Identity, RemoteFile};
pub use repository::fetch;
pub use retry::RetryPolicy;
pub use select::{Patterns, matches};
pub use token::Token;
