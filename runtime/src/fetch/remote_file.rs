//! A file of a repository, and what identifies its content.

use serde::{Deserialize, Serialize};

/// The hash of a file's content, in lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// SHA-256 of the content: for files in LFS, such as weights.
    Sha256(String),
    /// Git's blob id, the SHA-1 of `blob <size>\0<content>`: for all other files.
    GitBlob(String),
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sha256(digits) => write!(f, "SHA-256 {digits}"),
            Self::GitBlob(digits) => write!(f, "Git blob {digits}"),
        }
    }
}

/// One file of a repository at a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteFile {
    /// Path in the repository and in the destination.
    pub path: String,
    /// Length in bytes.
    pub size: u64,
    /// The hash that the content must have.
    #[serde(flatten)]
    pub identity: Identity,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_one_field_of_its_file() {
        let file = RemoteFile {
            path: "a".into(),
            size: 1,
            identity: Identity::GitBlob("ce01".into()),
        };
        let json = serde_json::json!({"path": "a", "size": 1, "git_blob": "ce01"});
        assert_eq!(serde_json::to_value(&file).unwrap(), json);
        assert_eq!(serde_json::from_value::<RemoteFile>(json).unwrap(), file);
    }
}
