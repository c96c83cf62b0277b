//! The credential for the Hub.

use super::error::FetchError;

/// A Hub token. It is never printed and goes only to the endpoint: a redirect to another host drops it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Parses a token, without the white space around it; `None` if `text` contains nothing else.
    ///
    /// # Errors
    /// [`FetchError::InvalidToken`] if a header cannot contain it. The error names `origin`, not the token.
    pub fn parse(text: &str, origin: &str) -> Result<Option<Self>, FetchError> {
        let text = text.trim();
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(FetchError::InvalidToken {
                origin: origin.to_owned(),
            });
        }
        Ok((!text.is_empty()).then(|| Self(text.to_owned())))
    }

    /// The secret itself, for a request.
    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_trimmed_checked_and_never_printed() {
        let token = Token::parse(" hf_secret\n", "HF_TOKEN").unwrap().unwrap();
        assert_eq!(token, Token("hf_secret".to_owned()));
        assert_eq!(format!("{token:?}"), "Token(…)");
        assert_eq!(Token::parse("\n", "HF_TOKEN").unwrap(), None);
        let error = Token::parse("hf secret\u{e9}", "HF_TOKEN").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}
