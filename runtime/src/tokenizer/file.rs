//! Reads the files of a tokenizer, each up to a bound.

use std::io::ErrorKind;
use std::path::Path;

use super::error::TokenizerError;

/// The bytes of a file; `None` if it does not exist.
///
/// # Errors
/// [`TokenizerError::Read`], and [`TokenizerError::Invalid`] for a file that is larger than `bytes_max`.
pub(super) fn read(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, TokenizerError> {
    let failed = |source| TokenizerError::Read {
        path: path.to_path_buf(),
        source,
    };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
        // Opening a named pipe would wait for its writer.
        Ok(metadata) if !metadata.is_file() => Err(TokenizerError::Invalid {
            path: path.to_path_buf(),
            reason: "it is not a regular file".to_string(),
        }),
        Ok(metadata) if metadata.len() > bytes_max => Err(TokenizerError::Invalid {
            path: path.to_path_buf(),
            reason: format!("larger than {bytes_max} bytes"),
        }),
        Ok(_) => std::fs::read(path).map(Some).map_err(failed),
    }
}
