//! Why a chat template is not valid, and why it does not render a conversation.

/// A template is not valid. `Display` names the fault and its line.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct TemplateError {
    pub(super) reason: String,
}

/// A template does not render these messages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct RenderError {
    pub(super) reason: String,
}
