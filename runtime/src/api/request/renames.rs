//! The client's names of parameters in a body that was rewritten as a chat's, for errors, and the parts of that body that
//! the chat does not have.

use crate::api::error::ApiError;

/// Paths in a rewritten body, each with its path in the client's body.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Renames {
    paths: Vec<(String, String)>,
    left_out: Vec<String>,
}

impl Renames {
    /// The values at `path` and below it are at `given` in the client's body.
    pub(super) fn add(&mut self, path: impl Into<String>, given: impl Into<String>) {
        self.paths.push((path.into(), given.into()));
    }

    /// A part of the client's body is not in the rewritten one.
    pub(super) fn leave_out(&mut self, part: String) {
        self.left_out.push(part);
    }

    /// Takes the names of the parts that are left out.
    pub(super) fn take_left_out(&mut self) -> Vec<String> {
        std::mem::take(&mut self.left_out)
    }

    /// The same error with the client's path.
    pub fn restore(&self, error: ApiError) -> ApiError {
        error.about(|path| self.given(path))
    }

    /// The client's path; the longest known path above it decides.
    fn given(&self, path: &str) -> String {
        let leads = |(new, given): &(String, String)| {
            let rest = path.strip_prefix(new.as_str())?;
            let is_at_or_below = rest.is_empty() || rest.starts_with(['.', '[']);
            is_at_or_below.then(|| (new.len(), format!("{given}{rest}")))
        };
        let longest = self
            .paths
            .iter()
            .filter_map(leads)
            .max_by_key(|(length, _)| *length);
        longest.map_or_else(|| path.to_owned(), |(_, given)| given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_known_path_decides() {
        let mut renames = Renames::default();
        for (path, given) in [
            ("messages", "input"),
            ("messages[1]", "input[0]"),
            ("messages[1].content", "input[0].output"),
            ("stop", "stop_sequences"),
        ] {
            renames.add(path, given);
        }
        for (path, given) in [
            ("messages", "input"),
            ("messages[1].role", "input[0].role"),
            ("messages[1].content[2].text", "input[0].output[2].text"),
            ("messages[11]", "input[11]"),
            ("stop[1]", "stop_sequences[1]"),
            ("stop_token_ids", "stop_token_ids"),
        ] {
            assert_eq!(renames.given(path), given);
        }
    }

    #[test]
    fn an_error_has_the_clients_path_in_text_and_parameter() {
        let mut renames = Renames::default();
        renames.add("tools[0].function", "tools[0]");
        let error = renames.restore(ApiError::Missing {
            param: "tools[0].function.name".into(),
        });
        assert_eq!(
            (error.param(), error.to_string().as_str()),
            (Some("tools[0].name"), "tools[0].name is missing")
        );
        assert_eq!(renames.restore(ApiError::Internal), ApiError::Internal);
    }
}
