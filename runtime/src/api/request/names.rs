//! Bodies that are rewritten to a chat's: errors of the chat name what the client wrote.

use crate::api::error::ApiError;

/// Paths in a rewritten body, each with the one that it has in the body as it came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Names(Vec<(String, String)>);

impl Names {
    /// What is at `path`, and below it, came from `given`.
    pub(super) fn add(&mut self, path: impl Into<String>, given: impl Into<String>) {
        self.0.push((path.into(), given.into()));
    }

    /// An error that names what the client wrote.
    pub fn restore(&self, error: ApiError) -> ApiError {
        error.about(|path| self.given(path))
    }

    /// The path as the client wrote it: of those that lead to it the longest counts.
    fn given(&self, path: &str) -> String {
        let leads = |(new, given): &(String, String)| {
            let rest = path.strip_prefix(new.as_str())?;
            let is_whole = rest.is_empty() || rest.starts_with(['.', '[']);
            is_whole.then(|| (new.len(), format!("{given}{rest}")))
        };
        let longest = self.0.iter().filter_map(leads).max_by_key(|(length, _)| *length);
        longest.map_or_else(|| path.to_owned(), |(_, given)| given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_path_that_leads_there_counts() {
        let mut names = Names::default();
        for (path, given) in [
            ("messages", "input"),
            ("messages[1]", "input[0]"),
            ("messages[1].content", "input[0].output"),
            ("stop", "stop_sequences"),
        ] {
            names.add(path, given);
        }
        for (path, given) in [
            ("messages", "input"),
            ("messages[1].role", "input[0].role"),
            ("messages[1].content[2].text", "input[0].output[2].text"),
            ("messages[11]", "input[11]"),
            ("stop[1]", "stop_sequences[1]"),
            ("stop_token_ids", "stop_token_ids"),
        ] {
            assert_eq!(names.given(path), given);
        }
    }

    #[test]
    fn an_errors_text_and_its_parameter_are_the_clients() {
        let mut names = Names::default();
        names.add("tools[0].function", "tools[0]");
        let error = names.restore(ApiError::Missing {
            param: "tools[0].function.name".into(),
        });
        assert_eq!(
            (error.param(), error.to_string().as_str()),
            (Some("tools[0].name"), "tools[0].name is missing")
        );
        assert_eq!(names.restore(ApiError::Internal), ApiError::Internal);
    }
}
